//! etcd's workloads with goals.

use super::{Operation, Put, Range, Txn, Workload};
use crate::compare::Figure;
use crate::suite::{Entry, Goal, Keys, SIZES};

/// What all keys begin with.
const PREFIX: &str = "bench/";
/// The goals for puts per second: one server at the three sizes, and a cluster at the middle one.
const PUT_GOALS: [f64; 3] = [2.0, 3.0, 1.5];
const CLUSTER_PUT_GOAL: f64 = 2.5;
const READ_GOAL: f64 = 2.0;
const CPU_GOAL: f64 = 1.0 / 3.0;
const MEMORY_GOAL: f64 = 0.5;
const LIMITED_RANGE_GOAL: f64 = 50.0;
/// etcd's and our default for a bounded page.
const LIMIT: i64 = 100;
const TTL_S: i64 = 300;

/// The workloads for one server or for a cluster.
pub fn entries(cluster: bool) -> Vec<Entry<Workload>> {
    let keys = Keys::usual(PREFIX);
    let unary = Workload::Unary;
    let put = Put::default();
    let range = |serializable| Range {
        serializable,
        ..Range::default()
    };
    let cpu = Goal::at_most(Figure::Cpu, CPU_GOAL);
    let mut entries = Vec::new();
    for (size, goal) in SIZES.into_iter().zip(PUT_GOALS) {
        let goals = match (cluster, size) {
            (false, _) => vec![Goal::at_least(goal), cpu],
            (true, (64, 8)) => vec![Goal::at_least(CLUSTER_PUT_GOAL)],
            (true, _) => vec![],
        };
        entries.push(keys.entry("put", size, unary(Operation::Put(put)), goals));
    }
    for (name, serializable) in [("range l", false), ("range s", true)] {
        for size in SIZES {
            let goals = vec![Goal::at_least(READ_GOAL)];
            let operation = Operation::Range(range(serializable));
            entries.push(keys.entry(name, size, unary(operation), goals));
        }
    }
    let mixed = Operation::Mixed {
        range: range(false),
        put,
        reads_per_mille: 900,
    };
    let txn = Operation::Txn(Txn { puts: 1, guards: 1 });
    let middle = SIZES[1];
    entries.push(keys.entry("mixed 90/10", middle, unary(mixed), vec![]));
    entries.push(keys.entry("txn", middle, unary(txn), vec![]));
    for watchers in [100, 1_000] {
        let workload = Workload::Watch {
            streams: 8,
            watchers,
            prev_kv: false,
        };
        let name = format!("watch {watchers} watchers");
        entries.push(keys.entry(&name, (1, 8), workload, vec![]));
    }
    let keep_alive = Workload::KeepAlive { ttl_s: TTL_S };
    entries.push(keys.entry("lease keepalive", middle, keep_alive, vec![]));
    let grant = unary(Operation::LeaseGrant { ttl_s: TTL_S });
    entries.push(keys.entry("lease grant", middle, grant, vec![]));
    entries
}

/// What is measured over a large key space.
pub fn entries_among(keys: u64) -> Vec<Entry<Workload>> {
    let memory = Goal::at_most(Figure::Memory, MEMORY_GOAL);
    let keys = Keys::many(PREFIX, keys, "keys");
    let unary = Workload::Unary;
    let put = Operation::Put(Put::default());
    let one = Operation::Range(Range {
        serializable: true,
        ..Range::default()
    });
    let page = Operation::Range(Range {
        all: true,
        limit: LIMIT,
        ..Range::default()
    });
    vec![
        keys.entry(
            "range s",
            (64, 4),
            unary(one),
            vec![memory, Goal::at_least(READ_GOAL)],
        ),
        keys.entry(
            "range l limit 100",
            (1, 1),
            unary(page),
            vec![Goal::at_least(LIMITED_RANGE_GOAL)],
        ),
        keys.entry("put", (64, 8), unary(put), vec![]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_its_own_name_and_a_key_space_that_fits() {
        let entries = entries(false).into_iter();
        crate::suite::check_names(entries.chain(entries_among(1_000_000)));
    }
}
