//! What many threads may do at once while the one writer applies: read.

use crate::change::TxnOutcome;
use crate::change::{Change, RangeAnswer, Refusal};
use crate::command::{Alarm, Range, Txn};
use crate::types::{LeaseId, Revision};

/// A handle for reading; clone it freely. Never blocks the writer for longer than a slice.
#[derive(Clone)]
pub struct Reader {}

/// What is replicated of a lease. How much of its time is left is the leader's clock's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Which lease.
    pub lease: LeaseId,
    /// Granted time to live.
    pub ttl_ms: u64,
    /// Remaining time at the last checkpoint, if there was one.
    pub remaining_ms: Option<u64>,
}

impl Reader {
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// The revision of the last compaction; 0 when there was none.
    pub fn compacted(&self) -> Revision {
        todo!()
    }
    /// Reads a span.
    pub fn range(&self, _range: &Range) -> Result<RangeAnswer, Refusal> {
        todo!()
    }
    /// Runs a transaction that writes nothing, all at one revision. Panics if it holds a write.
    pub fn txn(&self, _txn: &Txn) -> Result<(Revision, TxnOutcome), Refusal> {
        todo!()
    }
    /// The changes of whole revisions from `from` on, until at least `changes_max` changes were
    /// gathered or the newest revision was reached.
    pub fn history(&self, _from: Revision, _changes_max: usize) -> Result<Vec<Change>, Refusal> {
        todo!()
    }
    /// One lease.
    pub fn lease(&self, _lease: LeaseId) -> Option<LeaseView> {
        todo!()
    }
    /// Every lease, by id.
    pub fn leases(&self) -> Vec<LeaseView> {
        todo!()
    }
    /// The keys bound to a lease, in order.
    pub fn lease_keys(&self, _lease: LeaseId) -> Option<Vec<bytes::Bytes>> {
        todo!()
    }
    /// The standing alarms, by member.
    pub fn alarms(&self) -> Vec<(u64, Alarm)> {
        todo!()
    }
    /// Bytes that keys, values and bookkeeping of all retained versions take, by a fixed formula
    /// that is equal on every member (for the space quota).
    pub fn bytes_in_use(&self) -> u64 {
        todo!()
    }
}
