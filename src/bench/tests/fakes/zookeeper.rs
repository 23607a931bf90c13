//! A server of a few of ZooKeeper's requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{Fate, Fault, bench, check_counted, check_found_out, listen, operations};

const STAT_BYTES: usize = 68;
const STAT_VERSION_AT: usize = 32;
const STAT_CHILDREN_AT: usize = 56;
const NODE_EXISTS: i32 = -110;
const NO_NODE: i32 = -101;

struct State {
    fault: Fault,
    requests: AtomicU64,
    connections: AtomicU64,
    tree: Mutex<Tree>,
}

#[derive(Default)]
struct Tree {
    zxid: i64,
    /// Versions.
    nodes: BTreeMap<String, i32>,
    /// Who watches what, and whether once.
    watches: Vec<(String, bool, UnboundedSender<Vec<u8>>)>,
}

impl Tree {
    fn stat(&self, path: &str) -> Vec<u8> {
        let mut stat = vec![0; STAT_BYTES];
        let below = format!("{}/", path.trim_end_matches('/'));
        let children = self.nodes.keys().filter(|node| node.starts_with(&below));
        let children = i32::try_from(children.count()).expect("few");
        stat[STAT_VERSION_AT..][..4].copy_from_slice(&self.nodes[path].to_be_bytes());
        stat[STAT_CHILDREN_AT..][..4].copy_from_slice(&children.to_be_bytes());
        stat
    }

    fn fire(&mut self, path: &str) {
        let mut event = reply(-1, self.zxid, 0);
        event.extend([0, 0, 0, 3, 0, 0, 0, 3]);
        event.extend(string(path));
        self.watches.retain(|(watched, once, session)| {
            if watched == path {
                session.send(event.clone()).ok();
            }
            watched != path || !once
        });
    }
}

fn reply(xid: i32, zxid: i64, error: i32) -> Vec<u8> {
    let mut frame = xid.to_be_bytes().to_vec();
    frame.extend(zxid.to_be_bytes());
    frame.extend(error.to_be_bytes());
    frame
}

