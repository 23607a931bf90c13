//! What many threads may do at once while the one writer applies: read.

use crate::access::Permissions;
use crate::aside::{Role, Tally};
use crate::auth::{Auth, Principal};
use crate::change::{Answer, Cause, Change, RangeAnswer, Refusal, TxnOutcome};
use crate::children;
use crate::command::{Alarm, Op, Range, Txn};
use crate::history::Trace;
use crate::lease::Lease;
use crate::node::{Event, NodeView};
use crate::read::{self, Snapshot, View};
use crate::shared::Shared;
use crate::slot::Entry;
use crate::tree::{self, Tree};
use crate::types::{End, LeaseId, Revision, Span, WallMs};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Places in the history copied under one hold of its lock.
const CHUNK: usize = 256;

/// A handle for reading; clone it freely. Never blocks the writer for longer than a slice.
#[derive(Clone)]
pub struct Reader {
    /// Taken once by each call, so that all of it is read from one state.
    pub(crate) current: Arc<ArcSwap<Shared>>,
}

/// What is replicated of a lease. How much of its time is left is the leader's clock's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Which lease.
    pub lease: LeaseId,
    /// Granted time to live.
    pub ttl_ms: u64,
    /// Remaining time at the last checkpoint, if there was one.
    pub remaining_ms: Option<u64>,
    /// The connection that holds it, if it is a session.
    pub attachment: Option<u64>,
}

/// What [`Reader::find_events`] found.
pub struct EventsFound {
    /// The oldest index from which on no event is missing.
    pub oldest: u64,
    /// The newest event that has happened.
    pub newest: u64,
    /// Those that were wanted, oldest first.
    pub events: Vec<Event>,
}

impl LeaseView {
    fn of(id: LeaseId, lease: &Lease) -> LeaseView {
        LeaseView {
            lease: id,
            ttl_ms: lease.ttl_ms,
            remaining_ms: lease.remaining_ms,
            attachment: lease.session.as_ref().map(|held| held.attachment),
        }
    }

    /// Whether it is a session.
    pub fn is_session(&self) -> bool {
        self.attachment.is_some()
    }
}

