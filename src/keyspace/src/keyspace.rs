//! The writer's side: applying commands, and dropping what compaction made unreadable.

use crate::access::Permissions;
use crate::auth::{AuthChange, AuthChanges, Principal};
use crate::change::{Answer, Applied, Cause, Outcome, Refusal, TxnOutcome};
use crate::command::{Alarm, AlarmChange, Command, Expired, LeaseRemaining, Nodes, Op, Put, Txn};
use crate::invariants;
use crate::node::NodeOp;
use crate::nodes::steps::Asker;
use crate::past;
use crate::read::{self, View};
use crate::reader::Reader;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::tree::{self, Path};
use crate::types::{LeaseId, Revision, Stamp, WallMs};
use crate::write::{Finished, Writing};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Changes that one call of [`Keyspace::tidy`] looks at: about a millisecond, counted in work since
/// there is no clock here.
const TIDY_CHANGES_MAX: usize = 2048;
/// Of these, as many as are handled under one hold of a lock.
const TIDY_CHUNK: usize = 64;

/// Nodes that one [`Command::Expire`] ends; the leader asks again while more are due.
const NODES_EXPIRED_MAX: usize = 1000;

/// The one writer's handle.
pub struct Keyspace {
    pub(crate) shared: Arc<Shared>,
    /// What readers look at: `shared`, also after it was replaced.
    pub(crate) current: Arc<ArcSwap<Shared>>,
    /// The latest time any stamp has told.
    pub(crate) wall: WallMs,
}

/// What applying came to: the answer and the changes, or why nothing was done.
pub(crate) type Result = std::result::Result<(Outcome, Finished), Refusal>;

impl Default for Keyspace {
    fn default() -> Self {
        Keyspace::new()
    }
}

impl Keyspace {
    /// An empty keyspace at revision 1.
    pub fn new() -> Keyspace {
        Keyspace::of(Shared::new(1, 0), WallMs(0))
    }

    pub(crate) fn of(shared: Shared, wall: WallMs) -> Keyspace {
        let shared = Arc::new(shared);
        Keyspace {
            current: Arc::new(ArcSwap::new(Arc::clone(&shared))),
            shared,
            wall,
        }
    }

    /// Becomes `other`, also for readers handed out before: a snapshot took the place of what was
    /// here. Readers of `other` go on reading it, but see nothing of what is applied from now on.
    pub fn replace(&mut self, other: Keyspace) {
        self.shared = other.shared;
        self.wall = other.wall;
        self.current.store(Arc::clone(&self.shared));
    }

    /// A handle for readers.
    pub fn reader(&self) -> Reader {
        Reader {
            current: Arc::clone(&self.current),
        }
    }

    /// The latest time that it was told.
    pub fn wall(&self) -> WallMs {
        self.wall
    }

    /// Applies one command. Equal commands with equal stamps in equal order give equal results and
    /// equal digests on every member.
    pub fn apply(&mut self, stamp: Stamp, command: &Command) -> Applied {
        self.wall = self.wall.max(stamp.wall);
        let result = self.take_turn(command).and_then(|()| {
            if let Some(alarm) = self.alarm_against(command) {
                return Err(Refusal::Alarmed(alarm));
            }
            match command {
                Command::Txn(txn) => self.txn(txn),
                Command::Compact(revision) => self.compact(*revision),
                Command::Grant(grant) => self.grant(grant),
                Command::Revoke(lease, by) => self.revoke(*lease, by),
                Command::Expire(leases) => Ok(self.expire(leases)),
                Command::Checkpoint(remaining) => Ok(self.checkpoint(remaining)),
                Command::Alarm(change) => Ok(self.alarm(*change)),
                Command::Nodes(nodes) => self.nodes(nodes),
                Command::Attach(attach) => self.attach(attach),
                Command::Close(turn) => self.revoke(turn.lease, &Principal::System),
                Command::Auth(changes) => self.auth(changes),
            }
        });
        let (outcome, finished) = match result {
            Ok((outcome, finished)) => (Ok(outcome), finished),
            Err(refusal) => (Err(refusal), Finished::default()),
        };
        Applied {
            revision: self.shared.revision(),
            outcome,
            changes: finished.changes,
            steps: finished.steps,
            event: self.shared.event(),
        }
    }

