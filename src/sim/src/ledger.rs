//! What the members together say happened: the changes of every revision, and the digest at every
//! index. The first member that gets somewhere writes the line; all others must agree with it.

use crate::workload::LocalRead;
use checker::kv::{Entry, Key, State, Value};
use checker::watch::Event;
use std::collections::BTreeMap;
use thiserror::Error;

/// The lines so far.
#[derive(Default)]
pub struct Ledger {
    /// Every change, in order.
    events: Vec<Event>,
    /// For each revision from 2 on: where its events end, and when it was first seen.
    revisions: Vec<(usize, u64)>,
    /// Digest and revision by applied index.
    digests: BTreeMap<u64, (u64, u64)>,
    /// Where and when a value was written.
    written: BTreeMap<Value, (u64, u64)>,
}

/// Members disagree.
#[derive(Debug, Error)]
pub enum Disagreement {
    /// With the first that applied this revision.
    #[error("revision {revision} is {got:?} here and was {first:?} elsewhere")]
    Changes {
        /// Which revision.
        revision: u64,
        /// The first member's.
        first: Vec<Event>,
        /// This member's.
        got: Vec<Event>,
    },
    /// A revision came before the one before it.
    #[error("revision {got} was published when the newest was {newest}")]
    Gap {
        /// The newest before.
        newest: u64,
        /// What came.
        got: u64,
    },
    /// A change says that it belongs to another revision.
    #[error("revision {revision} holds a change of another one: {event:?}")]
    Misplaced {
        /// The revision published.
        revision: u64,
        /// The change.
        event: Box<Event>,
    },
    /// With the first that applied this index.
    #[error("digest and revision at index {index} are {got:x?} here and were {first:x?} elsewhere")]
    Digest {
        /// Which index.
        index: u64,
        /// The first member's digest and revision.
        first: (u64, u64),
        /// This member's.
        got: (u64, u64),
    },
    /// A read of one member's state is not what the state was.
    #[error("a read of one member found {found:?}, expected {expected:?}: {read:?}")]
    LocalRead {
        /// The read.
        read: LocalRead,
        /// What it found.
        found: Vec<(Key, Entry)>,
        /// What was there at that revision.
        expected: Vec<(Key, Entry)>,
    },
    /// A read shows a revision before any member had it.
    #[error("a read shows revision {revision}, which nobody had applied")]
    Future {
        /// The revision it shows.
        revision: u64,
    },
}

impl Ledger {
    /// The newest revision.
    pub fn newest(&self) -> u64 {
        self.revisions.len() as u64 + 1
    }

    /// Every change so far, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// At which revision a value was written, and when that was first seen.
    pub fn written(&self, value: Value) -> Option<(u64, u64)> {
        self.written.get(&value).copied()
    }

    /// A member applied a command that made this revision, now.
    pub fn publish(
        &mut self,
        at: u64,
        revision: u64,
        events: &[Event],
    ) -> Result<(), Disagreement> {
        if let Some(event) = events.iter().find(|e| e.revision != revision) {
            let event = Box::new(*event);
            return Err(Disagreement::Misplaced { revision, event });
        }
        let newest = self.newest();
        if revision <= newest {
            let first = self.of(revision);
            if first == events {
                return Ok(());
            }
            return Err(Disagreement::Changes {
                revision,
                first: first.to_vec(),
                got: events.to_vec(),
            });
        }
        if revision != newest + 1 {
            let got = revision;
            return Err(Disagreement::Gap { newest, got });
        }
        self.events.extend_from_slice(events);
        self.revisions.push((self.events.len(), at));
        for value in events.iter().filter_map(|e| Some(e.now?.value)) {
            self.written.insert(value, (revision, at));
        }
        Ok(())
    }

    /// The events of one revision; none of the first, at which a keyspace begins.
    fn of(&self, revision: u64) -> &[Event] {
        let end = |revision: u64| match revision.checked_sub(2) {
            Some(nth) => self.revisions[nth as usize].0,
            None => 0,
        };
        &self.events[end(revision.saturating_sub(1))..end(revision)]
    }

    /// A member stands at this index with this digest and revision.
    pub fn compare(&mut self, index: u64, digest: u64, revision: u64) -> Result<(), Disagreement> {
        let got = (digest, revision);
        let first = *self.digests.entry(index).or_insert(got);
        if first == got {
            Ok(())
        } else {
            Err(Disagreement::Digest { index, first, got })
        }
    }

    /// Judges reads of single members' states: each must be of one moment, that of its revision,
    /// and of none that had not come.
    pub fn judge(&self, reads: &[LocalRead]) -> Result<(), Disagreement> {
        let mut sorted: Vec<&LocalRead> = reads.iter().collect();
        sorted.sort_by_key(|read| read.revision);
        let mut state = State::default();
        let mut next = 0;
        for read in sorted {
            let revision = read.revision;
            if revision > self.newest() || (revision > 1 && self.since(revision) > read.at) {
                return Err(Disagreement::Future { revision });
            }
            while let Some(event) = self.events.get(next).filter(|e| e.revision <= revision) {
                match event.now {
                    Some(entry) => state.entries.insert(event.key, entry),
                    None => state.entries.remove(&event.key),
                };
                next += 1;
            }
            let expected = state.read(&read.span);
            if expected != read.found {
                return Err(Disagreement::LocalRead {
                    read: read.clone(),
                    found: read.found.clone(),
                    expected,
                });
            }
        }
        Ok(())
    }

    fn since(&self, revision: u64) -> u64 {
        self.revisions[revision as usize - 2].1
    }
}
