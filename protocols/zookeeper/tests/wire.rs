//! Connections as clients see them, over a member in memory: what is answered in which order, and who
//! is cut off.

use gateway::keyspace::auth::{AuthChange, AuthChanges, Permission};
use gateway::keyspace::{Command, End, Permissions, Span};
use gateway::{Gate, Hub, Limits, Principal};
use replica::{Config, Handle};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use zookeeper::jute::Write;
use zookeeper::reply::framed;
use zookeeper::{Arrival, Options, ZooKeeper};

/// How long anything awaited may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a connection holds that nobody reads.
const PIPE_BYTES: usize = 1 << 16;
const PASSWORD_BYTES: usize = 16;

struct Server {
    gate: Gate,
    hub: Hub,
    zookeeper: ZooKeeper,
    /// Stops with the last of its handles.
    replica: Handle,
}

impl Server {
    async fn start(options: Options) -> Server {
        let server = Server::alone(options, Config::default()).await;
        let mut status = server.replica.status_changes();
        let leads = status.wait_for(|status| status.leader != 0);
        timely(leads).await.expect("the replica runs");
        server
    }

    /// One member, whoever else there should be.
    async fn alone(options: Options, config: Config) -> Server {
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

    fn open(&self) -> Client {
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

    async fn word(&self, word: &str) -> String {
        let mut client = self.open();
        let asked = client.stream.write_all(word.as_bytes());
        asked.await.expect("it is open");
        let mut answer = String::new();
        let read = client.stream.read_to_string(&mut answer);
        timely(read).await.expect("a text");
        answer
    }

    async fn connect(&self) -> Client {
        let mut client = self.open();
        client.shake_hands(0, [0; PASSWORD_BYTES]).await;
        assert_ne!(client.session, 0);
        client
    }
}

async fn timely<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("it comes in time")
}

struct Client {
    stream: DuplexStream,
    session: i64,
    password: [u8; PASSWORD_BYTES],
    only_reads: bool,
}

/// A reply's or an event's xid, zxid and error, and the rest of it.
#[derive(Debug, PartialEq)]
struct Reply {
    xid: i32,
    zxid: i64,
    error: i32,
    body: Vec<u8>,
}

impl Client {
    async fn send(&mut self, payload: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        framed(&mut frame, payload);
        self.stream.write_all(&frame).await.expect("it is open");
    }

    /// The next frame; none when the server has closed.
    async fn frame(&mut self) -> Option<Vec<u8>> {
        let len = timely(self.stream.read_u32()).await.ok()?;
        let mut frame = vec![0; len as usize];
        timely(self.stream.read_exact(&mut frame)).await.ok()?;
        Some(frame)
    }

    async fn shake_hands(&mut self, session: i64, password: [u8; PASSWORD_BYTES]) {
        let only_reads = self.only_reads;
        self.send(|out| handshake(out, session, &password, only_reads))
            .await;
        let welcome = self.frame().await.expect("an answer");
        assert_eq!(welcome[36], u8::from(self.only_reads));
        self.session = i64::from_be_bytes(welcome[8..16].try_into().expect("8 bytes"));
        self.password = welcome[20..36].try_into().expect("16 bytes");
    }

    async fn reply(&mut self) -> Option<Reply> {
        let frame = self.frame().await?;
        Some(Reply {
            xid: i32::from_be_bytes(frame[..4].try_into().expect("4 bytes")),
            zxid: i64::from_be_bytes(frame[4..12].try_into().expect("8 bytes")),
            error: i32::from_be_bytes(frame[12..16].try_into().expect("4 bytes")),
            body: frame[16..].to_vec(),
        })
    }

    async fn call(&mut self, xid: i32, kind: i32, body: Vec<u8>) -> Reply {
        self.send(|out| request(out, xid, kind, &body)).await;
        self.reply().await.expect("an answer")
    }

