//! Is what was asked of each key linearizable? Judged from the answers alone, by the values and
//! versions that they show: no clock of the servers is asked, so that a wrong one hides nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use checker::linear::{self, Model, Verdict};

use super::history::{Answer, Ask, Bind, Found, History, Key, Lease, Value};

/// Steps of the search, far more than a sound history takes.
const STEPS_MAX: u64 = 100_000_000;

/// One key, as any of the protocols may read and write it.
struct OneKey;

/// What it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    value: Value,
    version: u64,
    lease: Lease,
    /// The write that gave it its time to live, if it has any.
    timed_by: Option<Value>,
}

type State = Option<Held>;

impl Model for OneKey {
    type State = State;
    type Input = Ask;
    type Output = Answer;

    fn initial(&self) -> State {
        None
    }

    fn step(&self, state: &State, ask: &Ask, answer: Option<&Answer>) -> Option<State> {
        let (done, after) = apply(*state, *ask);
        let fits = answer.is_none_or(|answer| match *answer {
            Answer::Found(found) => fits(found, *state),
            Answer::Done { before, now } => done && fits(before, *state) && fits(now, after),
            Answer::Refused(found) => !done && fits(found, *state),
        });
        fits.then_some(after)
    }

    fn reads_only(&self, ask: &Ask, answer: &Answer) -> bool {
        match answer {
            Answer::Found(_) | Answer::Refused(_) => true,
            Answer::Done { before, .. } => {
                matches!(ask, Ask::Check { .. }) || *before == Found::Nothing && is_delete(ask)
            }
        }
    }
}

fn is_delete(ask: &Ask) -> bool {
    matches!(ask, Ask::Delete { .. })
}

/// Whether it is done, and what the key holds then.
fn apply(held: State, ask: Ask) -> (bool, State) {
    let compared = held.map(|held| (held.value, held.version));
    match ask {
        Ask::Read | Ask::ReadLate => (true, held),
        Ask::Check { guard } => (guard.holds(compared), held),
        Ask::Write { guard, .. } | Ask::Delete { guard } if !guard.holds(compared) => (false, held),
        Ask::Write { value, bind, .. } => {
            let (lease, timed_by) = held.map_or((0, None), |held| (held.lease, held.timed_by));
            let (lease, timed_by) = match bind {
                Bind::Stay => (lease, timed_by),
                Bind::Lease(lease) => (lease, None),
                Bind::Time(ttl_us) => (lease, ttl_us.map(|_| value)),
            };
            let written = Held {
                value,
                version: held.map_or(1, |held| held.version + 1),
                lease,
                timed_by,
            };
            (true, Some(written))
        }
        Ask::Delete { .. } => (true, None),
        Ask::End { lease } => (true, held.filter(|held| held.lease != lease)),
        Ask::EndTime { value } => (true, held.filter(|held| held.timed_by != Some(value))),
    }
}

fn fits(found: Found, held: State) -> bool {
    match (found, held) {
        (Found::Unsaid, _) | (Found::Nothing, None) => true,
        (Found::Nothing, Some(_)) | (Found::Entry(_), None) => false,
        (Found::Entry(shown), Some(held)) => {
            shown.value.is_none_or(|value| value == held.value)
                && shown.version.is_none_or(|version| version == held.version)
                && shown.lease.is_none_or(|lease| lease == held.lease)
        }
    }
}

type Operation = linear::Operation<Ask, Answer>;

/// Looks for an order of what was asked of each key that explains every answer. A write of unknown
/// outcome took effect only if its value is one of those that were `told`.
///
/// # Errors
/// The first answer that no order explains.
pub fn check(history: &History, told: &BTreeSet<Value>) -> Result<()> {
    for (key, operations) in by_key(history, told) {
        match linear::check(&OneKey, &operations, STEPS_MAX) {
            Verdict::Linearizable(_) => {}
            Verdict::Violation { longest, stuck } => bail!(
                "key {key} is not linearizable: no order explains {:?} of client {}, called at {} us; \
                 before it: {:#?}",
                operations[stuck].input,
                operations[stuck].client,
                operations[stuck].called,
                around(&operations, &longest, stuck),
            ),
            Verdict::Undecided => bail!("key {key}: no order was found in {STEPS_MAX} steps"),
        }
    }
    Ok(())
}

/// What the longest explanation ends with, and what it cannot explain.
fn around<'a>(operations: &'a [Operation], longest: &[usize], stuck: usize) -> Vec<&'a Operation> {
    const SHOWN: usize = 8;
    let from = longest.len().saturating_sub(SHOWN);
    let places = longest[from..].iter().chain([&stuck]);
    places.map(|place| &operations[*place]).collect()
}

/// The operations on each key, with what time may have done to it.
fn by_key(history: &History, told: &BTreeSet<Value>) -> BTreeMap<Key, Vec<Operation>> {
    let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
    let mut leases: BTreeSet<(Key, Lease)> = BTreeSet::new();
    for operation in &history.operations {
        let operations = keys.entry(operation.key).or_default();
        if let Ask::Write { value, bind, .. } = operation.ask {
            if operation.answered.is_none() && !told.contains(&value) {
                continue;
            }
            match bind {
                Bind::Lease(lease) if lease != 0 => drop(leases.insert((operation.key, lease))),
                Bind::Time(Some(ttl_us)) => operations.push(Operation {
                    client: operation.client,
                    called: operation.began_us + ttl_us,
                    input: Ask::EndTime { value },
                    answered: None,
                }),
                Bind::Stay | Bind::Lease(_) | Bind::Time(None) => {}
            }
        }
        if operation.ask != Ask::ReadLate {
            let answered = operation.answered.as_ref();
            operations.push(Operation {
                client: operation.client,
                called: operation.began_us,
                input: operation.ask,
                answered: answered.map(|answered| (answered.ended_us, answered.answer)),
            });
        }
    }
    for (key, lease) in leases {
        let Some(life) = history.lives.iter().find(|life| life.lease == lease) else {
            continue;
        };
        let done = Answer::Done {
            before: Found::Unsaid,
            now: Found::Unsaid,
        };
        keys.entry(key).or_default().push(Operation {
            client: 0,
            called: life
                .ended_us
                .map_or(life.over_us(), |(began_us, _)| began_us),
            input: Ask::End { lease },
            answered: life.ended_us.map(|(_, ended_us)| (ended_us, done)),
        });
    }
    keys
}
