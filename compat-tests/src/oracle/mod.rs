//! The servers under test, started as processes on free loopback ports in a temporary folder and
//! killed when dropped. Knows how to start, kill and await them; knows no scenario.
//!
//! Start with [`Cluster::start`]; `ready.rs` awaits what comes of it, `kind.rs` says what there is to
//! start, and `member.rs` how.

mod kind;
mod member;
pub mod network;
mod ready;
mod zookeeper;

pub use kind::{Kind, Protocol};
pub use member::{Member, free_port};

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use member::{data_dir, member_flags};
use network::Network;

/// How long a cluster may take until every member serves.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition of a foreign process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// A port that was free when we looked may be taken when the server binds it: start again.
const START_ATTEMPTS: usize = 3;

/// A running cluster of one implementation.
pub struct Cluster {
    /// Which implementation.
    pub kind: Kind,
    /// The cluster id that every header must carry.
    pub id: u64,
    /// The members, in the order of their names `m1`, `m2`, ...
    pub members: Vec<Member>,
    /// What they were started with beside what each needs.
    flags: Vec<String>,
    /// Where they live, if not all on the loopback interface.
    network: Option<Network>,
    dir: Option<TempDir>,
}

impl Cluster {
    /// Starts `count` fresh members with `flags` (or lines of a zoo.cfg) added to each, and awaits
    /// that all serve.
    ///
    /// # Errors
    /// When a member exits or does not serve in time; the logs are then kept and named.
    pub async fn start(kind: Kind, count: usize, flags: &[String]) -> Result<Self> {
        Self::start_bounded(kind, count, flags, None).await
    }

