//! Requests by kind, and how long they took: what monitoring asks for under ZooKeeper's names.

use crate::record::{Read, Request, Write};
use crate::stats::Latency;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Declares the kinds of requests, each with what ZooKeeper's metrics and its `cons` call it.
macro_rules! ops {
    ($($name:ident = $metric:literal, $brief:literal;)*) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "ZooKeeper's names say what they are")]
        pub enum Op { $($name),* }

        impl Op {
            /// Every kind.
            pub const ALL: &[Op] = &[$(Op::$name),*];

            /// What its metric is called.
            pub fn metric(self) -> &'static str {
                match self { $(Op::$name => concat!("op_count_", $metric)),* }
            }

            /// What `cons` calls it.
            pub fn brief(self) -> &'static str {
                match self { $(Op::$name => $brief),* }
            }
        }
    };
}

ops! {
    AddWatch = "add_watch", "ADDW";
    Check = "check", "CHEC";
    CheckWatches = "check_watches", "CHKW";
    CloseSession = "close_session", "CLOS";
    Create = "create", "CREA";
    CreateSession = "create_session", "SESS";
    Delete = "delete", "DELE";
    Exists = "exists", "EXIS";
    GetAcl = "get_acl", "GETA";
    GetAllChildrenNumber = "get_all_children_number", "GETACN";
    GetChildren = "get_children", "GETC";
    GetData = "get_data", "GETD";
    GetEphemerals = "get_ephemerals", "GETE";
    Multi = "multi", "MULT";
    MultiRead = "multi_read", "MLTR";
    Ping = "ping", "PING";
    Reconfig = "reconfig", "RECO";
    RemoveWatches = "remove_watches", "REMW";
    SetAcl = "set_acl", "SETA";
    SetData = "set_data", "SETD";
    SetWatches = "set_watches", "STW2";
    Sync = "sync", "SYNC";
    WhoAmI = "who_am_i", "HOMI";
}

impl Op {
    /// The kind of a request; none of those that ZooKeeper does not count.
    pub fn of(request: &Request<'_>) -> Option<Op> {
        Some(match request {
            Request::Write(Write::Create(_)) => Op::Create,
            Request::Write(Write::Delete { .. }) => Op::Delete,
            Request::Write(Write::SetData { .. }) => Op::SetData,
            Request::Write(Write::SetAcl { .. }) => Op::SetAcl,
            Request::Write(Write::Check { .. }) => Op::Check,
            Request::Multi(_) => Op::Multi,
            Request::Read(Read::Exists { .. }) => Op::Exists,
            Request::Read(Read::GetData { .. }) => Op::GetData,
            Request::Read(Read::GetChildren { .. }) => Op::GetChildren,
            Request::Read(Read::GetAcl { .. }) => Op::GetAcl,
            Request::Read(Read::GetEphemerals { .. }) => Op::GetEphemerals,
            Request::MultiRead(_) => Op::MultiRead,
            Request::GetAllChildrenNumber { .. } => Op::GetAllChildrenNumber,
            Request::Sync { .. } => Op::Sync,
            Request::SetWatches(_) => Op::SetWatches,
            Request::AddWatch { .. } => Op::AddWatch,
            Request::CheckWatches { .. } => Op::CheckWatches,
            Request::RemoveWatches { .. } => Op::RemoveWatches,
            Request::Reconfig { .. } => Op::Reconfig,
            Request::WhoAmI => Op::WhoAmI,
            Request::Ping => Op::Ping,
            Request::CloseSession => Op::CloseSession,
            Request::Auth { .. } | Request::Sasl { .. } => return None,
        })
    }

    /// Whether it goes through the log.
    fn is_update(self) -> bool {
        match self {
            Op::Check
            | Op::CloseSession
            | Op::Create
            | Op::CreateSession
            | Op::Delete
            | Op::Multi
            | Op::Reconfig
            | Op::SetAcl
            | Op::SetData => true,
            Op::AddWatch
            | Op::CheckWatches
            | Op::Exists
            | Op::GetAcl
            | Op::GetAllChildrenNumber
            | Op::GetChildren
            | Op::GetData
            | Op::GetEphemerals
            | Op::MultiRead
            | Op::Ping
            | Op::RemoveWatches
            | Op::SetWatches
            | Op::Sync
            | Op::WhoAmI => false,
        }
    }
}

