//! What the shell's tests share.

#![allow(dead_code, reason = "each test program uses its own part")]

use bytes::Bytes;
use keyspace::command::{Attach, Grant, Nodes, Op, Put, Range, Session, Turn, Txn};
use keyspace::node::{Action, NodeWrite};
use keyspace::{Applied, Cause, Command, LeaseId, NodeOp, Revision, Span};
use parking_lot::{Condvar, Mutex};
use replica::{ChangeSink, Config, Handle, StartError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use store::mem::{MemCheckpoints, MemDisk, MemLog};
use store::{Fault, LogEntry, LogReader, LogStore, Vote};
use tokio::task::JoinHandle;

/// How long anything awaited may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sink that remembers.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Revision>>>);

impl Recorder {
    pub fn revisions(&self) -> Vec<Revision> {
        self.0.lock().clone()
    }
}

impl ChangeSink for Recorder {
    fn publish(&mut self, _: &Command, applied: &Applied) {
        if !applied.changes.is_empty() {
            self.0.lock().push(applied.revision);
        }
    }

    fn restored(&mut self, revision: Revision) {
        self.0.lock().push(revision);
    }

    fn members_changed(&mut self) {}
}

/// etcd's defaults, but quicker.
pub fn config() -> Config {
    Config {
        heartbeat: Duration::from_millis(20),
        election: Duration::from_millis(200),
        ..Config::default()
    }
}

pub async fn open(config: Config, disk: &MemDisk) -> Result<Handle, StartError> {
    open_with(config, disk, Recorder::default()).await
}

pub async fn open_with(
    config: Config,
    disk: &MemDisk,
    recorder: Recorder,
) -> Result<Handle, StartError> {
    open_over(config, Box::new(MemLog::open(disk)), disk, recorder).await
}

async fn open_over(
    config: Config,
    log: Box<dyn LogStore>,
    disk: &MemDisk,
    recorder: Recorder,
) -> Result<Handle, StartError> {
    // Shown when a test fails.
    tracing_subscriber::fmt().with_test_writer().try_init().ok();
    let checkpoints = Box::new(MemCheckpoints::open(disk));
    replica::start(config, log, checkpoints, Box::new(recorder)).await
}

fn put_op(key: &str, value: &str, lease: i64) -> Command {
    let put = Put {
        lease: Some(LeaseId(lease)),
        ..Put::new(key.to_owned(), value.to_owned())
    };
    Command::Txn(Txn::unconditional(vec![Op::Put(put)]))
}

pub fn put(key: &str, value: &str) -> Command {
    put_op(key, value, 0)
}

pub fn put_with_lease(key: &str, lease: i64) -> Command {
    put_op(key, "leased", lease)
}

pub fn grant(lease: i64, ttl_ms: u64) -> Command {
    Command::Grant(Grant {
        lease: LeaseId(lease),
        ttl_ms,
        session: None,
    })
}

/// Opens a session, held through connection 1.
pub fn open_session(lease: i64, ttl_ms: u64) -> Command {
    Command::Grant(Grant {
        lease: LeaseId(lease),
        ttl_ms,
        session: Some(Session {
            password: "secret".into(),
            attachment: 1,
        }),
    })
}

/// A session goes on through this connection.
pub fn attach(lease: i64, attachment: u64, ttl_ms: u64) -> Command {
    Command::Attach(Attach {
        lease: LeaseId(lease),
        password: "secret".into(),
        attachment,
        ttl_ms,
    })
}

/// A session's write through a connection, in its turn.
pub fn write_in_turn(lease: i64, attachment: u64, seq: u64, path: &str) -> Command {
    Command::Nodes(Nodes {
        turn: Some(Turn {
            lease: LeaseId(lease),
            attachment,
            seq,
        }),
        ops: vec![NodeOp {
            path: Bytes::copy_from_slice(path.as_bytes()),
            tests: Vec::new(),
            action: Action::Write(NodeWrite::new("v")),
            cause: Cause::Set,
        }],
        ..Nodes::default()
    })
}

/// Number of keys that can be read at `replica`.
pub fn range_count(replica: &Handle) -> u64 {
    let answer = replica.reader().range(&Range::of(Span::all()));
    answer
        .expect("the newest revision is never compacted")
        .count
}

/// Waits until `condition` holds.
pub async fn eventually(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it never happened");
}

/// What a member's log passes before each write: closed, its disk hangs.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock() = true;
    }

    pub fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            self.opened.wait(&mut closed);
        }
    }
}

/// A log behind a gate.
struct Gated {
    log: MemLog,
    gate: Arc<Gate>,
}

impl LogReader for Gated {
    fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    fn last_index(&self) -> u64 {
        self.log.last_index()
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.log.term(index)
    }

    fn entries(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<LogEntry>, Fault> {
        self.log.entries(from, to, bytes_max)
    }
}

impl LogStore for Gated {
    fn reader(&self) -> Arc<dyn LogReader + Send + Sync> {
        self.log.reader()
    }

