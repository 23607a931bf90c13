//! What broken and hostile clients send: requests with bytes changed, cut off or claimed and not
//! sent, to the reader and to a whole connection. Nothing may panic, nor take more memory than a
//! few times what was sent.
//!
//! `PROPTEST_CASES=1000000 cargo test -p zookeeper --test fuzz` looks for longer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gateway::keyspace::LeaseId;
use gateway::keyspace::access::Identity;
use gateway::{Gate, Hub, Limits, Member, Version};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use replica::{Config, Handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zookeeper::ensemble::Ensemble;
use zookeeper::jute::Write;
use zookeeper::ops::{Caller, Steps};
use zookeeper::record::Request;
use zookeeper::reply::framed;
use zookeeper::sasl::{Exchange, Users};
use zookeeper::{Arrival, Options, ZooKeeper, frame, handshake, record};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted for the whole process, so only one test at a time may take any.
static ALONE: Mutex<()> = Mutex::new(());

/// What reading may take for each byte: a list of the shortest items, while it grows.
const PER_BYTE: usize = 16;
/// What reading may take besides.
const BESIDES: usize = 4 << 10;
/// What a connection may take besides: its buffers, and those of the member behind it.
const CONNECTION_BESIDES: usize = 2 << 20;
/// What the access lists of a request may take, whose lines stand for all identities of a client.
const LISTS_BESIDES: usize = 256 << 10;
/// How many one server has: its state grows with them, and the member behind it takes more at once
/// for a larger one.
const CONVERSATIONS_MAX: usize = 100;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// `jute.maxbuffer` of the fuzzed connections.
const FRAME_BYTES_MAX: usize = 4 << 10;

/// The most memory that was taken at once by `work`, beyond what there was.
fn peak_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = work();
    (MEMORY.peak_usage().saturating_sub(before), result)
}

/// The same of work that can be repeated: what the harness's own thread takes meanwhile, as it does
/// to say that a test is slow, comes only once.
fn repeated_peak_of<T>(work: impl Fn() -> T) -> usize {
    let (first, _) = peak_of(&work);
    let (second, _) = peak_of(&work);
    first.min(second)
}

fn acl(out: &mut Vec<u8>, number: i32) {
    let who: &[_] = match number.rem_euclid(4) {
        0 => &[("auth", ""), ("auth", "1"), ("auth", "2"), ("ip", "::1")],
        _ => &[("world", "anyone")],
    };
    out.count(who.len());
    for (scheme, id) in who {
        out.int(31);
        out.text(scheme);
        out.text(id);
    }
}

/// A client's answer to SASL's challenge; its proof is wrong.
const ANSWER: &str = "charset=utf-8,username=\"user\",realm=\"zk-sasl-md5\",nonce=\"n\\\\o\",\
                      nc=00000001,cnonce=\"c\",digest-uri=\"zookeeper/zk-sasl-md5\",response=0,qop=auth";
/// Servers as a reconfig names them.
const SERVERS: &str =
    "server.2=[::1]:2888:3888:participant;0.0.0.0:2182,3=host:1:2;3,4=h:5:6:observer;7";