    /// The standing alarm that forbids a command, if one does. As in etcd, deletes, compaction and
    /// the end of leases still work without space, so that there is a way out. Unlike etcd, puts in
    /// nested transactions are found as well.
    fn alarm_against(&self, command: &Command) -> Option<Alarm> {
        let (grows, touches) = match command {
            Command::Txn(txn) => (txn.puts(), true),
            // A session has to open so that its client can make room.
            Command::Grant(grant) => (grant.session.is_none(), true),
            Command::Compact(_) | Command::Revoke(..) | Command::Expire(_) => (false, true),
            Command::Nodes(nodes) => (nodes.ops.iter().any(NodeOp::grows), true),
            Command::Attach(_) | Command::Close(_) => (false, true),
            Command::Auth(asked) => (asked.changes.iter().any(AuthChange::grows), true),
            Command::Checkpoint(_) | Command::Alarm(_) => (false, false),
        };
        let alarms = self.shared.alarms.read();
        let stands = |alarm| alarms.iter().any(|(_, standing)| *standing == alarm);
        if touches && stands(Alarm::Corrupt) {
            Some(Alarm::Corrupt)
        } else if grows && stands(Alarm::NoSpace) {
            Some(Alarm::NoSpace)
        } else {
            None
        }
    }

    fn txn(&self, txn: &Txn) -> Result {
        self.shared.check_txn(&txn.principal, txn)?;
        let mut writing = Writing::new(&self.shared, self.wall);
        let mut path = Vec::new();
        read::judge(&writing, txn, &mut path);
        check(&writing, &txn.principal, txn, &mut path.iter())?;
        let outcome: TxnOutcome =
            read::run(txn, &mut path.iter(), &mut |op| step(&mut writing, op));
        Ok((Outcome::Txn(outcome), writing.finish()))
    }

    fn compact(&self, revision: Revision) -> Result {
        let (newest, compacted) = (self.shared.revision(), self.shared.compacted());
        if revision <= compacted {
            return Err(Refusal::Compacted { compacted });
        }
        if revision > newest {
            return Err(Refusal::Future { newest });
        }
        assert!(invariants::compaction_lags(revision.0, newest.0));
        let mut history = self.shared.history.write();
        // Deletions at the last compaction's own revision had to stay for its watchers.
        history.tidied = history.tidied.min(history.find(compacted.0));
        self.shared.compact(revision.0);
        self.shared.stepped.store(0, Ordering::Relaxed);
        Ok((Outcome::Done, Finished::default()))
    }

    fn revoke(&self, lease: LeaseId, by: &Principal) -> Result {
        if !self.shared.is_open() {
            let auth = self.shared.auth();
            let leases = self.shared.leases.read();
            auth.rights(by)?
                .check_lease(lease, &leases, Permissions::WRITE)?;
        }
        let mut writing = Writing::new(&self.shared, self.wall);
        let ended = writing.end_lease(lease, Cause::Delete);
        let ended = ended.ok_or(Refusal::LeaseNotFound(lease))?;
        Ok((Outcome::Ended(ended), writing.finish()))
    }

    /// Leases first, then the nodes whose own time has come: one revision each.
    fn expire(&self, leases: &[Expired]) -> (Outcome, Finished) {
        let mut all = Finished::default();
        let mut ended = 0;
        for expired in leases {
            if !self.is_still_held(expired) {
                continue;
            }
            let mut writing = Writing::new(&self.shared, self.wall);
            let keys = writing.end_lease(expired.lease, Cause::Expire);
            ended += keys.unwrap_or(0);
            all.append(writing.finish());
        }
        for path in self.due_nodes() {
            let mut writing = Writing::new(&self.shared, self.wall);
            writing.expire_node(&path);
            let finished = writing.finish();
            ended += finished.changes.len() as u64;
            all.append(finished);
        }
        (Outcome::Ended(ended), all)
    }

    /// Whose own time has come, soonest first, and of one millisecond in the order in which they were
    /// last written: etcd v2 counts their time more finely.
    fn due_nodes(&self) -> Vec<Path> {
        let tree = self.shared.tree.read().clone();
        let changed = |path: &[u8]| {
            let value = tree::value(&self.shared, path, self.shared.revision());
            tree::view(value, tree.get(path)).map_or(0, |view| view.modified_event)
        };
        let due = tree.due(self.wall).take(NODES_EXPIRED_MAX);
        let mut due: Vec<_> = due.map(|(at, path)| (*at, changed(path), path)).collect();
        due.sort_unstable();
        due.into_iter().map(|(.., path)| Arc::clone(path)).collect()
    }

    fn nodes(&self, nodes: &Nodes) -> Result {
        let mut writing = Writing::new(&self.shared, self.wall);
        let auth = self.shared.auth();
        let asker = Asker {
            ids: nodes
                .by
                .as_deref()
                .filter(|_| !auth.is_root(&nodes.principal)),
            rights: auth.rights(&nodes.principal)?,
        };
        let mut answers = Vec::with_capacity(nodes.ops.len());
        for (step, op) in nodes.ops.iter().enumerate() {
            match writing.node(op, &asker) {
                Ok(answer) => answers.push(answer),
                Err(reason) => {
                    writing.abort();
                    return Err(Refusal::Node { step, reason });
                }
            }
        }
        let before = self.shared.revision();
        let finished = writing.finish();
        let moved = self.shared.revision().0 - before.0;
        self.shared.stepped.fetch_add(moved, Ordering::Relaxed);
        Ok((Outcome::Nodes(answers), finished))
    }

