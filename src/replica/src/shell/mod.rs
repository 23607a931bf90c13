//! Where real time, threads and the disk enter.
//!
//! - the *raft thread* ([`raft_thread`]) owns the core and the log. One round: take all that arrived,
//!   make it one entry, send, write, sync, send. Everything on the way of a single write happens
//!   here, without a hop to another thread.
//! - the *apply thread* ([`applier`]) applies what is committed, so that a huge delete does not stop
//!   heartbeats; small batches are applied by the raft thread itself while it has nothing to do.
//! - the *checkpoint thread* ([`checkpointer`]) writes images and increments, and reads snapshots.
//! - tokio tasks: one for each peer ([`crate::transport`]), one that tells the leader which clients
//!   are alive ([`touches`]), one that publishes this member's name.

pub mod applier;
pub mod checkpointer;
pub mod inbox;
pub mod raft_thread;
mod recover;
pub mod start;
pub mod touches;

use crate::config::Config;
use crate::expiry::Expiry;
use crate::machine::{Machine, Owner, Place, StepOutcome};
use crate::proposals::{PROPOSAL_BYTES_MAX, Waiter};
use crate::roster::Roster;
use crate::stats::Stats;
use crate::transport::Peers;
use crate::{Failure, Status, Unavailable};
use bytes::Bytes;
use checkpointer::Job;
use inbox::{Inbox, ReadReply};
use keyspace::Reader;
use parking_lot::{Mutex, RwLock};
use raft_thread::ApplyJob;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use store::ImageSink;
use tokio::sync::{Notify, oneshot, watch};
use touches::Touches;

/// Proposals of this member that are not answered yet. etcd refuses once 5,000 entries wait to be
/// applied; here one entry carries many commands, so commands are counted.
const PROPOSALS_MAX: usize = 20_000;
/// Their content, in bytes.
const PROPOSALS_BYTES_MAX: usize = 128 << 20;

/// What threads, tasks and handles of one replica share.
pub struct Shared {
    pub config: Config,
    pub member: u64,
    pub cluster: u64,
    /// This run, see [`Machine::next_incarnation`].
    pub incarnation: u64,
    pub inbox: Inbox,
    pub stats: Stats,
    pub peers: Peers,
    pub reader: Reader,
    pub roster: RwLock<Arc<Roster>>,
    pub roster_changed: watch::Sender<()>,
    pub status: watch::Sender<Status>,
    pub failed: watch::Sender<Option<Arc<Failure>>>,
    /// Threads that have ended.
    pub ended: watch::Sender<usize>,
    pub published: watch::Sender<bool>,
    /// See [`crate::core::View::alone`].
    pub alone: AtomicBool,
    pub applied: AtomicU64,
    pub committed: AtomicU64,
    /// Since when the leader leads that this member knows of.
    pub leader_since: Mutex<Option<Instant>>,
    pub clocks: Mutex<Expiry>,
    pub lease_ended: Notify,
    pub touches: Touches,
    /// Reads that are possible once an entry is applied.
    pub reads: Mutex<Vec<(u64, Vec<ReadReply>)>>,
    pub in_flight: Arc<InFlight>,
    pub apply_jobs: Sender<ApplyJob>,
    pub checkpoint_jobs: Sender<Job>,
    pub runtime: tokio::runtime::Handle,
    pub started: Instant,
}

impl Shared {
    /// Lets everyone know of a roster that has changed.
    pub fn replace_roster(self: &Arc<Self>, roster: &Roster) {
        let roster = Arc::new(roster.clone());
        self.peers.update(&roster, self);
        *self.roster.write() = roster;
        self.tell_learner();
        self.roster_changed.send_replace(());
    }

    /// Lets everyone know whether this member is a learner.
    pub fn tell_learner(&self) {
        let roster = Arc::clone(&self.roster.read());
        let learner = roster.get(self.member).is_some_and(|own| own.learner);
        self.stats.is_learner.set(u64::from(learner));
        self.status
            .send_if_modified(|status| std::mem::replace(&mut status.learner, learner) != learner);
    }
}

