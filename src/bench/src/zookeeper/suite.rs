//! ZooKeeper's workloads with goals.

use super::{Create, Multi, Operation, Workload};
use crate::compare::Figure;
use crate::suite::{Entry, Goal, Keys, SIZES};

/// Where the nodes of the workloads are, those that are listed, and those among many.
const PREFIX: &str = "/bench/";
const LISTED_PREFIX: &str = "/listed/";
const MANY_PREFIX: &str = "/many/";
/// How many nodes are listed.
const LISTED: u64 = 100;
/// The goals for sets per second: one server at the three sizes, and a cluster at the middle one.
const SET_GOALS: [f64; 3] = [2.0, 3.0, 7.0];
const CLUSTER_SET_GOAL: f64 = 3.5;
const GET_GOAL: f64 = 8.0;
/// With one request in flight on a session, system calls are what remains.
const GET_UNPIPELINED_GOAL: f64 = 2.5;
const MIXED_GOAL: f64 = 5.0;
const CPU_GOAL: f64 = 0.2;
const WATCH_CPU_GOAL: f64 = 0.4;
const CREATE_AMONG_MANY_GOAL: f64 = 3.0;
const MEMORY_GOAL: f64 = 1.0 / 3.0;

/// The workloads for one server or for a cluster.
pub fn entries(cluster: bool) -> Vec<Entry<Workload>> {
    let keys = Keys::usual(PREFIX);
    let requests = Workload::Requests;
    let [_, middle, many] = SIZES;
    let get = requests(Operation::Get { sync: false });
    let mut entries = Vec::new();
    for (size, goal) in SIZES.into_iter().zip(SET_GOALS) {
        let goals = match (cluster, size == middle) {
            (false, _) => vec![Goal::at_least(goal), Goal::at_most(Figure::Cpu, CPU_GOAL)],
            (true, true) => vec![Goal::at_least(CLUSTER_SET_GOAL)],
            (true, false) => vec![],
        };
        entries.push(keys.entry("set", size, requests(Operation::Set), goals));
    }
    entries.push(keys.entry("get", SIZES[0], get, vec![]));
    entries.push(keys.entry("get", middle, get, vec![Goal::at_least(GET_GOAL)]));
    let goals = vec![Goal::at_least(GET_UNPIPELINED_GOAL)];
    entries.push(keys.entry("get", (64, 64), get, goals));
    entries.push(keys.entry("get", many, get, vec![Goal::at_least(GET_GOAL)]));
    let synced = requests(Operation::Get { sync: true });
    entries.push(keys.entry("sync and get", middle, synced, vec![]));
    let mixed = requests(Operation::Mixed {
        reads_per_mille: 900,
    });
    let goals = vec![Goal::at_least(MIXED_GOAL)];
    entries.push(keys.entry("mixed 90/10", middle, mixed, goals));
    let create = requests(Operation::Create(Create::default()));
    entries.push(keys.entry("create and delete", middle, create, vec![]));
    let multi = requests(Operation::Multi(Multi { sets: 1, checks: 1 }));
    entries.push(keys.entry("multi", middle, multi, vec![]));
    let listed = Keys::some(LISTED_PREFIX, LISTED);
    let children = requests(Operation::Children);
    entries.push(listed.entry("children of 100", middle, children, vec![]));
    for sessions in [100, 1_000] {
        let goals = vec![Goal::at_most(Figure::Cpu, WATCH_CPU_GOAL)];
        let goals = if sessions == 1_000 { goals } else { vec![] };
        for (name, one_shot) in [("watch", false), ("watch once", true)] {
            let workload = Workload::Watch { one_shot };
            entries.push(keys.entry(name, (1, sessions), workload, goals.clone()));
        }
    }
    for (name, resume) in [("connect", false), ("reconnect", true)] {
        let connect = Workload::Connect { resume };
        entries.push(keys.entry(name, (100, 100), connect, vec![]));
    }
    entries
}

/// What is measured among many nodes of one parent.
pub fn entries_among(keys: u64) -> Vec<Entry<Workload>> {
    let keys = Keys::many(MANY_PREFIX, keys, "nodes");
    let requests = Workload::Requests;
    let middle = SIZES[1];
    let memory = Goal::at_most(Figure::Memory, MEMORY_GOAL);
    let create = Operation::Create(Create {
        among_keys: true,
        ..Create::default()
    });
    vec![
        keys.entry(
            "get",
            middle,
            requests(Operation::Get { sync: false }),
            vec![memory, Goal::at_least(GET_GOAL)],
        ),
        keys.entry("set", middle, requests(Operation::Set), vec![]),
        keys.entry(
            "create and delete",
            middle,
            requests(create),
            vec![Goal::at_least(CREATE_AMONG_MANY_GOAL)],
        ),
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
