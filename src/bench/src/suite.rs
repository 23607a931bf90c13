//! The comparison that decides whether the server is fast enough: a fixed list of workloads, and
//! the goals that some of them have.

use serde::Serialize;

use crate::args::{LoadArgs, SuiteArgs};
use crate::compare::{Figure, Outcome, compare, fill};
use crate::contender::Contender;
use crate::generator::Workload;
use crate::report::{Report, spread};
use crate::requests::{Operation, Put, Range, Txn};
use crate::statistics::Ratio;

/// A bound on the ratio of the measured server to the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound:.2}"),
            Self::AtMost(bound) => format!("<= {bound:.2}"),
        }
    }
}

/// A figure of a workload and its bound.
#[derive(Debug, Clone, Copy)]
struct Goal {
    figure: Figure,
    bound: Bound,
}

/// A goal, and what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The workload.
    pub workload: String,
    /// The figure.
    pub figure: Figure,
    /// What is wanted.
    pub bound: Bound,
    /// What is.
    pub ratio: Ratio,
    /// Whether the median reaches it.
    pub reached: bool,
}

impl Verdict {
    /// Its row in the table of goals.
    pub fn row(&self) -> Vec<String> {
        let figure = match self.figure {
            Figure::PerSecond => "ops/s",
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::P999 => "p99.9",
            Figure::Cpu => "CPU per operation",
            Figure::Memory => "memory",
            Figure::GeneratorCpu => "generator",
        };
        vec![
            format!("{}: {figure}", self.workload),
            self.bound.text(),
            format!("{:.2}", self.ratio.median),
            spread(self.ratio),
            if self.reached { "reached" } else { "SHORT" }.to_owned(),
        ]
    }
}

/// A workload of the suite.
struct Entry {
    name: String,
    workload: Workload,
    load: LoadArgs,
    goals: Vec<Goal>,
}

/// Clients and connections of the three sizes.
const SIZES: [(usize, usize); 3] = [(1, 1), (64, 8), (1_000, 100)];
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
const FILL_PER_TXN: u64 = 100;

/// Runs the suite. Without a second server there are figures but no verdicts.
pub async fn run(args: &SuiteArgs, contenders: &[Contender]) -> anyhow::Result<Report> {
    args.measure.check()?;
    let cluster = contenders.iter().any(|side| side.members.len() > 1);
    let mut outcomes = Vec::new();
    let mut verdicts = Vec::new();
    for entry in entries(cluster) {
        measure(args, contenders, &entry, &mut outcomes, &mut verdicts).await?;
    }
    if let Some(keys) = args.keys {
        let load = load(FILL.0, FILL.1, keys);
        for contender in contenders {
            fill(contender, &load, &args.measure, FILL_PER_TXN).await?;
        }
        for entry in entries_over(keys) {
            measure(args, contenders, &entry, &mut outcomes, &mut verdicts).await?;
        }
    }
    Ok(Report::new(outcomes, verdicts))
}

async fn measure(
    args: &SuiteArgs,
    contenders: &[Contender],
    entry: &Entry,
    outcomes: &mut Vec<Outcome>,
    verdicts: &mut Vec<Verdict>,
) -> anyhow::Result<()> {
    let wanted = args.only.is_empty() || args.only.iter().any(|word| entry.name.contains(word));
    if !wanted {
        return Ok(());
    }
    let outcome = compare(
        &entry.name,
        contenders,
        entry.workload,
        &entry.load,
        &args.measure,
    )
    .await?;
    for goal in &entry.goals {
        if let Some(ratio) = outcome.ratio(goal.figure) {
            verdicts.push(Verdict {
                workload: entry.name.clone(),
                figure: goal.figure,
                bound: goal.bound,
                reached: goal.bound.holds(ratio.median),
                ratio,
            });
        }
    }
    outcomes.push(outcome);
    Ok(())
}

/// Clients and connections that keys are filled in with.
const FILL: (usize, usize) = (64, 4);
/// Keys of the workloads before the large key space is filled in.
const KEYS: u64 = 10_000;

