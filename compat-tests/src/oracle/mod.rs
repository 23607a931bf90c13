//! The servers under test, started as processes on free loopback ports in a temporary folder and
//! killed when dropped. Knows how to start, kill and await them; knows no scenario.

pub mod network;
mod zookeeper;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{MemberListRequest, RangeRequest, StatusRequest, StatusResponse};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use network::Network;

/// How long a cluster may take until every member serves.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition of a foreign process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Ports of servers: below those of outgoing connections on Linux, and above those that the clients'
/// own suites use.
const PORTS: Range<u16> = 30_000..32_700;
/// A port that was free when we looked may be taken when the server binds it: start again.
const START_ATTEMPTS: usize = 3;

/// What a scenario speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Protocol {
    /// etcd v3: gRPC, and HTTP beside it.
    EtcdV3,
    /// etcd v2: HTTP with forms and JSON.
    #[value(skip)]
    EtcdV2,
    /// ZooKeeper's own, and its four-letter words.
    Zookeeper,
    /// All of them, of one server: there is no original of that.
    Crossing,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::EtcdV3, Self::EtcdV2, Self::Zookeeper, Self::Crossing];

    /// The folder of its scenarios.
    pub fn folder(self) -> &'static str {
        match self {
            Self::EtcdV3 => "etcd-v3",
            Self::EtcdV2 => "etcd-v2",
            Self::Zookeeper => "zookeeper",
            Self::Crossing => "crossing",
        }
    }

    /// The product that it comes from.
    pub fn product(self) -> &'static str {
        match self {
            Self::EtcdV3 | Self::EtcdV2 => "etcd",
            Self::Zookeeper => "ZooKeeper",
            Self::Crossing => "Triglot",
        }
    }

    /// What the servers that scenarios share are started with.
    pub fn shared_flags(self) -> &'static [&'static str] {
        match self {
            Self::EtcdV3 | Self::EtcdV2 => &[],
            Self::Zookeeper | Self::Crossing => &zookeeper::SHARED,
        }
    }

    /// What every server that is asked in it is started with, unless a scenario sets the same flag.
    pub fn needed_flag(self) -> Option<&'static str> {
        match self {
            Self::EtcdV3 | Self::Zookeeper | Self::Crossing => None,
            // The originals that still serve it do so only when told to.
            Self::EtcdV2 => Some("--enable-v2=true"),
        }
    }
}

/// Which implementation serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Debian's package: the line that many installations still run.
    #[value(name = "etcd-3.4")]
    Etcd34,
    /// The newest etcd, from which the scripts are recorded.
    #[value(name = "etcd-newest")]
    EtcdNewest,
    /// Debian's package.
    #[value(name = "zookeeper-3.8")]
    Zookeeper38,
    /// The newest ZooKeeper, from which the scripts are recorded.
    #[value(name = "zookeeper-newest")]
    ZookeeperNewest,
    /// Ours.
    Triglot,
}

impl Kind {
    /// Every target, originals first: a scenario must pass there before ours is asked.
    pub const ALL: [Self; 5] = [
        Self::Etcd34,
        Self::EtcdNewest,
        Self::Zookeeper38,
        Self::ZookeeperNewest,
        Self::Triglot,
    ];

    /// Those that speak `protocol`.
    pub fn speaking(protocol: Protocol) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |kind| kind.speaks(protocol))
    }

    /// The name used in scripts, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd34 => "etcd-3.4",
            Self::EtcdNewest => "etcd-newest",
            Self::Zookeeper38 => "zookeeper-3.8",
            Self::ZookeeperNewest => "zookeeper-newest",
            Self::Triglot => "triglot",
        }
    }

    /// Whether it speaks `protocol`.
    pub fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Self::Etcd34 => matches!(protocol, Protocol::EtcdV3 | Protocol::EtcdV2),
            Self::EtcdNewest => protocol == Protocol::EtcdV3,
            Self::Zookeeper38 | Self::ZookeeperNewest => protocol == Protocol::Zookeeper,
            Self::Triglot => true,
        }
    }

    /// Whether it is an original of `protocol`.
    pub fn is_original_of(self, protocol: Protocol) -> bool {
        self != Self::Triglot && self.speaks(protocol)
    }

    /// What starts it: an environment variable first, then where `./test` puts it.
    ///
    /// # Errors
    /// When it is not there.
    fn command(self) -> Result<Command> {
        let (variable, default) = match self {
            Self::Etcd34 => ("ETCD34_BIN", PathBuf::from("/usr/bin/etcd")),
            Self::EtcdNewest => ("ETCD_NEWEST_BIN", originals_dir().join("etcd")),
            Self::Zookeeper38 => (
                "ZOOKEEPER38_JAR",
                PathBuf::from("/usr/share/java/zookeeper.jar"),
            ),
            Self::ZookeeperNewest => ("ZOOKEEPER_NEWEST_DIR", originals_dir().join("zookeeper")),
            Self::Triglot => (
                "TRIGLOT_BIN",
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/triglot"),
            ),
        };
        let path = std::env::var_os(variable).map_or(default, PathBuf::from);
        ensure!(
            path.exists(),
            "{} is not at {} (set {variable})",
            self.name(),
            path.display()
        );
        Ok(match self {
            Self::Etcd34 | Self::EtcdNewest | Self::Triglot => Command::new(path),
            Self::Zookeeper38 => zookeeper::command(&path),
            Self::ZookeeperNewest => zookeeper::command(&path.join("*")),
        })
    }
}

