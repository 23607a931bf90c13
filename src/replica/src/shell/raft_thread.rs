//! The raft thread: one round after another, see [`super`].

use super::applier::{Applier, is_light};
use super::inbox::{Order, ReadReply, Work};
use super::{Reply, Shared, Snapshot, wall_ms};
use crate::Failure;
use crate::core::{Core, Outgoing, ReadReady, Refused, Role, View};
use crate::entry::Step;
use crate::expiry::CHECK_MS;
use crate::machine::Place;
use crate::proposals::{Committed, Proposals};
use crate::reads::Reads;
use crate::roster::Roster;
use bytes::Bytes;
use keyspace::{Command, Cut, WallMs};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::LogEntry;
use tokio::sync::oneshot;

/// Entries that wait for the apply thread, in bytes. Beyond it this member takes in no more: it
/// refuses appends as if they were lost, and proposes nothing.
const BACKLOG_BYTES_MAX: usize = 256 << 20;
/// How long a member that was removed stays, and is spoken to: a leader tells the others that it was,
/// and any other may not have applied yet what it is to answer.
pub const REMOVED_LINGER: Duration = Duration::from_secs(1);

/// To the apply thread.
pub enum ApplyJob {
    /// Apply these.
    Entries(Vec<Committed<Reply>>),
    /// Digest of the state and its index.
    Digest(oneshot::Sender<(u64, u64)>),
    /// A copy of the state, for a snapshot.
    Copy(oneshot::Sender<Copy>),
    /// A checkpoint is written, or an increment found nothing to be laid over.
    Checkpointed { laid: bool },
    /// Nothing more comes.
    End,
}

/// The state at one moment, to be sent to a member that lags behind.
pub struct Copy {
    pub place: Place,
    pub roster: Roster,
    /// See [`crate::machine::Meta`].
    pub meta: Bytes,
    pub cut: Cut,
}

/// What waits for the apply thread.
#[derive(Default)]
pub struct Backlog {
    pub jobs: AtomicUsize,
    pub bytes: AtomicUsize,
}

/// See the module.
pub struct RaftThread {
    core: Core,
    proposals: Proposals<Reply>,
    reads: Reads<ReadReply>,
    shared: Arc<Shared>,
    applier: Arc<Mutex<Applier>>,
    backlog: Arc<Backlog>,
    view: View,
    way: Way,
    next_tick: Instant,
    next_check_ms: u64,
    /// Changes of members that were applied and Raft was not told of yet.
    told: Place,
    removed_at: Option<Instant>,
    /// The snapshot being installed.
    snapshot: Option<Box<Snapshot>>,
}

/// How what is proposed here reaches the leader. What is under way when it changes may be lost.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Way {
    leader: u64,
    term: u64,
    /// The connection's beginning, if the leader is another.
    link: Option<Instant>,
}

/// The loop goes on, or ends.
enum Then {
    GoOn,
    End,
}

impl RaftThread {
    pub fn new(
        core: Core,
        shared: Arc<Shared>,
        applier: Arc<Mutex<Applier>>,
        backlog: Arc<Backlog>,
    ) -> RaftThread {
        let (member, incarnation) = (shared.member, shared.incarnation);
        let told = applier.lock().machine().place();
        let removed = shared.roster.read().is_removed(member);
        RaftThread {
            core,
            proposals: Proposals::new(member, incarnation),
            reads: Reads::new(member, incarnation),
            next_tick: Instant::now() + shared.config.heartbeat,
            shared,
            applier,
            backlog,
            view: View::default(),
            way: Way::default(),
            next_check_ms: 0,
            told,
            // It was applied before the start, or before the end that was to follow.
            removed_at: removed.then(Instant::now),
            snapshot: None,
        }
    }

