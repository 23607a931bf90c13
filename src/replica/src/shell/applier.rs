//! Applies what is committed: tells the sink, then the lease clocks, then whoever asked.

use super::checkpointer::Job;
use super::inbox::Order;
use super::{Reply, Shared};
use crate::ChangeSink;
use crate::entry::Step;
use crate::machine::{Content, Effect, Machine, Observer, StepOutcome};
use crate::proposals::{Committed, Waiters};
use keyspace::command::{Nodes, Op, Txn};
use keyspace::node::Action;
use keyspace::{Applied, Command, End, NodeOp, Outcome, Revision};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Commands in a batch that the raft thread applies itself.
const INLINE_STEPS_MAX: usize = 16;
/// What etcd warns of \[warning-apply-duration\].
const SLOW: Duration = Duration::from_millis(100);
/// Increments over one image; then a new image is cheaper to read back.
const INCREMENTS_MAX: u32 = 8;
/// An increment holds at most this many records, and at most one of so many of all records: beyond
/// that a flat image costs less.
const INCREMENT_RECORDS_MAX: usize = 10_000;
const INCREMENT_SHARE: usize = 50;
/// However much is written, an image of the state is not written before the log since the last one
/// is one of so many of what the state takes: else writing it would take the more of a member's time
/// the more it holds. What a restart has to replay stays in proportion to what it has to read.
const LOG_SHARE: u64 = 4;

/// The machine, and who must know what it did.
pub struct Applier {
    machine: Machine,
    watch: Watch,
    checkpoints: Checkpoints,
}

struct Watch {
    shared: Arc<Shared>,
    sink: Box<dyn ChangeSink>,
}

/// What was written of the machine, and what was not.
struct Checkpoints {
    /// A job is under way.
    busy: bool,
    /// Only an image will do next time.
    image_wanted: bool,
    entries: u64,
    bytes: u64,
    increments: u32,
    /// The last checkpoint.
    newest: Option<(u64, Revision)>,
}