/// Where `./test` puts the newest originals: outside the repository.
fn originals_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join("triglot-originals")
}

/// One member: its process, its ports, and what the cluster calls it.
pub struct Member {
    /// `--name`.
    pub name: String,
    /// The member id the cluster gave it.
    pub id: u64,
    /// Where it listens.
    pub host: Ipv4Addr,
    /// Port of the client URL.
    pub client_port: u16,
    /// Port of the peer URL.
    pub peer_port: u16,
    /// Port for ZooKeeper clients.
    pub zookeeper_port: u16,
    /// Port for ZooKeeper clients that use TLS, if it is started with such.
    secure_port: u16,
    /// Port at which ZooKeeper's servers elect their leader.
    election_port: u16,
    /// A connection, made when first used.
    pub channel: Channel,
    /// Whether it comes by ZooKeeper's reconfig: without a vote it serves only ZooKeeper's clients.
    is_joiner: bool,
    flags: Vec<String>,
    /// How many files it may open, if not as many as we.
    files_max: Option<u64>,
    log: PathBuf,
    process: Option<Child>,
}

impl Member {
    fn plan(name: String, dir: &Path, host: Ipv4Addr) -> Result<Self> {
        let (client_port, peer_port) = (free_port()?, free_port()?);
        let (zookeeper_port, election_port) = (free_port()?, free_port()?);
        let secure_port = free_port()?;
        let log = dir.join(format!("{name}.log"));
        Ok(Self {
            channel: channel(host, client_port)?,
            name,
            id: 0,
            host,
            client_port,
            peer_port,
            zookeeper_port,
            secure_port,
            election_port,
            is_joiner: false,
            flags: Vec::new(),
            files_max: None,
            log,
            process: None,
        })
    }

    /// `http://<host>:<client port>`.
    pub fn client_url(&self) -> String {
        format!("http://{}:{}", self.host, self.client_port)
    }

