//! What is measured, under the names of ZooKeeper's own metrics. `mntr`, the `monitor` command and
//! the page of metrics show the same figures.

use crate::tally::{Op, Spread};
use crate::words::Office;
use gateway::stats::{BUCKETS_S, Durations};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

/// The quantiles that summaries tell of requests.
pub const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// All that is measured.
pub struct Figures {
    /// What goes up and down.
    pub gauges: Vec<(&'static str, Number)>,
    /// What only grows.
    pub counters: Vec<(&'static str, u64)>,
    /// Durations in milliseconds.
    pub summaries: Vec<Summary>,
    /// How often the leader changed.
    pub elections: u64,
}

/// A count, or a mean of such.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Whole.
    Count(u64),
    /// Rounded as Java rounds it.
    Mean(f64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Number {
        Number::Count(count)
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Number {
        Number::Count(count as u64)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Count(count) => count.fmt(f),
            Number::Mean(mean) => f.write_str(&decimal(*mean)),
        }
    }
}

/// A number as Java prints it rounded: at most four digits behind the point, and at least one.
pub fn decimal(value: f64) -> String {
    let text = format!("{value:.4}");
    let short = text.trim_end_matches('0');
    if short.ends_with('.') {
        format!("{short}0")
    } else {
        short.to_owned()
    }
}

/// How something that happens again and again is spread.
pub struct Summary {
    /// Its name.
    pub name: &'static str,
    /// How often it happened.
    pub count: u64,
    /// All of it.
    pub sum: f64,
    /// The least and the greatest, where they are kept.
    pub bounds: Option<(u64, u64)>,
    /// What parts of it did not exceed.
    pub quantiles: Vec<(f64, f64)>,
}

impl Summary {
    /// Of requests.
    fn of_spread(name: &'static str, spread: &Spread) -> Summary {
        #[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
        let quantile = |part: f64| (part, spread.quantile_ms(part) as f64);
        let latency = &spread.latency;
        #[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
        let sum = latency.sum_ms() as f64;
        Summary {
            name,
            count: latency.count(),
            sum,
            bounds: Some((latency.min_ms(), latency.max_ms())),
            quantiles: QUANTILES.map(quantile).into(),
        }
    }

    /// Of what the replica measures, in its coarser steps.
    fn of_durations(name: &'static str, durations: &Durations) -> Summary {
        let counts = durations.buckets();
        let count: u64 = counts.iter().sum();
        let mut below = 0;
        let median = counts.iter().position(|bucket| {
            below += bucket;
            below > 0 && below * 2 >= count
        });
        let bound = median.map_or(0.0, |at| {
            BUCKETS_S.get(at).copied().unwrap_or(f64::INFINITY)
        });
        Summary {
            name,
            count,
            sum: durations.sum().as_secs_f64() * 1e3,
            bounds: None,
            quantiles: vec![(0.5, bound * 1e3)],
        }
    }

    /// The mean; 0 before the first.
    #[expect(clippy::cast_precision_loss, reason = "a mean is no count")]
    pub fn mean(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum / count as f64,
        }
    }
}

impl Office<'_> {
    /// All that is measured.
    pub fn figures(&self) -> Figures {
        Figures {
            gauges: self.gauges(),
            counters: self.counters(),
            summaries: self.summaries(),
            elections: self.gate.stats().leader_changes.get(),
        }
    }

