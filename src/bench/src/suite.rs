//! The comparison that decides whether the server is fast enough: a fixed list of workloads, and
//! the goals that some of them have. The lists are the protocols' own.

use serde::Serialize;

use crate::args::{LoadArgs, MeasureArgs, SuiteArgs};
use crate::compare::{Figure, Outcome, compare, ensure_keys};
use crate::contender::Contender;
use crate::protocol::Protocol;
use crate::report::{Report, spread};
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
pub struct Goal {
    /// The figure.
    pub figure: Figure,
    /// Its bound.
    pub bound: Bound,
}

impl Goal {
    /// Operations per second: at least so many times as many.
    pub fn at_least(bound: f64) -> Self {
        Self {
            figure: Figure::PerSecond,
            bound: Bound::AtLeast(bound),
        }
    }

    /// A figure of which less is better: at most so many times as much.
    pub fn at_most(figure: Figure, bound: f64) -> Self {
        Self {
            figure,
            bound: Bound::AtMost(bound),
        }
    }
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

/// A workload of a suite.
pub struct Entry<W> {
    /// Its name in tables, unlike all others'.
    pub name: String,
    /// What is done.
    pub workload: W,
    /// How much.
    pub load: LoadArgs,
    /// What it must reach.
    pub goals: Vec<Goal>,
}

/// The list of a protocol, as far as it is wanted.
pub struct Suite<W> {
    entries: Vec<Entry<W>>,
    /// Among many keys, which are filled in first.
    among_many: Vec<Entry<W>>,
}

impl SuiteArgs {
    /// The wanted part of the list: `entries` for one server or for a cluster, and `among` so many
    /// keys.
    pub(crate) fn suite<W>(
        &self,
        entries: fn(cluster: bool) -> Vec<Entry<W>>,
        among: fn(keys: u64) -> Vec<Entry<W>>,
    ) -> Suite<W> {
        let cluster = self.target.endpoints.len().max(self.target.against.len()) > 1;
        let wanted = |entry: &Entry<W>| {
            self.only.is_empty() || self.only.iter().any(|word| entry.name.contains(word))
        };
        let mut entries = entries(cluster);
        let mut among_many = self.keys.map_or_else(Vec::new, among);
        entries.retain(wanted);
        among_many.retain(wanted);
        Suite {
            entries,
            among_many,
        }
    }
}

/// Runs a suite. Without a second server there are figures but no verdicts.
pub async fn run<P: Protocol>(
    suite: &Suite<P::Workload>,
    contenders: &[Contender<P>],
    how: &MeasureArgs,
) -> anyhow::Result<Report> {
    let mut outcomes = Vec::new();
    let mut verdicts = Vec::new();
    for entry in &suite.entries {
        measure(how, contenders, entry, &mut outcomes, &mut verdicts).await?;
    }
    if let Some(first) = suite.among_many.first() {
        for contender in contenders {
            ensure_keys(contender, &first.load, how).await?;
        }
    }
    for entry in &suite.among_many {
        measure(how, contenders, entry, &mut outcomes, &mut verdicts).await?;
    }
    Ok(Report::new(outcomes, verdicts))
}

async fn measure<P: Protocol>(
    how: &MeasureArgs,
    contenders: &[Contender<P>],
    entry: &Entry<P::Workload>,
    outcomes: &mut Vec<Outcome>,
    verdicts: &mut Vec<Verdict>,
) -> anyhow::Result<()> {
    let (name, load) = (&entry.name, &entry.load);
    let outcome = compare(name, contenders, entry.workload, load, how).await?;
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

/// Clients and connections of the three sizes.
pub const SIZES: [(usize, usize); 3] = [(1, 1), (64, 8), (1_000, 100)];
/// Keys of the workloads that are not among many.
const KEYS: u64 = 10_000;

/// The keys of some of a suite's entries: of 16 bytes, with values of 256.
pub struct Keys {
    prefix: &'static str,
    count: u64,
    /// What names end with.
    note: String,
}

impl Keys {
    /// As many as most workloads have, behind `prefix`.
    pub fn usual(prefix: &'static str) -> Self {
        Self::some(prefix, KEYS)
    }

    /// So many, behind `prefix`.
    pub fn some(prefix: &'static str, count: u64) -> Self {
        Self {
            prefix,
            count,
            note: String::new(),
        }
    }

    /// So many that names tell it; the protocol calls them `what`.
    pub fn many(prefix: &'static str, count: u64, what: &str) -> Self {
        Self {
            note: format!(", {count} {what}"),
            ..Self::some(prefix, count)
        }
    }

    /// An entry; its name tells how many clients and connections there are.
    pub fn entry<W>(
        &self,
        name: &str,
        (clients, connections): (usize, usize),
        workload: W,
        goals: Vec<Goal>,
    ) -> Entry<W> {
        Entry {
            name: format!("{name} {clients}/{connections}{}", self.note),
            workload,
            load: LoadArgs {
                clients,
                connections,
                rate: None,
                key_size: 16,
                val_size: 256,
                key_space_size: self.count,
                key_prefix: self.prefix.to_owned(),
                sequential_keys: false,
            },
            goals,
        }
    }
}

/// Names choose what `--only` runs and label the rows, so no two may be the same.
#[cfg(test)]
pub fn check_names<W>(entries: impl IntoIterator<Item = Entry<W>>) {
    let mut names = std::collections::BTreeSet::new();
    for entry in entries {
        assert!(names.insert(entry.name.clone()), "{} twice", entry.name);
        entry.load.keys().expect("the keys fit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_include_their_value() {
        assert!(Bound::AtLeast(2.0).holds(2.0) && !Bound::AtLeast(2.0).holds(1.99));
        assert!(Bound::AtMost(0.5).holds(0.5) && !Bound::AtMost(0.5).holds(0.51));
    }
}