    /// `http://<host>:<peer port>`.
    pub fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host, self.peer_port)
    }

    /// Where ZooKeeper's clients connect.
    pub fn zookeeper_address(&self) -> SocketAddr {
        (IpAddr::V4(self.host), self.zookeeper_port).into()
    }

    /// The same by TLS.
    fn secure_address(&self) -> SocketAddr {
        (IpAddr::V4(self.host), self.secure_port).into()
    }

    /// A line of a zoo.cfg with this member's own ports.
    fn spell(&self, line: &str) -> String {
        line.replace(SECURE_PORT, &self.secure_port.to_string())
    }

    /// Starts `command`; the data directory decides whether this is a restart.
    fn spawn(&mut self, kind: Kind, command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = match self.files_max {
            None => command,
            Some(files) => {
                let mut shell = Command::new("sh");
                let bounded = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
                shell.args(["-c", &bounded]).arg(command.get_program());
                shell.args(command.get_args());
                shell
            }
        };
        // etcd refuses an option that is given both as a flag and in the environment.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
            command.env_remove(name);
        }
        let child = command
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", kind.name()))?;
        self.process = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    async fn await_end(&mut self) -> Result<String> {
        let deadline = Instant::now() + READY_DEADLINE;
        while self.is_running() {
            ensure!(Instant::now() < deadline, "{} does not end", self.name);
            tokio::time::sleep(POLL).await;
        }
        self.log()
    }

    /// The process's id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// How many lines it has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_lines(&self) -> Result<usize> {
        Ok(self.log()?.lines().count())
    }

    /// What it has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        match &mut self.process {
            Some(process) => matches!(process.try_wait(), Ok(None)),
            None => false,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

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

    /// Awaits that every running member serves: linearizable reads, and knowing every member's
    /// name, or where only ZooKeeper's protocol is spoken, sessions.
    ///
    /// # Errors
    /// When a member has exited or the deadline passes.
    pub async fn await_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        for index in 0..self.members.len() {
            if self.members[index].process.is_none() {
                continue;
            }
            loop {
                ensure!(
                    self.members[index].is_running(),
                    "{} exited",
                    self.members[index].name
                );
                match self.probe(index).await {
                    Ok(()) => break,
                    Err(error) if Instant::now() > deadline => {
                        bail!("{} does not serve: {error:#}", self.members[index].name)
                    }
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        }
        Ok(())
    }

    /// Awaits that a member takes connections of ZooKeeper's clients, whatever it does with them.
    ///
    /// # Errors
    /// When it does not after the deadline.
    pub async fn await_listening(&self, index: usize) -> Result<()> {
        let address = self.members[index].zookeeper_address();
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn probe(&mut self, index: usize) -> Result<()> {
        let member = &self.members[index];
        if self.kind.speaks(Protocol::EtcdV3) && !member.is_joiner {
            self.probe_etcd(index).await
        } else {
            zookeeper::probe(member.zookeeper_address()).await
        }
    }

    async fn probe_etcd(&mut self, index: usize) -> Result<()> {
        let channel = self.members[index].channel.clone();
        let range = RangeRequest {
            key: "ready".into(),
            ..Default::default()
        };
        let mut client = KvClient::new(channel.clone());
        tokio::time::timeout(Duration::from_secs(2), client.range(range)).await??;
        let list = ClusterClient::new(channel)
            .member_list(MemberListRequest {
                linearizable: false,
            })
            .await?
            .into_inner();
        self.id = list
            .header
            .context("member list without header")?
            .cluster_id;
        for member in list.members {
            ensure!(
                !member.name.is_empty(),
                "a member has not published its name"
            );
            if let Some(ours) = self.members.iter_mut().find(|m| m.name == member.name) {
                ours.id = member.id;
            }
        }
        Ok(())
    }

    /// The index of the leader, as `from` sees it.
    ///
    /// # Errors
    /// When no leader appears in time.
    pub async fn leader(&self, from: usize) -> Result<usize> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let leader = self.status_of(from).await.map_or(0, |status| status.leader);
            if let Some(index) = self.members.iter().position(|m| m.id == leader) {
                return Ok(index);
            }
            ensure!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Awaits that `from` knows of no leader.
    ///
    /// # Errors
    /// When it still has one after the deadline.
    pub async fn await_no_leader(&self, from: usize) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        while self.status_of(from).await?.leader != 0 {
            ensure!(Instant::now() < deadline, "there is still a leader");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Awaits that the learner `index` has applied what the others have.
    ///
    /// # Errors
    /// When it has not after the deadline.
    pub async fn await_learner(&self, index: usize) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let applied = self
                .status_of(index)
                .await
                .map(|status| status.raft_applied_index);
            if applied.is_ok_and(|applied| applied > 0) {
                let wanted = self.status_of(0).await?.raft_applied_index;
                if self.status_of(index).await?.raft_applied_index >= wanted {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < deadline, "the learner lags behind");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn status_of(&self, index: usize) -> Result<StatusResponse> {
        let mut client = MaintenanceClient::new(self.members[index].channel.clone());
        let status = client.status(StatusRequest {});
        let status = tokio::time::timeout(Duration::from_secs(2), status).await??;
        Ok(status.into_inner())
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

/// Stands in a line of zoo.cfg for each member's own port for clients that use TLS.
const SECURE_PORT: &str = "{secure_port}";

/// What a member of ours or of etcd's is started with. `flags` may be lines of a zoo.cfg, which is
/// written into `dir`, or properties of ZooKeeper's JVM, which may stand in it as well.
fn member_flags(
    kind: Kind,
    member: &Member,
    dir: &Path,
    initial: &str,
    state: &str,
    flags: &[String],
) -> Result<Vec<String>> {
    let data = data_dir(dir, &member.name);
    let mut own = vec![
        format!("--name={}", member.name),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={}", member.client_url()),
        format!("--advertise-client-urls={}", member.client_url()),
        format!("--listen-peer-urls={}", member.peer_url()),
        format!("--initial-advertise-peer-urls={}", member.peer_url()),
    ];
    // The other way to name the members.
    if !flags.iter().any(|flag| flag.starts_with("--discovery=")) {
        own.push(format!("--initial-cluster={initial}"));
        own.push(format!("--initial-cluster-state={state}"));
        own.push("--initial-cluster-token=compat".to_owned());
    }
    let (more, lines): (Vec<_>, Vec<_>) = flags
        .iter()
        .cloned()
        .partition(|flag| flag.starts_with("--"));
    if kind.speaks(Protocol::Zookeeper) {
        let mut urls = format!("tcp://{}", member.zookeeper_address());
        if lines.iter().any(|line| line.contains(SECURE_PORT)) {
            urls += &format!(",tls://{}", member.secure_address());
        }
        own.push(format!("--listen-zookeeper-urls={urls}"));
    }
    if !lines.is_empty() {
        let path = dir.join(format!("{}.cfg", member.name));
        let lines: Vec<_> = lines
            .iter()
            .map(|line| member.spell(line.trim_start_matches("-D")))
            .collect();
        std::fs::write(&path, lines.join("\n"))?;
        own.push(format!("--zoo-cfg={}", path.display()));
    }
    own.extend(more);
    Ok(own)
}

/// Where a member of ours or of etcd's keeps its data.
fn data_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.etcd"))
}

/// A port that was free a moment ago, and that this process has given to nobody else. Servers bind
/// theirs late (ZooKeeper's leader only once it is elected), so it is none that the kernel may give
/// to somebody's outgoing connection meanwhile.
///
/// # Errors
/// When the loopback interface has none.
pub fn free_port() -> Result<u16> {
    // Others like us run at the same time: begin anywhere.
    static GIVEN: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    for _ in PORTS {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + given % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

fn channel(host: Ipv4Addr, port: u16) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{host}:{port}"))?
        .connect_timeout(Duration::from_secs(2))
        .connect_lazy())
}
