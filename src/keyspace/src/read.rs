//! Reading spans and judging guards, the same for readers and for the writer inside a transaction.

use crate::change::{Answer, RangeAnswer, Refusal, TxnOutcome};
use crate::command::{Filter, Guard, Op, Range, Sort, SortBy, Test, Txn};
use crate::index::{Index, Scan};
use crate::shared::Shared;
use crate::slot::{Entry, Slot};
use crate::types::{End, Revision, Span};
use parking_lot::RwLockReadGuard;
use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::Bound;

/// Slots copied under one hold of the index, so that no reader keeps the writer waiting for longer
/// than a few microseconds.
const CHUNK: usize = 256;

/// A state to read: the newest of the view, or an older one behind it.
pub(crate) trait View {
    fn shared(&self) -> &Shared;
    /// The newest revision of this view.
    fn revision(&self) -> Revision;
    /// Versions beyond this revision are not seen.
    fn bound(&self) -> u64;
    /// Lends the ordered index, and tells whether its live counts are those of this view.
    fn with_index<T>(&self, read: impl FnOnce(&Index, bool) -> T) -> T;
}

/// A reader's view: what was published when it was taken.
pub(crate) struct Snapshot<'a> {
    shared: &'a Shared,
    revision: Revision,
    /// Held from the moment the revision was taken until the index is first used, so that both agree
    /// then.
    held: Cell<Option<RwLockReadGuard<'a, Index>>>,
}

impl<'a> Snapshot<'a> {
    /// For reading single keys.
    pub fn of_keys(shared: &'a Shared) -> Snapshot<'a> {
        Snapshot {
            shared,
            revision: shared.revision(),
            held: Cell::new(None),
        }
    }

    /// For reading spans.
    pub fn of_spans(shared: &'a Shared) -> Snapshot<'a> {
        let held = shared.index.read();
        Snapshot {
            shared,
            revision: shared.revision(),
            held: Cell::new(Some(held)),
        }
    }
}

impl View for Snapshot<'_> {
    fn shared(&self) -> &Shared {
        self.shared
    }
    fn revision(&self) -> Revision {
        self.revision
    }
    fn bound(&self) -> u64 {
        self.revision.0
    }
    fn with_index<T>(&self, read: impl FnOnce(&Index, bool) -> T) -> T {
        // While the index is held no key appears or disappears; what is merely overwritten
        // meanwhile moves the revision but not the counts.
        if let Some(held) = self.held.take() {
            return read(&held, true);
        }
        let index = self.shared.index.read();
        read(&index, self.shared.revision() == self.revision)
    }
}

/// Whether a revision that was asked for can be read.
pub(crate) fn check_revision(view: &impl View, asked: Option<Revision>) -> Result<(), Refusal> {
    let Some(asked) = asked else { return Ok(()) };
    let (newest, compacted) = (view.revision(), view.shared().compacted());
    if asked > newest {
        Err(Refusal::Future { newest })
    } else if asked < compacted {
        Err(Refusal::Compacted { compacted })
    } else {
        Ok(())
    }
}

/// Reads a span; its revision has been checked.
pub(crate) fn range(view: &impl View, range: &Range) -> RangeAnswer {
    answer(view, range, &Wish::of(range))
}

/// The same of a range in the order of its keys, without looking beyond its limit: what it counts
/// is of no use.
pub(crate) fn part(view: &impl View, range: &Range) -> RangeAnswer {
    let wish = Wish {
        counts: false,
        ..Wish::of(range)
    };
    answer(view, range, &wish)
}

fn answer(view: &impl View, range: &Range, wish: &Wish) -> RangeAnswer {
    let (mut entries, count) = gather(view, &range.span, range.revision, wish);
    entries.retain(|entry| passes(&range.filter, entry));
    if let Some(sort) = range.sort {
        order(&mut entries, sort);
    }
    let limit = usize::try_from(range.limit).unwrap_or(usize::MAX);
    let more = limit > 0 && entries.len() > limit;
    if more {
        entries.truncate(limit);
    }
    RangeAnswer {
        entries,
        count: count as u64,
        more,
        revision: view.revision(),
    }
}

/// How many entries of a span to gather, at least.
struct Wish {
    max: usize,
    /// From the span's end rather than its start.
    from_end: bool,
    /// The number of all keys as well.
    counts: bool,
}

impl Wish {
    /// One more than the limit, which then shows in `more`; everything where filters or another
    /// order than the key's decide which entries are within the limit. etcd pushes the limit down
    /// too where a sort field was named without an order, and sorts what it got.
    fn of(range: &Range) -> Wish {
        let from_end = !range.count_only
            && range
                .sort
                .is_some_and(|sort| sort.by == SortBy::Key && sort.descending);
        let by_key = range
            .sort
            .is_none_or(|sort| sort.by == SortBy::Key || sort.after_limit);
        let max = if range.count_only {
            0
        } else if range.limit == 0 || !by_key || range.filter != Filter::default() {
            usize::MAX
        } else {
            usize::try_from(range.limit)
                .unwrap_or(usize::MAX)
                .saturating_add(1)
        };
        Wish {
            max,
            from_end,
            counts: true,
        }
    }

