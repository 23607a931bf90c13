//! Does what a watcher received keep etcd's promises? Ordered, unique, atomic, reliable, resumable,
//! bookmarkable, filtered, with the right flags and the right previous entries
//! (<https://etcd.io/docs/latest/learning/api_guarantees/#watch-apis>).
//!
//! Everything is judged against the one history of changes that the members agree on. Since that is
//! known, the expected stream is known event by event; the rest of this module says what kind of
//! promise a difference breaks.

use super::kv::{Entry, Key};
use std::ops::Range;
use thiserror::Error;

/// One key's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it changed.
    pub revision: u64,
    /// What changed.
    pub key: Key,
    /// What it is now; `None` when it was deleted. It was created now if `created` is `revision`.
    pub now: Option<Entry>,
    /// What it was before; in a received event only if it was asked for.
    pub previous: Option<Entry>,
}

/// One message to a watcher. Without events it is a progress notification: everything up to
/// `revision` has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The revision in its header.
    pub revision: u64,
    /// The last compaction when it was sent. What was before an event at or before it cannot be
    /// told any more, so that a previous entry may be left out.
    pub compacted: u64,
    /// What happened.
    pub events: Vec<Event>,
}

/// What one watcher asked for and received.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The keys it asked for.
    pub span: Range<Key>,
    /// The first revision it asked for.
    pub from: u64,
    /// Whether it asked for previous entries.
    pub want_previous: bool,
    /// What it received, in order.
    pub messages: Vec<Message>,
    /// It was cancelled with the word that what it wants next was compacted at this revision.
    pub compacted: Option<u64>,
    /// It was still connected, and the cluster at rest, when the revision stood here.
    pub complete_to: Option<u64>,
}

/// What came, and what should have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?}, expected {expected:?}")]
pub struct Difference {
    /// As received.
    pub got: Event,
    /// As it should have been received at this place.
    pub expected: Event,
}

impl Difference {
    fn boxed(got: &Event, expected: &Event) -> Box<Difference> {
        Box::new(Difference {
            got: *got,
            expected: *expected,
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Not filtered: outside the span or before the first revision asked for.
    #[error("an event that was not asked for: {0:?}")]
    NotAskedFor(Event),
    /// Nothing like it happened.
    #[error("an event that never happened: {0:?}")]
    Invented(Event),
    /// The value, a revision, the version or the lease is wrong, and so the create flag may be.
    #[error("an event with a wrong entry: {0}")]
    WrongEntry(Box<Difference>),
    /// The previous entry is wrong, missing, or was not asked for.
    #[error("an event with a wrong previous entry: {0}")]
    WrongPrevious(Box<Difference>),
    /// Not unique.
    #[error("an event twice: {0:?}")]
    Twice(Event),
    /// Not ordered.
    #[error("an event too early: {0}")]
    OutOfOrder(Box<Difference>),
    /// Not reliable or, at the beginning of a stream, not resumable.
    #[error("an event left out: {missing:?}")]
    Missing {
        /// What never came.
        missing: Event,
    },
    /// Not atomic.
    #[error("revision {revision} was torn into several messages")]
    Torn {
        /// Which one.
        revision: u64,
    },
    /// Not bookmarkable, or a header older than what the message holds.
    #[error("the header of revision {revision} is wrong: {event:?} belongs on its other side")]
    WrongHeader {
        /// What the header said.
        revision: u64,
        /// An event that contradicts it.
        event: Box<Event>,
    },
    /// Cancelled for a compaction that did not touch what it still wanted.
    #[error("cancelled for a compaction at {compacted}, though the next revision is {next}")]
    NotCompacted {
        /// The compaction it was told of.
        compacted: u64,
        /// The first revision it had not received.
        next: u64,
    },
}

/// Judges one watcher against the whole history, which is in order and free of gaps.
pub fn check(history: &[Event], watch: &Watch) -> Result<(), Violation> {
    let expected: Vec<Event> = history
        .iter()
        .filter(|e| watch.span.contains(&e.key) && e.revision >= watch.from)
        .map(|e| Event {
            previous: e.previous.filter(|_| watch.want_previous),
            ..*e
        })
        .collect();
    let mut judge = Judge {
        history,
        watch,
        expected: &expected,
        received: 0,
    };
    for message in &watch.messages {
        judge.message(message)?;
    }
    if let Some(revision) = watch.complete_to {
        judge.nothing_left_to(revision)?;
    }
    match watch.compacted {
        Some(compacted) => judge.cancelled(compacted),
        None => Ok(()),
    }
}

struct Judge<'a> {
    history: &'a [Event],
    watch: &'a Watch,
    expected: &'a [Event],
    /// How many of the expected events came.
    received: usize,
}

impl Judge<'_> {
    fn message(&mut self, message: &Message) -> Result<(), Violation> {
        for event in &message.events {
            self.event(event, message.compacted)?;
        }
        let wrong = |event: &Event| Violation::WrongHeader {
            revision: message.revision,
            event: Box::new(*event),
        };
        match (message.events.last(), self.expected.get(self.received)) {
            (Some(last), _) if last.revision > message.revision => Err(wrong(last)),
            (Some(last), Some(next)) if last.revision == next.revision => Err(Violation::Torn {
                revision: next.revision,
            }),
            (None, Some(next)) if next.revision <= message.revision => Err(wrong(next)),
            _ => Ok(()),
        }
    }

    fn event(&mut self, got: &Event, compacted: u64) -> Result<(), Violation> {
        let same = |e: &&Event| e.revision == got.revision && e.key == got.key;
        match self.expected.get(self.received) {
            Some(next) if same(&next) => {
                self.received += 1;
                if next.now != got.now {
                    return Err(Violation::WrongEntry(Difference::boxed(got, next)));
                }
                let forgotten = got.previous.is_none() && got.revision <= compacted;
                if next.previous != got.previous && !forgotten {
                    return Err(Violation::WrongPrevious(Difference::boxed(got, next)));
                }
                Ok(())
            }
            _ if self.expected[..self.received].iter().any(|e| same(&e)) => {
                Err(Violation::Twice(*got))
            }
            Some(next) if self.expected.iter().any(|e| same(&e)) => {
                Err(self.missing_or_late(got, next))
            }
            _ if self.history.iter().any(|e| same(&e)) => Err(Violation::NotAskedFor(*got)),
            _ => Err(Violation::Invented(*got)),
        }
    }

    /// `got` came where `next` should have: does `next` come later?
    fn missing_or_late(&self, got: &Event, next: &Event) -> Violation {
        let came = |e: &Event| e.revision == next.revision && e.key == next.key;
        let mut all = self.watch.messages.iter().flat_map(|m| &m.events);
        if all.any(came) {
            Violation::OutOfOrder(Difference::boxed(got, next))
        } else {
            Violation::Missing { missing: *next }
        }
    }

    fn nothing_left_to(&self, revision: u64) -> Result<(), Violation> {
        match self.expected.get(self.received) {
            Some(next) if next.revision <= revision => Err(Violation::Missing { missing: *next }),
            _ => Ok(()),
        }
    }

    fn cancelled(&self, compacted: u64) -> Result<(), Violation> {
        let last = self.watch.messages.last();
        let told = last.map_or(0, |m| m.events.last().map_or(m.revision, |e| e.revision));
        let next = self.watch.from.max(told + 1);
        if next < compacted {
            Ok(())
        } else {
            Err(Violation::NotCompacted { compacted, next })
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