/// The body of a sound request, or of a step in a multi, of each kind.
fn body(kind: i32, path: &str, number: i32) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        1 | 15 | 19 | 21 => {
            out.text(path);
            out.buffer(Some(b"data"));
            acl(&mut out, number);
            out.int(number.rem_euclid(8));
            if kind == 21 {
                out.long(number.into());
            }
        }
        5 => {
            out.text(path);
            out.buffer(None);
            out.int(number);
        }
        7 => {
            out.text(path);
            acl(&mut out, number);
            out.int(number);
        }
        2 | 13 | 17 | 18 | 106 => {
            out.text(path);
            out.int(number);
        }
        14 | 22 => {
            let steps = if kind == 14 {
                &[1, 2, 5, 13][..]
            } else {
                &[4, 8]
            };
            for &step in steps {
                out.int(step);
                out.boolean(false);
                out.int(-1);
                out.extend(body(step, path, number));
            }
            out.int(-1);
            out.boolean(true);
            out.int(-1);
        }
        16 => {
            out.buffer((number % 2 == 0).then_some(SERVERS.as_bytes()));
            out.buffer(Some(b"1"));
            out.buffer((number % 3 == 0).then_some(SERVERS.as_bytes()));
            out.long(-1);
        }
        100 => {
            out.int(0);
            out.text("digest");
            out.text(&format!("user{number}:password"));
        }
        102 => out.text(ANSWER),
        101 | 105 => {
            out.long(number.into());
            for _ in 0..if kind == 101 { 3 } else { 5 } {
                out.count(2);
                out.text(path);
                out.text("/");
            }
        }
        _ => {
            out.text(path);
            out.boolean(number % 2 == 0);
        }
    }
    out
}

fn kind() -> impl Strategy<Value = i32> {
    let known = prop_oneof![1..23_i32, 100..108_i32, Just(-11)];
    let shows_who_it_is = prop_oneof![Just(100), Just(102)];
    prop_oneof![8 => known, 1 => shows_who_it_is, 1 => any::<i32>()]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        "/[ab]{0,2}",
        "(/[a-c]{1,2}){1,3}",
        "/zookeeper(/config|/quota)?",
        ".{0,8}"
    ]
}

/// What happens to a request on its way.
#[derive(Clone, Debug)]
enum Damage {
    None,
    /// Bytes are others.
    Changed(Vec<(prop::sample::Index, u8)>),
    /// A number is another, such as a length.
    Claimed(prop::sample::Index, i32),
    /// The rest is missing.
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let extreme = prop_oneof![
        Just(i32::MAX),
        Just(i32::MIN),
        Just(-1),
        Just(-2),
        0..100_i32,
        any::<i32>()
    ];
    prop_oneof![
        2 => Just(Damage::None),
        2 => proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4)
            .prop_map(Damage::Changed),
        3 => (any::<prop::sample::Index>(), extreme)
            .prop_map(|(at, number)| Damage::Claimed(at, number)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    match damage {
        Damage::None => {}
        Damage::Changed(changes) => {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        Damage::Claimed(at, number) => {
            let at = at.index(bytes.len().saturating_sub(3).max(1));
            let end = bytes.len().min(at + 4);
            bytes[at..end].copy_from_slice(&number.to_be_bytes()[..end - at]);
        }
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
    }
    bytes
}

prop_compose! {
    /// A request without its length, damaged or not.
    fn request()(
        kind in kind(),
        path in path(),
        number in -2..100_i32,
        damage in damage(),
    ) -> Vec<u8> {
        damaged(sound(kind, &path, number), &damage)
    }
}

/// A request without its length, as it should be.
fn sound(kind: i32, path: &str, number: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.int(number);
    out.int(kind);
    out.extend(body(kind, path, number));
    out
}

#[test]
fn reading_takes_no_more_than_a_few_times_what_is_there() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    TestRunner::default()
        .run(&request(), |bytes| {
            let peak = repeated_peak_of(|| record::parse(&bytes).is_ok());
            prop_assert!(peak <= PER_BYTE * bytes.len() + BESIDES, "{peak} bytes");
            let peak = repeated_peak_of(|| handshake::parse(&bytes).is_some());
            prop_assert!(peak <= BESIDES, "{peak} bytes");
            Ok(())
        })
        .expect("no input does");
}

/// Identities as many as a client may have.
fn identities() -> Vec<Identity> {
    let name = |user: u8| format!("{user}:{}", "x".repeat(28));
    let ids = (0..u8::MAX).map(|user| Identity::new("digest", name(user)));
    ids.collect()
}

#[test]
fn what_is_made_of_requests_takes_no_more() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ids, options) = (identities(), options());
    let member = |number| Member {
        number,
        name: number.to_string(),
        peer_urls: vec![format!("http://127.0.0.1:{number}")],
        ..Member::default()
    };
    let ensemble = Ensemble {
        version: Version::default(),
        members: (1..=3).map(member).collect(),
        standalone_enabled: true,
    };
    let is_planned = |number| {
        let frame = Bytes::from(sound(16, "/", number));
        let parsed = record::parse(&frame);
        matches!(parsed, Ok((_, Request::Reconfig(asked))) if ensemble.plan(&asked, 1).is_ok())
    };
    assert!((0..6).any(is_planned), "no sound reconfig is understood");
    TestRunner::default()
        .run(&request(), |bytes| {
            let frame = Bytes::from(bytes);
            let Ok((_, request)) = record::parse(&frame) else {
                return Ok(());
            };
            let caller = Caller {
                session: LeaseId(1),
                ids: &ids,
                options: &options,
            };
            let peak = repeated_peak_of(|| match &request {
                Request::Write(write) => drop(Steps::of(slice::from_ref(write), &frame, caller)),
                Request::Multi(writes) => drop(Steps::of(writes, &frame, caller)),
                Request::Reconfig(asked) => drop(ensemble.plan(asked, 1)),
                Request::Sasl { token } => {
                    let mut exchange = Exchange::Challenged("n\\o".to_owned());
                    let users = options.sasl.as_deref().expect("they are named");
                    drop(exchange.step(users, token, String::new));
                }
                _ => {}
            });
            let most = PER_BYTE * frame.len() + LISTS_BESIDES;
            prop_assert!(peak <= most, "{peak} bytes of {request:?}");
            Ok(())
        })
        .expect("no request does");
}

