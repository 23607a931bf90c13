//! Node watchers: one that is told once hears of the first change after its read, one that is told
//! always of every change, both in order and once, and before any answer that shows it.

use crate::kv::Key;
use crate::watch::Event;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// What a connection saw, in the order in which it saw it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// From after this revision on it watches every node always.
    pub everything_since: Option<u64>,
    /// What it saw.
    pub lines: Vec<Line>,
}

/// Something that a connection saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The answer to a read that left a watcher to be told once.
    Shown {
        /// Of which node.
        key: Key,
        /// At which revision.
        revision: u64,
    },
    /// An event.
    Told {
        /// Of which node.
        key: Key,
        /// At which revision.
        revision: u64,
    },
    /// It was told everything up to this revision that it was to be told.
    End(u64),
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// An answer, or the end, came before an event that belongs before it.
    #[error("revision {shown} was shown before node {key} was told of its change at {change}")]
    Late {
        /// The node.
        key: Key,
        /// Its change.
        change: u64,
        /// What was shown.
        shown: u64,
    },
    /// An event that no watcher asked for, or a second one.
    #[error("node {key} was told of a change at {revision} that nobody watched for")]
    Unasked {
        /// The node.
        key: Key,
        /// What it was told.
        revision: u64,
    },
    /// Events went back.
    #[error("an event of revision {got} came after one of {newest}")]
    OutOfOrder {
        /// The newest before.
        newest: u64,
        /// What came.
        got: u64,
    },
}

/// The changes of every node.
pub struct Truth(BTreeMap<Key, BTreeSet<u64>>);

impl Truth {
    /// From every event there was.
    pub fn new(events: &[Event]) -> Truth {
        let mut changes: BTreeMap<Key, BTreeSet<u64>> = BTreeMap::new();
        for event in events {
            changes.entry(event.key).or_default().insert(event.revision);
        }
        Truth(changes)
    }

    fn next(&self, key: Key, since: u64) -> Option<u64> {
        self.0.get(&key)?.range(since + 1..).next().copied()
    }
}

/// Looks for a broken promise.
pub fn check(truth: &Truth, log: &Log) -> Result<(), Violation> {
    let mut newest = 0;
    // The revision that each watcher which is told once was left at.
    let mut armed: BTreeMap<Key, u64> = BTreeMap::new();
    // Up to where each node's changes were told, where everything is watched.
    let mut told: BTreeMap<Key, u64> = BTreeMap::new();
    if let Some(since) = log.everything_since {
        told.extend(truth.0.keys().map(|key| (*key, since)));
    }
    for line in &log.lines {
        match *line {
            Line::Told { key, revision } => {
                if revision < newest {
                    let got = revision;
                    return Err(Violation::OutOfOrder { newest, got });
                }
                newest = revision;
                let once = armed.remove(&key).and_then(|since| truth.next(key, since));
                let always = told.get(&key).and_then(|told| truth.next(key, *told));
                if once != Some(revision) && always != Some(revision) {
                    return Err(Violation::Unasked { key, revision });
                }
                if always == Some(revision) {
                    told.insert(key, revision);
                }
            }
            Line::Shown { key, revision } => {
                nothing_due(truth, armed.iter().chain(&told), revision)?;
                armed.insert(key, revision);
            }
            Line::End(revision) => nothing_due(truth, armed.iter().chain(&told), revision)?,
        }
    }
    Ok(())
}

/// No node whose watcher was told up to some revision changed after that and up to `shown`.
fn nothing_due<'a>(
    truth: &Truth,
    watched: impl Iterator<Item = (&'a Key, &'a u64)>,
    shown: u64,
) -> Result<(), Violation> {
    for (&key, &since) in watched {
        match truth.next(key, since) {
            Some(change) if change <= shown => return Err(Violation::Late { key, change, shown }),
            Some(_) | None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1 changes at 3 and 5, node 2 at 4.
    fn truth() -> Truth {
        Truth(BTreeMap::from([
            (1, BTreeSet::from([3, 5])),
            (2, BTreeSet::from([4])),
        ]))
    }

    fn shown(key: Key, revision: u64) -> Line {
        Line::Shown { key, revision }
    }

    fn told(key: Key, revision: u64) -> Line {
        Line::Told { key, revision }
    }

    fn verdict(everything_since: Option<u64>, lines: &[Line]) -> Result<(), Violation> {
        let lines = lines.to_vec();
        let log = Log {
            everything_since,
            lines,
        };
        check(&truth(), &log)
    }

    #[test]
    fn true_logs_pass() {
        let once = [
            shown(1, 2),
            told(1, 3),
            shown(2, 3),
            told(2, 4),
            Line::End(5),
        ];
        assert_eq!(verdict(None, &once), Ok(()));
        let always = [
            told(1, 3),
            shown(2, 3),
            told(2, 4),
            told(1, 5),
            Line::End(5),
        ];
        assert_eq!(verdict(Some(2), &always), Ok(()));
        assert_eq!(verdict(Some(5), &[Line::End(5)]), Ok(()));
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let late = Violation::Late {
            key: 1,
            change: 3,
            shown: 3,
        };
        assert_eq!(verdict(None, &[shown(1, 2), shown(2, 3)]), Err(late));
        assert_eq!(verdict(Some(2), &[shown(2, 3)]), Err(late));
        assert_eq!(verdict(None, &[shown(1, 2), Line::End(3)]), Err(late));
        let unasked = |key, revision| Err(Violation::Unasked { key, revision });
        assert_eq!(verdict(None, &[shown(2, 2), told(1, 3)]), unasked(1, 3));
        let twice = [shown(1, 2), told(1, 3), told(1, 3)];
        assert_eq!(verdict(None, &twice), unasked(1, 3));
        assert_eq!(verdict(None, &[shown(1, 2), told(1, 5)]), unasked(1, 5));
        let back = [told(1, 3), told(2, 4), told(1, 3)];
        let (newest, got) = (4, 3);
        let violation = Err(Violation::OutOfOrder { newest, got });
        assert_eq!(verdict(Some(2), &back), violation);
    }
}