    fn vote(&self) -> Vote {
        self.log.vote()
    }

    fn append(&mut self, entries: &[LogEntry], vote: Vote) -> Result<(), Fault> {
        self.gate.pass();
        self.log.append(entries, vote)
    }

    fn reset(&mut self, index: u64, term: u64) -> Result<(), Fault> {
        self.log.reset(index, term)
    }

    fn cut(&mut self, index: u64) -> Result<(), Fault> {
        self.log.cut(index)
    }
}

/// One member of a cluster: its disk outlives it.
pub struct Node {
    pub config: Config,
    pub disk: MemDisk,
    pub gate: Arc<Gate>,
    pub recorder: Recorder,
    address: SocketAddr,
    running: Option<(Handle, JoinHandle<Result<(), tonic::transport::Error>>)>,
}

/// A free port of the loopback, at an address that nothing else uses: while a member is down, no
/// outgoing connection can take its port.
fn reserve() -> anyhow::Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let n = TAKEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let ip = Ipv4Addr::new(
        127,
        20 + (std::process::id() % 200) as u8,
        n[2],
        n[3].max(1),
    );
    Ok(TcpListener::bind((ip, 0))?.local_addr()?)
}

fn node(name: String, address: SocketAddr) -> Node {
    Node {
        config: Config {
            name,
            peer_urls: vec![format!("http://{address}")],
            seed: u64::from(address.port()),
            ..config()
        },
        disk: MemDisk::new(),
        gate: Arc::default(),
        recorder: Recorder::default(),
        address,
        running: None,
    }
}

/// `size` members that start together. `adjust` changes their configurations.
pub async fn cluster(size: usize, adjust: impl Fn(&mut Config)) -> anyhow::Result<Vec<Node>> {
    let reserved: Vec<_> = (0..size).map(|_| reserve()).collect::<Result<_, _>>()?;
    let mut nodes: Vec<Node> = reserved
        .iter()
        .enumerate()
        .map(|(n, address)| node(format!("m{n}"), *address))
        .collect();
    let initial: Vec<_> = nodes
        .iter()
        .map(|node| (node.config.name.clone(), node.config.peer_urls.clone()))
        .collect();
    for node in &mut nodes {
        node.config.initial_cluster.clone_from(&initial);
        adjust(&mut node.config);
        node.start().await?;
    }
    Ok(nodes)
}

/// One more member, not yet started, to be added to and to join a running cluster.
pub fn newcomer(name: &str, nodes: &[Node]) -> anyhow::Result<Node> {
    let mut newcomer = node(name.to_owned(), reserve()?);
    let others = nodes.iter().map(|node| &node.config);
    let all = others.chain([&newcomer.config]);
    let initial = all.map(|config| (config.name.clone(), config.peer_urls.clone()));
    newcomer.config.initial_cluster = initial.collect();
    newcomer.config.join = true;
    if let Some(first) = nodes.first() {
        newcomer.config.checkpoint_entries = first.config.checkpoint_entries;
        newcomer.config.catchup_entries = first.config.catchup_entries;
    }
    Ok(newcomer)
}

impl Node {
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::bind(self.address).await?;
        let log = Gated {
            log: MemLog::open(&self.disk),
            gate: Arc::clone(&self.gate),
        };
        let recorder = self.recorder.clone();
        let handle = open_over(self.config.clone(), Box::new(log), &self.disk, recorder).await?;
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(handle.peer_service())
            .serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        self.running = Some((handle, server));
        Ok(())
    }

    pub fn handle(&self) -> &Handle {
        &self.running.as_ref().expect("the member runs").0
    }

    pub fn id(&self) -> u64 {
        self.handle().status().member
    }

    pub fn leads(&self) -> bool {
        self.running.as_ref().is_some_and(|(handle, _)| {
            let status = handle.status();
            status.leader == status.member
        })
    }

    /// As kill -9 and a power loss would.
    pub async fn kill(&mut self) {
        self.disk.crash(|_| 0);
        self.stop_with(false).await;
    }

    pub async fn stop(&mut self) {
        self.stop_with(true).await;
    }

    async fn stop_with(&mut self, orderly: bool) {
        let Some((handle, server)) = self.running.take() else {
            return;
        };
        match orderly {
            true => handle.stop().await,
            false => handle.halt().await,
        }
        server.abort();
        // Aborted, it frees the port when it is dropped.
        server.await.ok();
    }
}

/// Waits until one of the running members leads and all others know it; its place.
pub async fn leader(nodes: &[Node]) -> usize {
    let agreed = || {
        let running = nodes.iter().filter(|node| node.running.is_some());
        let mut leaders: Vec<u64> = running.map(|node| node.handle().status().leader).collect();
        leaders.dedup();
        leaders.len() == 1 && nodes.iter().any(Node::leads)
    };
    eventually(agreed).await;
    nodes.iter().position(Node::leads).expect("it was awaited")
}