    /// Sends requests in one write; they arrive together.
    async fn pipeline(&mut self, requests: &[(i32, i32, Vec<u8>)]) {
        let mut bytes = Vec::new();
        for (xid, kind, body) in requests {
            framed(&mut bytes, |out| request(out, *xid, *kind, body));
        }
        self.stream.write_all(&bytes).await.expect("it is open");
    }
}

fn handshake(out: &mut Vec<u8>, session: i64, password: &[u8], only_reads: bool) {
    out.int(0);
    out.long(0);
    out.int(10_000);
    out.long(session);
    out.buffer(Some(password));
    out.boolean(only_reads);
}

fn request(out: &mut Vec<u8>, xid: i32, kind: i32, body: &[u8]) {
    out.int(xid);
    out.int(kind);
    out.extend_from_slice(body);
}

fn create(path: &str, flags: i32) -> Vec<u8> {
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

fn set(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(path);
    out.text("more");
    out.int(-1);
    out
}

fn path_and_watch(path: &str, watch: bool) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(path);
    out.boolean(watch);
    out
}

fn auth(token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.int(0);
    out.text("digest");
    out.text(token);
    out
}

const CREATE: i32 = 1;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const SYNC: i32 = 9;
const PING: i32 = 11;
const CLOSE: i32 = -11;
const RECONFIG: i32 = 16;
const NO_NODE: i32 = -101;
const BAD_ARGUMENTS: i32 = -8;
const NOT_READ_ONLY: i32 = -119;
const NO_AUTH: i32 = -102;
const AUTH_FAILED: i32 = -115;
const AUTH: i32 = 100;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_see_each_other() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    client
        .pipeline(&[
            (1, EXISTS, path_and_watch("/a", false)),
            (2, CREATE, create("/a", 0)),
            (3, CREATE, create("/a", 0)),
            (4, SET_DATA, set("/a")),
            (5, GET_DATA, path_and_watch("/a", false)),
            (-2, PING, Vec::new()),
        ])
        .await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let reply = client.reply().await.expect("an answer");
        seen.push((reply.xid, reply.error));
    }
    assert_eq!(
        seen,
        [(1, NO_NODE), (2, 0), (3, -110), (4, 0), (5, 0), (-2, 0)]
    );
}

/// A thread carries many connections, and none waits for what another lists.
#[test]
fn many_children_are_listed_beside_the_connections_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    runtime.expect("a runtime").block_on(list_many_children());
}

async fn list_many_children() {
    const CHILDREN: i32 = 1_001;
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    assert_eq!(client.call(1, CREATE, create("/d", 0)).await.error, 0);
    for nth in 1..=CHILDREN {
        let created = client.call(nth, CREATE, create(&format!("/d/{nth:04}"), 0));
        assert_eq!(created.await.error, 0);
    }
    // What is done aside waits for the one thread there is for it.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::task::spawn_blocking(move || held.recv());
    let list = path_and_watch("/d", true);
    client
        .send(|out| request(out, 2000, GET_CHILDREN, &list))
        .await;
    let mut other = server.connect().await;
    let answered = other.call(1, EXISTS, path_and_watch("/d", false)).await;
    assert_eq!(answered.error, 0);
    drop(release);
    assert!(holding.await.expect("it waits").is_err(), "it was released");
    let listed = client.reply().await.expect("an answer");
    assert_eq!((listed.xid, listed.error), (2000, 0));
    assert_eq!(listed.body[..4], CHILDREN.to_be_bytes());
    assert_eq!(
        listed.body[4..],
        (1..=CHILDREN).flat_map(named).collect::<Vec<u8>>()
    );
    // It watches, too.
    assert_eq!(other.call(2, CREATE, create("/d/new", 0)).await.error, 0);
    assert_eq!(client.reply().await.expect("an event").xid, -1);
}

/// A child's name as it is listed.
fn named(nth: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.text(&format!("{nth:04}"));
    out
}