fn load(clients: usize, connections: usize, keys: u64) -> LoadArgs {
    LoadArgs {
        clients,
        connections,
        rate: None,
        key_size: 16,
        val_size: 256,
        key_space_size: keys,
        key_prefix: "bench/".to_owned(),
        sequential_keys: false,
    }
}

fn at_least(bound: f64) -> Goal {
    Goal {
        figure: Figure::PerSecond,
        bound: Bound::AtLeast(bound),
    }
}

fn entries(cluster: bool) -> Vec<Entry> {
    let entry = |name: &str, (clients, connections), workload, goals| Entry {
        name: format!("{name} {clients}/{connections}"),
        workload,
        load: load(clients, connections, KEYS),
        goals,
    };
    let unary = Workload::Unary;
    let put = Put::default();
    let range = |serializable| Range {
        serializable,
        ..Range::default()
    };
    let cpu = Goal {
        figure: Figure::Cpu,
        bound: Bound::AtMost(CPU_GOAL),
    };
    let mut entries = Vec::new();
    for (size, goal) in SIZES.into_iter().zip(PUT_GOALS) {
        let goals = match (cluster, size) {
            (false, _) => vec![at_least(goal), cpu],
            (true, (64, 8)) => vec![at_least(CLUSTER_PUT_GOAL)],
            (true, _) => vec![],
        };
        entries.push(entry("put", size, unary(Operation::Put(put)), goals));
    }
    for (name, serializable) in [("range l", false), ("range s", true)] {
        for size in SIZES {
            let goals = vec![at_least(READ_GOAL)];
            let operation = Operation::Range(range(serializable));
            entries.push(entry(name, size, unary(operation), goals));
        }
    }
    let mixed = Operation::Mixed {
        range: range(false),
        put,
        reads_per_mille: 900,
    };
    let txn = Operation::Txn(Txn { puts: 1, guards: 1 });
    let middle = SIZES[1];
    entries.push(entry("mixed 90/10", middle, unary(mixed), vec![]));
    entries.push(entry("txn", middle, unary(txn), vec![]));
    for watchers in [100, 1_000] {
        let workload = Workload::Watch {
            streams: 8,
            watchers,
            prev_kv: false,
        };
        let name = format!("watch {watchers} watchers");
        entries.push(entry(&name, (1, 8), workload, vec![]));
    }
    let keep_alive = Workload::KeepAlive { ttl_s: TTL_S };
    entries.push(entry("lease keepalive", middle, keep_alive, vec![]));
    let grant = unary(Operation::LeaseGrant { ttl_s: TTL_S });
    entries.push(entry("lease grant", middle, grant, vec![]));
    entries
}

/// What is measured over a large key space.
fn entries_over(keys: u64) -> Vec<Entry> {
    let memory = Goal {
        figure: Figure::Memory,
        bound: Bound::AtMost(MEMORY_GOAL),
    };
    let entry = |name: &str, clients, connections, operation, goals| Entry {
        name: format!("{name} {clients}/{connections}, {keys} keys"),
        workload: Workload::Unary(operation),
        load: load(clients, connections, keys),
        goals,
    };
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
        entry("range s", 64, 4, one, vec![memory, at_least(READ_GOAL)]),
        entry(
            "range l limit 100",
            1,
            1,
            page,
            vec![at_least(LIMITED_RANGE_GOAL)],
        ),
        entry("put", 64, 8, Operation::Put(Put::default()), vec![]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_include_their_value() {
        assert!(Bound::AtLeast(2.0).holds(2.0) && !Bound::AtLeast(2.0).holds(1.99));
        assert!(Bound::AtMost(0.5).holds(0.5) && !Bound::AtMost(0.5).holds(0.51));
    }

    /// Names choose what `--only` runs and label the rows, so no two may be the same.
    #[test]
    fn every_entry_has_its_own_name_and_a_key_space_that_fits() {
        let mut names = std::collections::BTreeSet::new();
        for entry in entries(false).into_iter().chain(entries_over(1_000_000)) {
            assert!(names.insert(entry.name.clone()), "{} twice", entry.name);
            entry.load.keys().expect("the keys fit");
        }
    }
}
