//! The bounds an operator may set, with etcd's defaults.

use replica::proposals::PROPOSAL_BYTES_MAX;
use std::time::Duration;

/// The most that an operator may allow a request to take: more is replicated than was sent.
pub const REQUEST_BYTES_MAX: usize = PROPOSAL_BYTES_MAX / 2;

/// Keys or nodes that are read on a connection's thread, which carries other connections too. More are
/// read by [`Gate::read_aside`](crate::Gate::read_aside).
pub const AT_ONCE_MAX: u64 = 1_000;

/// What the server was told to hold its clients to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request of etcd v3 that may be replicated; at most [`REQUEST_BYTES_MAX`]. The other
    /// protocols have bounds of their own: ZooKeeper's frame, the form of etcd v2.
    pub request_bytes_max: usize,
    /// The most operations on one level of a transaction.
    pub txn_ops_max: usize,
    /// The size at which the keyspace stops growing; none switches the quota off.
    pub space_bytes_max: Option<u64>,
    /// How long a follower waits for its leader. Other waits are measured in it.
    pub election_timeout: Duration,
    /// How hard passwords are hashed: each step doubles the work. From 4 to 31.
    pub bcrypt_cost: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            space_bytes_max: Some(2 << 30),
            election_timeout: Duration::from_millis(1000),
            bcrypt_cost: 10,
        }
    }
}

impl Limits {
    /// The shortest lease: it must outlive an election, or every change of leader would end
    /// leases whose clients are alive. etcd's rule: one and a half election timeouts, rounded up
    /// to seconds.
    pub fn lease_ttl_seconds_min(&self) -> i64 {
        let millis = self.election_timeout.as_millis().saturating_mul(3) / 2;
        i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_lease_outlives_an_election() {
        let at = |millis| {
            let limits = Limits {
                election_timeout: Duration::from_millis(millis),
                ..Limits::default()
            };
            limits.lease_ttl_seconds_min()
        };
        assert_eq!(at(1000), 2);
        assert_eq!(at(2000), 3);
        assert_eq!(at(100), 1);
        assert_eq!(at(50_000), 75);
    }
}