    const ALL: Wish = Wish {
        max: usize::MAX,
        from_end: false,
        counts: true,
    };
}

/// The entries of a span in key order (the first or last `wish.max`, or more), and the number of
/// keys in it.
fn gather(
    view: &impl View,
    span: &Span,
    revision: Option<Revision>,
    wish: &Wish,
) -> (Vec<Entry>, usize) {
    let current = revision.is_none_or(|revision| revision == view.revision());
    let bound = if current {
        view.bound()
    } else {
        revision.map_or(view.bound(), |r| r.0)
    };
    if span.end == End::Single {
        let slot = view.shared().find(&span.start);
        let mut entries: Vec<Entry> = slot
            .and_then(|slot| slot.live_at(bound))
            .into_iter()
            .collect();
        let count = entries.len();
        entries.truncate(wish.max);
        return (entries, count);
    }
    let mut walk = Walk::new(span, current, wish);
    let mut entries = Vec::new();
    let mut count = 0;
    loop {
        let over = view.with_index(|index, agrees| walk.step(index, agrees, entries.len()));
        for slot in &walk.slots {
            let Some(entry) = slot.live_at(bound) else {
                continue;
            };
            count += 1;
            // What lies beyond the wish is only walked over to be counted; from the end, the
            // entries wished for come last.
            if entries.len() < wish.max || wish.from_end {
                entries.push(entry);
            }
        }
        let is_counted = walk.counted.is_some() || !wish.counts;
        if over || (is_counted && entries.len() >= wish.max) {
            return (entries, walk.counted.unwrap_or(count));
        }
    }
}

/// Whether an entry of a span is so, as of an older revision.
pub(crate) fn any(
    view: &impl View,
    span: &Span,
    revision: Revision,
    mut is_so: impl FnMut(&Entry) -> bool,
) -> bool {
    let mut is_so = |slot: &Slot| slot.live_at(revision.0).is_some_and(|entry| is_so(&entry));
    if span.end == End::Single {
        return view.shared().find(&span.start).is_some_and(|it| is_so(&it));
    }
    let mut walk = Walk::new(span, false, &Wish::ALL);
    loop {
        let over = view.with_index(|index, agrees| walk.step(index, agrees, 0));
        let found = walk.slots.iter().any(&mut is_so);
        if over || found {
            return found;
        }
    }
}

/// A walk over a span's slots, a chunk at a time.
struct Walk<'a> {
    span: &'a Span,
    /// The view's newest state is read, rather than an older one.
    current: bool,
    wish: &'a Wish,
    /// The number of live keys, where the index knew it.
    counted: Option<usize>,
    last: Option<Slot>,
    slots: Vec<Slot>,
}

