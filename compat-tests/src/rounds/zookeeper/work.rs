//! What a session does while members die, over and over: registers and compare-and-set counters
//! that all share, reads that are synced or watched, ephemeral and sequential nodes, and a
//! pipeline of writes to a node of its own that it then reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::Rng as _;
use tokio::sync::watch;

use super::judge::{Operation, Seen};
use super::session::{Resumed, Session};
use super::wire::{Reply, Request, error};
use crate::rounds::SERVE_DEADLINE;

/// Nodes that all set.
pub const REGISTERS: usize = 8;
/// Nodes that all set when they are as they were read.
pub const COUNTERS: usize = 4;
/// Ephemeral nodes of one session.
const EPHEMERALS: usize = 3;
/// Writes in a pipeline.
const PIPELINED: i64 = 8;
/// One in so many steps ends the session, silently or in order.
const STEPS_TO_END: u32 = 300;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its client works.
    Lives,
    /// Its client closed it, and was told so.
    Closed,
    /// Its client vanished between two requests, and it lives until its timeout.
    Vanished,
    /// Its client does not go on with it; it may be over already.
    Abandoned,
}

/// A session as its client knows it.
#[derive(Clone, Debug)]
pub struct Life {
    /// Where it stands.
    pub state: State,
    /// When the latest request that was answered was sent.
    pub alive_at: Instant,
    /// How long it outlives silence.
    pub timeout: Duration,
    /// Its ephemeral nodes, as far as their creation was acknowledged and their deletion not tried.
    pub ephemerals: BTreeSet<String>,
}

/// What all clients share.
pub struct Shared {
    /// Where they connect.
    pub members: Vec<SocketAddr>,
    /// All sessions there have been, by their numbers.
    pub lives: watch::Sender<BTreeMap<i64, Life>>,
    /// How many steps were answered.
    pub done: watch::Sender<[u64; 1]>,
    start: Instant,
    stop: AtomicBool,
}

impl Shared {
    /// Nobody has done anything yet.
    pub fn new(members: Vec<SocketAddr>) -> Self {
        Self {
            members,
            lives: watch::Sender::default(),
            done: watch::Sender::default(),
            start: Instant::now(),
            stop: AtomicBool::new(false),
        }
    }

    /// Ends the work.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).expect("a run is shorter than an age")
    }

    /// Changes what is known of a session.
    fn note(&self, id: i64, change: impl FnOnce(&mut Life)) {
        self.lives.send_modify(|lives| {
            change(lives.get_mut(&id).expect("every session is entered"));
        });
    }

    fn enter(&self, session: &Session) {
        let life = Life {
            state: State::Lives,
            alive_at: session.alive_at(),
            timeout: session.key.timeout,
            ephemerals: BTreeSet::new(),
        };
        self.lives.send_modify(|lives| {
            lives.insert(session.key.id, life);
        });
    }
}

/// A step that was answered, or whose connection broke.
type Answered = Option<()>;

/// One client.
pub struct Worker<'a> {
    shared: &'a Shared,
    slot: usize,
    session: Session,
    /// The last write to its own node that is known to have happened.
    own: i64,
    values: u64,
    names: u64,
    seen: Seen,
}

/// Works in `slot` until the end, and hands over what was seen.
///
/// # Errors
/// When a promise is broken.
pub async fn work(shared: &Shared, slot: usize) -> Result<Seen> {
    let session = open(shared, slot).await?;
    let mut worker = Worker {
        shared,
        slot,
        session,
        own: 0,
        values: 0,
        names: 0,
        seen: Seen::default(),
    };
    while !shared.stop.load(Ordering::Relaxed) {
        let answered = worker.step().await?;
        worker.note_alive();
        if answered.is_none() {
            worker.resume().await?;
        } else {
            shared.done.send_modify(|[steps]| *steps += 1);
        }
    }
    worker.end().await?;
    Ok(worker.seen)
}

async fn open(shared: &Shared, at: usize) -> Result<Session> {
    let session = Session::open(&shared.members, at, Instant::now() + SERVE_DEADLINE).await?;
    shared.enter(&session);
    Ok(session)
}