impl Applier {
    pub fn new(machine: Machine, shared: Arc<Shared>, sink: Box<dyn ChangeSink>) -> Applier {
        Applier {
            machine,
            watch: Watch { shared, sink },
            checkpoints: Checkpoints {
                busy: false,
                image_wanted: false,
                entries: 0,
                bytes: 0,
                increments: 0,
                newest: None,
            },
        }
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Postponed work; whether some is left.
    pub fn tidy(&mut self) -> bool {
        self.machine.tidy()
    }

    /// The machine holds so much that is in no checkpoint. Without it a member that is killed again
    /// and again would have more to replay each time.
    pub fn count(&mut self, entries: u64, bytes: u64) {
        self.checkpoints.entries += entries;
        self.checkpoints.bytes += bytes;
    }

    /// Applies entries in order, and answers after each: who waits for the first need not wait for
    /// the last.
    pub fn apply(&mut self, entries: Vec<Committed<Reply>>) {
        for committed in entries {
            let began = Instant::now();
            let effect = self.machine.apply(&committed.prepared, &mut self.watch);
            self.account(began.elapsed(), committed.len_bytes);
            self.roster_changed(&committed, &effect);
            // Before anyone is answered: what an answer says can be read.
            self.watch.shared.applied_up_to(self.machine.place());
            answer(effect.steps, committed.waiters);
        }
        self.checkpoint();
    }

    fn account(&mut self, took: Duration, len_bytes: usize) {
        self.count(1, len_bytes as u64);
        let stats = &self.watch.shared.stats;
        stats.applies.observe(took);
        if took > SLOW {
            stats.slow_applies.add(1);
            tracing::warn!(
                took_ms = took.as_millis() as u64,
                "apply request took too long"
            );
        }
    }

    /// Members, peers and Raft must know when the roster changed.
    fn roster_changed(&mut self, committed: &Committed<Reply>, effect: &Effect) {
        let is_change = matches!(committed.prepared.content, Content::Change(_));
        let described = effect.steps.as_ref().is_some_and(|outcomes| {
            outcomes
                .iter()
                .any(|outcome| matches!(outcome, StepOutcome::Roster(Ok(_))))
        });
        let shared = &self.watch.shared;
        if is_change || described {
            let before = shared.roster.read().version();
            shared.replace_roster(self.machine.roster());
            if self.machine.roster().version() != before {
                self.watch.sink.members_changed();
            }
        }
        if is_change {
            let change = effect.change.clone();
            shared
                .inbox
                .order(Order::Changed(committed.prepared.place, change));
        }
    }

    /// Puts a snapshot's state in the machine's place. Entries still queued from before it are
    /// skipped by the machine.
    pub fn install(&mut self, machine: Machine) {
        self.machine.replace(machine);
        let shared = &self.watch.shared;
        shared.replace_roster(self.machine.roster());
        self.watch.sink.restored(self.machine.revision());
        shared.applied_up_to(self.machine.place());
        self.checkpoints.entries = 0;
        self.checkpoints.bytes = 0;
        self.checkpoints.image_wanted = true;
    }

    /// The checkpoint under way is written, or was an increment that found nothing to be `laid`
    /// over. What was applied meanwhile may be enough for another: without it a member that falls
    /// silent after many writes would have them all to replay.
    pub fn checkpointed(&mut self, laid: bool) {
        self.checkpoints.busy = false;
        self.checkpoints.image_wanted |= !laid;
        self.checkpoint();
    }

    /// Starts a checkpoint when enough was applied since the last.
    fn checkpoint(&mut self) {
        let config = &self.watch.shared.config;
        let image_bytes = self.watch.shared.reader.bytes_in_use() / LOG_SHARE;
        let own = &mut self.checkpoints;
        let due = own.entries >= config.checkpoint_entries
            || own.bytes >= config.checkpoint_bytes.max(image_bytes);
        if !due || own.busy {
            return;
        }
        own.entries = 0;
        let pays = own.image_wanted || own.bytes >= image_bytes;
        let whole = self.machine.cut(self.watch.shared.owner(), None);
        let (mark, cut) = whole.expect("a whole cut is always possible");
        let increment = self.increment(cut.len_hint());
        let increments = increment
            .as_ref()
            .map_or(0, |_| self.checkpoints.increments + 1);
        let image = pays.then_some(Job::Image { mark, cut });
        let Some(job) = increment.or(image) else {
            return;
        };
        let own = &mut self.checkpoints;
        own.increments = increments;
        own.busy = true;
        own.image_wanted = false;
        own.bytes = 0;
        own.newest = Some((self.machine.place().index, self.machine.revision()));
        // Fails only at the end, when no checkpoint is needed.
        self.watch.shared.checkpoint_jobs.send(job).ok();
    }

    /// What changed since the last checkpoint, if it can be laid over that and is little beside all
    /// `records`.
    fn increment(&self, records: usize) -> Option<Job> {
        let own = &self.checkpoints;
        let may = !own.image_wanted && own.increments < INCREMENTS_MAX;
        let (since, revision) = own.newest.filter(|_| may)?;
        let (mark, cut) = self
            .machine
            .cut(self.watch.shared.owner(), Some(revision))?;
        let records_max = (records / INCREMENT_SHARE).min(INCREMENT_RECORDS_MAX);
        (cut.len_hint() <= records_max).then_some(Job::Increment { since, mark, cut })
    }
}

impl Observer for Watch {
    fn applied(&mut self, command: &Command, applied: &Applied) {
        self.sink.publish(command, applied);
        let Ok(outcome) = &applied.outcome else {
            return;
        };
        self.keep_clocks(command);
        if let (Command::Txn(txn), Outcome::Txn(outcome)) = (command, outcome) {
            self.shared.stats.keys.count(txn, outcome);
        }
    }
}

impl Watch {
    fn keep_clocks(&self, command: &Command) {
        let shared = &self.shared;
        let stats = &shared.stats;
        let ends = match command {
            Command::Grant(_) => {
                stats.leases_granted.add(1);
                false
            }
            Command::Attach(_) => false,
            Command::Revoke(..) | Command::Close(_) => {
                stats.leases_revoked.add(1);
                true
            }
            Command::Expire(leases) => {
                let sessions = leases.iter().filter(|lease| lease.attachment.is_some());
                stats.leases_expired.add(leases.len() as u64);
                stats.sessions_expired.add(sessions.count() as u64);
                true
            }
            Command::Txn(_)
            | Command::Compact(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Nodes(_)
            | Command::Auth(_) => return,
        };
        shared.clocks.lock().applied(shared.now_ms(), command);
        if ends {
            shared.lease_ended.notify_waiters();
        }
    }
}

/// Gives every waiter its steps' outcomes.
fn answer(outcomes: Option<Vec<StepOutcome>>, waiters: Waiters<Reply>) {
    let Some(outcomes) = outcomes else {
        // Overtaken by a later proposal of ours on the way through a leader that was lost.
        for (_, reply) in waiters {
            reply.send(Err(crate::Unavailable::LeaderChanged));
        }
        return;
    };
    let mut outcomes = outcomes.into_iter();
    for (steps_len, reply) in waiters {
        reply.send(Ok(outcomes.by_ref().take(steps_len).collect()));
    }
}

/// Whether applying this takes so little that the raft thread may do it: a few commands, each of
/// which touches single keys only.
pub fn is_light(committed: &Committed<Reply>) -> bool {
    match &committed.prepared.content {
        Content::Nothing => true,
        Content::Change(_) => false,
        Content::Batch(batch) => {
            batch.steps.len() <= INLINE_STEPS_MAX
                && batch.steps.iter().all(|step| match step {
                    Step::Command(Command::Txn(txn)) => is_light_txn(txn),
                    Step::Command(Command::Nodes(nodes)) => are_light_nodes(nodes),
                    Step::Command(Command::Grant(_) | Command::Attach(_)) => true,
                    Step::Command(
                        Command::Compact(_)
                        | Command::Revoke(..)
                        | Command::Expire(_)
                        | Command::Checkpoint(_)
                        | Command::Alarm(_)
                        | Command::Close(_)
                        | Command::Auth(_),
                    )
                    | Step::Describe(_) => false,
                })
        }
    }
}

fn are_light_nodes(nodes: &Nodes) -> bool {
    let light = |op: &NodeOp| match op.action {
        Action::Remove { recursive } => !recursive,
        Action::Check | Action::Write(_) | Action::MakeDirectory { .. } | Action::SetAcl(_) => true,
    };
    nodes.ops.len() <= INLINE_STEPS_MAX && nodes.ops.iter().all(light)
}

fn is_light_txn(txn: &Txn) -> bool {
    let light = |op: &Op| match op {
        Op::Range(range) => range.span.end == End::Single,
        Op::Put(_) => true,
        Op::Delete(delete) => delete.span.end == End::Single,
        Op::Txn(_) => false,
    };
    txn.guards.iter().all(|guard| guard.span.end == End::Single)
        && txn.then.len() + txn.otherwise.len() <= INLINE_STEPS_MAX
        && txn.then.iter().chain(&txn.otherwise).all(light)
}
