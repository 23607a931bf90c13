//! What clients saw while members were killed, and the judgement over it. Every write has a value
//! of its own and every reply a revision, so the order of all writes is known and nothing has to
//! be searched: a plain walk finds lost writes, stale reads, and gaps or repetitions in watches.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

/// A put that was answered, or may have happened.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// A value that no other write has.
    pub value: String,
    /// Microseconds from the start of the run.
    pub began_us: u64,
    /// When it was acknowledged and at which revision; nothing if its outcome is unknown.
    pub acknowledged: Option<(u64, i64)>,
}

/// A linearizable read of one key that was answered.
#[derive(Clone, Debug)]
pub struct Read {
    /// The key.
    pub key: String,
    /// Microseconds from the start of the run.
    pub began_us: u64,
    /// Microseconds from the start of the run.
    pub ended_us: u64,
    /// The store's revision when it was read.
    pub revision: i64,
    /// The value and its revision.
    pub found: Option<(String, i64)>,
}

/// One event of a watcher of all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision.
    pub revision: i64,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Everything that was seen in one run on a fresh store.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All writes that were tried.
    pub writes: Vec<Write>,
    /// All reads that were answered.
    pub reads: Vec<Read>,
    /// What each watcher saw, from the first revision to `last_revision`.
    pub watches: Vec<Vec<Event>>,
    /// The store's revision at the end.
    pub last_revision: i64,
    /// What the store held at the end: key to value and revision.
    pub last_state: BTreeMap<String, (String, i64)>,
}

impl History {
    /// Holds the history against what etcd promises.
    ///
    /// # Errors
    /// The first broken promise, in words.
    pub fn check(&self) -> Result<()> {
        let truth = self.check_watches()?;
        self.check_writes(&truth)?;
        self.check_reads(&truth)?;
        self.check_real_time()?;
        self.check_last_state(&truth)
    }

    /// Every watcher saw every revision once, in order, and the same; what it saw was written.
    fn check_watches(&self) -> Result<BTreeMap<i64, Event>> {
        let tried: BTreeSet<_> = self.writes.iter().map(|w| (&w.key, &w.value)).collect();
        let mut truth = BTreeMap::new();
        for (watcher, events) in self.watches.iter().enumerate() {
            let mut next = 2;
            for event in events {
                ensure!(
                    event.revision == next,
                    "watcher {watcher} saw revision {} where {next} was due",
                    event.revision
                );
                ensure!(
                    tried.contains(&(&event.key, &event.value)),
                    "watcher {watcher} saw {event:?}, which nobody wrote"
                );
                let first = truth.entry(event.revision).or_insert_with(|| event.clone());
                ensure!(first == event, "watchers disagree: {first:?} and {event:?}");
                next += 1;
            }
            ensure!(
                next == self.last_revision + 1,
                "watcher {watcher} ended before revision {next}, the store is at {}",
                self.last_revision
            );
        }
        Ok(truth)
    }

    /// Every acknowledged write is in the history, where its reply said; no write is there twice.
    fn check_writes(&self, truth: &BTreeMap<i64, Event>) -> Result<()> {
        for write in &self.writes {
            let Some((_, revision)) = write.acknowledged else {
                continue;
            };
            let there = truth.get(&revision);
            ensure!(
                there.is_some_and(|event| (&event.key, &event.value) == (&write.key, &write.value)),
                "an acknowledged write is lost: {write:?}, its revision has {there:?}"
            );
        }
        let mut values = BTreeSet::new();
        for event in truth.values() {
            ensure!(
                values.insert(&event.value),
                "a write happened twice: {event:?}"
            );
        }
        Ok(())
    }

    /// Every read found what its revision holds.
    fn check_reads(&self, truth: &BTreeMap<i64, Event>) -> Result<()> {
        let mut by_key: BTreeMap<&str, BTreeMap<i64, &str>> = BTreeMap::new();
        for event in truth.values() {
            by_key
                .entry(&event.key)
                .or_default()
                .insert(event.revision, &event.value);
        }
        for read in &self.reads {
            let versions = by_key.get(read.key.as_str());
            let held = versions.and_then(|v| v.range(..=read.revision).next_back());
            let found = read
                .found
                .as_ref()
                .map(|(value, revision)| (revision, value.as_str()));
            let held = held.map(|(revision, value)| (revision, *value));
            ensure!(found == held, "{read:?}, but its revision holds {held:?}");
        }
        Ok(())
    }

    fn check_real_time(&self) -> Result<()> {
        let writes = self.writes.iter().filter_map(|write| {
            let (ended_us, revision) = write.acknowledged?;
            Some(Interval {
                began_us: write.began_us,
                ended_us,
                revision,
                is_write: true,
            })
        });
        let reads = self.reads.iter().map(|read| Interval {
            began_us: read.began_us,
            ended_us: read.ended_us,
            revision: read.revision,
            is_write: false,
        });
        check_real_time(writes.chain(reads))
    }

