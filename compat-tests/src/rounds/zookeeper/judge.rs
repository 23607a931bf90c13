//! What all sessions saw together, and the judgement over it. Every value is written once and
//! every answer has a version, so the order of all writes to a node is known.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use crate::rounds::history::{self, Interval};

/// A set or a synced read that was answered.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The node.
    pub node: String,
    /// What was written or read.
    pub value: String,
    /// How often the node had been set then, this one included.
    pub version: i32,
    /// Microseconds from the start of the run.
    pub began_us: u64,
    /// Microseconds from the start of the run.
    pub ended_us: u64,
    /// Whether it is a set.
    pub is_write: bool,
}

/// What one session, or all, saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Sets and synced reads.
    pub operations: Vec<Operation>,
    /// Sets without an answer: node and value.
    pub unknown: Vec<(String, String)>,
    /// Sequential nodes: the zxid and the name.
    pub in_sequence: Vec<(i64, String)>,
    /// Creations of such without an answer.
    pub unknown_in_sequence: usize,
    /// Sessions that ended.
    pub sessions: usize,
    /// How often a session was resumed.
    pub resumptions: usize,
    /// How often a session was found over.
    pub expiries: usize,
    /// Events of watches.
    pub events: u64,
}

impl Seen {
    /// Adds what another one saw.
    pub fn add(&mut self, other: Self) {
        self.operations.extend(other.operations);
        self.unknown.extend(other.unknown);
        self.in_sequence.extend(other.in_sequence);
        self.unknown_in_sequence += other.unknown_in_sequence;
        self.sessions += other.sessions;
        self.resumptions += other.resumptions;
        self.expiries += other.expiries;
        self.events += other.events;
    }

    /// Holds what was seen against what is there at the end: the nodes that were set with version
    /// and value, and the names of the sequential ones. Reads are held against real time if
    /// `fresh`.
    ///
    /// # Errors
    /// The first broken promise, in words.
    pub fn check(
        &self,
        last: &BTreeMap<String, (i32, String)>,
        in_sequence: &[String],
        fresh: bool,
    ) -> Result<()> {
        for (node, (version, value)) in last {
            self.check_node(node, *version, value, fresh)
                .with_context(|| node.clone())?;
        }
        self.check_sequence(in_sequence)
    }

    fn check_node(&self, node: &str, last: i32, value: &str, fresh: bool) -> Result<()> {
        let operations = || self.operations.iter().filter(|op| op.node == node);
        let mut truth: BTreeMap<i32, &str> = BTreeMap::from([(0, "0"), (last, value)]);
        for write in operations().filter(|op| op.is_write) {
            let known = *truth.entry(write.version).or_insert(&write.value);
            ensure!(
                known == write.value,
                "an acknowledged write is lost: {write:?}, but its version has {known:?}"
            );
        }
        let unknown: BTreeSet<&str> = self
            .unknown
            .iter()
            .filter(|(of, _)| of == node)
            .map(|(_, value)| value.as_str())
            .collect();
        for read in operations().filter(|op| !op.is_write) {
            let known = *truth.entry(read.version).or_insert(&read.value);
            ensure!(
                known == read.value,
                "{read:?}, but its version has {known:?}"
            );
        }
        let acknowledged: BTreeSet<&str> = operations()
            .filter(|op| op.is_write)
            .map(|op| op.value.as_str())
            .collect();
        let mut values = BTreeSet::new();
        for (version, value) in truth.iter().filter(|(version, _)| **version > 0) {
            ensure!(
                acknowledged.contains(value) || unknown.contains(value),
                "version {version} has {value:?}, which nobody wrote"
            );
            ensure!(values.insert(value), "{value:?} was written twice");
            ensure!(*version <= last, "version {version} is newer than the last");
        }
        let fewest = acknowledged.len();
        let most = fewest + unknown.len();
        ensure!(
            (fewest..=most).contains(&usize::try_from(last)?),
            "it was set {last} times, but {fewest} writes were acknowledged and {most} tried"
        );
        history::check_real_time(operations().filter(|op| op.is_write || fresh).map(|op| {
            Interval {
                began_us: op.began_us,
                ended_us: op.ended_us,
                revision: op.version.into(),
                is_write: op.is_write,
            }
        }))
    }

