//! etcd v2's workloads with goals.

use super::{Operation, Workload};
use crate::compare::Figure;
use crate::suite::{Entry, Goal, Keys};

/// Where the keys of the workloads are, and those among many.
const PREFIX: &str = "/bench/";
const MANY_PREFIX: &str = "/many/";
/// Clients, each on a connection of its own.
const SIZES: [usize; 3] = [1, 64, 1_000];
/// The goals at the middle size, for sets and gets alike.
const GOAL: f64 = 3.0;
const CPU_GOAL: f64 = 1.0 / 3.0;

/// The workloads for one server or for a cluster.
pub fn entries(cluster: bool) -> Vec<Entry<Workload>> {
    let keys = Keys::usual(PREFIX);
    let requests = Workload::Requests;
    let [_, middle, _] = SIZES;
    let operations = [
        ("set", Operation::Set),
        ("get", Operation::Get { quorum: false }),
        ("quorum get", Operation::Get { quorum: true }),
    ];
    let mut entries = Vec::new();
    for (name, operation) in operations {
        for clients in SIZES {
            let goals = if clients == middle {
                goals(cluster)
            } else {
                vec![]
            };
            entries.push(keys.entry(name, (clients, clients), requests(operation), goals));
        }
    }
    let mixed = requests(Operation::Mixed {
        reads_per_mille: 900,
        quorum: false,
    });
    entries.push(keys.entry("mixed 90/10", (middle, middle), mixed, vec![]));
    for watchers in [100, 1_000] {
        entries.push(keys.entry("wait", (1, watchers), Workload::Watch, vec![]));
    }
    entries
}

/// One server is held to both; members of a cluster on one machine share what CPU there is.
fn goals(cluster: bool) -> Vec<Goal> {
    let mut goals = vec![Goal::at_least(GOAL)];
    if !cluster {
        goals.push(Goal::at_most(Figure::Cpu, CPU_GOAL));
    }
    goals
}

/// What is measured among many keys of one directory.
pub fn entries_among(keys: u64) -> Vec<Entry<Workload>> {
    let keys = Keys::many(MANY_PREFIX, keys, "keys");
    let requests = Workload::Requests;
    let middle = (SIZES[1], SIZES[1]);
    let get = requests(Operation::Get { quorum: false });
    vec![
        keys.entry("get", middle, get, vec![]),
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