/// The frames that cost most: as many of the shortest items as there is room for.
#[test]
fn the_longest_lists_take_no_more() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let items = frame::FRAME_BYTES_MAX / 4;
    let mut watches = Vec::new();
    watches.long(0);
    watches.count(items - 8);
    watches.resize(frame::FRAME_BYTES_MAX - 8, 0);
    let mut access = Vec::new();
    access.text("/");
    access.int(i32::MAX);
    access.resize(frame::FRAME_BYTES_MAX - 8, 0);
    let mut steps = Vec::new();
    while steps.len() + 32 < frame::FRAME_BYTES_MAX {
        steps.int(13);
        steps.boolean(false);
        steps.int(-1);
        steps.text("");
        steps.int(0);
    }
    steps.int(-1);
    steps.boolean(true);
    steps.int(-1);
    for (kind, body) in [(101, watches), (7, access), (14, steps)] {
        let mut bytes = Vec::new();
        bytes.int(1);
        bytes.int(kind);
        bytes.extend(body);
        let peak = repeated_peak_of(|| record::parse(&bytes).is_ok());
        assert!(peak <= PER_BYTE * bytes.len(), "kind {kind}: {peak} bytes");
        assert!(peak > bytes.len(), "kind {kind} is not what it is to be");
    }
}

/// How a connection begins, and what it then sends in which pieces.
#[derive(Clone, Debug)]
struct Conversation {
    bytes: Vec<u8>,
    pieces: Vec<prop::sample::Index>,
}

fn beginning() -> impl Strategy<Value = Vec<u8>> {
    let connect = (damage(), any::<bool>(), any::<i64>()).prop_map(|(damage, fresh, session)| {
        let mut out = Vec::new();
        framed(&mut out, |out| {
            out.int(0);
            out.long(0);
            out.int(10_000);
            out.long(if fresh { 0 } else { session });
            out.buffer(Some(&[0; handshake::PASSWORD_BYTES]));
            out.boolean(false);
        });
        damaged(out, &damage)
    });
    prop_oneof![
        8 => connect,
        1 => "[a-z]{4}".prop_map(String::into_bytes),
        1 => "(srvr|mntr|wchp|dump|hash|cons|isro)".prop_map(String::into_bytes),
    ]
}

