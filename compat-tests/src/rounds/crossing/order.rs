//! Does every answer belong where its revision, zxid or index says? Held against the one order of
//! all changes: what was read was so at that moment, what was written is there, and no answer is
//! older than one that was given before it was asked for.

use anyhow::{Result, ensure};

use super::history::{Answer, Answered, Ask, Found, History, Moment, Operation};
use super::truth::{Change, Truth};
use crate::rounds::history::{Interval, check_real_time};

/// Judges every answer.
///
/// # Errors
/// The first that does not belong where it says, in words.
pub fn check(history: &History, truth: &Truth) -> Result<()> {
    let mut intervals = Vec::new();
    for operation in &history.operations {
        let Some(answered) = &operation.answered else {
            continue;
        };
        let Answered { at, answer, .. } = *answered;
        let is_write = match answer {
            Answer::Done { before, now } if is_change(operation, before) => {
                check_change(truth, operation, at, before, now)?;
                true
            }
            Answer::Done { before: found, .. } | Answer::Found(found) | Answer::Refused(found) => {
                check_found(truth, operation, at, found)?;
                check_guard(truth, operation, at, answer)?;
                false
            }
        };
        if operation.ask != Ask::ReadLate {
            intervals.push(Interval {
                began_us: operation.began_us,
                ended_us: answered.ended_us,
                revision: truth.revision(at).cast_signed(),
                is_write,
            });
        }
    }
    check_real_time(intervals.into_iter())
}

/// Whether what was done changed the key: to delete nothing, or to look at it, does not.
fn is_change(operation: &Operation, before: Found) -> bool {
    match operation.ask {
        Ask::Write { .. } => true,
        Ask::Delete { .. } => before != Found::Nothing,
        Ask::Read | Ask::ReadLate | Ask::Check { .. } | Ask::End { .. } | Ask::EndTime { .. } => {
            false
        }
    }
}

/// A write that was acknowledged is there, and replaced what its answer says.
fn check_change(
    truth: &Truth,
    operation: &Operation,
    at: Moment,
    before: Found,
    now: Found,
) -> Result<()> {
    let change = truth.at(operation.key, at);
    let there =
        change.is_some_and(|change| change.event.now.map(|now| now.value) == operation.ask.value());
    ensure!(
        there,
        "an acknowledged write is lost: {operation:?}, but there is {change:?}"
    );
    let change = change.expect("it is there");
    let previous = earlier(truth, change);
    ensure!(
        fits(before, previous) && fits(now, Some(change)),
        "{operation:?}, but it was {change:?} after {previous:?}"
    );
    Ok(())
}

/// The change of the same key before this one.
fn earlier<'a>(truth: &'a Truth, change: &Change) -> Option<&'a Change> {
    let before = Moment::Revision(change.event.revision - 1);
    truth.latest(change.event.key, before)
}

/// What was seen was so at that moment.
fn check_found(truth: &Truth, operation: &Operation, at: Moment, found: Found) -> Result<()> {
    let latest = truth.latest(operation.key, at);
    ensure!(
        fits(found, latest),
        "{operation:?}, but its last change then was {latest:?}"
    );
    Ok(())
}

/// A condition was judged rightly at that moment.
fn check_guard(truth: &Truth, operation: &Operation, at: Moment, answer: Answer) -> Result<()> {
    let Some(guard) = operation.ask.guard() else {
        return Ok(());
    };
    let done = matches!(answer, Answer::Done { .. });
    let at = if done && matches!(operation.ask, Ask::Check { .. }) {
        // What else its transaction wrote came with it.
        Moment::Revision(truth.revision(at) - 1)
    } else {
        at
    };
    let latest = truth.latest(operation.key, at);
    let held = latest.and_then(|change| change.event.now);
    let holds = guard.holds(held.map(|entry| (entry.value, entry.version)));
    ensure!(
        holds == done,
        "{operation:?}, but its last change then was {latest:?}"
    );
    Ok(())
}

/// Whether what an answer says of a key is so after its last change.
fn fits(found: Found, latest: Option<&Change>) -> bool {
    let held = latest.and_then(|change| Some((change.event.now?, change.index)));
    match (found, held) {
        (Found::Unsaid, _) | (Found::Nothing, None) => true,
        (Found::Nothing, Some(_)) | (Found::Entry(_), None) => false,
        (Found::Entry(shown), Some((entry, index))) => shown.fits(&entry, index),
    }
}
