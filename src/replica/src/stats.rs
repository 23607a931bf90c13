//! What is counted, under the ideas of etcd's metrics; whoever serves metrics gives them names.

use keyspace::command::{Op, Txn};
use keyspace::{Answer, TxnOutcome};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows, or a gauge; readable at any time.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// Upper bounds of [`Durations`]' buckets in seconds, those of etcd's disk and network histograms.
pub const BUCKETS_S: [f64; 14] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Count; BUCKETS_S.len() + 1],
    sum_us: Count,
}

impl Durations {
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|&bound| seconds <= bound);
        self.buckets[bucket.unwrap_or(BUCKETS_S.len())].add(1);
        self.sum_us.add(took.as_micros() as u64);
    }

    /// How many fell into each of [`BUCKETS_S`] (not cumulated), and last those beyond them all.
    pub fn buckets(&self) -> Vec<u64> {
        self.buckets.iter().map(Count::get).collect()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.get())
    }
}

/// How long something took, summed up.
#[derive(Debug, Default)]
pub struct Spread(Mutex<Summary>);

/// See [`Spread`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How often it was done.
    pub count: u64,
    /// How long it took the last time, in milliseconds as all of these, ...
    pub last_ms: f64,
    /// ... at least ...
    pub min_ms: f64,
    /// ... and at most.
    pub max_ms: f64,
    sum_ms: f64,
    sum_of_squares: f64,
}

impl Spread {
    pub(crate) fn observe(&self, took: Duration) {
        let took_ms = took.as_secs_f64() * 1e3;
        let summary = &mut *self.0.lock();
        summary.min_ms = match summary.count {
            0 => took_ms,
            _ => summary.min_ms.min(took_ms),
        };
        summary.max_ms = summary.max_ms.max(took_ms);
        summary.last_ms = took_ms;
        summary.count += 1;
        summary.sum_ms += took_ms;
        summary.sum_of_squares += took_ms * took_ms;
    }

    /// All of it at once.
    pub fn summary(&self) -> Summary {
        *self.0.lock()
    }
}

impl Summary {
    /// The mean; 0 of nothing.
    pub fn mean_ms(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum_ms / count as f64,
        }
    }

    /// The standard deviation; 0 of nothing.
    pub fn deviation_ms(&self) -> f64 {
        let mean_of_squares = match self.count {
            0 => 0.0,
            count => self.sum_of_squares / count as f64,
        };
        // Rounding may take it below zero.
        (mean_of_squares - self.mean_ms().powi(2)).max(0.0).sqrt()
    }
}

/// One member's counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// `etcd_server_proposals_committed_total`: the newest committed entry.
    pub committed: Count,
    /// `etcd_server_proposals_applied_total`: the newest applied entry.
    pub applied: Count,
    /// `etcd_server_proposals_pending`.
    pub pending: Count,
    /// `etcd_server_proposals_failed_total`.
    pub failed: Count,
    /// `etcd_server_leader_changes_seen_total`.
    pub leader_changes: Count,
    /// `etcd_server_has_leader`, 0 or 1.
    pub has_leader: Count,
    /// `etcd_server_is_leader`, 0 or 1.
    pub is_leader: Count,
    /// `etcd_server_is_learner`, 0 or 1.
    pub is_learner: Count,
    /// `etcd_server_heartbeat_send_failures_total`.
    pub heartbeat_failures: Count,
    /// `etcd_server_slow_apply_total`: applies of over 100 ms.
    pub slow_applies: Count,
    /// `etcd_server_slow_read_indexes_total`.
    pub slow_reads: Count,
    /// `etcd_server_read_indexes_failed_total`.
    pub failed_reads: Count,
    /// `etcd_server_learner_promote_successes`.
    pub promotions: Count,
    /// `etcd_debugging_lease_granted_total`.
    pub leases_granted: Count,
    /// `etcd_debugging_lease_revoked_total`.
    pub leases_revoked: Count,
    /// `etcd_debugging_lease_renewed_total`.
    pub leases_renewed: Count,
    /// `etcd_debugging_server_lease_expired_total`.
    pub leases_expired: Count,
    /// Those of them that were sessions (ZooKeeper's `stale_sessions_expired`).
    pub sessions_expired: Count,
    /// What transactions from the log did to keys.
    pub keys: KeyStats,
    /// Checkpoints written (`etcd_debugging_snap_save_total_duration_seconds`).
    pub checkpoints: Durations,
    /// Writing and syncing the log, once a round (`etcd_disk_wal_fsync_duration_seconds`).
    pub log_syncs: Durations,
    /// Applying one entry (`etcd_server_apply_duration_seconds`).
    pub applies: Durations,
}