impl Worker<'_> {
    async fn step(&mut self) -> Result<Answered> {
        let (kind, ending) = {
            let mut rng = rand::rng();
            (rng.random_range(0..8), rng.random_range(0..STEPS_TO_END))
        };
        match ending {
            0 => return self.vanish().await,
            1 => return self.close().await,
            _ => {}
        }
        match kind {
            0 | 1 => self.set_register().await,
            2 => self.read_register().await,
            3 => self.watch_register().await,
            4 => self.compare_and_set().await,
            5 => self.write_in_a_pipeline().await,
            6 => self.change_ephemerals().await,
            _ => self.create_in_sequence().await,
        }
    }

    fn note_alive(&self) {
        let alive_at = self.session.alive_at();
        let id = self.session.key.id;
        self.shared.note(id, |life| life.alive_at = alive_at);
    }

    /// The reply to the only request, or nothing if there is none, or the session is no more.
    async fn ask(&mut self, request: Request) -> Result<Option<Reply>> {
        let replies = self.ask_all(&[request]).await?;
        Ok(replies.and_then(|mut replies| replies.pop()))
    }

    /// The replies to all requests, or nothing if some are missing.
    async fn ask_all(&mut self, requests: &[Request]) -> Result<Option<Vec<Reply>>> {
        let pipeline = self.session.pipeline(requests).await?;
        let lost = pipeline
            .replies
            .iter()
            .any(|reply| [error::SESSION_EXPIRED, error::SESSION_MOVED].contains(&reply.error));
        Ok((!pipeline.broke && !lost).then_some(pipeline.replies))
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("{}-{}", self.slot, self.values)
    }

    /// Sets a node and notes it, whether it is known to have happened or not.
    async fn set(&mut self, node: String, expected: i32) -> Result<Answered> {
        let value = self.value();
        let began_us = self.shared.now_us();
        let reply = self.ask(Request::set(&node, &value, expected)).await?;
        let Some(reply) = reply else {
            self.seen.unknown.push((node, value));
            return Ok(None);
        };
        match reply.error {
            0 => {
                let version = reply.stat()?.version;
                ensure!(
                    expected == -1 || version == expected + 1,
                    "{node} had version {expected} and was set to version {version}"
                );
                self.seen.operations.push(Operation {
                    node,
                    value,
                    version,
                    began_us,
                    ended_us: self.shared.now_us(),
                    is_write: true,
                });
            }
            error::BAD_VERSION if expected != -1 => {}
            code => bail!("setting {node}: error {code}"),
        }
        Ok(Some(()))
    }

    async fn set_register(&mut self) -> Result<Answered> {
        let node = random_node("reg", REGISTERS);
        self.set(node, -1).await
    }

    /// Reads a node after a sync, and notes it; answers its version.
    async fn read_synced(&mut self, node: &str) -> Result<Option<(i32, String)>> {
        let began_us = self.shared.now_us();
        let requests = [Request::sync(node), Request::get(node, false)];
        let Some(replies) = self.ask_all(&requests).await? else {
            return Ok(None);
        };
        ensure!(replies[1].error == 0, "reading {node}: {:?}", replies[1]);
        let (version, value) = (replies[1].stat()?.version, replies[1].text()?);
        self.seen.operations.push(Operation {
            node: node.to_owned(),
            value: value.clone(),
            version,
            began_us,
            ended_us: self.shared.now_us(),
            is_write: false,
        });
        Ok(Some((version, value)))
    }

    async fn read_register(&mut self) -> Result<Answered> {
        let node = random_node("reg", REGISTERS);
        Ok(self.read_synced(&node).await?.map(|_| ()))
    }

    async fn watch_register(&mut self) -> Result<Answered> {
        let node = random_node("reg", REGISTERS);
        let reply = self.ask(Request::get(&node, true)).await?;
        Ok(reply.map(|_| ()))
    }

    async fn compare_and_set(&mut self) -> Result<Answered> {
        let node = random_node("cnt", COUNTERS);
        let Some((version, _)) = self.read_synced(&node).await? else {
            return Ok(None);
        };
        self.set(node, version).await
    }

    /// Sets its own node to the next numbers in one go, and reads the last of them behind. As many
    /// writes have happened as the number says, whatever became of the connection.
    async fn write_in_a_pipeline(&mut self) -> Result<Answered> {
        let node = self.own_node();
        let numbers = self.own + 1..=self.own + PIPELINED;
        let mut requests: Vec<_> = numbers
            .map(|number| Request::set(&node, &number.to_string(), -1))
            .collect();
        requests.push(Request::get(&node, false));
        let pipeline = self.session.pipeline(&requests).await?;
        for (reply, number) in pipeline.replies.iter().zip(self.own + 1..) {
            if reply.error != 0 {
                return Ok(None);
            }
            if number > self.own + PIPELINED {
                let read = reply.text()?;
                ensure!(
                    read == (number - 1).to_string(),
                    "{node} reads {read:?} behind the session's own write of {}",
                    number - 1
                );
            }
            let version = i64::from(reply.stat()?.version);
            ensure!(
                version == number.min(self.own + PIPELINED),
                "write {number} of {node} gave it version {version}"
            );
        }
        let written = pipeline.replies.len().min(PIPELINED as usize);
        self.own += written as i64;
        Ok((!pipeline.broke).then_some(()))
    }

    fn own_node(&self) -> String {
        format!("/own/{}", self.slot)
    }

    /// Finds out what became of the writes without an answer: those that happened are the first.
    async fn learn_own(&mut self) -> Result<Answered> {
        let node = self.own_node();
        let requests = [Request::sync(&node), Request::get(&node, false)];
        let Some(replies) = self.ask_all(&requests).await? else {
            return Ok(None);
        };
        let number: i64 = replies[1].text()?.parse()?;
        let version = i64::from(replies[1].stat()?.version);
        ensure!(
            number == version,
            "{node} holds write {number} after {version} writes: one before it is missing"
        );
        ensure!(
            (self.own..=self.own + PIPELINED).contains(&number),
            "{node} holds write {number}, though {} was acknowledged",
            self.own
        );
        self.own = number;
        Ok(Some(()))
    }

    async fn change_ephemerals(&mut self) -> Result<Answered> {
        let id = self.session.key.id;
        let owned = self.shared.lives.borrow()[&id].ephemerals.clone();
        if owned.len() < EPHEMERALS {
            self.names += 1;
            let name = format!("s{id:x}-{}-{}", self.slot, self.names);
            let create = Request::create(&format!("/eph/{name}"), "", 1);
            let Some(reply) = self.ask(create).await? else {
                return Ok(None);
            };
            ensure!(reply.error == 0, "creating {name}: {reply:?}");
            self.shared.note(id, |life| {
                life.ephemerals.insert(name);
            });
            return Ok(Some(()));
        }
        let name = owned.first().context("there are some")?;
        self.shared.note(id, |life| {
            life.ephemerals.remove(name);
        });
        let delete = Request::delete(&format!("/eph/{name}"));
        let Some(reply) = self.ask(delete).await? else {
            return Ok(None);
        };
        ensure!(
            reply.error == 0,
            "the ephemeral {name} of a living session was gone: {reply:?}"
        );
        Ok(Some(()))
    }

    async fn create_in_sequence(&mut self) -> Result<Answered> {
        let reply = self.ask(Request::create("/seq/n", "", 2)).await?;
        let Some(reply) = reply else {
            self.seen.unknown_in_sequence += 1;
            return Ok(None);
        };
        ensure!(reply.error == 0, "creating in sequence: {reply:?}");
        let name = reply.text()?;
        let name = name.strip_prefix("/seq/").context("another parent")?;
        let entry = (reply.stat()?.czxid, name.to_owned());
        self.seen.in_sequence.push(entry);
        Ok(Some(()))
    }

    /// The client dies: its session must end, and its ephemeral nodes with it.
    async fn vanish(&mut self) -> Result<Answered> {
        self.session.drop_connection();
        self.note_alive();
        self.begin_anew(State::Vanished).await
    }

    async fn close(&mut self) -> Result<Answered> {
        match self.ask(Request::close()).await? {
            Some(reply) => {
                ensure!(reply.error == 0, "closing a session: {reply:?}");
                self.begin_anew(State::Closed).await
            }
            // Whether it is closed, resuming it will show.
            None => self.begin_anew(State::Abandoned).await,
        }
    }

    /// Another session takes this one's place.
    async fn begin_anew(&mut self, state: State) -> Result<Answered> {
        let id = self.session.key.id;
        self.shared.note(id, |life| life.state = state);
        self.seen.events += self.session.events;
        self.seen.sessions += 1;
        let at = rand::rng().random_range(0..self.shared.members.len());
        self.session = open(self.shared, at).await?;
        self.learn_own().await
    }

    /// Goes on after the connection broke, with the same session unless it is rightly over.
    async fn resume(&mut self) -> Result<()> {
        let deadline = Instant::now() + SERVE_DEADLINE;
        loop {
            ensure!(Instant::now() < deadline, "the session is not served");
            self.note_alive();
            let learned = match self.session.resume(deadline).await? {
                Resumed::GoesOn => {
                    self.seen.resumptions += 1;
                    self.learn_own().await?
                }
                Resumed::Over => {
                    self.seen.expiries += 1;
                    self.begin_anew(State::Abandoned).await?
                }
            };
            self.note_alive();
            if learned.is_some() {
                return Ok(());
            }
        }
    }

    /// Looks once more at everything it watches, and ends its session.
    async fn end(&mut self) -> Result<()> {
        loop {
            let mut whole = Some(());
            for number in 0..REGISTERS {
                let read = self.read_synced(&format!("/reg/{number}")).await?;
                whole = whole.and(read.map(|_| ()));
            }
            if whole.is_some() {
                break;
            }
            self.resume().await?;
        }
        let id = self.session.key.id;
        let closed = self.ask(Request::close()).await?;
        let state = closed.map_or(State::Abandoned, |_| State::Closed);
        self.shared.note(id, |life| life.state = state);
        self.seen.events += self.session.events;
        self.seen.sessions += 1;
        Ok(())
    }
}