/// What was asked, and how long the answers took.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [AtomicU64; Op::ALL.len()],
    /// Of what is answered from this member's state.
    pub reads: Spread,
    /// Of what goes through the log.
    pub updates: Spread,
}

impl Tally {
    /// Notes requests that were answered together.
    pub fn note(&self, ops: impl Iterator<Item = Op>, took_ms: u64) {
        let (mut reads, mut updates) = (0, 0);
        for op in ops {
            self.counts[op as usize].fetch_add(1, Relaxed);
            if op.is_update() {
                updates += 1;
            } else {
                reads += 1;
            }
        }
        self.reads.note(took_ms, reads);
        self.updates.note(took_ms, updates);
    }

    /// How many of a kind there were.
    pub fn count(&self, op: Op) -> u64 {
        self.counts[op as usize].load(Relaxed)
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        Op::ALL.iter().map(|op| self.count(*op)).sum()
    }
}

/// Up to this many milliseconds each has a bucket of its own, ...
const EXACT_MS: u64 = 16;
/// ... and from there on each doubling has as many buckets as these bits tell apart, ...
const STEP_BITS: u32 = 3;
/// ... for so many doublings: up to about a quarter of an hour.
const DOUBLINGS: usize = 16;
const BUCKETS: usize = EXACT_MS as usize + (DOUBLINGS << STEP_BITS);

/// Durations in milliseconds, and how they spread.
#[derive(Debug)]
pub struct Spread {
    /// Their sum, least and greatest.
    pub latency: Latency,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Spread {
    fn default() -> Self {
        Spread {
            latency: Latency::default(),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Spread {
    fn note(&self, took_ms: u64, requests: u64) {
        if requests == 0 {
            return;
        }
        self.latency.note(took_ms, requests);
        self.buckets[bucket(took_ms)].fetch_add(requests, Relaxed);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.latency.reset();
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// What this part of them did not exceed, to an eighth; 0 before the first.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a quantile is no count"
    )]
    pub fn quantile_ms(&self, part: f64) -> u64 {
        let counts: Vec<u64> = self.buckets.iter().map(|it| it.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            *count > 0 && seen >= wanted
        });
        reached.map_or(0, least_ms)
    }
}

/// Where a duration is counted.
fn bucket(took_ms: u64) -> usize {
    if took_ms < EXACT_MS {
        return usize::try_from(took_ms).expect("it is small");
    }
    let doubling = took_ms.ilog2() - EXACT_MS.ilog2();
    let step = (took_ms >> (took_ms.ilog2() - STEP_BITS)) & ((1 << STEP_BITS) - 1);
    let at = (u64::from(doubling) << STEP_BITS) + EXACT_MS + step;
    usize::try_from(at).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

/// The least that a bucket counts.
fn least_ms(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let Some(at) = bucket.checked_sub(EXACT_MS) else {
        return bucket;
    };
    let (doubling, step) = (at >> STEP_BITS, at & ((1 << STEP_BITS) - 1));
    ((1 << STEP_BITS) + step) << (doubling + u64::from(EXACT_MS.ilog2() - STEP_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for ms in 0..5000 {
            let least = least_ms(bucket(ms));
            assert!(
                least <= ms && ms - least <= ms / 8,
                "{ms} in that of {least}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for at in 0..BUCKETS {
            assert_eq!(bucket(least_ms(at)), at);
        }
    }

    #[test]
    fn quantiles_are_what_so_many_did_not_exceed() {
        let spread = Spread::default();
        assert_eq!(spread.quantile_ms(0.99), 0);
        spread.note(1, 98);
        spread.note(7, 1);
        spread.note(1000, 1);
        assert_eq!(spread.quantile_ms(0.5), 1);
        assert_eq!(spread.quantile_ms(0.99), 7);
        assert_eq!(spread.quantile_ms(0.999), 960);
    }

    #[test]
    fn requests_are_counted_by_kind() {
        let tally = Tally::default();
        tally.note([Op::Exists, Op::Create, Op::Exists].into_iter(), 3);
        assert_eq!((tally.count(Op::Exists), tally.total()), (2, 3));
        assert_eq!(tally.reads.quantile_ms(0.5), 3);
        assert_eq!(Op::GetAcl.metric(), "op_count_get_acl");
    }
}
