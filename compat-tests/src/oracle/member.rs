//! One member of a cluster: its process, its ports, and what it is started with.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tonic::transport::{Channel, Endpoint};

use super::kind::{Kind, Protocol};
use super::{POLL, READY_DEADLINE};

/// Ports of servers: below those of outgoing connections on Linux, and above those that the clients'
/// own suites use.
const PORTS: Range<u16> = 30_000..32_700;

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
    pub(super) secure_port: u16,
    /// Port at which ZooKeeper's servers elect their leader.
    pub(super) election_port: u16,
    /// A connection, made when first used.
    pub channel: Channel,
    /// Whether it comes by ZooKeeper's reconfig: without a vote it serves only ZooKeeper's clients.
    pub(super) is_joiner: bool,
    pub(super) flags: Vec<String>,
    /// How many files it may open, if not as many as we.
    pub(super) files_max: Option<u64>,
    log: PathBuf,
    pub(super) process: Option<Child>,
}

impl Member {
    pub(super) fn plan(name: String, dir: &Path, host: Ipv4Addr) -> Result<Self> {
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
    pub(super) fn secure_address(&self) -> SocketAddr {
        (IpAddr::V4(self.host), self.secure_port).into()
    }

    /// A line of a zoo.cfg with this member's own ports.
    pub(super) fn spell(&self, line: &str) -> String {
        line.replace(SECURE_PORT, &self.secure_port.to_string())
    }

    /// Starts `command`; the data directory decides whether this is a restart.
    pub(super) fn spawn(&mut self, kind: Kind, command: Command) -> Result<()> {
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
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(super) async fn await_end(&mut self) -> Result<String> {
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

/// Stands in a line of zoo.cfg for each member's own port for clients that use TLS.
const SECURE_PORT: &str = "{secure_port}";

/// What a member of ours or of etcd's is started with. `flags` may be lines of a zoo.cfg, which is
/// written into `dir`, or properties of ZooKeeper's JVM, which may stand in it as well.
pub(super) fn member_flags(
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
pub(super) fn data_dir(dir: &Path, name: &str) -> PathBuf {
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