    /// Until it is told to stop, or must.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.rounds()));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => shared.fail(failure),
            Err(panic) => shared.fail(Failure::panicked("raft", &panic)),
        }
        shared.alone.store(false, Ordering::Release);
        self.refuse_all();
    }

    fn rounds(&mut self) -> Result<(), Failure> {
        loop {
            // Before the inbox: what is said to be applied has its orders there already.
            let applied = self.shared.applied.load(Ordering::Acquire);
            let work = self.shared.inbox.take(self.next_tick);
            self.tick();
            if let Then::End = self.take_in(work)? {
                return Ok(());
            }
            self.tell_applied(applied);
            let was_settled = self.view.settled;
            self.ask_leader();
            self.advance()?;
            if self.view.settled && !was_settled {
                // Reads that came before this leader could answer need not wait for another round.
                self.ask_leader();
                self.advance()?;
            }
            if self
                .removed_at
                .is_some_and(|at| at.elapsed() >= REMOVED_LINGER)
            {
                return Err(Failure::Removed);
            }
        }
    }

    /// At most one tick a round: after a stall nobody is to be blamed for the time that was lost.
    fn tick(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        self.next_tick = (self.next_tick + self.shared.config.heartbeat).max(now);
        self.core.tick();
        self.reads.tick();
        self.proposals.tick(&mut self.core);
        self.reads.retain(|reply| !reply.is_closed());
        self.proposals.forget_abandoned();
    }

    fn take_in(&mut self, work: Work) -> Result<Then, Failure> {
        let full = self.backlog.bytes.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX;
        for message in &work.messages {
            if full && crate::core::grows_log(message) {
                continue;
            }
            match self.core.step(message) {
                Ok(()) => {}
                Err(Refused::Malformed) => tracing::warn!("dropped a malformed message"),
                Err(lost @ Refused::LogLost { .. }) => return Err(Failure::LogLost(lost)),
            }
        }
        for proposal in work.proposals {
            self.proposals.push(proposal);
        }
        for reply in work.reads {
            self.reads.push(reply);
        }
        for order in work.orders {
            if let Then::End = self.obey(order)? {
                return Ok(Then::End);
            }
        }
        Ok(Then::GoOn)
    }

    fn obey(&mut self, order: Order) -> Result<Then, Failure> {
        match order {
            Order::Change(change, reply) => self.proposals.push_change(change, reply),
            Order::Changed(place, change) => {
                self.core.applied(place, change.as_ref());
                if self.shared.roster.read().is_removed(self.shared.member) {
                    self.removed_at.get_or_insert_with(Instant::now);
                }
            }
            Order::Removed => {
                self.removed_at.get_or_insert_with(Instant::now);
            }
            Order::Transfer(to) => self.core.transfer_leader(to),
            Order::Unreachable(member) => self.core.report_unreachable(member),
            Order::SnapshotSent { to, arrived } => self.core.report_snapshot(to, arrived),
            Order::SnapshotRead(snapshot) => self.take_snapshot(snapshot)?,
            Order::CutLog(index) => self.core.cut_log(index)?,
            Order::Matches(reply) => {
                reply.send(self.core.matches()).ok();
            }
            Order::Stop => return Ok(Then::End),
        }
        Ok(Then::GoOn)
    }

    /// Raft decides whether it wants the snapshot; if it does, [`Self::advance`] installs it.
    fn take_snapshot(&mut self, snapshot: Box<Snapshot>) -> Result<(), Failure> {
        // Nothing of the round before may be left: a snapshot comes alone.
        self.advance()?;
        let message = snapshot.message.clone();
        self.snapshot = Some(snapshot);
        match self.core.step(&message) {
            Ok(()) => self.advance()?,
            Err(Refused::Malformed) => tracing::warn!("dropped a malformed snapshot"),
            Err(lost @ Refused::LogLost { .. }) => return Err(Failure::LogLost(lost)),
        }
        if let Some(unwanted) = self.snapshot.take() {
            unwanted.taken.send(false).ok();
        }
        Ok(())
    }

    fn tell_applied(&mut self, index: u64) {
        if index > self.told.index {
            self.told = self.core.place_of(index);
            self.core.applied(self.told, None);
        }
    }

    /// Sends the leader, wherever it is, what waits for it.
    fn ask_leader(&mut self) {
        let view = self.core.view();
        let way = Way {
            leader: view.leader,
            term: view.term,
            link: self.shared.peers.active_since(view.leader),
        };
        let open = view.leader == self.shared.member || way.link.is_some();
        let full = self.backlog.bytes.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX;
        if !open || full {
            return;
        }
        if way != self.way {
            self.way = way;
            self.proposals.repeat(&mut self.core);
        }
        let wall = WallMs(wall_ms());
        self.proposals.flush(&mut self.core, wall);
        if view.role == Role::Leader {
            self.end_what_is_over(wall);
        }
        self.reads.flush(&mut self.core);
    }

    /// Proposes the end of leases and nodes whose time is over, straight into this leader's own log.
    fn end_what_is_over(&mut self, wall: WallMs) {
        let now_ms = self.shared.now_ms();
        if now_ms < self.next_check_ms {
            return;
        }
        self.next_check_ms = now_ms + CHECK_MS;
        let (expired, notes) = {
            let mut clocks = self.shared.clocks.lock();
            let node_is_due = || self.shared.reader.is_due(wall);
            let expired = clocks.take_expired(now_ms, node_is_due);
            (expired, clocks.take_notes(now_ms))
        };
        // As ZooKeeper does, so that whoever lost its session finds out when.
        for ended in expired.iter().flatten() {
            if ended.attachment.is_some() {
                tracing::info!(session = ended.lease.0, "a session's time is over");
            }
        }
        let expire = expired.map(|leases| Step::Command(Command::Expire(leases)));
        let mut steps: Vec<Step> = expire.into_iter().collect();
        if !notes.is_empty() {
            steps.push(Step::Command(Command::Checkpoint(notes)));
        }
        if !steps.is_empty() {
            self.proposals.propose_leading(&mut self.core, wall, &steps);
        }
    }

    /// Sends, writes, sends and hands on, until the core has no more to say.
    fn advance(&mut self) -> Result<(), Failure> {
        while let Some(begun) = self.core.begin() {
            self.send(begun.messages);
            self.look();
            self.hand_on(begun.committed)?;
            self.answer_reads(&begun.reads);
            if let Some(place) = begun.install {
                self.install(place)?;
            }
            let began = Instant::now();
            let finished = self.core.finish()?;
            self.shared.stats.log_syncs.observe(began.elapsed());
            self.send(finished.messages);
            self.hand_on(finished.committed)?;
        }
        self.look();
        Ok(())
    }

    fn send(&self, messages: Vec<Outgoing>) {
        for message in messages {
            self.shared.peers.send(message, &self.shared);
        }
    }

    fn answer_reads(&mut self, reads: &[ReadReady]) {
        for ready in reads {
            let replies = self.reads.take(ready);
            if !replies.is_empty() {
                self.shared.answer_reads(ready.index, replies);
            }
        }
    }

    /// Entries go to the apply thread, or are applied here when that is idle and they are few.
    fn hand_on(&mut self, entries: Vec<LogEntry>) -> Result<(), Failure> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        self.shared.committed.store(last.index, Ordering::Release);
        self.shared.stats.committed.set(last.index);
        let taken = entries.iter().map(|entry| self.proposals.take(entry));
        let committed = taken.collect::<Result<Vec<_>, _>>()?;
        let idle = self.backlog.jobs.load(Ordering::Acquire) == 0;
        if idle
            && committed.iter().all(is_light)
            && let Some(mut applier) = self.applier.try_lock()
        {
            applier.apply(committed);
            return Ok(());
        }
        let bytes = committed.iter().map(|committed| committed.len_bytes).sum();
        self.backlog.jobs.fetch_add(1, Ordering::AcqRel);
        self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Fails only when the apply thread failed, which has said why.
        self.shared
            .apply_jobs
            .send(ApplyJob::Entries(committed))
            .ok();
        Ok(())
    }

    /// The state first, then (in `finish`) the log: a crash between them finds the new state and
    /// puts the log right.
    fn install(&mut self, place: Place) -> Result<(), Failure> {
        let snapshot = self.snapshot.take();
        let snapshot = snapshot.filter(|snapshot| snapshot.machine.place() == place);
        let snapshot = snapshot.expect("Raft installs the snapshot that was just stepped");
        snapshot.image.finish()?;
        self.applier.lock().install(snapshot.machine);
        self.told = place;
        self.shared.committed.store(place.index, Ordering::Release);
        self.shared.stats.committed.set(place.index);
        snapshot.taken.send(true).ok();
        tracing::info!(
            index = place.index,
            term = place.term,
            "installed a snapshot"
        );
        Ok(())
    }

    /// Makes what changed in the core's view known.
    fn look(&mut self) {
        let view = self.core.view();
        self.shared.alone.store(view.alone, Ordering::Release);
        if view == self.view {
            return;
        }
        let before = std::mem::replace(&mut self.view, view);
        if (before.leader, before.term, before.role) != (view.leader, view.term, view.role) {
            self.leader_changed(before, view);
        }
        self.shared.status.send_if_modified(|status| {
            let changed = (status.leader, status.term) != (view.leader, view.term);
            (status.leader, status.term) = (view.leader, view.term);
            changed
        });
    }

    fn leader_changed(&self, before: View, view: View) {
        let stats = &self.shared.stats;
        if view.leader != 0 && before.leader != view.leader {
            stats.leader_changes.add(1);
            *self.shared.leader_since.lock() = Some(Instant::now());
        }
        let leads = view.role == Role::Leader;
        stats.has_leader.set(u64::from(view.leader != 0));
        stats.is_leader.set(u64::from(leads));
        if before.leader != view.leader {
            tracing::info!(
                term = view.term,
                leader = format_args!("{:x}", view.leader),
                "leader changed"
            );
        }
        let mut clocks = self.shared.clocks.lock();
        if leads && !clocks.is_leading() {
            let grace_ms = self.shared.config.election.as_millis() as u64;
            clocks.lead(self.shared.now_ms(), grace_ms, self.shared.reader.leases());
        } else if !leads {
            clocks.follow();
            // Who waits for a lease's end here must ask the new leader.
            self.shared.lease_ended.notify_waiters();
        }
    }

    /// The end: nobody is left without an answer.
    fn refuse_all(&mut self) {
        let left = self.shared.inbox.close();
        let stopped = crate::Unavailable::Stopped;
        for proposal in left.proposals {
            self.proposals.push(proposal);
        }
        for reply in left.reads {
            self.reads.push(reply);
        }
        for order in left.orders {
            if let Order::Change(_, reply) = order {
                reply.send(Err(stopped));
            }
        }
        self.proposals
            .drain()
            .for_each(|reply| reply.send(Err(stopped)));
        let waiting = std::mem::take(&mut *self.shared.reads.lock());
        let waiting = waiting.into_iter().flat_map(|(_, replies)| replies);
        for reply in self.reads.drain().chain(waiting) {
            reply.send(Err(stopped)).ok();
        }
    }
}
