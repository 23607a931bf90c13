//! One key's place in memory: the newest version and the older ones still readable.

use crate::types::{LeaseId, Revision};

/// One version of one key, shared with the keyspace: cheap to clone, safe to keep.
#[derive(Clone)]
pub struct Entry {}

impl Entry {
    /// The key's bytes.
    pub fn key(&self) -> &[u8] {
        todo!()
    }
    /// The value's bytes; empty for a tombstone.
    pub fn value(&self) -> &[u8] {
        todo!()
    }
    /// Revision of the key's creation; 0 for a tombstone.
    pub fn created(&self) -> Revision {
        todo!()
    }
    /// Revision of this version.
    pub fn modified(&self) -> Revision {
        todo!()
    }
    /// Place among the changes of its revision, from 0.
    pub fn sub(&self) -> u32 {
        todo!()
    }
    /// Number of puts since creation, from 1; 0 for a tombstone.
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// The lease the key is bound to.
    pub fn lease(&self) -> LeaseId {
        todo!()
    }
    /// Whether this version says that the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        todo!()
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}