fn string(text: &str) -> Vec<u8> {
    let length = i32::try_from(text.len()).expect("short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn int(bytes: &mut &[u8]) -> i32 {
    let (first, rest) = bytes.split_first_chunk().expect("an int");
    *bytes = rest;
    i32::from_be_bytes(*first)
}

fn text(bytes: &mut &[u8]) -> String {
    let length = usize::try_from(int(bytes)).expect("a length");
    let (text, rest) = bytes.split_at(length);
    *bytes = rest;
    String::from_utf8_lossy(text).into_owned()
}

impl State {
    /// The body of the answer to a request, or its error.
    fn answer(
        &self,
        tree: &mut Tree,
        opcode: i32,
        mut body: &[u8],
        session: &UnboundedSender<Vec<u8>>,
    ) -> Result<Vec<u8>, i32> {
        let path = text(&mut body);
        let nth = match (opcode, path.starts_with("/bench/")) {
            (1 | 2 | 4 | 5, true) | (8, _) => self.requests.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        match opcode {
            1 => {
                if tree.nodes.contains_key(&path) {
                    return Err(NODE_EXISTS);
                }
                tree.zxid += 1;
                tree.nodes.insert(path.clone(), 0);
                Ok(string(&path))
            }
            2 => {
                tree.nodes.remove(&path).ok_or(NO_NODE)?;
                tree.zxid += 1;
                Ok(Vec::new())
            }
            3 => {
                let known = tree.nodes.contains_key(&path);
                known.then(|| tree.stat(&path)).ok_or(NO_NODE)
            }
            4 => {
                if body == [1] {
                    tree.watches.push((path.clone(), true, session.clone()));
                }
                if self.fault == Fault::FindsNothing {
                    return Ok(Vec::new());
                }
                Ok([vec![0, 0, 0, 1, 7], tree.stat(&path)].concat())
            }
            5 => {
                match self.fault.fate(nth) {
                    Fate::Lost => {}
                    Fate::Refused => return Err(NO_NODE),
                    Fate::Done => {
                        tree.zxid += 1;
                        *tree.nodes.get_mut(&path).expect("filled in") += 1;
                        tree.fire(&path);
                    }
                }
                Ok(tree.stat(&path))
            }
            8 => Ok([vec![0, 0, 0, 1], string("name")].concat()),
            9 => Ok(string(&path)),
            106 => {
                tree.watches.push((path, false, session.clone()));
                Ok(vec![0; 4])
            }
            other => panic!("opcode {other}"),
        }
    }

    async fn serve(self: Arc<Self>, socket: TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let (mut reads, mut writes) = socket.into_split();
        let mut head = [0; 4];
        reads.read_exact(&mut head).await?;
        if head == *b"srvr" {
            let zxid = self.tree.lock().expect("no panic").zxid;
            let report = format!(
                "Zookeeper version: 3.9.6-abc, built on today\nZxid: {zxid:#x}\nMode: standalone\n"
            );
            return writes.write_all(report.as_bytes()).await;
        }
        reads.read_exact(&mut [0; 45]).await?;
        let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let mut welcome = vec![0, 0, 0, 0, 0, 0, 0x75, 0x30];
        welcome.extend(number.to_be_bytes());
        welcome.extend([0, 0, 0, 16]);
        welcome.extend([1; 17]);
        let (frames, mut waiting) = unbounded_channel::<Vec<u8>>();
        frames.send(welcome).ok();
        tokio::spawn(async move {
            while let Some(frame) = waiting.recv().await {
                let length = u32::try_from(frame.len()).expect("short");
                writes.write_u32(length).await?;
                writes.write_all(&frame).await?;
            }
            std::io::Result::Ok(())
        });
        let mut held = None;
        loop {
            let mut frame = vec![0; reads.read_u32().await? as usize];
            reads.read_exact(&mut frame).await?;
            let mut body = &frame[..];
            let (xid, opcode) = (int(&mut body), int(&mut body));
            if opcode == -11 {
                let watches = &mut self.tree.lock().expect("no panic").watches;
                watches.retain(|(.., session)| !session.same_channel(&frames));
                frames.send(reply(xid, 0, 0)).ok();
                return Ok(());
            }
            // Events come before what shows their change, and after what sets their watch.
            let mut tree = self.tree.lock().expect("no panic");
            let answer = self.answer(&mut tree, opcode, body, &frames);
            let mut frame = reply(xid, tree.zxid, answer.as_ref().err().copied().unwrap_or(0));
            frame.extend(answer.unwrap_or_default());
            let swaps = self.fault == Fault::SwapsAnswers && opcode == 5;
            match held.take() {
                None if swaps => held = Some(frame),
                before => {
                    frames.send(frame).ok();
                    before.map(|before| frames.send(before).ok());
                }
            }
        }
    }
}

/// Starts a server on a free port; it ends with the test's runtime.
async fn serve(fault: Fault) -> (Arc<State>, String) {
    let mut tree = Tree::default();
    tree.nodes.insert("/".into(), 0);
    let state = Arc::new(State {
        fault,
        requests: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        tree: Mutex::new(tree),
    });
    let (listener, endpoint) = listen().await;
    let served = state.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(served.clone().serve(socket));
        }
    });
    (state, endpoint)
}