/// Proposals that are not answered yet.
#[derive(Default)]
pub struct InFlight {
    proposals: AtomicUsize,
    bytes: AtomicUsize,
}

/// The right to have a proposal under way; given back when dropped.
pub struct Permit {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

/// The way back to whoever proposed.
pub struct Reply {
    to: oneshot::Sender<Result<Vec<StepOutcome>, Unavailable>>,
    _permit: Permit,
}

/// A snapshot that arrived: durable but for its name, and the machine it makes.
pub struct Snapshot {
    /// The Raft message that announced it.
    pub message: Bytes,
    pub machine: Machine,
    pub image: Box<dyn ImageSink>,
    /// Whether it was taken, for the sender.
    pub taken: oneshot::Sender<bool>,
}

impl Shared {
    /// Whose disk a checkpoint is written to.
    pub fn owner(&self) -> Owner {
        Owner {
            member: self.member,
            cluster: self.cluster,
            incarnation: self.incarnation,
        }
    }

    /// Milliseconds on a clock that never runs backwards.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The end, for a reason.
    pub fn fail(&self, failure: Failure) {
        tracing::error!(%failure, "the member stops");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(Arc::new(failure));
            }
            first
        });
        self.inbox.order(inbox::Order::Stop);
    }

    /// The machine took in everything up to `place`: reads that waited for it are possible.
    pub fn applied_up_to(&self, place: Place) {
        self.stats.applied.set(place.index);
        let mut reads = self.reads.lock();
        // Under the lock: a read either sees this or is seen here.
        self.applied.store(place.index, Ordering::Release);
        if reads.is_empty() {
            return;
        }
        let (ready, waiting) = std::mem::take(&mut *reads)
            .into_iter()
            .partition(|(index, _)| *index <= place.index);
        *reads = waiting;
        drop(reads);
        for reply in Vec::into_iter(ready).flat_map(|(_, replies): (u64, Vec<ReadReply>)| replies) {
            reply.send(Ok(())).ok();
        }
    }

    /// These reads are possible once `index` is applied.
    pub fn answer_reads(&self, index: u64, replies: Vec<ReadReply>) {
        let mut reads = self.reads.lock();
        if self.applied.load(Ordering::Acquire) < index {
            reads.push((index, replies));
            return;
        }
        drop(reads);
        for reply in replies {
            reply.send(Ok(())).ok();
        }
    }
}

impl InFlight {
    /// Room for one more, if there is.
    pub fn admit(self: &Arc<InFlight>, bytes: usize) -> Result<Permit, Unavailable> {
        let permit = Permit {
            in_flight: Arc::clone(self),
            bytes,
        };
        let before = self.proposals.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before < PROPOSALS_MAX
            && bytes <= PROPOSAL_BYTES_MAX
            && bytes_before + bytes <= PROPOSALS_BYTES_MAX;
        // Refused, the permit is dropped, which takes the numbers back.
        fits.then_some(permit).ok_or(Unavailable::TooMany)
    }

    /// How many there are.
    pub fn proposals(&self) -> usize {
        self.proposals.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.proposals.fetch_sub(1, Ordering::Relaxed);
        self.in_flight
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Reply {
    pub fn new(
        to: oneshot::Sender<Result<Vec<StepOutcome>, Unavailable>>,
        permit: Permit,
    ) -> Reply {
        Reply {
            to,
            _permit: permit,
        }
    }

    /// Answers.
    pub fn send(self, answer: Result<Vec<StepOutcome>, Unavailable>) {
        // Who gave up meanwhile was told that the outcome is unknown.
        self.to.send(answer).ok();
    }
}

impl Waiter for Reply {
    fn gave_up(&self) -> bool {
        self.to.is_closed()
    }
}

/// The wall clock, for stamps.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
