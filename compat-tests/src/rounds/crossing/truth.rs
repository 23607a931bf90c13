//! The one order of all changes, as etcd v3's watchers and etcd v2's waiters were told it: that all
//! were told the same, every revision and every index once and in order, and that it makes sense.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use checker::kv::Entry;
use checker::watch::{self, Event};

use super::history::{Action, Clocks, EtcdWatch, History, Key, Moment, Text, Value, WaitEvent};

/// A change of one key.
#[derive(Clone, Debug)]
pub struct Change {
    /// As etcd v3 tells it.
    pub event: Event,
    /// etcd v2's index of it.
    pub index: u64,
    /// What etcd v2 calls it.
    pub action: Action,
    /// When the first watcher was told.
    pub told_us: u64,
}

/// All changes of a run, in order.
#[derive(Debug)]
pub struct Truth {
    changes: Vec<Change>,
    /// Places in `changes`, in order.
    by_key: BTreeMap<Key, Vec<usize>>,
    first: Clocks,
}

impl Truth {
    /// What the watchers were told.
    ///
    /// # Errors
    /// The first promise to them that was broken, in words.
    pub fn new(history: &History) -> Result<Self> {
        let first = history.watches.first().context("nobody watched")?;
        let events = events(first);
        check_revisions(&events, history.first, history.last).context("etcd v3's watcher 0")?;
        check_values(&events, history)?;
        check_entries(&events)?;
        for (watcher, watch) in history.watches.iter().enumerate() {
            let judged = watch::check(&events, &watch.watch);
            judged.with_context(|| format!("etcd v3's watcher {watcher}"))?;
        }
        ensure!(!history.waits.is_empty(), "nobody waited");
        for (waiter, told) in history.waits.iter().enumerate() {
            check_indexes(&events, told, history.first, history.last)
                .with_context(|| format!("etcd v2's waiter {waiter}"))?;
        }
        let mut by_key: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        let mut changes = Vec::with_capacity(events.len());
        for (event, told) in events.into_iter().zip(&history.waits[0]) {
            by_key.entry(event.key).or_default().push(changes.len());
            changes.push(Change {
                told_us: first_told_us(history, event.revision),
                event,
                index: told.index,
                action: told.action,
            });
        }
        let truth = Self {
            changes,
            by_key,
            first: history.first,
        };
        truth.check_last(history)?;
        Ok(truth)
    }

    /// All changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// All values that were ever held.
    pub fn values(&self) -> BTreeSet<Value> {
        let held = self.changes.iter().filter_map(|change| change.event.now);
        held.map(|entry| entry.value).collect()
    }

    /// The first change of a key after a revision.
    pub fn next(&self, key: Key, after: u64) -> Option<&Change> {
        let places = self.by_key.get(&key)?;
        let at = places.partition_point(|place| self.changes[*place].event.revision <= after);
        places.get(at).map(|place| &self.changes[*place])
    }

    /// The change of a key at this moment.
    pub fn at(&self, key: Key, moment: Moment) -> Option<&Change> {
        let change = self.latest(key, moment)?;
        (position(change, moment) == number(moment)).then_some(change)
    }

    /// The last change of a key up to this moment.
    pub fn latest(&self, key: Key, moment: Moment) -> Option<&Change> {
        let places = self.by_key.get(&key)?;
        let to = places
            .partition_point(|place| position(&self.changes[*place], moment) <= number(moment));
        Some(&self.changes[places[to.checked_sub(1)?]])
    }

    /// Whether a key held something at a revision.
    pub fn is_there(&self, key: Key, revision: u64) -> bool {
        let latest = self.latest(key, Moment::Revision(revision));
        latest.is_some_and(|change| change.event.now.is_some())
    }

    /// The revision of a moment.
    pub fn revision(&self, moment: Moment) -> u64 {
        let index = match moment {
            Moment::Revision(revision) => return revision,
            Moment::Index(index) => index,
        };
        let to = self.changes.partition_point(|change| change.index <= index);
        let latest = to.checked_sub(1).map(|place| &self.changes[place]);
        latest.map_or(self.first.revision, |change| change.event.revision)
    }

