//! ZooKeeper's protocol as far as a client under load speaks it: the handshake, requests, replies
//! and events.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::script::zookeeper::jute::{Fields, Record};

/// The longest frame that is read.
const FRAME_BYTES_MAX: usize = 1 << 24;

const EVENT_XID: i32 = -1;
/// The xid of a request that sets watches again.
pub const SET_WATCHES_XID: i32 = -8;
/// The length of a Stat, which ends a reply that has one.
const STAT_BYTES: usize = 68;

/// Errors of ZooKeeper's protocol.
pub mod error {
    /// The node is not there.
    pub const NO_NODE: i32 = -101;
    /// It has another version.
    pub const BAD_VERSION: i32 = -103;
    /// It is there.
    pub const NODE_EXISTS: i32 = -110;
    /// The session is over.
    pub const SESSION_EXPIRED: i32 = -112;
    /// It goes on through another connection.
    pub const SESSION_MOVED: i32 = -118;
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    opcode: i32,
    body: Record,
    /// The node whose Stat the reply ends with.
    pub node: Option<String>,
    /// Whether the reply sets a watch on it.
    pub watches: bool,
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
        Self::delete_version(path, -1)
    }

    /// delete; version -1 is any.
    pub fn delete_version(path: &str, version: i32) -> Self {
        Self::new(2, Record::default().string(path).int(version))
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

    /// exists.
    pub fn exists(path: &str, watches: bool) -> Self {
        let body = Record::default().string(path).flag(watches);
        Self {
            watches,
            ..Self::new(3, body).of(path)
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

    /// check, of a version; only as a step of a multi.
    pub fn check(path: &str, version: i32) -> Self {
        Self::new(13, Record::default().string(path).int(version))
    }

    /// multi.
    pub fn multi(steps: &[Self]) -> Self {
        let step = |body: Record, step: &Self| {
            let body = body.int(step.opcode).flag(false).int(-1);
            body.raw(&step.body.clone().into_bytes())
        };
        let body = steps.iter().fold(Record::default(), step);
        Self::new(14, body.int(-1).flag(true).int(-1))
    }

    /// addWatch, on a node and all beneath it.
    pub fn watch_beneath(path: &str) -> Self {
        Self::new(106, Record::default().string(path).int(1))
    }

    /// setWatches: watches on data, set again by who has seen `zxid`.
    pub fn set_watches(zxid: i64, data: &[String]) -> Self {
        let body = Record::default().long(zxid).strings(data);
        Self::new(101, body.strings(&[]).strings(&[]))
    }

    /// setWatches2: the same, with watches on nodes that were not there, and on all beneath others.
    pub fn set_all_watches(
        zxid: i64,
        data: &[String],
        missing: &[String],
        beneath: &[String],
    ) -> Self {
        let body = Record::default().long(zxid).strings(data).strings(missing);
        let body = body.strings(&[]).strings(&[]).strings(beneath);
        Self::new(105, body)
    }

    /// closeSession.
    pub fn close() -> Self {
        Self::new(-11, Record::default())
    }

    /// The bytes of the request with this number.
    pub fn frame(&self, xid: i32) -> Vec<u8> {
        let record = Record::default().int(xid).int(self.opcode);
        let record = record.raw(&self.body.clone().into_bytes()).into_bytes();
        Record::default().buffer(Some(&record)).into_bytes()
    }
}

/// What of a Stat is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The zxid that created the node.
    pub czxid: i64,
    /// The zxid that changed it last.
    pub mzxid: i64,
    /// How often it was set.
    pub version: i32,
    /// The session that an ephemeral node belongs to, or 0.
    pub owner: i64,
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Of the request.
    pub xid: i32,
    /// The state that it was computed at.
    pub zxid: i64,
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
        let (czxid, mzxid) = (fields.long()?, fields.long()?);
        let (_ctime, _mtime, version) = (fields.long()?, fields.long()?, fields.int()?);
        let (_cversion, _aversion) = (fields.int()?, fields.int()?);
        Ok(Stat {
            czxid,
            mzxid,
            version,
            owner: fields.long()?,
        })
    }

    /// The string at the start of the body: a path, or data that is text.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self) -> Result<String> {
        Fields(&self.body).string()
    }

    /// Whether the steps of a multi were done, all of them.
    ///
    /// # Errors
    /// When it is no reply to one.
    pub fn is_done(&self) -> Result<bool> {
        const UNDONE: i32 = -1;
        Ok(Fields(&self.body).int()? != UNDONE)
    }

    /// The names of children.
    ///
    /// # Errors
    /// When the reply has none.
    pub fn names(&self) -> Result<Vec<String>> {
        Fields(&self.body).list(Fields::string)
    }
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened, in ZooKeeper's numbers.
    pub kind: i32,
    /// Where.
    pub path: String,
    /// Its zxid, or -1 if that is not said.
    pub zxid: i64,
}

