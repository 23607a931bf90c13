//! A server over a member in memory, and clients that speak to it in frames.

use gateway::{Gate, Hub, Limits};
use replica::{Config, Handle};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use zookeeper::jute::Write;
use zookeeper::reply::framed;
use zookeeper::{Arrival, Options, ZooKeeper};

/// How long anything awaited may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What a connection holds that nobody reads.
pub const PIPE_BYTES: usize = 1 << 16;
pub const PASSWORD_BYTES: usize = 16;

pub struct Server {
    pub gate: Gate,
    pub hub: Hub,
    pub zookeeper: ZooKeeper,
    /// Stops with the last of its handles.
    pub replica: Handle,
}

impl Server {
    pub async fn start(options: Options) -> Server {
        let server = Server::alone(options, Config::default()).await;
        let mut status = server.replica.status_changes();
        let leads = status.wait_for(|status| status.leader != 0);
        timely(leads).await.expect("the replica runs");
        server
    }

    /// One member, whoever else there should be.
    pub async fn alone(options: Options, config: Config) -> Server {
        let config = Config {
            heartbeat: Duration::from_millis(10),
            election: Duration::from_millis(100),
            ..config
        };
        let hub = Hub::new();
        let replica = replica::start_in_memory(config, hub.sink()).await;
        let replica = replica.expect("nothing is on the disk that could be wrong");
        let limits = Limits {
            bcrypt_cost: 4,
            ..Limits::default()
        };
        let gate = Gate::new(replica.clone(), hub.clone(), limits);
        Server {
            gate: gate.clone(),
            hub,
            zookeeper: ZooKeeper::new(gate, options),
            replica,
        }
    }

    pub fn open(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let zookeeper = self.zookeeper.clone();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        tokio::spawn(async move {
            let entered = zookeeper.admit(peer, false).expect("there is room");
            zookeeper.serve(theirs, Arrival::plain(peer), entered).await;
        });
        Client {
            stream: ours,
            session: 0,
            password: [0; PASSWORD_BYTES],
            only_reads: false,
        }
    }

    pub async fn word(&self, word: &str) -> String {
        let mut client = self.open();
        let asked = client.stream.write_all(word.as_bytes());
        asked.await.expect("it is open");
        let mut answer = String::new();
        let read = client.stream.read_to_string(&mut answer);
        timely(read).await.expect("a text");
        answer
    }

    pub async fn connect(&self) -> Client {
        let mut client = self.open();
        client.shake_hands(0, [0; PASSWORD_BYTES]).await;
        assert_ne!(client.session, 0);
        client
    }
}

pub async fn timely<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("it comes in time")
}

pub struct Client {
    pub stream: DuplexStream,
    pub session: i64,
    pub password: [u8; PASSWORD_BYTES],
    pub only_reads: bool,
}

/// A reply's or an event's xid, zxid and error, and the rest of it.
#[derive(Debug, PartialEq)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub error: i32,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, payload: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        framed(&mut frame, payload);
        self.stream.write_all(&frame).await.expect("it is open");
    }

    /// The next frame; none when the server has closed.
    pub async fn frame(&mut self) -> Option<Vec<u8>> {
        let len = timely(self.stream.read_u32()).await.ok()?;
        let mut frame = vec![0; len as usize];
        timely(self.stream.read_exact(&mut frame)).await.ok()?;
        Some(frame)
    }

    pub async fn shake_hands(&mut self, session: i64, password: [u8; PASSWORD_BYTES]) {
        let only_reads = self.only_reads;
        self.send(|out| handshake(out, session, &password, only_reads))
            .await;
        let welcome = self.frame().await.expect("an answer");
        assert_eq!(welcome[36], u8::from(self.only_reads));
        self.session = i64::from_be_bytes(welcome[8..16].try_into().expect("8 bytes"));
        self.password = welcome[20..36].try_into().expect("16 bytes");
    }

    pub async fn reply(&mut self) -> Option<Reply> {
        let frame = self.frame().await?;
        Some(Reply {
            xid: i32::from_be_bytes(frame[..4].try_into().expect("4 bytes")),
            zxid: i64::from_be_bytes(frame[4..12].try_into().expect("8 bytes")),
            error: i32::from_be_bytes(frame[12..16].try_into().expect("4 bytes")),
            body: frame[16..].to_vec(),
        })
    }

    pub async fn call(&mut self, xid: i32, kind: i32, body: Vec<u8>) -> Reply {
        self.send(|out| request(out, xid, kind, &body)).await;
        self.reply().await.expect("an answer")
    }

    /// Sends requests in one write; they arrive together.
    pub async fn pipeline(&mut self, requests: &[(i32, i32, Vec<u8>)]) {
        let mut bytes = Vec::new();
        for (xid, kind, body) in requests {
            framed(&mut bytes, |out| request(out, *xid, *kind, body));
        }
        self.stream.write_all(&bytes).await.expect("it is open");
    }
}

pub fn handshake(out: &mut Vec<u8>, session: i64, password: &[u8], only_reads: bool) {
    out.int(0);
    out.long(0);
    out.int(10_000);
    out.long(session);
    out.buffer(Some(password));
    out.boolean(only_reads);
}

pub fn request(out: &mut Vec<u8>, xid: i32, kind: i32, body: &[u8]) {
    out.int(xid);
    out.int(kind);
    out.extend_from_slice(body);
}

pub fn create(path: &str, flags: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(path);
    out.text("data");
    out.count(1);
    out.int(31);
    out.text("world");
    out.text("anyone");
    out.int(flags);
    out
}

pub fn set(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(path);
    out.text("more");
    out.int(-1);
    out
}

pub fn path_and_watch(path: &str, watch: bool) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(path);
    out.boolean(watch);
    out
}

pub fn auth(token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.int(0);
    out.text("digest");
    out.text(token);
    out
}

pub const CREATE: i32 = 1;
pub const EXISTS: i32 = 3;
pub const GET_DATA: i32 = 4;
pub const SET_DATA: i32 = 5;
pub const GET_CHILDREN: i32 = 8;
pub const SYNC: i32 = 9;
pub const PING: i32 = 11;
pub const CLOSE: i32 = -11;
pub const RECONFIG: i32 = 16;
pub const NO_NODE: i32 = -101;
pub const BAD_ARGUMENTS: i32 = -8;
pub const NOT_READ_ONLY: i32 = -119;
pub const NO_AUTH: i32 = -102;
pub const AUTH_FAILED: i32 = -115;
pub const AUTH: i32 = 100;