/// Runs `triglot bench zookeeper` on 50 nodes and returns its series, and how many requests the
/// measurement made the server answer.
async fn measure(state: &State, endpoint: &str, command: &str) -> anyhow::Result<(Value, u64)> {
    let run = async |command: &str| {
        let where_to = format!("--endpoints {endpoint} --key-space-size 50");
        bench(&format!("zookeeper {command} {where_to}")).await
    };
    run("fill").await?;
    let before = state.requests.load(Ordering::SeqCst);
    state.connections.store(0, Ordering::SeqCst);
    let [series] = <[Value; 1]>::try_from(run(command).await?).expect("one server");
    let reached = state.requests.load(Ordering::SeqCst) - before;
    Ok((series, reached))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_counted_reached_the_server() {
    for command in [
        "set --sessions 2 --outstanding 4",
        "set --sessions 3 --rate 500",
        "set --outstanding 2 --val-size 200000",
        "get --sessions 2 --outstanding 4",
        "get --sync --outstanding 4",
        "children --outstanding 2",
        "create --sessions 2 --outstanding 3",
        "create --keep --ephemeral",
        "mixed --read-ratio 0.5 --outstanding 8",
    ] {
        let (state, endpoint) = serve(Fault::None).await;
        let outcome = measure(&state, &endpoint, command).await;
        let (series, reached) = outcome.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        check_counted(&series, reached, command);
        assert_eq!(series["version"], "3.9.6", "{command}");
    }
}

/// Nodes that are there are not made again, and sessions are not left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filling_in_makes_what_is_missing() {
    let (state, endpoint) = serve(Fault::None).await;
    {
        let mut tree = state.tree.lock().expect("no panic");
        tree.nodes.insert("/bench".into(), 0);
        tree.nodes.insert("/bench/000000007".into(), 0);
    }
    let outcome = measure(&state, &endpoint, "fill --sessions 4").await;
    let (series, reached) = outcome.expect("it serves");
    assert_eq!((operations(&series), reached), (0, 50));
    assert_eq!(series["failures"]["error -110"], 50);
    assert_eq!(state.tree.lock().expect("no panic").nodes.len(), 52);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_writes_is_found_out() {
    let (state, endpoint) = serve(Fault::LosesWrites).await;
    check_found_out(measure(&state, &endpoint, "set --outstanding 4").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_a_sessions_order_is_found_out() {
    let (state, endpoint) = serve(Fault::SwapsAnswers).await;
    let outcome = measure(&state, &endpoint, "set --outstanding 4").await;
    let error = outcome.expect_err("answers are swapped");
    assert!(error.to_string().contains("in place of"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_empty_answers_are_counted() {
    let (state, endpoint) = serve(Fault::RefusesWrites).await;
    let outcome = measure(&state, &endpoint, "set --outstanding 4").await;
    let (series, reached) = outcome.expect("refusals do not end a benchmark");
    let refused = series["failures"]["error -101"].as_u64().expect("some");
    assert!(refused > 0);
    assert_eq!(operations(&series) + refused, reached);

    let (state, endpoint) = serve(Fault::FindsNothing).await;
    let outcome = measure(&state, &endpoint, "get --outstanding 4").await;
    let (series, reached) = outcome.expect("it answers");
    assert_eq!(series["misses"].as_u64(), Some(reached));
}

/// Every set must reach every watcher before a slice is over; watches that fire once may miss
/// those in between, but not the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_write() {
    for command in [
        "watch-latency --rate 200 --sessions 10",
        "watch-fanout --outstanding 4 --sessions 3",
    ] {
        let (state, endpoint) = serve(Fault::None).await;
        let outcome = measure(&state, &endpoint, command).await;
        let (series, sets) = outcome.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        let sessions = if command.contains("10") { 10 } else { 3 };
        assert!(sets > 0);
        assert_eq!(operations(&series), sets * sessions, "{command}");
    }
    let (state, endpoint) = serve(Fault::None).await;
    let command = "watch-fanout --one-shot --outstanding 4 --sessions 3";
    let (series, _) = measure(&state, &endpoint, command)
        .await
        .expect("it serves");
    assert!(operations(&series) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_in_a_storm() {
    for command in ["connect", "connect --resume"] {
        let (state, endpoint) = serve(Fault::None).await;
        let outcome = measure(&state, &endpoint, &format!("{command} --sessions 4")).await;
        let (series, _) = outcome.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        let opened = state.connections.load(Ordering::SeqCst);
        let counted = operations(&series);
        assert!(counted > 0, "{command}");
        // Those that fill the tree in, look at it, and begin and end with a session kept.
        assert!(
            (counted..counted + 20).contains(&opened),
            "{command}: {opened}"
        );
    }
}
