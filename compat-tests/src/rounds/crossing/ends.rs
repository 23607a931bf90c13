//! Does everything end when it should: nothing that is bound to a lease, a session or a time before
//! that is over, and all of it some time after?

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::history::{Action, Ask, Bind, History, Key, Lease, Life, Value};
use super::truth::{Change, Truth};

/// What a write does to a key's time, and when it was asked for.
type Timing = (Bind, u64);

/// Judges every expiry, and what is left in the end.
///
/// # Errors
/// The first expiry that is early, or what is left behind, in words.
pub fn check(history: &History, truth: &Truth) -> Result<()> {
    let lives: BTreeMap<Lease, &Life> = history.lives.iter().map(|l| (l.lease, l)).collect();
    let mut timings: BTreeMap<Value, Timing> = BTreeMap::new();
    for operation in &history.operations {
        if let Ask::Write { value, bind, .. } = operation.ask {
            timings.insert(value, (bind, operation.began_us));
        }
    }
    // When each key's time is over, at the earliest.
    let mut deadlines: BTreeMap<Key, u64> = BTreeMap::new();
    for change in truth.changes() {
        let key = change.event.key;
        if change.action == Action::Expired {
            check_expiry(change, &lives, deadlines.get(&key).copied())?;
        }
        let timing = change.event.now.map(|entry| timings[&entry.value]);
        match timing {
            Some((Bind::Stay, _)) => {}
            Some((Bind::Time(Some(ttl_us)), began_us)) => {
                deadlines.insert(key, began_us + ttl_us);
            }
            Some((Bind::Time(None) | Bind::Lease(_), _)) | None => drop(deadlines.remove(&key)),
        }
    }
    for (key, entry) in history.held.iter().flatten() {
        ensure!(
            entry.lease == 0 && !deadlines.contains_key(key),
            "left behind, though nobody keeps it alive: key {key}, {entry:?}"
        );
    }
    Ok(())
}

/// A key may expire when its lease or session has been silent for its time to live, or its own time
/// is over.
fn check_expiry(
    change: &Change,
    lives: &BTreeMap<Lease, &Life>,
    deadline_us: Option<u64>,
) -> Result<()> {
    let lease = change.event.previous.map_or(0, |entry| entry.lease);
    let life = lives.get(&lease);
    let over_us = life
        .map(|life| life.over_us())
        .into_iter()
        .chain(deadline_us)
        .min();
    ensure!(
        over_us.is_some_and(|over_us| over_us <= change.told_us),
        "expired early: {change:?}, though its time was over at {over_us:?} us; {life:?}"
    );
    Ok(())
}