    /// Every member held at the end what the changes led to.
    fn check_last(&self, history: &History) -> Result<()> {
        let mut last: BTreeMap<Key, Entry> = BTreeMap::new();
        for Change { event, .. } in &self.changes {
            match event.now {
                Some(entry) => drop(last.insert(event.key, entry)),
                None => drop(last.remove(&event.key)),
            }
        }
        let last: Vec<_> = last.into_iter().collect();
        for (member, held) in history.held.iter().enumerate() {
            ensure!(
                *held == last,
                "member {} holds {held:?} in the end, not {last:?}",
                member + 1
            );
        }
        Ok(())
    }
}

fn number(moment: Moment) -> u64 {
    match moment {
        Moment::Revision(number) | Moment::Index(number) => number,
    }
}

/// Where a change is, counted as `moment` is.
fn position(change: &Change, moment: Moment) -> u64 {
    match moment {
        Moment::Revision(_) => change.event.revision,
        Moment::Index(_) => change.index,
    }
}

fn events(watch: &EtcdWatch) -> Vec<Event> {
    let messages = watch.watch.messages.iter();
    messages
        .flat_map(|message| message.events.clone())
        .collect()
}

fn first_told_us(history: &History, revision: u64) -> u64 {
    let of = |watch: &EtcdWatch| {
        let messages = &watch.watch.messages;
        let at = messages.partition_point(|message| {
            message
                .events
                .last()
                .is_none_or(|last| last.revision < revision)
        });
        watch.came_us.get(at).copied()
    };
    let first = history.watches.iter().filter_map(of).min();
    first.unwrap_or(u64::MAX)
}

/// Nothing but the keys of the run is written meanwhile, so every revision has events.
fn check_revisions(events: &[Event], first: Clocks, last: Clocks) -> Result<()> {
    let mut newest = first.revision;
    for event in events {
        ensure!(
            event.revision == newest || event.revision == newest + 1,
            "revision {} was told where {} was due: {event:?}",
            event.revision,
            newest + 1
        );
        ensure!(event.revision > first.revision, "told of before: {event:?}");
        newest = event.revision;
    }
    ensure!(
        newest == last.revision,
        "the last revision told is {newest}, not {}",
        last.revision
    );
    Ok(())
}

/// Every value was asked for at its key, and came to be once.
fn check_values(events: &[Event], history: &History) -> Result<()> {
    let operations = history.operations.iter();
    let mut asked: BTreeSet<(Key, Value)> = operations
        .filter_map(|operation| Some((operation.key, operation.ask.value()?)))
        .collect();
    for event in events {
        let Some(entry) = event.now else { continue };
        ensure!(
            asked.remove(&(event.key, entry.value)),
            "key {} got {}, which nobody wrote, or is written twice: {event:?}",
            event.key,
            Text(entry.value)
        );
    }
    Ok(())
}

/// Every event's numbers follow from the ones before it.
fn check_entries(events: &[Event]) -> Result<()> {
    let mut held: BTreeMap<Key, Entry> = BTreeMap::new();
    for event in events {
        let before = held.get(&event.key).copied();
        ensure!(
            event.previous == before,
            "the key held {before:?} before {event:?}"
        );
        let Some(now) = event.now else {
            ensure!(before.is_some(), "nothing was there to delete: {event:?}");
            held.remove(&event.key);
            continue;
        };
        let expected = Entry {
            created: before.map_or(event.revision, |before| before.created),
            modified: event.revision,
            version: before.map_or(1, |before| before.version + 1),
            ..now
        };
        ensure!(now == expected, "{event:?}, not {expected:?}");
        held.insert(event.key, now);
    }
    Ok(())
}

/// A waiter was told every event once, in the order of indexes, which is that of revisions.
fn check_indexes(events: &[Event], told: &[WaitEvent], first: Clocks, last: Clocks) -> Result<()> {
    let mut due = first.index;
    for (place, wait) in told.iter().enumerate() {
        due += 1;
        ensure!(wait.index == due, "index {due} was due: {wait:?}");
        let event = events.get(place);
        let event =
            event.with_context(|| format!("etcd v3 was told of no such change: {wait:?}"))?;
        let same = wait.key == event.key
            && wait.value == event.now.map(|now| now.value)
            && wait.previous == event.previous.map(|previous| previous.value)
            && (wait.action == Action::Written) == event.now.is_some();
        ensure!(same, "{wait:?}, but etcd v3 was told {event:?}");
    }
    ensure!(
        due == last.index && told.len() == events.len(),
        "the last index told is {due}, not {}, of {} changes",
        last.index,
        events.len()
    );
    Ok(())
}