/// What a server sends.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The answer to a request.
    Reply(Reply),
    /// What a watch saw.
    Event(Event),
}

/// Reads the next frame.
///
/// # Errors
/// When the connection breaks, or it is none.
pub async fn read(socket: &mut TcpStream) -> Result<Frame> {
    let frame = read_bytes(socket).await?;
    let mut fields = Fields(&frame);
    let (xid, zxid, error) = (fields.int()?, fields.long()?, fields.int()?);
    if xid == EVENT_XID {
        let (kind, _state) = (fields.int()?, fields.int()?);
        let path = fields.string()?;
        return Ok(Frame::Event(Event { kind, path, zxid }));
    }
    let body = fields.0.to_vec();
    Ok(Frame::Reply(Reply {
        xid,
        zxid,
        error,
        body,
    }))
}

/// Asks, where no event can come, and awaits the reply.
///
/// # Errors
/// When the connection breaks, or an event comes.
pub async fn ask(socket: &mut TcpStream, request: &Request, xid: i32) -> Result<Reply> {
    socket.write_all(&request.frame(xid)).await?;
    match read(socket).await? {
        Frame::Reply(reply) => Ok(reply),
        Frame::Event(event) => bail!("nothing is watched, but {event:?} came"),
    }
}

async fn read_bytes(socket: &mut TcpStream) -> Result<Vec<u8>> {
    let length = usize::try_from(socket.read_i32().await?)?;
    ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame).await?;
    Ok(frame)
}

/// A session's identity.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its number.
    pub id: i64,
    password: Vec<u8>,
    /// How long it outlives silence.
    pub timeout: Duration,
}

impl Key {
    /// That of a session that is yet to be opened.
    pub fn fresh(timeout_ms: u32) -> Self {
        Self {
            id: 0,
            password: vec![0; 16],
            timeout: Duration::from_millis(timeout_ms.into()),
        }
    }
}

/// Connects to a member and opens a session there, or goes on with one, by a client that has seen
/// `zxid`. Nothing if the session is over.
///
/// # Errors
/// When the connection breaks.
pub async fn shake_hands(
    member: SocketAddr,
    key: &Key,
    zxid: i64,
) -> Result<Option<(Key, TcpStream)>> {
    let mut socket = TcpStream::connect(member).await?;
    socket.set_nodelay(true)?;
    let timeout_ms = i32::try_from(key.timeout.as_millis())?;
    let connect = Record::default().int(0).long(zxid).int(timeout_ms);
    let connect = connect.long(key.id).buffer(Some(&key.password));
    let connect = connect.flag(false).into_bytes();
    let bytes = Record::default().buffer(Some(&connect)).into_bytes();
    socket.write_all(&bytes).await?;
    let frame = read_bytes(&mut socket).await?;
    let mut fields = Fields(&frame);
    let (_version, timeout_ms, id) = (fields.int()?, fields.int()?, fields.long()?);
    if id == 0 {
        return Ok(None);
    }
    let key = Key {
        id,
        password: fields.buffer()?.context("no password")?.to_vec(),
        timeout: Duration::from_millis(timeout_ms.unsigned_abs().into()),
    };
    Ok(Some((key, socket)))
}