prop_compose! {
    fn conversation()(
        beginning in beginning(),
        requests in proptest::collection::vec((request(), damage()), 0..12),
        breaks_frames: bool,
        pieces in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) -> Conversation {
        let mut bytes = beginning;
        for (request, damage) in requests {
            let mut frame = Vec::new();
            framed(&mut frame, |out| out.extend(&request));
            let damage = if breaks_frames { damage } else { Damage::None };
            bytes.extend(damaged(frame, &damage));
        }
        Conversation { bytes, pieces }
    }
}

fn options() -> Options {
    let passwords = [("user".to_owned(), "password".to_owned())];
    let users = Users {
        passwords: passwords.into(),
    };
    Options {
        words: vec!["*".to_owned()],
        frame_bytes_max: FRAME_BYTES_MAX,
        extended_types: true,
        reconfig: true,
        standalone: false,
        sasl: Some(users.into()),
        sasl_may_fail: true,
        ..Options::default()
    }
}

/// A server, and how many conversations it still has.
struct Served {
    replica: Handle,
    zookeeper: ZooKeeper,
    left: usize,
}

async fn serve() -> Served {
    let config = Config {
        heartbeat: Duration::from_millis(10),
        election: Duration::from_millis(100),
        ..Config::default()
    };
    let hub = Hub::new();
    let replica = replica::start_in_memory(config, hub.sink()).await;
    let replica = replica.expect("nothing is on the disk that could be wrong");
    let mut status = replica.status_changes();
    let leads = status.wait_for(|status| status.leader != 0);
    let leads = tokio::time::timeout(PATIENCE, leads).await;
    leads.expect("it leads in time").expect("the replica runs");
    let gate = Gate::new(replica.clone(), hub, Limits::default());
    Served {
        replica,
        zookeeper: ZooKeeper::new(gate, options()),
        left: CONVERSATIONS_MAX,
    }
}

/// Says all that, and awaits the end of the connection; true unless the server panicked.
async fn converse(zookeeper: &ZooKeeper, conversation: &Conversation) -> bool {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let zookeeper = zookeeper.clone();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let arrival = Arrival::plain(peer);
    let served = tokio::spawn(async move {
        let entered = zookeeper.admit(arrival.peer, false).expect("there is room");
        zookeeper.serve(theirs, arrival, entered).await;
    });
    let (mut reads, mut writes) = tokio::io::split(ours);
    let bytes = &conversation.bytes;
    let mut ends: Vec<_> = conversation
        .pieces
        .iter()
        .map(|piece| piece.index(bytes.len() + 1))
        .collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let says = async {
        let mut start = 0;
        for end in ends {
            // It may have had enough.
            if writes.write_all(&bytes[start..end]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
            start = end;
        }
        writes.shutdown().await.ok();
    };
    let hears = async {
        let mut heard = [0; 4096];
        while reads.read(&mut heard).await.is_ok_and(|read| read > 0) {}
    };
    let talk = async {
        tokio::join!(says, hears);
        served.await.is_ok()
    };
    tokio::time::timeout(PATIENCE, talk)
        .await
        .expect("a connection whose client has left ends")
}

#[test]
fn connections_survive_whatever_is_sent() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let served = RefCell::new(runtime.block_on(serve()));
    TestRunner::default()
        .run(&conversation(), |conversation| {
            let mut served = served.borrow_mut();
            if served.left == 0 {
                runtime.block_on(served.replica.halt());
                *served = runtime.block_on(serve());
            }
            served.left -= 1;
            let talk = || runtime.block_on(converse(&served.zookeeper, &conversation));
            let (peak, went_well) = peak_of(talk);
            prop_assert!(went_well, "it panicked");
            let most = PER_BYTE * conversation.bytes.len() + CONNECTION_BESIDES;
            prop_assert!(peak <= most, "{peak} bytes");
            Ok(())
        })
        .expect("no conversation does harm");
    // Its threads take and give memory while they end.
    runtime.block_on(served.into_inner().replica.halt());
}
