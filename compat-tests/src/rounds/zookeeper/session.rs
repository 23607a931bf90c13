//! One ZooKeeper session as a client keeps it: requests in pipelines, and when the connection
//! breaks, the same session at another member, with its watches set again.
//!
//! It checks what a session is promised whatever it does: answers in the order of requests, a
//! state that never goes back, events before the data that shows their change, and that the
//! session is not lost while it could be resumed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::script::zookeeper::jute::{Fields, Record};

/// What a session asks for. Servers may round it to their ticks.
const TIMEOUT_MS: i32 = 8_000;
/// How much earlier than its client believes a session may end: a member that died may not have told
/// the others of its latest requests.
pub const TELLING: Duration = Duration::from_millis(1_500);
/// How long a reply may take before the client tries another member.
const REPLY_DEADLINE: Duration = Duration::from_secs(3);
/// How long a member may take to accept a connection and to answer the handshake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How long a client waits when no member took it.
const BACKOFF: Duration = Duration::from_millis(20);
/// The longest frame that is read.
const FRAME_BYTES_MAX: usize = 1 << 24;

const EVENT_XID: i32 = -1;
const SET_WATCHES_XID: i32 = -8;
/// The length of a Stat, which ends a reply that has one.
const STAT_BYTES: usize = 68;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    opcode: i32,
    body: Record,
    /// The node whose Stat the reply ends with.
    node: Option<String>,
    /// Whether the reply sets a watch on it.
    watches: bool,
}

impl Request {
    fn new(opcode: i32, body: Record) -> Self {
        Self {
            opcode,
            body,
            node: None,
            watches: false,
        }
    }

    fn of(self, node: &str) -> Self {
        Self {
            node: Some(node.to_owned()),
            ..self
        }
    }

    /// create2, of a node with open access; `flags` 1 is ephemeral, 2 sequential.
    pub fn create(path: &str, data: &str, flags: i32) -> Self {
        let body = Record::default().string(path).string(data).length(1);
        let body = body.int(31).string("world").string("anyone").int(flags);
        Self::new(15, body)
    }

    /// delete, whatever the version.
    pub fn delete(path: &str) -> Self {
        Self::new(2, Record::default().string(path).int(-1))
    }

    /// setData; version -1 is any.
    pub fn set(path: &str, data: &str, version: i32) -> Self {
        let body = Record::default().string(path).string(data).int(version);
        Self::new(5, body).of(path)
    }

    /// getData.
    pub fn get(path: &str, watches: bool) -> Self {
        let body = Record::default().string(path).flag(watches);
        Self {
            watches,
            ..Self::new(4, body).of(path)
        }
    }

    /// getChildren.
    pub fn children(path: &str) -> Self {
        Self::new(8, Record::default().string(path).flag(false))
    }

    /// sync.
    pub fn sync(path: &str) -> Self {
        Self::new(9, Record::default().string(path))
    }

    /// closeSession.
    pub fn close() -> Self {
        Self::new(-11, Record::default())
    }
}

/// What of a Stat is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The zxid that created the node.
    pub czxid: i64,
    /// How often it was set.
    pub version: i32,
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// 0, or what went wrong.
    pub error: i32,
    body: Vec<u8>,
}

impl Reply {
    /// The Stat at the end of the body.
    ///
    /// # Errors
    /// When there is none.
    pub fn stat(&self) -> Result<Stat> {
        let at = self.body.len().checked_sub(STAT_BYTES);
        let mut fields = Fields(&self.body[at.context("no Stat")?..]);
        let czxid = fields.long()?;
        for _ in 0..3 {
            fields.long()?;
        }
        Ok(Stat {
            czxid,
            version: fields.int()?,
        })
    }

    /// The string at the start of the body: a path, or data that is text.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self) -> Result<String> {
        Fields(&self.body).string()
    }

    /// The names of children.
    ///
    /// # Errors
    /// When the reply has none.
    pub fn names(&self) -> Result<Vec<String>> {
        Fields(&self.body).list(Fields::string)
    }
}

/// The session's identity.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its number.
    pub id: i64,
    password: Vec<u8>,
    /// How long it outlives silence.
    pub timeout: Duration,
}

/// How a pipeline of requests went.
#[derive(Debug)]
pub struct Pipeline {
    /// The replies, in order.
    pub replies: Vec<Reply>,
    /// Whether the connection broke before the last one.
    pub broke: bool,
}