/// Operations on keys that came through the log, reads among them.
#[derive(Debug, Default)]
pub struct KeyStats {
    /// `etcd_mvcc_put_total`.
    pub puts: Count,
    /// `etcd_debugging_mvcc_total_put_size_in_bytes`.
    pub put_bytes: Count,
    /// `etcd_mvcc_delete_total`: deletes, however many keys each took.
    pub deletes: Count,
    /// `etcd_mvcc_range_total`, as far as they came through the log.
    pub ranges: Count,
    /// `etcd_mvcc_txn_total`: transactions of more than one operation.
    pub txns: Count,
}

impl KeyStats {
    /// Counts what a transaction did.
    pub(crate) fn count(&self, txn: &Txn, outcome: &TxnOutcome) {
        if self.count_branch(txn, outcome) > 1 {
            self.txns.add(1);
        }
    }

    /// The number of operations, those of nested transactions included.
    fn count_branch(&self, txn: &Txn, outcome: &TxnOutcome) -> u64 {
        let ops = match outcome.succeeded {
            true => &txn.then,
            false => &txn.otherwise,
        };
        let one = |count: &Count| {
            count.add(1);
            1
        };
        let counted = ops
            .iter()
            .zip(&outcome.answers)
            .map(|(op, answer)| match (op, answer) {
                (Op::Range(_), _) => one(&self.ranges),
                (Op::Delete(_), _) => one(&self.deletes),
                (Op::Put(put), _) => {
                    let value = put.value.as_ref().map_or(0, bytes::Bytes::len);
                    self.put_bytes.add((put.key.len() + value) as u64);
                    one(&self.puts)
                }
                (Op::Txn(txn), Answer::Txn(outcome)) => self.count_branch(txn, outcome),
                // Each operation has an answer of its own kind.
                (Op::Txn(_), Answer::Range(_) | Answer::Put(_) | Answer::Delete { .. }) => 0,
            });
        counted.sum()
    }
}

/// One connection's counts.
#[derive(Debug, Default)]
pub struct PeerStats {
    /// `etcd_network_peer_sent_bytes_total`.
    pub sent_bytes: Count,
    /// `etcd_network_peer_received_bytes_total`.
    pub received_bytes: Count,
    /// Messages of Raft that it was sent ...
    pub sent_messages: Count,
    /// ... and that came from it.
    pub received_messages: Count,
    /// `etcd_network_peer_sent_failures_total`.
    pub sent_failures: Count,
    /// `etcd_network_peer_received_failures_total`.
    pub received_failures: Count,
    /// `etcd_network_active_peers`, 0 or 1.
    pub active: Count,
    /// `etcd_network_peer_round_trip_time_seconds`.
    pub round_trips: Durations,
    /// The same, summed up.
    pub round_trip: Spread,
    /// `etcd_network_snapshot_send_success`.
    pub snapshots_sent: Count,
    /// `etcd_network_snapshot_send_failures`.
    pub snapshots_failed: Count,
}

/// The counts of every connection, by the peer's id.
pub type PeersStats = BTreeMap<u64, std::sync::Arc<PeerStats>>;
