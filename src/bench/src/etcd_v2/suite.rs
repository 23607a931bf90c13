//! etcd v2's workloads with goals.

use super::{Operation, Workload};
use crate::compare::Figure;
use crate::suite::{Entry, Goal, Keys};

/// Where the keys of the workloads are, and those among many.
const PREFIX: &str = "/bench/";
const MANY_PREFIX: &str = "/many/";
/// Clients, each on a connection of its own.
const SIZES: [usize; 3] = [1, 64, 1_000];
/// The goals for sets per second: one server at the three sizes, and a cluster at the middle one.
const SET_GOALS: [f64; 3] = [2.0, 2.0, 2.0];
const CLUSTER_SET_GOAL: f64 = 1.5;
const GET_GOAL: f64 = 1.5;
const CPU_GOAL: f64 = 0.5;
const WATCH_CPU_GOAL: f64 = 0.5;
const MEMORY_GOAL: f64 = 0.5;

/// The workloads for one server or for a cluster.
pub fn entries(cluster: bool) -> Vec<Entry<Workload>> {
    let keys = Keys::usual(PREFIX);
    let requests = Workload::Requests;
    let [_, middle, _] = SIZES;
    let mut entries = Vec::new();
    for (clients, goal) in SIZES.into_iter().zip(SET_GOALS) {
        let goals = match (cluster, clients == middle) {
            (false, _) => vec![Goal::at_least(goal), Goal::at_most(Figure::Cpu, CPU_GOAL)],
            (true, true) => vec![Goal::at_least(CLUSTER_SET_GOAL)],
            (true, false) => vec![],
        };
        let set = requests(Operation::Set);
        entries.push(keys.entry("set", (clients, clients), set, goals));
    }
    for (name, quorum) in [("get", false), ("quorum get", true)] {
        for clients in SIZES {
            let get = requests(Operation::Get { quorum });
            let goals = vec![Goal::at_least(GET_GOAL)];
            entries.push(keys.entry(name, (clients, clients), get, goals));
        }
    }
    let mixed = requests(Operation::Mixed {
        reads_per_mille: 900,
        quorum: false,
    });
    entries.push(keys.entry("mixed 90/10", (middle, middle), mixed, vec![]));
    for watchers in [100, 1_000] {
        let goals = vec![Goal::at_most(Figure::Cpu, WATCH_CPU_GOAL)];
        let goals = if watchers == 1_000 { goals } else { vec![] };
        entries.push(keys.entry("wait", (1, watchers), Workload::Watch, goals));
    }
    entries
}

/// What is measured among many keys of one directory.
pub fn entries_among(keys: u64) -> Vec<Entry<Workload>> {
    let keys = Keys::many(MANY_PREFIX, keys, "keys");
    let requests = Workload::Requests;
    let middle = (SIZES[1], SIZES[1]);
    let memory = Goal::at_most(Figure::Memory, MEMORY_GOAL);
    let get = requests(Operation::Get { quorum: false });
    vec![
        keys.entry("get", middle, get, vec![memory, Goal::at_least(GET_GOAL)]),
        keys.entry("set", middle, requests(Operation::Set), vec![]),
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