fn random_node(kind: &str, count: usize) -> String {
    format!("/{kind}/{}", rand::rng().random_range(0..count))
}

/// Makes the nodes that everybody works on.
///
/// # Errors
/// When that fails.
pub async fn prepare(session: &mut Session, slots: usize) -> Result<()> {
    let mut paths: Vec<_> = ["reg", "cnt", "own", "eph", "seq"]
        .map(|name| format!("/{name}"))
        .into();
    paths.extend((0..REGISTERS).map(|n| format!("/reg/{n}")));
    paths.extend((0..COUNTERS).map(|n| format!("/cnt/{n}")));
    paths.extend((0..slots).map(|n| format!("/own/{n}")));
    let creates: Vec<_> = paths
        .iter()
        .map(|path| Request::create(path, "0", 0))
        .collect();
    session.do_all(&creates).await.context("making the nodes")
}

/// The names below `/eph`, or below another node, as of now.
///
/// # Errors
/// When they cannot be read in time.
pub async fn names_below(session: &mut Session, node: &str) -> Result<Vec<String>> {
    let requests = [Request::sync(node), Request::children(node)];
    let replies = settled(session, &requests).await?;
    replies[1].names()
}

/// The version and the data of a node as of now.
///
/// # Errors
/// When they cannot be read in time.
pub async fn read(session: &mut Session, node: &str) -> Result<(i32, String)> {
    let requests = [Request::sync(node), Request::get(node, false)];
    let replies = settled(session, &requests).await?;
    ensure!(replies[1].error != error::NO_NODE, "{node} is not there");
    Ok((replies[1].stat()?.version, replies[1].text()?))
}

/// The replies to requests that may be asked again, wherever the session has to go for them.
async fn settled(session: &mut Session, requests: &[Request]) -> Result<Vec<Reply>> {
    let deadline = Instant::now() + SERVE_DEADLINE;
    loop {
        let pipeline = session.pipeline(requests).await?;
        if !pipeline.broke {
            return Ok(pipeline.replies);
        }
        let resumed = session.resume(deadline).await?;
        ensure!(resumed == Resumed::GoesOn, "the observer's session is over");
    }
}