    /// The same, without another attempt: the flags can be used only once.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_once(kind: Kind, count: usize, flags: &[String]) -> Result<Self> {
        Self::attempt(kind, count, flags, None, None).await
    }

    /// The same, of members that can be cut off from each other.
    ///
    /// # Errors
    /// As [`Cluster::start`], and where there can be no [`Network`].
    pub async fn start_apart(kind: Kind, count: usize, flags: &[String]) -> Result<Self> {
        let network = Network::new(count)?;
        Self::attempt(kind, count, flags, None, Some(network)).await
    }

    /// The same, of members that may open no more than `files_max` files.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_bounded(
        kind: Kind,
        count: usize,
        flags: &[String],
        files_max: Option<u64>,
    ) -> Result<Self> {
        for _ in 1..START_ATTEMPTS {
            match Self::attempt(kind, count, flags, files_max, None).await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => eprintln!("starting {} again: {error:#}", kind.name()),
            }
        }
        Self::attempt(kind, count, flags, files_max, None).await
    }

    async fn attempt(
        kind: Kind,
        count: usize,
        flags: &[String],
        files_max: Option<u64>,
        network: Option<Network>,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("compat-").tempdir()?;
        let host = |index| {
            let network = network.as_ref();
            network.map_or(Ipv4Addr::LOCALHOST, |network| network.host(index))
        };
        let mut members = (0..count)
            .map(|index| Member::plan(format!("m{}", index + 1), dir.path(), host(index)))
            .collect::<Result<Vec<_>>>()?;
        if kind.speaks(Protocol::EtcdV3) {
            let initial = members
                .iter()
                .map(|m| format!("{}={}", m.name, m.peer_url()))
                .collect::<Vec<_>>()
                .join(",");
            for member in &mut members {
                member.flags = member_flags(kind, member, dir.path(), &initial, "new", flags)?;
            }
        } else {
            zookeeper::configure(&mut members, dir.path(), flags)?;
        }
        for member in &mut members {
            member.files_max = files_max;
        }
        let mut cluster = Self {
            kind,
            id: 0,
            members,
            flags: flags.to_vec(),
            network,
            dir: Some(dir),
        };
        for index in 0..count {
            cluster.restart(index)?;
        }
        if let Err(error) = cluster.await_ready().await {
            return Err(error.context(format!("logs are in {}", cluster.keep_logs().display())));
        }
        Ok(cluster)
    }

    /// Starts one more member that was added with MemberAdd under `peer_port`.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn join(&mut self, name: &str, peer_port: u16, id: u64) -> Result<()> {
        let dir = self.dir()?.to_owned();
        let mut member = Member::plan(name.to_owned(), &dir, Ipv4Addr::LOCALHOST)?;
        member.peer_port = peer_port;
        member.id = id;
        member.flags = self.joiner_flags(&member, &dir, &[])?;
        self.members.push(member);
        self.restart(self.members.len() - 1)
    }

    /// Starts one more member that waits until ZooKeeper's reconfig adds it, and returns how that
    /// calls it: `server.4=...`. To be called within a runtime.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_joiner(&mut self) -> Result<String> {
        let dir = self.dir()?.to_owned();
        let number = self.members.len() + 1;
        let mut member = Member::plan(format!("m{number}"), &dir, Ipv4Addr::LOCALHOST)?;
        member.is_joiner = true;
        if self.kind.speaks(Protocol::EtcdV3) {
            member.flags = self.joiner_flags(&member, &dir, &self.flags)?;
        } else {
            zookeeper::configure_joiner(&mut member, &self.members, &dir, &self.flags)?;
        }
        let server = zookeeper::server_line(&member, number, "participant");
        self.members.push(member);
        self.restart(number - 1)?;
        Ok(server)
    }

    /// Starts one more member with the flags of the others, awaits that it ends by itself, and
    /// returns what it has logged.
    ///
    /// # Errors
    /// When it serves, or does nothing in time.
    pub async fn start_in_vain(&self, name: &str) -> Result<String> {
        let dir = self.dir()?;
        let mut member = Member::plan(name.to_owned(), dir, Ipv4Addr::LOCALHOST)?;
        member.flags = member_flags(self.kind, &member, dir, "", "new", &self.flags)?;
        member.spawn(self.kind, self.kind.command()?)?;
        member.await_end().await
    }

    /// Awaits that a member ends by itself, and returns what it has logged.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn await_end(&mut self, index: usize) -> Result<String> {
        self.members[index].await_end().await
    }

    /// Deletes what a killed member of ours or of etcd's has on its disk.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn forget(&self, index: usize) -> Result<()> {
        let data = data_dir(self.dir()?, &self.members[index].name);
        Ok(std::fs::remove_dir_all(data)?)
    }

    fn joiner_flags(&self, member: &Member, dir: &Path, flags: &[String]) -> Result<Vec<String>> {
        let initial = self
            .members
            .iter()
            .chain([member])
            .map(|m| format!("{}={}", m.name, m.peer_url()))
            .collect::<Vec<_>>()
            .join(",");
        member_flags(self.kind, member, dir, &initial, "existing", flags)
    }

    fn dir(&self) -> Result<&Path> {
        Ok(self.dir.as_ref().context("logs were kept")?.path())
    }

    /// SIGKILL to one member (an index into `members`).
    pub fn kill(&mut self, index: usize) {
        self.members[index].kill();
    }

    /// Starts a killed member again on its data; does not wait.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let command = self.kind.command()?;
        let command = match &self.network {
            Some(network) => network.enter(index, &command),
            None => command,
        };
        self.members[index].spawn(self.kind, command)
    }

    /// Cuts a member off from the others, or ends that; its clients reach it all the time.
    ///
    /// # Errors
    /// When the members live on the loopback interface, or the machine refuses.
    pub fn set_cut(&self, index: usize, is_cut: bool) -> Result<()> {
        let network = self.network.as_ref().context("they cannot be cut apart")?;
        if is_cut {
            network.cut(index)
        } else {
            network.heal(index)
        }
    }

    /// Whether every process that should run does.
    pub fn is_healthy(&mut self) -> bool {
        self.members
            .iter_mut()
            .filter(|m| m.process.is_some())
            .all(Member::is_running)
    }

    /// Where etcd's clients connect: URLs, comma-separated.
    pub fn endpoints(&self) -> String {
        let urls: Vec<_> = self.members.iter().map(Member::client_url).collect();
        urls.join(",")
    }

    /// Where ZooKeeper's clients connect: a connect string.
    pub fn connect_string(&self) -> String {
        self.addresses(Member::zookeeper_address)
    }

    /// The same by TLS, where the members listen for it.
    pub fn secure_connect_string(&self) -> String {
        self.addresses(Member::secure_address)
    }

    fn addresses(&self, of: impl Fn(&Member) -> SocketAddr) -> String {
        let hosts: Vec<_> = self.members.iter().map(|m| of(m).to_string()).collect();
        hosts.join(",")
    }

    /// Keeps the folder with data and logs, and says where.
    pub fn keep_logs(&mut self) -> PathBuf {
        match self.dir.take() {
            Some(dir) => dir.keep(),
            None => PathBuf::new(),
        }
    }
}
