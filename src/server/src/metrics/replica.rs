//! Consensus, disk, network between members, and the keyspace.

use super::page::Page;
use crate::{CLUSTER_VERSION, ETCD_VERSION};
use etcd_v3::ops::Served;
use gateway::Gate;
use gateway::keyspace::Span;
use gateway::keyspace::command::Range;
use replica::Handle;
use replica::stats::{BUCKETS_S, Durations, PeerStats};
use std::sync::atomic::Ordering::Relaxed;

/// Adds what this member knows.
pub fn write(page: &mut Page, gate: &Gate, replica: &Handle, served: &Served) {
    write_identity(page, gate);
    write_consensus(page, replica);
    write_disk(page, replica);
    write_network(page, gate, replica);
    write_keyspace(page, gate);
    write_operations(page, replica, served);
    write_watchers(page, gate);
    write_leases(page, replica);
}

fn write_identity(page: &mut Page, gate: &Gate) {
    let member = format!("{:x}", gate.status().member);
    let minor = CLUSTER_VERSION.trim_end_matches(".0");
    for (name, help, label, value) in [
        (
            "etcd_cluster_version",
            "Which version is running. 1 for 'cluster_version' label with current cluster version",
            "cluster_version",
            minor,
        ),
        (
            "etcd_server_id",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
            "server_id",
            &member,
        ),
        (
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            "server_version",
            ETCD_VERSION,
        ),
        (
            "triglot_version",
            "Which version of Triglot is running.",
            "version",
            env!("CARGO_PKG_VERSION"),
        ),
    ] {
        page.family(name, help, "gauge")
            .sample(&[(label, value)], 1);
    }
}

fn write_consensus(page: &mut Page, replica: &Handle) {
    let stats = replica.stats();
    for (name, help, count) in [
        (
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            &stats.has_leader,
        ),
        (
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            &stats.is_leader,
        ),
        (
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            &stats.is_learner,
        ),
        (
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            &stats.applied,
        ),
        (
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            &stats.committed,
        ),
        (
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            &stats.pending,
        ),
    ] {
        page.gauge(name, help, count.get());
    }
    for (name, help, count) in [
        (
            "etcd_server_heartbeat_send_failures_total",
            "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
            &stats.heartbeat_failures,
        ),
        (
            "etcd_server_leader_changes_seen_total",
            "The number of leader changes seen.",
            &stats.leader_changes,
        ),
        (
            "etcd_server_learner_promote_successes",
            "The total number of successful learner promotions while this member is leader.",
            &stats.promotions,
        ),
        (
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            &stats.failed,
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "The total number of failed read indexes seen.",
            &stats.failed_reads,
        ),
        (
            "etcd_server_slow_apply_total",
            "The total number of slow apply requests (likely overloaded from slow disk).",
            &stats.slow_applies,
        ),
        (
            "etcd_server_slow_read_indexes_total",
            "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
            &stats.slow_reads,
        ),
    ] {
        page.counter(name, help, count.get());
    }
}

fn write_disk(page: &mut Page, replica: &Handle) {
    let stats = replica.stats();
    for (name, help, durations) in [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.",
            &stats.log_syncs,
        ),
        // A checkpoint is to us what a commit of its database is to etcd.
        (
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend.",
            &stats.checkpoints,
        ),
        (
            "etcd_server_apply_duration_seconds",
            "The latency distributions of v2 apply called by backend.",
            &stats.applies,
        ),
    ] {
        histogram(page, name, help, &[], durations);
    }
}

fn histogram(
    page: &mut Page,
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
    durations: &Durations,
) {
    let sum = durations.sum().as_secs_f64();
    let mut family = page.family(name, help, "histogram");
    family.histogram(labels, &BUCKETS_S, &durations.buckets(), sum);
}

/// A name, its help, the label that names the peer, and where the count is.
type PeerCounter = (
    &'static str,
    &'static str,
    &'static str,
    fn(&PeerStats) -> u64,
);