#[tokio::test]
async fn an_event_comes_after_the_read_that_watches_and_before_what_shows_the_change() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    client
        .pipeline(&[
            (1, CREATE, create("/a", 0)),
            (2, GET_DATA, path_and_watch("/a", true)),
            (3, SET_DATA, set("/a")),
            (4, GET_DATA, path_and_watch("/a", false)),
        ])
        .await;
    let mut xids = Vec::new();
    for _ in 0..5 {
        xids.push(client.reply().await.expect("an answer").xid);
    }
    assert_eq!(xids, [1, 2, -1, 3, 4]);
}

/// Once a snapshot has taken the state's place, events may be lost that belong before an answer.
#[tokio::test]
async fn last_answers_are_not_sent_without_the_events_before_them() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    assert_eq!(client.call(1, CREATE, create("/a", 0)).await.error, 0);
    // The connection's task runs only when this one waits, and so finds both at once.
    server.hub.sink().restored(server.gate.reader().revision());
    client
        .pipeline(&[
            (2, GET_DATA, path_and_watch("/a", false)),
            (3, CLOSE, Vec::new()),
        ])
        .await;
    assert_eq!(client.reply().await, None);
}

/// What identities and access lists make of writes that stand next to each other has to fit in one
/// entry of the log: one that did not stopped the member.
#[tokio::test]
async fn pipelined_writes_of_many_identities_go_in_several_entries() {
    const WRITES: i32 = 500;
    const USER_BYTES: usize = 7000;
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    let shown = client.call(-4, AUTH, auth(&format!("{}:p", "x".repeat(USER_BYTES))));
    assert_eq!(shown.await.error, 0);
    assert_eq!(client.call(1, CREATE, create("/a", 0)).await.error, 0);
    let before = server.gate.status().committed;
    let writes: Vec<_> = (0..WRITES).map(|xid| (xid, SET_DATA, set("/a"))).collect();
    client.pipeline(&writes).await;
    for xid in 0..WRITES {
        let reply = client.reply().await.expect("an answer");
        assert_eq!((reply.xid, reply.error), (xid, 0));
    }
    let entries = server.gate.status().committed - before;
    let bytes = WRITES as u64 * USER_BYTES as u64;
    assert!(
        entries > bytes / (2 << 20),
        "{entries} entries of {bytes} bytes"
    );
}

#[tokio::test]
async fn a_change_by_another_is_told_before_it_is_shown() {
    let server = Server::start(Options::default()).await;
    let mut writer = server.connect().await;
    let mut watcher = server.connect().await;
    assert_eq!(writer.call(1, CREATE, create("/a", 0)).await.error, 0);
    for round in 1..=50 {
        let watched = watcher.call(round, GET_DATA, path_and_watch("/a", true));
        assert_eq!(watched.await.error, 0);
        let written = writer.call(round, SET_DATA, set("/a"));
        let read = watcher.call(round, GET_DATA, path_and_watch("/a", false));
        let (written, first) = tokio::join!(written, read);
        // Either the read did not see the change, or the event came first.
        let event = if first.xid == -1 {
            let shown = watcher.reply().await.expect("the read's answer");
            assert!(shown.zxid >= written.zxid);
            first
        } else {
            assert!(first.zxid < written.zxid, "shown before it was told");
            watcher.reply().await.expect("the event")
        };
        assert_eq!((event.xid, event.zxid), (-1, written.zxid));
    }
}

