//! What must always hold, as plain predicates: asserted in release builds, where a member that stops
//! is better than one that diverges, and by tests.

/// The next revision follows the one before it: revisions move by exactly one.
pub fn revision_advances(before: u64, after: u64) -> bool {
    after == before + 1
}

/// Nothing is compacted that has not happened.
pub fn compaction_lags(compacted: u64, newest: u64) -> bool {
    compacted <= newest
}

/// A key's figures make sense together: a tombstone was never put; a value was put at least once, and
/// created at or before its last change.
pub fn figures_agree(created: u64, modified: u64, version: u64) -> bool {
    if created == 0 {
        version == 0
    } else {
        version >= 1 && created <= modified
    }
}

/// The ordered index and the hash hold the same keys, of which no more can be live than there are.
pub fn indexes_agree(hashed: usize, live: usize) -> bool {
    live <= hashed
}