    /// No name was given twice, none is lost, and they count in the order of the writes.
    fn check_sequence(&self, there: &[String]) -> Result<()> {
        let there: BTreeSet<_> = there.iter().collect();
        let mut acknowledged = self.in_sequence.clone();
        acknowledged.sort_unstable();
        for (_, name) in &acknowledged {
            ensure!(there.contains(name), "the sequential node {name} is lost");
        }
        for pair in acknowledged.windows(2) {
            ensure!(
                pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1,
                "sequential nodes out of order: {pair:?}"
            );
        }
        let most = acknowledged.len() + self.unknown_in_sequence;
        ensure!(
            there.len() <= most,
            "{} sequential nodes, of {most} that were tried",
            there.len()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(version: i32, value: &str, began_us: u64, is_write: bool) -> Operation {
        Operation {
            node: "/n".to_owned(),
            value: value.to_owned(),
            version,
            began_us,
            ended_us: began_us + 5,
            is_write,
        }
    }

    fn sound() -> (Seen, BTreeMap<String, (i32, String)>, Vec<String>) {
        let seen = Seen {
            operations: vec![
                operation(1, "a", 10, true),
                operation(1, "a", 20, false),
                operation(3, "c", 30, true),
                operation(3, "c", 40, false),
            ],
            unknown: vec![("/n".to_owned(), "b".to_owned())],
            in_sequence: vec![(7, "n0000000000".to_owned()), (9, "n0000000002".to_owned())],
            unknown_in_sequence: 1,
            ..Seen::default()
        };
        let last = BTreeMap::from([("/n".to_owned(), (3, "c".to_owned()))]);
        let names = ["n0000000000", "n0000000001", "n0000000002"];
        (seen, last, names.map(str::to_owned).into())
    }

    #[test]
    fn a_sound_history_passes() {
        let (seen, last, names) = sound();
        seen.check(&last, &names, true).expect("nothing is wrong");
    }

    fn complaint(change: impl FnOnce(&mut Seen, &mut Vec<String>)) -> String {
        let (mut seen, last, mut names) = sound();
        change(&mut seen, &mut names);
        let error = seen.check(&last, &names, true);
        format!("{:#}", error.expect_err("the checker must see it"))
    }

    #[test]
    fn every_broken_promise_is_found() {
        let lost = complaint(|seen, _| seen.operations[0].version = 3);
        assert!(lost.contains("is lost"), "{lost}");
        let stale = complaint(|seen, _| seen.operations[3] = operation(1, "a", 40, false));
        assert!(stale.contains("was answered before"), "{stale}");
        let wrong = complaint(|seen, _| seen.operations[1].value = "b".to_owned());
        assert!(wrong.contains("but its version has"), "{wrong}");
        let made_up = complaint(|seen, _| seen.operations.push(operation(2, "x", 25, false)));
        assert!(made_up.contains("nobody wrote"), "{made_up}");
        let twice = complaint(|seen, _| seen.operations.push(operation(2, "a", 25, false)));
        assert!(twice.contains("written twice"), "{twice}");
        let vanished = complaint(|seen, _| seen.unknown.clear());
        assert!(vanished.contains("it was set 3 times"), "{vanished}");
        let name = complaint(|_, names| drop(names.remove(2)));
        assert!(name.contains("is lost"), "{name}");
        let order = complaint(|seen, _| seen.in_sequence[1].0 = 3);
        assert!(order.contains("out of order"), "{order}");
        let extra = complaint(|seen, _| seen.unknown_in_sequence = 0);
        assert!(extra.contains("that were tried"), "{extra}");
    }
}