/// How the session stands after its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on.
    GoesOn,
    /// It is over, rightly.
    Over,
}

/// A session.
pub struct Session {
    members: Vec<SocketAddr>,
    at: usize,
    /// Its identity.
    pub key: Key,
    socket: Option<TcpStream>,
    xid: i32,
    /// The newest state it has been shown.
    zxid: i64,
    /// When the latest request that was answered was sent.
    alive_at: Instant,
    /// The version of each node that it has seen.
    seen: BTreeMap<String, i32>,
    /// The version of each node at which it set a watch that has not fired.
    armed: BTreeMap<String, i32>,
    /// How many events came.
    pub events: u64,
}

impl Session {
    /// Opens a session at some member, beginning with `at`; tries until `deadline`.
    ///
    /// # Errors
    /// When no member takes it in time.
    pub async fn open(members: &[SocketAddr], at: usize, deadline: Instant) -> Result<Self> {
        let fresh = Key {
            id: 0,
            password: vec![0; 16],
            timeout: Duration::from_millis(TIMEOUT_MS.unsigned_abs().into()),
        };
        let mut session = Self {
            members: members.to_vec(),
            at,
            key: fresh,
            socket: None,
            xid: 0,
            zxid: 0,
            alive_at: Instant::now(),
            seen: BTreeMap::new(),
            armed: BTreeMap::new(),
            events: 0,
        };
        let outcome = session.connect(deadline).await?;
        ensure!(outcome == Resumed::GoesOn, "a new session is over at once");
        Ok(session)
    }

    /// When the latest request that was answered was sent: until this long after it, and the
    /// session's timeout, it must live.
    pub fn alive_at(&self) -> Instant {
        self.alive_at
    }

    /// Sends requests in one write and awaits their replies.
    ///
    /// # Errors
    /// When a promise is broken.
    pub async fn pipeline(&mut self, requests: &[Request]) -> Result<Pipeline> {
        let mut replies = Vec::new();
        let Some(mut socket) = self.socket.take() else {
            return Ok(Pipeline {
                replies,
                broke: true,
            });
        };
        let sent_at = Instant::now();
        let first_xid = self.xid + 1;
        let mut bytes = Vec::new();
        for request in requests {
            self.xid += 1;
            let record = Record::default().int(self.xid).int(request.opcode);
            let record = record.raw(&request.body.clone().into_bytes()).into_bytes();
            bytes.extend(Record::default().buffer(Some(&record)).into_bytes());
        }
        let mut broke = socket.write_all(&bytes).await.is_err();
        for (request, xid) in requests.iter().zip(first_xid..) {
            let Some(reply) = self.reply(&mut socket, xid).await? else {
                broke = true;
                break;
            };
            self.alive_at = self.alive_at.max(sent_at);
            self.check(request, &reply)?;
            replies.push(reply);
        }
        if !broke {
            self.socket = Some(socket);
        }
        Ok(Pipeline { replies, broke })
    }

    /// The next reply, which must be to `xid`, with the events before it; none if the connection
    /// breaks.
    async fn reply(&mut self, socket: &mut TcpStream, xid: i32) -> Result<Option<Reply>> {
        loop {
            let frame = tokio::time::timeout(REPLY_DEADLINE, read_frame(socket)).await;
            let Ok(Ok(frame)) = frame else {
                return Ok(None);
            };
            let mut fields = Fields(&frame);
            let (got, zxid, error) = (fields.int()?, fields.long()?, fields.int()?);
            if got == EVENT_XID {
                let (_kind, _state) = (fields.int()?, fields.int()?);
                let path = fields.string()?;
                let armed = self.armed.remove(&path);
                ensure!(armed.is_some(), "an event of {path} without a watch");
                self.events += 1;
                continue;
            }
            ensure!(got == xid, "the reply to {got} came in place of {xid}");
            if error == 0 && xid > 0 {
                ensure!(
                    zxid >= self.zxid,
                    "the session saw zxid {:#x}, and then {zxid:#x}",
                    self.zxid
                );
                self.zxid = zxid;
            }
            return Ok(Some(Reply {
                error,
                body: fields.0.to_vec(),
            }));
        }
    }