    fn gauges(&self) -> Vec<(&'static str, Number)> {
        let reader = self.gate.reader();
        let leases = reader.leases();
        let sessions = leases.iter().filter(|lease| lease.is_session()).count();
        let mut ephemerals = 0usize;
        for view in &leases {
            reader.for_lease_keys(view.lease, |key| {
                ephemerals += usize::from(self.options.mount.shown(key).is_some());
            });
        }
        let traffic = &self.stats.traffic;
        let insecure = self.stats.clients();
        let (local, remote): (Vec<_>, Vec<_>) = insecure
            .iter()
            .filter(|client| !client.secure)
            .partition(|client| client.peer.ip().is_loopback());
        let mut gauges: Vec<(&'static str, Number)> = vec![
            ("ephemerals_count", ephemerals.into()),
            ("num_alive_connections", self.stats.connections().into()),
            ("avg_latency", Number::Mean(traffic.latency.mean_ms())),
            ("outstanding_requests", 0u64.into()),
            ("znode_count", self.node_count().into()),
            ("global_sessions", sessions.into()),
            ("non_mtls_remote_conn_count", remote.len().into()),
            ("packets_sent", traffic.sent.load(Relaxed).into()),
            ("packets_received", traffic.received.load(Relaxed).into()),
            ("connection_drop_probability", Number::Mean(0.0)),
            (
                "watch_count",
                self.gate.hub().nodes().figures().watches.into(),
            ),
            (
                "auth_failed_count",
                self.stats.auth_failed.load(Relaxed).into(),
            ),
            ("min_latency", traffic.latency.min_ms().into()),
            ("approximate_data_size", reader.bytes_in_use().into()),
            ("local_sessions", 0u64.into()),
            ("uptime", self.uptime_ms().into()),
            ("max_latency", traffic.latency.max_ms().into()),
            ("non_mtls_local_conn_count", local.len().into()),
        ];
        if let Some(files) = (self.options.files)() {
            gauges.push(("open_file_descriptor_count", files.open.into()));
            gauges.push(("max_file_descriptor_count", files.max.into()));
        }
        self.append_ensemble(&mut gauges);
        gauges
    }

    /// What only members of an ensemble tell, and of the rest of it only the leader.
    fn append_ensemble(&self, gauges: &mut Vec<(&'static str, Number)>) {
        if self.is_alone() {
            return;
        }
        let members = self.gate.members();
        let voters = members.iter().filter(|member| !member.learner).count();
        gauges.push(("quorum_size", voters.into()));
        let status = self.gate.status();
        if status.leader != status.member {
            return;
        }
        let connected = self.gate.connected();
        let synced = |learner: bool| {
            let others = members.iter().filter(|it| it.learner == learner);
            others.filter(|it| connected.contains(&it.id)).count()
        };
        gauges.push(("learners", connected.len().into()));
        gauges.push(("synced_followers", synced(false).into()));
        gauges.push(("synced_non_voting_followers", 0u64.into()));
        gauges.push(("synced_observers", synced(true).into()));
        gauges.push(("pending_syncs", 0u64.into()));
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let (stats, tally) = (self.stats, &self.stats.tally);
        let mut counters = vec![
            ("connection_rejected", stats.rejected.load(Relaxed)),
            ("connection_request_count", tally.count(Op::CreateSession)),
            (
                "stale_sessions_expired",
                self.gate.stats().sessions_expired.get(),
            ),
            (
                "unsuccessful_handshake",
                stats.handshakes_failed.load(Relaxed),
            ),
            ("commit_count", self.gate.stats().committed.get()),
            ("looking_count", self.gate.stats().leader_changes.get()),
            ("op_count_total", tally.total()),
        ];
        counters.extend(Op::ALL.iter().map(|op| (op.metric(), tally.count(*op))));
        counters
    }

    fn summaries(&self) -> Vec<Summary> {
        let (tally, replica) = (&self.stats.tally, self.gate.stats());
        vec![
            Summary::of_durations("fsynctime", &replica.log_syncs),
            Summary::of_durations("snapshottime", &replica.checkpoints),
            Summary::of_durations("sync_process_time", &replica.log_syncs),
            Summary::of_spread("readlatency", &tally.reads),
            Summary::of_spread("updatelatency", &tally.updates),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_javas() {
        assert_eq!(decimal(0.0), "0.0");
        assert_eq!(decimal(1.25), "1.25");
        assert_eq!(decimal(0.33333), "0.3333");
    }
}