impl Reader {
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.current.load().revision()
    }

    /// The revision of the last compaction; 0 when there was none. It is the oldest readable one.
    pub fn compacted(&self) -> Revision {
        self.current.load().compacted()
    }

    /// Reads a span, as of the newest revision or an older one.
    pub fn range(&self, range: &Range) -> Result<RangeAnswer, Refusal> {
        self.read(range, |view, range| read::range(view, range))
    }

    fn read(
        &self,
        range: &Range,
        read: impl Fn(&Snapshot, &Range) -> RangeAnswer,
    ) -> Result<RangeAnswer, Refusal> {
        let shared = self.current.load();
        loop {
            let snapshot = snapshot(&shared, range.span.end == End::Single);
            read::check_revision(&snapshot, range.revision)?;
            let answer = read(&snapshot, range);
            // A compaction that overtook the reading may have dropped what it was about to see:
            // then the newest state is read again, and an older one is refused.
            if shared.compacted() <= range.revision.unwrap_or(answer.revision) {
                return Ok(answer);
            }
        }
    }

    /// The same on someone's behalf: refuses to show what they may not read, be it for their roles,
    /// for access lists, or for lists that protected it when it was written.
    pub fn range_for(&self, who: &Principal, range: &Range) -> Result<RangeAnswer, Refusal> {
        loop {
            let answer = self.range(range);
            // Asked after reading, since it may have been protected meanwhile, but before what the
            // reading came to.
            let shared = self.current.load();
            shared.check(who, &range.span, Permissions::READ)?;
            let answer = answer?;
            match shared.check_past_range(who, range, &answer) {
                // Then reading tells whether there is something newer to read.
                Err(Refusal::Compacted { .. }) => {}
                judged => return judged.map(|()| answer),
            }
        }
    }

    /// Goes on with a range in the order of its keys that [`Reader::range_for`] has begun and counted
    /// at the revision that this asks for. What this counts is of no use.
    pub fn part_for(&self, who: &Principal, range: &Range) -> Result<RangeAnswer, Refusal> {
        let answer = self.read(range, |view, range| read::part(view, range));
        let shared = self.current.load();
        shared.check(who, &range.span, Permissions::READ)?;
        let answer = answer?;
        shared.check_past(who, &answer.entries)?;
        Ok(answer)
    }

    /// Runs a transaction that writes nothing, all at one revision. Panics if it holds a write.
    pub fn txn(&self, txn: &Txn) -> Result<(Revision, TxnOutcome), Refusal> {
        assert!(
            !txn.writes(),
            "a transaction that writes goes through the log"
        );
        let shared = self.current.load();
        loop {
            let snapshot = snapshot(&shared, false);
            let mut path = Vec::new();
            read::judge(&snapshot, txn, &mut path);
            check_ranges(&snapshot, txn, &mut path.iter())?;
            let mut oldest = snapshot.revision();
            let outcome = read::run(txn, &mut path.iter(), &mut |op| match op {
                Op::Range(range) => {
                    oldest = oldest.min(range.revision.unwrap_or(oldest));
                    Answer::Range(read::range(&snapshot, range))
                }
                Op::Put(_) | Op::Delete(_) | Op::Txn(_) => unreachable!("it writes nothing"),
            });
            if shared.compacted() <= oldest {
                return Ok((snapshot.revision(), outcome));
            }
        }
    }

    /// The same on someone's behalf, as in [`Reader::range_for`].
    pub fn txn_for(&self, who: &Principal, txn: &Txn) -> Result<(Revision, TxnOutcome), Refusal> {
        loop {
            let answered = self.txn(txn);
            let shared = self.current.load();
            shared.check_txn(who, txn)?;
            let (revision, outcome) = answered?;
            match shared.check_past_txn(who, txn, &outcome) {
                Err(Refusal::Compacted { .. }) => {}
                judged => return judged.map(|()| (revision, outcome)),
            }
        }
    }

    /// The changes of whole revisions from `from` on, until at least `changes_max` changes were
    /// gathered or the newest revision was reached; empty when `from` has not happened.
    ///
    /// As in etcd, `from` may be the compacted revision itself, whose changes are then told without
    /// what was there before; an older one is refused. A change's `previous` is what was there at
    /// the revision before its own. Causes are only `Set` and `Delete`.
    pub fn history(&self, from: Revision, changes_max: usize) -> Result<Vec<Change>, Refusal> {
        let shared = self.current.load();
        let newest = shared.revision();
        let mut changes: Vec<Change> = Vec::new();
        let mut position = None;
        let mut traces: Vec<Trace> = Vec::with_capacity(CHUNK);
        'gathering: while from >= shared.compacted() {
            traces.clear();
            let history = shared.history.read();
            let start = position.unwrap_or_else(|| history.find(from.0));
            let published = |place| {
                history
                    .get(place)
                    .filter(|t| t.revision <= newest.0)
                    .cloned()
            };
            traces.extend((start..start + CHUNK).map_while(published));
            drop(history);
            position = Some(start + traces.len());
            for trace in &traces {
                let last = changes
                    .last()
                    .map_or(Revision(0), |change| change.entry.modified());
                if changes.len() >= changes_max && last != Revision(trace.revision) {
                    break 'gathering;
                }
                let Some(entry) = trace.slot.at(trace.revision) else {
                    break 'gathering;
                };
                let previous = trace.slot.live_at(trace.revision - 1);
                let cause = if entry.is_tombstone() {
                    Cause::Delete
                } else {
                    Cause::Set
                };
                changes.push(Change {
                    entry,
                    previous,
                    cause,
                });
            }
            if traces.len() < CHUNK {
                break;
            }
        }
        // Whatever compaction took away under the reading is before the compacted revision.
        let compacted = shared.compacted();
        if from < compacted {
            return Err(Refusal::Compacted { compacted });
        }
        for change in changes
            .iter_mut()
            .take_while(|c| c.entry.modified() <= compacted)
        {
            change.previous = None;
        }
        Ok(changes)
    }

    /// The path tree as it is now.
    pub fn moment(&self) -> Moment {
        let shared = self.current.load_full();
        // With its lock held, the counter is that of the revision.
        let ring = shared.ring.read();
        let event = shared.event();
        let (tree, revision) = tree_of(&shared);
        drop(ring);
        Moment {
            shared,
            tree,
            revision,
            event,
        }
    }

    /// A node of the path tree, and the revision of this view.
    pub fn node(&self, path: &[u8]) -> (Revision, Option<NodeView>) {
        let shared = self.current.load();
        loop {
            let tree = shared.tree.read();
            let (record, revision) = (tree.nodes.get(path).cloned(), shared.revision());
            drop(tree);
            let value = tree::value(&shared, path, revision);
            if shared.compacted() <= revision {
                return (revision, tree::view(value, record.as_deref()));
            }
        }
    }

    /// Revisions since the last compaction that steps at nodes made: nobody who makes such looks at
    /// history, nor compacts it.
    pub fn stepped(&self) -> u64 {
        self.current.load().stepped.load(Ordering::Relaxed)
    }

    /// The node event counter.
    pub fn event(&self) -> u64 {
        self.current.load().event()
    }

    /// The node events from `index` on, as far as they are kept, and beside them the index of the
    /// oldest from which on none is missing.
    pub fn events(&self, index: u64) -> (u64, Vec<Event>) {
        let found = self.find_events(index, usize::MAX, |_| true);
        (found.oldest, found.events)
    }

    /// Those of the kept node events from `index` on that are wanted, but not more than `events_max`.
    pub fn find_events(
        &self,
        index: u64,
        events_max: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> EventsFound {
        let shared = self.current.load();
        let ring = shared.ring.read();
        let newest = shared.event();
        let found = ring.from(index).filter(|event| wanted(event));
        EventsFound {
            oldest: ring.oldest(),
            newest,
            events: found.take(events_max).cloned().collect(),
        }
    }

    /// What lies where the nearest limits for a path are set, with the path at which they are; none if
    /// none are set or it is not counted. Costs nothing while no limits are set.
    pub fn counted(&self, path: &[u8]) -> Option<(Bytes, Tally)> {
        let shared = self.current.load();
        let tree = shared.tree.read();
        let name = tree.quotas.over(path)?.tally.clone()?;
        let held = tree.get(&name)?.aside.clone()?;
        match &held.role {
            Role::Tally { of } => Some((of.clone(), held.tally)),
            Role::Plain | Role::Limits { .. } => None,
        }
    }

    /// Whether some node's own time has come by `wall`, so that [`crate::Command::Expire`] has
    /// something to do.
    pub fn is_due(&self, wall: WallMs) -> bool {
        let (tree, _) = tree_of(&self.current.load());
        tree.due(wall).next().is_some()
    }

    /// Whether anyone may do everything: no node has an access list, and authentication is off. Costs
    /// nothing, and so do the questions below while it is so.
    pub fn is_open(&self) -> bool {
        self.current.load().is_open()
    }

    /// Refuses what someone may not do with one of these keys, be it for their roles or for access
    /// lists, as one whom none of these names. Asked after reading, it tells of all that could be read.
    pub fn check(&self, who: &Principal, span: &Span, may: Permissions) -> Result<(), Refusal> {
        self.current.load().check(who, span, may)
    }

    /// Refuses to show what came while an access list protected its key, unless that is what the key
    /// still holds: then who protects it now is asked for, and who has opened it has opened this.
    pub fn check_past<'e>(
        &self,
        who: &Principal,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Result<(), Refusal> {
        self.current.load().check_past(who, entries)
    }

    /// Refuses those whom access lists bind if one of these keys is a node with one, and meant.
    pub fn check_lists(
        &self,
        who: &Principal,
        span: &Span,
        meant: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Refusal> {
        let shared = self.current.load();
        match shared.is_restricted() && tree_of(&shared).0.restricts_some(span, meant) {
            true => shared.refuse_bound(who),
            false => Ok(()),
        }
    }

    /// Refuses to tell of an event: of one at a file that someone's roles do not let them read, and of
    /// one at a node that an access list protects, or protected then, unless it shows what the node
    /// still is: then who protects it now is asked for. Which directories there are is told to whoever
    /// may know one below.
    pub fn check_event(&self, who: &Principal, event: &Event) -> Result<(), Refusal> {
        let shared = self.current.load();
        if shared.is_open() && !event.restricted {
            return Ok(());
        }
        let path = event.name.as_bytes();
        if event.is_of_file() {
            shared
                .auth()
                .rights(who)?
                .check_key(path, Permissions::READ)?;
        }
        let is_held = || {
            let (_, node) = self.node(path);
            node.is_some_and(|node| node.modified_event == event.index)
        };
        let is_restricted = || shared.tree.read().restricted.contains(path);
        match (event.restricted && !is_held()) || is_restricted() {
            true => shared.refuse_bound(who),
            false => Ok(()),
        }
    }

    /// Refuses what someone's roles do not permit with one key; of access lists, nothing is asked.
    pub fn check_roles(
        &self,
        who: &Principal,
        key: &[u8],
        may: Permissions,
    ) -> Result<(), Refusal> {
        let shared = self.current.load();
        if shared.is_open() {
            return Ok(());
        }
        shared.auth().rights(who)?.check_key(key, may)
    }

    /// Refuses what someone may not do with one of the keys of a lease.
    pub fn check_lease(
        &self,
        who: &Principal,
        lease: LeaseId,
        may: Permissions,
    ) -> Result<(), Refusal> {
        let shared = self.current.load();
        if shared.is_open() {
            return Ok(());
        }
        let leases = shared.leases.read().clone();
        shared.auth().rights(who)?.check_lease(lease, &leases, may)
    }

    /// Whether it is a user who may do everything, so that access lists do not bind them.
    pub fn is_root(&self, who: &Principal) -> bool {
        let shared = self.current.load();
        *who != Principal::Anonymous && shared.auth().is_root(who)
    }

    /// Refuses who is neither a user nor, where there is such a role, a guest.
    pub fn check_known(&self, who: &Principal) -> Result<(), Refusal> {
        self.current.load().auth().admits(who)
    }

    /// Refuses who has not the role `root`, for what is left to those who have.
    pub fn check_root(&self, who: &Principal) -> Result<(), Refusal> {
        self.current.load().auth().administers(who)
    }

    /// Users and roles as they are now.
    pub fn auth(&self) -> Arc<Auth> {
        arc_swap::Guard::into_inner(self.current.load().auth())
    }

    /// One lease.
    pub fn lease(&self, lease: LeaseId) -> Option<LeaseView> {
        self.current
            .load()
            .leases
            .read()
            .get(&lease)
            .map(|found| LeaseView::of(lease, found))
    }

    /// Every lease, by id.
    pub fn leases(&self) -> Vec<LeaseView> {
        let leases = self.current.load().leases.read().clone();
        leases
            .iter()
            .map(|(id, lease)| LeaseView::of(*id, lease))
            .collect()
    }

    /// The keys bound to a lease, in order.
    pub fn lease_keys(&self, lease: LeaseId) -> Option<Vec<Bytes>> {
        let mut keys = Vec::new();
        let found = self.for_lease_keys(lease, |key| keys.push(Bytes::copy_from_slice(key)));
        found.then_some(keys)
    }

    /// Shows the keys bound to a lease, in order; answers whether there is such a lease.
    pub fn for_lease_keys(&self, lease: LeaseId, mut show: impl FnMut(&[u8])) -> bool {
        let found = self.current.load().leases.read().get(&lease).cloned();
        if let Some(lease) = &found {
            lease.keys.iter().for_each(|slot| show(slot.key()));
        }
        found.is_some()
    }

    /// The standing alarms, by member.
    pub fn alarms(&self) -> Vec<(u64, Alarm)> {
        self.current.load().alarms.read().iter().copied().collect()
    }

    /// Whether [`crate::Keyspace::tidy`] has nothing left to do: what was compacted takes no room.
    pub fn is_tidy(&self) -> bool {
        let shared = self.current.load();
        let history = shared.history.read();
        let next = history.get(history.tidied);
        next.is_none_or(|trace| trace.revision > shared.compacted().0)
    }

    /// Bytes that keys, values and bookkeeping of all retained versions and of the leases take, by a
    /// fixed formula (for the space quota). Falls while compacted versions are dropped; equal on
    /// every member where [`crate::Keyspace::tidy`] has nothing left to do.
    pub fn bytes_in_use(&self) -> u64 {
        self.current.load().bytes.load(Ordering::Relaxed)
    }
}

/// The path tree at one moment, to be read a little later: taking one is cheap, whatever is then read
/// of it.
pub struct Moment {
    shared: Arc<Shared>,
    tree: Tree,
    revision: Revision,
    event: u64,
}

impl Moment {
    /// Which one.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The node event counter then.
    pub fn event(&self) -> u64 {
        self.event
    }

    /// A node.
    pub fn node(&self, path: &[u8]) -> Option<NodeView> {
        let value = tree::value(&self.shared, path, self.revision);
        tree::view(value, self.tree.get(path))
    }

    /// The names right beneath a node, in order.
    pub fn children(&self, path: &[u8]) -> Vec<Bytes> {
        children::list(&self.shared, &self.tree, self.revision, path)
    }

    /// Whether what was read so far was all there: a compaction overtakes a moment in the end.
    pub fn is_whole(&self) -> bool {
        self.shared.compacted() <= self.revision
    }
}

fn snapshot(shared: &Shared, single: bool) -> Snapshot<'_> {
    if single {
        Snapshot::of_keys(shared)
    } else {
        Snapshot::of_spans(shared)
    }
}

/// The tree, and the revision whose tree it is.
fn tree_of(shared: &Shared) -> (Tree, Revision) {
    let tree = shared.tree.read();
    (tree.clone(), shared.revision())
}

/// Refuses a transaction before it runs if a range on its path cannot be read.
fn check_ranges(
    view: &impl View,
    txn: &Txn,
    path: &mut std::slice::Iter<bool>,
) -> Result<(), Refusal> {
    let holds = *path
        .next()
        .expect("every transaction on the path was judged");
    for op in txn.branch(holds) {
        match op {
            Op::Range(range) => read::check_revision(view, range.revision)?,
            Op::Txn(inner) => check_ranges(view, inner, path)?,
            Op::Put(_) | Op::Delete(_) => {}
        }
    }
    Ok(())
}
