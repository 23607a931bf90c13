//! Leases, and so sessions: what ends when its time is over, and takes the keys bound to it along.

use crate::slot::Slot;
use crate::types::LeaseId;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

/// What one lease counts towards [`crate::Reader::bytes_in_use`] beside its password.
pub(crate) const LEASE_BYTES: u64 = 64;

/// Every lease by id. A clone shares everything, so that readers and cuts take one in O(1).
pub(crate) type Leases = OrdMap<LeaseId, Lease>;

/// What is replicated of one lease.
#[derive(Clone)]
pub(crate) struct Lease {
    pub ttl_ms: u64,
    /// Remaining time at the last checkpoint, if there was one.
    pub remaining_ms: Option<u64>,
    /// What makes a session of it.
    pub session: Option<Held>,
    /// The keys that end with it; no part of the lease's own record, since each key names its lease.
    pub keys: OrdSet<Slot>,
}

impl Lease {
    /// What the lease counts towards the bytes in use.
    pub fn cost(&self) -> u64 {
        LEASE_BYTES
            + self
                .session
                .as_ref()
                .map_or(0, |held| held.password.len() as u64)
    }
}

/// A session, and who holds it.
#[derive(Clone)]
pub(crate) struct Held {
    /// What a client resumes it with.
    pub password: Bytes,
    /// The connection that holds it.
    pub attachment: u64,
    /// Which of that connection's writes comes next.
    pub next: u64,
}