#[tokio::test]
async fn a_session_goes_on_through_a_new_connection_and_the_old_one_is_cut() {
    let server = Server::start(Options::default()).await;
    let mut old = server.connect().await;
    assert_eq!(old.call(1, CREATE, create("/e", 1)).await.error, 0);
    let mut new = server.open();
    new.shake_hands(old.session, old.password).await;
    assert_eq!(new.session, old.session);
    assert_eq!(old.reply().await, None);
    let found = new.call(1, EXISTS, path_and_watch("/e", false)).await;
    assert_eq!(found.error, 0);
    assert_eq!(new.call(2, CLOSE, Vec::new()).await.error, 0);
    assert_eq!(new.reply().await, None);

    let mut late = server.open();
    late.shake_hands(old.session, old.password).await;
    assert_eq!((late.session, late.reply().await), (0, None));
    let mut other = server.connect().await;
    let found = other.call(1, EXISTS, path_and_watch("/e", false)).await;
    assert_eq!(found.error, NO_NODE);
}

#[tokio::test]
async fn a_wrong_password_resumes_nothing_and_cuts_nobody() {
    let server = Server::start(Options::default()).await;
    let mut owner = server.connect().await;
    let mut thief = server.open();
    thief.shake_hands(owner.session, [9; PASSWORD_BYTES]).await;
    assert_eq!((thief.session, thief.reply().await), (0, None));
    assert_eq!(owner.call(1, PING, Vec::new()).await.error, 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let server = Server::start(Options::default()).await;
    let mut client = server.connect().await;
    let mut sync = Vec::new();
    sync.text(&"x".repeat(1000));
    let flood = vec![(1, SYNC, sync); 64];
    // Nobody reads the answers: at some point the server stops taking requests.
    let mut sent = 0;
    let stuck = async {
        loop {
            client.pipeline(&flood).await;
            sent += 64;
        }
    };
    // Paused, time passes only once nobody has anything to do.
    tokio::time::pause();
    let stuck = tokio::time::timeout(Duration::from_secs(1), stuck).await;
    assert!(stuck.is_err());
    assert!(sent < 10_000, "{sent} requests were taken");
}

#[tokio::test]
async fn connections_of_one_address_and_frames_are_bounded() {
    let options = Options {
        connections_per_address_max: 1,
        frame_bytes_max: 1000,
        ..Options::default()
    };
    let server = Server::start(options).await;
    let mut first = server.connect().await;
    let mut second = server.open();
    assert_eq!(second.frame().await, None);
    let long = 1001u32.to_be_bytes();
    first.stream.write_all(&long).await.expect("it is open");
    assert_eq!(first.frame().await, None);
}

fn reconfig(joining: Option<&str>, leaving: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for list in [joining, leaving, None] {
        out.buffer(list.map(str::as_bytes));
    }
    out.long(-1);
    out
}

/// The data that a reply begins with, and the zxid of its last change.
fn config_of(body: &[u8]) -> (String, i64) {
    let (len, rest) = body.split_first_chunk::<4>().expect("a length");
    let (data, stat) = rest.split_at(u32::from_be_bytes(*len) as usize);
    let mzxid = stat[8..16].try_into().expect("8 bytes");
    let data = String::from_utf8(data.to_vec()).expect("a text");
    (data, i64::from_be_bytes(mzxid))
}

/// A member that an operator adds through ZooKeeper's protocol shows in what watchers then read.
#[tokio::test]
async fn watchers_of_the_config_are_told_of_members_that_come() {
    let server = Server::start(Options {
        reconfig: true,
        standalone: false,
        skip_acl: true,
        ..Options::default()
    })
    .await;
    let zookeeper = server.zookeeper.clone();
    let attending = tokio::spawn(async move { zookeeper.attend().await });
    let mut watching = server.connect().await;
    let path = || path_and_watch("/zookeeper/config", true);
    let before = watching.call(1, GET_DATA, path()).await;
    let alone = "server.1=localhost:2380:2381:participant\nversion=0";
    assert_eq!(config_of(&before.body), (alone.to_owned(), 0));
    let mut operator = server.connect().await;
    let joining = "server.7=127.0.0.1:1:2:observer;127.0.0.1:3";
    let answer = operator
        .call(1, RECONFIG, reconfig(Some(joining), None))
        .await;
    assert_eq!(answer.error, 0);
    let event = watching.reply().await.expect("an event");
    // The state is no newer for it.
    assert_eq!((event.xid, event.zxid), (-1, before.zxid));
    let after = watching.call(2, GET_DATA, path()).await;
    assert_eq!(after.body, answer.body);
    let (config, version) = config_of(&after.body);
    let both = format!(
        "server.1=localhost:2380:2381:participant\n\
         server.7=127.0.0.1:1:2:observer;127.0.0.1:3\nversion={version:x}"
    );
    assert_eq!(config, both);
    assert!(version > event.zxid);
    let answer = operator
        .call(2, RECONFIG, reconfig(None, Some("1,7")))
        .await;
    assert_eq!(answer.error, BAD_ARGUMENTS);
    attending.abort();
}

/// Without a leader, clients that say that it will do are served what can be read.
#[tokio::test]
async fn without_a_leader_clients_may_read() {
    let url = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let others = [("a".to_owned(), url(1)), ("b".to_owned(), url(2))];
    let mut config = Config::default();
    config.initial_cluster.extend(others);
    let options = Options {
        read_only_mode: true,
        ..Options::default()
    };
    let server = Server::alone(options, config).await;
    let zookeeper = server.zookeeper.clone();
    let attending = tokio::spawn(async move { zookeeper.attend().await });
    let turned = async {
        while server.word("isro").await != "ro" {
            tokio::task::yield_now().await;
        }
    };
    timely(turned).await;
    assert!(server.word("srvr").await.contains("Mode: read-only"));
    let mut client = server.open();
    client.only_reads = true;
    client.shake_hands(0, [0; PASSWORD_BYTES]).await;
    assert_ne!(client.session, 0);
    let read = client.call(1, EXISTS, path_and_watch("/", true)).await;
    assert_eq!(read.error, 0);
    let mut path = Vec::new();
    path.text("/");
    for (kind, body) in [(CREATE, create("/a", 0)), (SYNC, path)] {
        let refused = client.call(2, kind, body).await;
        assert_eq!((refused.error, refused.body.len()), (NOT_READ_ONLY, 0));
    }
    let closed = client.call(3, CLOSE, Vec::new()).await;
    assert_eq!(closed.error, 0);
    assert_eq!(client.reply().await, None);
    let mut writer = server.open();
    writer
        .send(|out| handshake(out, 0, &[0; PASSWORD_BYTES], false))
        .await;
    assert_eq!(writer.frame().await, None);
    attending.abort();
}

/// Users `root` and `ann` with a password of the same name; she may read and write beneath `/a/`, and
/// read `/r`.
async fn with_users() -> Server {
    let server = Server::start(Options::default()).await;
    let mut changes = Vec::new();
    for user in ["root", "ann"] {
        let hash = server.gate.hash_password(user.into()).await;
        changes.push(AuthChange::AddUser {
            user: user.into(),
            password: Some(hash.expect("it hashes")),
        });
        changes.push(AuthChange::Grant {
            user: user.into(),
            role: user.into(),
            ahead: true,
        });
    }
    changes.push(AuthChange::AddRole("ann".into()));
    let both = Permissions::READ | Permissions::WRITE;
    let end = End::Before("/a0".into());
    let start = "/a/".into();
    for (span, may) in [
        (Span { start, end }, both),
        (Span::single("/r"), Permissions::READ),
    ] {
        changes.push(AuthChange::Permit {
            role: "ann".into(),
            permission: Permission { span, may },
        });
    }
    server.change(changes).await;
    server
}

impl Server {
    async fn change(&self, changes: Vec<AuthChange>) {
        let changes = AuthChanges {
            changes,
            ..AuthChanges::default()
        };
        let changed = self
            .gate
            .propose(&Principal::System, Command::Auth(changes));
        timely(changed).await.expect("it is changed");
    }
}

fn digest(token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.int(0);
    out.text("digest");
    out.text(token);
    out
}

/// etcd's users are everybody's: who is none may do nothing, and the others what their roles permit.
#[tokio::test]
async fn users_may_what_their_roles_permit() {
    let server = with_users().await;
    let mut client = server.connect().await;
    for path in ["/a", "/a/b", "/r", "/z"] {
        assert_eq!(client.call(1, CREATE, create(path, 0)).await.error, 0);
    }
    server.change(vec![AuthChange::Enable]).await;
    let get = |path: &str| path_and_watch(path, true);
    for (kind, body, ann, root) in [
        (GET_DATA, get("/a/b"), 0, 0),
        (SET_DATA, set("/a/b"), 0, 0),
        (CREATE, create("/a/c", 0), 0, -110),
        (CREATE, create("/a/s-", 2), 0, 0),
        (GET_DATA, get("/r"), 0, 0),
        (SET_DATA, set("/r"), NO_AUTH, 0),
        (GET_DATA, get("/z"), NO_AUTH, 0),
        (EXISTS, get("/none"), NO_AUTH, NO_NODE),
        (CREATE, create("/new", 0), NO_AUTH, 0),
        (GET_DATA, get("/zookeeper"), 0, 0),
    ] {
        for (who, expected) in [
            (None, NO_AUTH),
            (Some("ann:ann"), ann),
            (Some("root:root"), root),
        ] {
            let mut client = server.connect().await;
            if let Some(who) = who {
                assert_eq!(client.call(-4, AUTH, digest(who)).await.error, 0);
            }
            let expected = match (who, expected) {
                (None, _) if body == get("/zookeeper") => 0,
                _ => expected,
            };
            let answer = client.call(1, kind, body.clone()).await;
            assert_eq!(answer.error, expected, "{who:?} {kind}");
        }
    }
}

#[tokio::test]
async fn a_users_wrong_password_ends_the_connection() {
    let server = with_users().await;
    let mut early = server.connect().await;
    assert_eq!(early.call(-4, AUTH, digest("ann:x")).await.error, 0);
    server.change(vec![AuthChange::Enable]).await;
    let mut client = server.connect().await;
    let answer = client.call(-4, AUTH, digest("ann:x")).await;
    assert_eq!(answer.error, AUTH_FAILED);
    assert!(client.reply().await.is_none());
    // Who is no user has an identity for access lists, and no more.
    let mut client = server.connect().await;
    assert_eq!(client.call(-4, AUTH, digest("eve:x")).await.error, 0);
    let answer = client.call(1, GET_DATA, path_and_watch("/a/b", false));
    assert_eq!(answer.await.error, NO_AUTH);
}

/// What a role does not permit any more is not told to those who watch it either.
#[tokio::test]
async fn what_may_not_be_read_any_more_is_not_told() {
    let server = with_users().await;
    let mut root = server.connect().await;
    assert_eq!(root.call(1, CREATE, create("/r", 0)).await.error, 0);
    server.change(vec![AuthChange::Enable]).await;
    assert_eq!(root.call(-4, AUTH, digest("root:root")).await.error, 0);
    let mut ann = server.connect().await;
    assert_eq!(ann.call(-4, AUTH, digest("ann:ann")).await.error, 0);
    let watched = ann.call(1, GET_DATA, path_and_watch("/r", true)).await;
    assert_eq!(watched.error, 0);
    let forbid = AuthChange::Forbid {
        role: "ann".into(),
        span: Span::single("/r"),
    };
    server.change(vec![forbid]).await;
    assert_eq!(root.call(2, SET_DATA, set("/r")).await.error, 0);
    // The answer to what came after, and no event before it.
    let answer = ann.call(2, SYNC, set("/")).await;
    assert_eq!((answer.xid, answer.error), (2, 0));
    let answer = ann.call(3, GET_DATA, path_and_watch("/r", false)).await;
    assert_eq!((answer.xid, answer.error), (3, NO_AUTH));
}