    /// What a reply shows of a node must not be older than what was shown before, nor come before
    /// the event of its change.
    fn check(&mut self, request: &Request, reply: &Reply) -> Result<()> {
        let Some(node) = request.node.as_ref().filter(|_| reply.error == 0) else {
            return Ok(());
        };
        let version = reply.stat()?.version;
        let seen = self.seen.insert(node.clone(), version).unwrap_or(0);
        ensure!(
            version >= seen,
            "the session saw version {seen} of {node}, and then {version}"
        );
        if let Some(armed) = self.armed.get(node) {
            ensure!(
                version == *armed,
                "version {version} of {node} was shown before the event of a watch set at {armed}"
            );
        } else if request.watches {
            self.armed.insert(node.clone(), version);
        }
        Ok(())
    }

    /// Breaks the connection without a word.
    pub fn drop_connection(&mut self) {
        self.socket = None;
    }

    /// Goes on at another member, trying until `deadline`.
    ///
    /// # Errors
    /// When the session was lost though it could have been resumed, or no member answers.
    pub async fn resume(&mut self, deadline: Instant) -> Result<Resumed> {
        self.socket = None;
        self.at += 1;
        self.connect(deadline).await
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Resumed> {
        loop {
            for _ in 0..self.members.len() {
                // One that does not answer has no quorum, or is not there.
                let shaken = tokio::time::timeout(CONNECT_DEADLINE, self.shake_hands()).await;
                if let Ok(Ok(outcome)) = shaken {
                    if outcome == Resumed::Over {
                        self.check_rightly_over()?;
                        return Ok(outcome);
                    }
                    if self.watch_again().await? {
                        return Ok(outcome);
                    }
                }
                self.socket = None;
                self.at += 1;
            }
            ensure!(Instant::now() < deadline, "no member takes the session");
            tokio::time::sleep(BACKOFF).await;
        }
    }

    async fn shake_hands(&mut self) -> Result<Resumed> {
        let member = self.members[self.at % self.members.len()];
        let sent_at = Instant::now();
        let mut socket = TcpStream::connect(member).await?;
        socket.set_nodelay(true)?;
        let connect = Record::default().int(0).long(self.zxid).int(TIMEOUT_MS);
        let connect = connect.long(self.key.id).buffer(Some(&self.key.password));
        let connect = connect.flag(false).into_bytes();
        let bytes = Record::default().buffer(Some(&connect)).into_bytes();
        socket.write_all(&bytes).await?;
        let frame = read_frame(&mut socket).await?;
        let mut fields = Fields(&frame);
        let (_version, timeout_ms, id) = (fields.int()?, fields.int()?, fields.long()?);
        if id == 0 {
            return Ok(Resumed::Over);
        }
        self.key = Key {
            id,
            password: fields.buffer()?.context("no password")?.to_vec(),
            timeout: Duration::from_millis(timeout_ms.unsigned_abs().into()),
        };
        self.alive_at = sent_at;
        self.socket = Some(socket);
        Ok(Resumed::GoesOn)
    }

    /// A session may end when its client was silent for its whole timeout, and not before.
    fn check_rightly_over(&self) -> Result<()> {
        let silent = self.alive_at.elapsed();
        ensure!(
            silent + TELLING >= self.key.timeout,
            "session {:#x} is over after {silent:?} of silence, though it has {:?}",
            self.key.id,
            self.key.timeout
        );
        Ok(())
    }

    /// Sets the watches again that have not fired; what they missed comes before the reply. False
    /// when the connection breaks meanwhile.
    async fn watch_again(&mut self) -> Result<bool> {
        let Some(mut socket) = self.socket.take() else {
            bail!("there is no connection");
        };
        if !self.armed.is_empty() {
            let nodes: Vec<_> = self.armed.keys().cloned().collect();
            let record = Record::default().int(SET_WATCHES_XID).int(101);
            let record = record.long(self.zxid).strings(&nodes);
            let record = record.strings(&[]).strings(&[]).into_bytes();
            let bytes = Record::default().buffer(Some(&record)).into_bytes();
            if socket.write_all(&bytes).await.is_err() {
                return Ok(false);
            }
            let reply = self.reply(&mut socket, SET_WATCHES_XID).await?;
            if reply.is_none() {
                return Ok(false);
            }
        }
        self.socket = Some(socket);
        Ok(true)
    }
}

async fn read_frame(socket: &mut TcpStream) -> Result<Vec<u8>> {
    let length = usize::try_from(socket.read_i32().await?)?;
    ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame).await?;
    Ok(frame)
}
