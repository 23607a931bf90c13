//! The keyspace: a pure, deterministic state machine over ordered keys, with history.
//!
//! It knows keys, revisions, leases, the path tree, transactions and compaction. It must never know
//! a clock, a disk, a socket, a thread, randomness, an async runtime, or any protocol's words.
//!
//! Start with [`Command`] (what can be asked), [`Applied`] (what comes of it), then
//! [`Keyspace::apply`] and [`Reader`].

pub mod change;
pub mod codec;
pub mod command;
pub mod reader;
pub mod slot;
pub mod types;

pub use change::{Answer, Applied, Cause, Change, Outcome, RangeAnswer, Refusal, TxnOutcome};
pub use command::Command;
pub use reader::{LeaseView, Reader};
pub use slot::Entry;
pub use types::{End, LeaseId, Revision, Span, Stamp, WallMs};

/// The one writer's handle.
pub struct Keyspace {}

impl Default for Keyspace {
    fn default() -> Self {
        Keyspace::new()
    }
}

impl Keyspace {
    /// An empty keyspace at revision 1.
    pub fn new() -> Keyspace {
        todo!()
    }
    /// A handle for readers.
    pub fn reader(&self) -> Reader {
        todo!()
    }
    /// Applies one command. Equal commands with equal stamps in equal order give equal results and
    /// equal digests on every member.
    pub fn apply(&mut self, _stamp: Stamp, _command: &Command) -> Applied {
        todo!()
    }
    /// Does up to about a millisecond of postponed work (dropping compacted versions). Returns
    /// whether some is left. Never changes what a read answers.
    pub fn tidy(&mut self) -> bool {
        todo!()
    }
    /// A digest of the whole state, for comparing members at equal index.
    pub fn digest(&self) -> u64 {
        todo!()
    }
    /// The state as it is now, as records in key order, to be read elsewhere while the writer goes
    /// on. With `since`, only what changed after that revision (and what is small and always
    /// whole); `None` when compaction has passed `since`, so that only a whole cut will do.
    pub fn cut(&self, _since: Option<Revision>) -> Option<Cut> {
        todo!()
    }
    /// Rebuilds a keyspace from the records of a whole cut, overlaid with those of later partial
    /// ones, in key order.
    pub fn restore(_records: impl Iterator<Item = Record>) -> Result<Keyspace, Damaged> {
        todo!()
    }
}

/// One piece of a cut. Keys order the records and tell which replaces which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the record belongs.
    pub key: bytes::Bytes,
    /// What it holds, versioned.
    pub value: bytes::Bytes,
}

/// The records given to [`Keyspace::restore`] are not those of a cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state's record {record} cannot be read: {reason}")]
pub struct Damaged {
    /// The record's key, escaped.
    pub record: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A consistent view of a whole keyspace at one revision. Compacted versions are not dropped while
/// one is alive.
pub struct Cut {}

impl Cut {
    /// About how many records there will be.
    pub fn len_hint(&self) -> usize {
        todo!()
    }
}

impl Iterator for Cut {
    type Item = Record;
    fn next(&mut self) -> Option<Record> {
        todo!()
    }
}