impl<'a> Walk<'a> {
    fn new(span: &'a Span, current: bool, wish: &'a Wish) -> Walk<'a> {
        Walk {
            span,
            current,
            wish,
            counted: None,
            last: None,
            slots: Vec::new(),
        }
    }

    /// Copies the next slots out of the index; returns whether they are the last. Where the index
    /// agrees with the state that is read, it tells the count and skips what is not live.
    fn step(&mut self, index: &Index, agrees: bool, gathered: usize) -> bool {
        let live_only = self.current && agrees;
        let before = self.span.before();
        let mut from = Bound::Included(&self.span.start[..]);
        if let Some(last) = &self.last {
            from = Bound::Excluded(last.key());
        } else if live_only {
            let count = index.count(&self.span.start, before);
            self.counted = Some(count);
            if self.wish.from_end && count > self.wish.max {
                let skipped = index.rank(&self.span.start) + count - self.wish.max;
                if let Some(slot) = index.nth_live(skipped) {
                    from = Bound::Included(slot.key());
                }
            }
        }
        let max = if live_only {
            CHUNK.min(self.wish.max - gathered.min(self.wish.max))
        } else {
            CHUNK
        };
        let scan = Scan {
            before,
            live_only,
            max,
        };
        self.slots.clear();
        index.scan(from, &scan, &mut self.slots);
        if let Some(last) = self.slots.last() {
            self.last = Some(last.clone());
        }
        self.slots.len() < max
    }
}

fn passes(filter: &Filter, entry: &Entry) -> bool {
    let within =
        |revision: Revision, min, max| revision.0 >= min && (max == 0 || revision.0 <= max);
    within(entry.modified(), filter.modified_min, filter.modified_max)
        && within(entry.created(), filter.created_min, filter.created_max)
}

fn order(entries: &mut [Entry], sort: Sort) {
    let compare = |a: &Entry, b: &Entry| match sort.by {
        SortBy::Key => a.key().cmp(b.key()),
        SortBy::Version => a.version().cmp(&b.version()),
        SortBy::Created => a.created().cmp(&b.created()),
        SortBy::Modified => a.modified().cmp(&b.modified()),
        SortBy::Value => a.value().cmp(b.value()),
    };
    if sort.descending {
        entries.sort_by(|a, b| compare(b, a));
    } else {
        entries.sort_by(compare);
    }
}

/// Judges the guards of a transaction and of those inside the branches taken; appends each verdict
/// to `path`, in the order in which [`run`] meets the transactions.
pub(crate) fn judge(view: &impl View, txn: &Txn, path: &mut Vec<bool>) {
    let holds = txn.guards.iter().all(|guard| guard_holds(view, guard));
    path.push(holds);
    for op in txn.branch(holds) {
        match op {
            Op::Txn(inner) => judge(view, inner, path),
            Op::Range(_) | Op::Put(_) | Op::Delete(_) => {}
        }
    }
}

fn guard_holds(view: &impl View, guard: &Guard) -> bool {
    let (entries, _) = gather(view, &guard.span, None, &Wish::ALL);
    if entries.is_empty() {
        // No client can spell "no value", so that etcd lets every test of one fail.
        let ordering = match &guard.test {
            Test::Value(_) => return false,
            Test::Version(given) | Test::Created(given) | Test::Modified(given) => 0.cmp(given),
            Test::Lease(given) => 0.cmp(given),
        };
        return guard.relation.holds(ordering);
    }
    entries.iter().all(|entry| {
        guard
            .relation
            .holds(found_against_given(entry, &guard.test))
    })
}

fn found_against_given(entry: &Entry, test: &Test) -> Ordering {
    let against = |found: u64, given: &i64| i64::try_from(found).unwrap_or(i64::MAX).cmp(given);
    match test {
        Test::Version(given) => against(entry.version(), given),
        Test::Created(given) => against(entry.created().0, given),
        Test::Modified(given) => against(entry.modified().0, given),
        Test::Value(given) => entry.value().cmp(given),
        Test::Lease(given) => entry.lease().0.cmp(given),
    }
}

/// Runs the branches that [`judge`] chose; `step` answers what is no transaction.
pub(crate) fn run(
    txn: &Txn,
    path: &mut std::slice::Iter<bool>,
    step: &mut dyn FnMut(&Op) -> Answer,
) -> TxnOutcome {
    let succeeded = *path
        .next()
        .expect("every transaction on the path was judged");
    let answers = txn.branch(succeeded).iter().map(|op| match op {
        Op::Txn(inner) => Answer::Txn(run(inner, path, step)),
        Op::Range(_) | Op::Put(_) | Op::Delete(_) => step(op),
    });
    TxnOutcome {
        answers: answers.collect(),
        succeeded,
    }
}