    fn check_last_state(&self, truth: &BTreeMap<i64, Event>) -> Result<()> {
        let mut state = BTreeMap::new();
        for event in truth.values() {
            state.insert(event.key.clone(), (event.value.clone(), event.revision));
        }
        ensure!(
            state == self.last_state,
            "the store holds {:?}, not {state:?}",
            self.last_state
        );
        Ok(())
    }
}

/// An operation that was answered: when, and with what revision of what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// Microseconds from the start of the run.
    pub began_us: u64,
    /// Microseconds from the start of the run.
    pub ended_us: u64,
    /// The revision that it made or saw.
    pub revision: i64,
    /// Whether it made it.
    pub is_write: bool,
}

/// Whatever began after an answer was given sees at least that answer's revision, and a write a
/// newer one.
///
/// # Errors
/// The first operation that does not.
pub fn check_real_time(operations: impl Iterator<Item = Interval>) -> Result<()> {
    let mut by_begin: Vec<_> = operations.collect();
    let mut by_end = by_begin.clone();
    by_begin.sort_by_key(|operation| operation.began_us);
    by_end.sort_by_key(|operation| operation.ended_us);
    let mut answered = by_end.into_iter().peekable();
    let mut newest = 0;
    for operation in by_begin {
        let began_us = operation.began_us;
        while let Some(earlier) = answered.next_if(|earlier| earlier.ended_us < began_us) {
            newest = newest.max(earlier.revision);
        }
        let revision = operation.revision;
        ensure!(
            revision > newest || (!operation.is_write && revision == newest),
            "an operation that began at {began_us} us has revision {revision}, though {newest} \
             was answered before"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writes of one key, a read between them and one after, two watchers.
    fn sound() -> History {
        let write = |value: &str, began_us, ended, revision| Write {
            key: "k".to_owned(),
            value: value.to_owned(),
            began_us,
            acknowledged: Some((ended, revision)),
        };
        let read = |began_us, revision, value: &str| Read {
            key: "k".to_owned(),
            began_us,
            ended_us: began_us + 5,
            revision,
            found: Some((value.to_owned(), revision)),
        };
        let event = |revision, value: &str| Event {
            revision,
            key: "k".to_owned(),
            value: value.to_owned(),
        };
        let watch = vec![event(2, "a"), event(3, "b")];
        History {
            writes: vec![write("a", 0, 10, 2), write("b", 30, 40, 3)],
            reads: vec![read(20, 2, "a"), read(50, 3, "b")],
            watches: vec![watch.clone(), watch],
            last_revision: 3,
            last_state: BTreeMap::from([("k".to_owned(), ("b".to_owned(), 3))]),
        }
    }

    fn complaint(change: impl FnOnce(&mut History)) -> String {
        let mut history = sound();
        change(&mut history);
        history
            .check()
            .expect_err("the checker must see it")
            .to_string()
    }

    #[test]
    fn a_sound_history_passes() {
        sound().check().expect("nothing is wrong with it");
    }

    #[test]
    fn a_write_of_unknown_outcome_may_have_happened_or_not() {
        let mut history = sound();
        history.writes[1].acknowledged = None;
        history.check().expect("it happened");
        history.writes.push(Write {
            value: "c".to_owned(),
            ..history.writes[1].clone()
        });
        history.check().expect("it did not happen");
    }

    #[test]
    fn a_lost_write_is_found() {
        let lost = complaint(|h| {
            h.writes[0].acknowledged = Some((10, 3));
            h.writes[1].acknowledged = None;
        });
        assert!(lost.contains("is lost"), "{lost}");
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = complaint(|h| {
            h.reads[1].revision = 2;
            h.reads[1].found = Some(("a".to_owned(), 2));
        });
        assert!(stale.contains("was answered before"), "{stale}");
    }

    #[test]
    fn a_read_of_another_value_is_found() {
        let wrong = complaint(|h| h.reads[1].found = Some(("a".to_owned(), 2)));
        assert!(wrong.contains("but its revision holds"), "{wrong}");
    }

    #[test]
    fn a_gap_and_a_repetition_in_a_watch_are_found() {
        let gap = complaint(|h| drop(h.watches[1].remove(0)));
        assert!(gap.contains("where 2 was due"), "{gap}");
        let again = complaint(|h| {
            let last = h.watches[0][1].clone();
            h.watches[0].push(last);
        });
        assert!(again.contains("where 4 was due"), "{again}");
        let short = complaint(|h| drop(h.watches[1].pop()));
        assert!(short.contains("ended before"), "{short}");
    }

    #[test]
    fn a_write_that_nobody_made_is_found() {
        let made_up = complaint(|h| h.watches[0][0].value = "x".to_owned());
        assert!(made_up.contains("nobody wrote"), "{made_up}");
    }

    #[test]
    fn a_wrong_last_state_is_found() {
        let wrong = complaint(|h| h.last_state.clear());
        assert!(wrong.contains("the store holds"), "{wrong}");
    }
}
