//! What all clients share: the keys, the members, the clock, and how each notes what it sees.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::Rng as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::history::{
    Answer, Answered, Ask, Bind, Found, Guard, Key, Life, Line, Moment, Operation, Shown, Text,
    Value, value,
};
use crate::oracle::Cluster;
use crate::rounds::BACKOFF;

/// The node above all keys.
pub const PARENT: &str = "/h";
/// Keys that all write, over and over.
pub const REGISTERS: Key = 4;
/// Keys, behind the registers, that all want to create for themselves, and that end with them.
pub const LOCKS: Key = 3;
/// How long a client waits between two steps: etcd v2 keeps a thousand events, and who waits for them
/// must keep up.
const PAUSE: Duration = Duration::from_millis(15);

/// All keys.
pub fn keys() -> Vec<Key> {
    (0..REGISTERS + LOCKS).collect()
}

/// A key as it is spelled.
pub fn path(key: Key) -> String {
    format!("{PARENT}/{key}")
}

/// The key that is spelled so.
///
/// # Errors
/// When it is none of ours.
pub fn key_at(path: &str) -> Result<Key> {
    let name = path
        .strip_prefix(PARENT)
        .and_then(|path| path.strip_prefix('/'));
    let key = name.and_then(|name| name.parse().ok());
    key.filter(|key| *key < REGISTERS + LOCKS)
        .with_context(|| format!("{path:?} is no key of the run"))
}

/// Any of the registers.
pub fn any_register() -> Key {
    rand::rng().random_range(0..REGISTERS)
}

/// Any of the locks.
pub fn any_lock() -> Key {
    rand::rng().random_range(REGISTERS..REGISTERS + LOCKS)
}

/// A number below `end`.
pub fn chance(end: u32) -> u32 {
    rand::rng().random_range(0..end)
}

/// Where a member's clients connect.
#[derive(Clone)]
pub struct Member {
    /// etcd v3's.
    pub channel: Channel,
    /// etcd v2's.
    pub port: u16,
    /// ZooKeeper's.
    pub zookeeper: SocketAddr,
}

/// Whose client.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// etcd v3's.
    EtcdV3,
    /// etcd v2's.
    EtcdV2,
    /// ZooKeeper's.
    Zookeeper,
}

/// How many steps of each protocol's clients were answered.
pub type Done = [u64; 3];

/// What all clients share.
pub struct Shared {
    /// Where they connect.
    pub members: Vec<Member>,
    /// How much they have done.
    pub done: watch::Sender<Done>,
    start: Instant,
    stop: AtomicBool,
}

impl Shared {
    /// Nobody has done anything yet.
    pub fn new(cluster: &Cluster) -> Self {
        let member = |member: &crate::oracle::Member| Member {
            channel: member.channel.clone(),
            port: member.client_port,
            zookeeper: member.zookeeper_address(),
        };
        Self {
            members: cluster.members.iter().map(member).collect(),
            done: watch::Sender::default(),
            start: Instant::now(),
            stop: AtomicBool::new(false),
        }
    }

    /// Ends the work.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the work has ended.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Microseconds from the start of the run.
    pub fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    /// The same of another moment.
    pub fn us(&self, moment: Instant) -> u64 {
        micros(moment.duration_since(self.start))
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("a run is shorter than an age")
}

/// What one client has noted.
#[derive(Default)]
pub struct Notes {
    /// What it asked.
    pub operations: Vec<Operation>,
    /// Its leases or sessions.
    pub lives: Vec<Life>,
    /// What each of its sessions was shown and told.
    pub sessions: Vec<Vec<Line>>,
}

/// What every client has, whatever it speaks.
pub struct Client {
    /// What it shares.
    pub shared: Arc<Shared>,
    /// What it has noted.
    pub notes: Notes,
    id: u32,
    speaks: Protocol,
    /// How many values it has written.
    number: u32,
    /// The member that it asks now.
    at: usize,
    /// Whether each member failed when it was last asked.
    failed: Vec<bool>,
}

impl Client {
    /// One that has done nothing.
    pub fn new(shared: &Arc<Shared>, speaks: Protocol, id: u32) -> Self {
        Self {
            notes: Notes::default(),
            id,
            speaks,
            number: 0,
            at: id as usize,
            failed: vec![false; shared.members.len()],
            shared: shared.clone(),
        }
    }

    /// Whether there is more to do; awaits the time of the next step.
    pub async fn goes_on(&self) -> bool {
        tokio::time::sleep(PAUSE).await;
        !self.shared.stopped()
    }

    /// A value that nothing else writes.
    pub fn fresh_value(&mut self) -> Value {
        self.number += 1;
        value(self.id, self.number)
    }

    /// The member to ask next: another one each time, since a stale one must not hide behind a fresh
    /// one. One that has failed is asked only once it takes connections.
    pub async fn member(&mut self) -> Member {
        loop {
            self.at = (self.at + 1) % self.shared.members.len();
            let member = &self.shared.members[self.at];
            if !self.failed[self.at] || TcpStream::connect(member.zookeeper).await.is_ok() {
                return member.clone();
            }
            tokio::time::sleep(BACKOFF).await;
        }
    }

    /// Notes whether the member asked last has answered.
    pub fn note_member(&mut self, answered: bool) {
        self.failed[self.at] = !answered;
        if answered {
            let speaks = self.speaks as usize;
            self.shared.done.send_modify(|done| done[speaks] += 1);
        }
    }

    /// Notes what was asked of a key, and the answer, if there was one.
    pub fn note(&mut self, key: Key, began_us: u64, ask: Ask, answer: Option<(Moment, Answer)>) {
        let ended_us = self.shared.now_us();
        let answered = answer.map(|(at, answer)| Answered {
            ended_us,
            at,
            answer,
        });
        self.notes.operations.push(Operation {
            client: self.id,
            key,
            began_us,
            ask,
            answered,
        });
    }

    /// The lease or session that it opened last.
    pub fn life(&mut self) -> Option<&mut Life> {
        self.notes.lives.last_mut()
    }
}

/// A write that is asked for.
pub fn write(value: Value, guard: Guard, bind: Bind) -> Ask {
    Ask::Write { value, guard, bind }
}

/// That something is there, of which nothing is said.
pub fn something() -> Found {
    Found::Entry(Shown::default())
}

/// A value as it is sent.
pub fn text(value: Value) -> String {
    Text(value).to_string()
}
