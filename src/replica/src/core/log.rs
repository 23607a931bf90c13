//! Our log as raft-rs wants to see it.

use crate::entry::to_raft;
use crate::machine::Place;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use store::LogStore;

/// How much is read at once where only the entries' kinds are wanted.
const SCAN_BYTES_MAX: u64 = 1 << 20;

/// The log, and what of the applied state Raft must know.
pub struct LogView {
    pub log: Box<dyn LogStore>,
    /// Who votes as of `applied`.
    pub conf: ConfState,
    /// The last entry applied: where a snapshot would stand.
    pub applied: Place,
}

impl LogView {
    fn read(&self, from: u64, to: u64, bytes_max: u64) -> raft::Result<Vec<Entry>> {
        match self.log.entries(from, to, bytes_max) {
            Ok(entries) => Ok(entries.into_iter().map(to_raft).collect()),
            Err(fault) => {
                // raft-rs panics on this, which is what a member with an unreadable log must do; the
                // driver turns it into an orderly end.
                tracing::error!(%fault, "the log cannot be read back");
                Err(raft::Error::Store(StorageError::Other(fault.into())))
            }
        }
    }

    /// Entries without their content, bounded in memory whatever their number.
    fn scan(&self, from: u64, to: u64) -> raft::Result<Vec<Entry>> {
        let mut kinds = Vec::new();
        let mut next = from;
        while next < to {
            let mut entries = self.read(next, to, SCAN_BYTES_MAX)?;
            let Some(last) = entries.last() else {
                break;
            };
            next = last.index + 1;
            entries.iter_mut().for_each(|entry| entry.data.clear());
            kinds.extend(entries);
        }
        Ok(kinds)
    }
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let vote = self.log.vote();
        let mut hard = HardState::default();
        hard.term = vote.term.max(self.applied.term);
        // A vote counts in the term it was given in only.
        hard.vote = if hard.term == vote.term { vote.vote } else { 0 };
        // The commit index is not synced on its own: the checkpoint may know better.
        hard.commit = vote
            .commit
            .min(self.log.last_index())
            .max(self.applied.index);
        Ok(RaftState::new(hard, self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.log.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match max_size.into() {
            Some(bytes_max) => self.read(low, high, bytes_max),
            // Before it campaigns, raft-rs reads everything that is committed and not applied, only
            // to see whether a change of members is among it (raft-rs pull request 530).
            None => self.scan(low, high),
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.applied.index {
            return Ok(self.applied.term);
        }
        let missing = if index < self.log.first_index() {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        };
        self.log.term(index).ok_or(raft::Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index())
    }

    /// Only where the snapshot will stand: whoever sends it takes the state as it is then, which is
    /// never older, and says so in the message.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.set_conf_state(self.conf.clone());
        Ok(snapshot)
    }
}