fn write_network(page: &mut Page, gate: &Gate, replica: &Handle) {
    let local = format!("{:x}", gate.status().member);
    let peers: Vec<_> = replica
        .peer_stats()
        .into_iter()
        .map(|(id, stats)| (format!("{id:x}"), stats))
        .collect();
    page.gauge(
        "etcd_network_known_peers",
        "The current number of known peers.",
        peers.len(),
    );
    let mut family = page.family(
        "etcd_network_active_peers",
        "The current number of active peer connections.",
        "gauge",
    );
    for (id, stats) in &peers {
        family.sample(&[("Local", &local), ("Remote", id)], stats.active.get());
    }
    let counters: [PeerCounter; 6] = [
        (
            "etcd_network_peer_received_bytes_total",
            "The total number of bytes received from peers.",
            "From",
            |stats| stats.received_bytes.get(),
        ),
        (
            "etcd_network_peer_received_failures_total",
            "The total number of receive failures from peers.",
            "From",
            |stats| stats.received_failures.get(),
        ),
        (
            "etcd_network_peer_sent_bytes_total",
            "The total number of bytes sent to peers.",
            "To",
            |stats| stats.sent_bytes.get(),
        ),
        (
            "etcd_network_peer_sent_failures_total",
            "The total number of send failures from peers.",
            "To",
            |stats| stats.sent_failures.get(),
        ),
        (
            "etcd_network_snapshot_send_success",
            "Total number of successful snapshot sends",
            "To",
            |stats| stats.snapshots_sent.get(),
        ),
        (
            "etcd_network_snapshot_send_failures",
            "Total number of snapshot send failures",
            "To",
            |stats| stats.snapshots_failed.get(),
        ),
    ];
    for (name, help, label, count) in counters {
        let mut family = page.family(name, help, "counter");
        for (id, stats) in &peers {
            family.sample(&[(label, id)], count(stats));
        }
    }
    let mut family = page.family(
        "etcd_network_peer_round_trip_time_seconds",
        "Round-Trip-Time histogram between peers",
        "histogram",
    );
    for (id, stats) in &peers {
        let times = &stats.round_trips;
        family.histogram(
            &[("To", id)],
            &BUCKETS_S,
            &times.buckets(),
            times.sum().as_secs_f64(),
        );
    }
}

fn write_keyspace(page: &mut Page, gate: &Gate) {
    let space = gate.space();
    let reader = gate.reader();
    let quota = gate.limits().space_bytes_max.unwrap_or(0);
    page.gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        space.total_bytes,
    );
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        space.in_use_bytes,
    );
    page.gauge(
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        quota,
    );
    // Counting everything that is there now costs no more than finding one key.
    let everything = Range {
        count_only: true,
        ..Range::of(Span::all())
    };
    if let Ok(answer) = reader.range(&everything) {
        page.gauge(
            "etcd_debugging_mvcc_keys_total",
            "Total number of keys.",
            answer.count,
        );
    }
    page.gauge(
        "etcd_debugging_mvcc_current_revision",
        "The current revision of store.",
        reader.revision().0,
    );
    page.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        reader.compacted().0,
    );
}

/// Ranges and transactions that only read did not come through the log.
fn write_operations(page: &mut Page, replica: &Handle, served: &Served) {
    let logged = &replica.stats().keys;
    for (name, help, count) in [
        (
            "etcd_mvcc_put_total",
            "Total number of puts seen by this member.",
            logged.puts.get(),
        ),
        (
            "etcd_mvcc_delete_total",
            "Total number of deletes seen by this member.",
            logged.deletes.get(),
        ),
        (
            "etcd_mvcc_range_total",
            "Total number of ranges seen by this member.",
            logged.ranges.get() + served.ranges.load(Relaxed),
        ),
        (
            "etcd_mvcc_txn_total",
            "Total number of txns seen by this member.",
            logged.txns.get() + served.txns.load(Relaxed),
        ),
        (
            "etcd_debugging_mvcc_events_total",
            "Total number of events sent by this member.",
            served.events.load(Relaxed),
        ),
    ] {
        page.counter(name, help, count);
    }
    page.gauge(
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "The total size of put kv pairs seen by this member.",
        logged.put_bytes.get(),
    );
}

fn write_watchers(page: &mut Page, gate: &Gate) {
    let figures = gate.hub().figures();
    for (name, help, count) in [
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "Total number of unsynced slow watchers.",
            figures.slow,
        ),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "Total number of watch streams.",
            figures.streams,
        ),
        (
            "etcd_debugging_mvcc_watcher_total",
            "Total number of watchers.",
            figures.watchers,
        ),
    ] {
        page.gauge(name, help, count);
    }
}

fn write_leases(page: &mut Page, replica: &Handle) {
    let stats = replica.stats();
    for (name, help, count) in [
        (
            "etcd_debugging_lease_granted_total",
            "The total number of granted leases.",
            &stats.leases_granted,
        ),
        (
            "etcd_debugging_lease_renewed_total",
            "The number of renewed leases seen by the leader.",
            &stats.leases_renewed,
        ),
        (
            "etcd_debugging_lease_revoked_total",
            "The total number of revoked leases.",
            &stats.leases_revoked,
        ),
        (
            "etcd_debugging_server_lease_expired_total",
            "The total number of expired leases.",
            &stats.leases_expired,
        ),
    ] {
        page.counter(name, help, count.get());
    }
}