    fn auth(&self, asked: &AuthChanges) -> Result {
        self.shared.put_auth(self.shared.auth().apply(asked)?);
        Ok((Outcome::Done, Finished::default()))
    }

    /// As in etcd, nothing remaining means that the checkpoint no longer counts.
    fn checkpoint(&self, checkpoint: &[LeaseRemaining]) -> (Outcome, Finished) {
        let mut leases = self.shared.leases.write();
        for remaining in checkpoint {
            if let Some(lease) = leases.get_mut(&remaining.lease) {
                lease.remaining_ms = Some(remaining.remaining_ms).filter(|ms| *ms > 0);
            }
        }
        (Outcome::Done, Finished::default())
    }

    fn alarm(&self, change: AlarmChange) -> (Outcome, Finished) {
        let mut alarms = self.shared.alarms.write();
        if change.raised {
            alarms.insert((change.member, change.alarm));
        } else {
            alarms.remove(&(change.member, change.alarm));
        }
        (Outcome::Done, Finished::default())
    }

    /// Does up to about a millisecond of postponed work (dropping compacted versions). Returns
    /// whether there is more to do now; a living [`crate::Cut`] makes it wait, so call again from
    /// time to time. Never changes what a read answers.
    pub fn tidy(&mut self) -> bool {
        if Arc::strong_count(&self.shared.cuts) > 1 {
            return false;
        }
        let compacted = self.shared.compacted().0;
        for _ in 0..TIDY_CHANGES_MAX / TIDY_CHUNK {
            let history = self.shared.history.read();
            let traces: Vec<_> = (history.tidied..history.tidied + TIDY_CHUNK)
                .map_while(|place| {
                    history
                        .get(place)
                        .filter(|t| t.revision <= compacted)
                        .cloned()
                })
                .collect();
            drop(history);
            let mut spent = Vec::new();
            for trace in &traces {
                // A change supersedes one version, and a tombstone goes with its successor or by
                // itself: two for each change are all there are.
                self.shrink(trace.slot.drop_oldest(compacted, 2));
                if let Some(bytes) = trace.slot.spent_at(trace.revision, compacted) {
                    self.shrink(bytes);
                    spent.push(trace.slot.clone());
                }
            }
            self.remove(&spent);
            let mut history = self.shared.history.write();
            history.tidied += traces.len();
            history.forget(compacted);
            if traces.len() < TIDY_CHUNK {
                return false;
            }
        }
        true
    }

    fn shrink(&self, bytes: u64) {
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes keys that no readable revision knows out of both indexes.
    fn remove(&self, spent: &[Slot]) {
        if spent.is_empty() {
            return;
        }
        let mut index = self.shared.index.write();
        for slot in spent {
            index.remove(slot.key());
            self.shared.slots.remove(slot.key());
        }
        assert!(invariants::indexes_agree(
            self.shared.slots.len(),
            index.live()
        ));
    }
}

/// Refuses a transaction before anything on its path has run, as etcd does: what it would meet is
/// judged by the state before it.
fn check(
    writing: &Writing,
    who: &Principal,
    txn: &Txn,
    path: &mut std::slice::Iter<bool>,
) -> std::result::Result<(), Refusal> {
    let holds = *path
        .next()
        .expect("every transaction on the path was judged");
    for op in txn.branch(holds) {
        match op {
            Op::Range(range) => {
                read::check_revision(writing, range.revision)?;
                if let Some(revision) = range.revision {
                    past::check_past_span(writing, who, &range.span, revision)?;
                }
            }
            Op::Put(put) => check_put(writing, put)?,
            Op::Delete(_) => {}
            Op::Txn(inner) => check(writing, who, inner, path)?,
        }
    }
    Ok(())
}

fn check_put(writing: &Writing, put: &Put) -> std::result::Result<(), Refusal> {
    let shared = writing.shared();
    if let Some(lease) = put.lease.filter(|lease| *lease != LeaseId::NONE)
        && !shared.leases.read().contains_key(&lease)
    {
        return Err(Refusal::LeaseNotFound(lease));
    }
    let keeps = put.value.is_none() || put.lease.is_none();
    if keeps && !shared.is_live(&put.key) {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

fn step(writing: &mut Writing, op: &Op) -> Answer {
    match op {
        Op::Range(range) => Answer::Range(read::range(writing, range)),
        Op::Put(put) => {
            let previous = writing.put(put);
            Answer::Put(previous.filter(|_| put.want_previous))
        }
        Op::Delete(delete) => {
            let mut previous = writing.delete(delete);
            let deleted = previous.len() as u64;
            if !delete.want_previous {
                previous.clear();
            }
            Answer::Delete { deleted, previous }
        }
        Op::Txn(_) => unreachable!("transactions inside are run, not stepped"),
    }
}
