//! What an access list protected when it was written stays closed to those whom lists bind.
//!
//! Unless it is what the key still holds: then the list that it has now is asked, and who has opened
//! the key has opened that. Whoever shows what may not be the newest state asks here after asking for
//! the present lists. Costs nothing where no node ever had a list.

use crate::auth::Principal;
use crate::change::{Answer, RangeAnswer, Refusal, TxnOutcome};
use crate::command::{Op, Range, Txn};
use crate::read::{self, Snapshot, View};
use crate::shared::Shared;
use crate::slot::Entry;
use crate::types::{Revision, Span};

impl Shared {
    /// Refuses to show these to someone if one of them is closed to them.
    pub fn check_past<'e>(
        &self,
        who: &Principal,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Result<(), Refusal> {
        let mut entries = entries.into_iter();
        match self.was_restricted() && entries.any(|entry| is_closed(self, entry)) {
            true => self.refuse_bound(who),
            false => Ok(()),
        }
    }

    /// The same of what a range was answered with, and of what its limit and filters left out: that
    /// shows in the count. [`Refusal::Compacted`] when it comes too late to tell.
    pub fn check_past_range(
        &self,
        who: &Principal,
        range: &Range,
        answer: &RangeAnswer,
    ) -> Result<(), Refusal> {
        if answer.entries.len() as u64 == answer.count {
            return self.check_past(who, &answer.entries);
        }
        let revision = range.revision.unwrap_or(answer.revision);
        check_past_span(&Snapshot::of_keys(self), who, &range.span, revision)
    }

    /// The same of all that a transaction was answered with.
    pub fn check_past_txn(
        &self,
        who: &Principal,
        txn: &Txn,
        outcome: &TxnOutcome,
    ) -> Result<(), Refusal> {
        if !self.was_restricted() {
            return Ok(());
        }
        for (op, answer) in txn.branch(outcome.succeeded).iter().zip(&outcome.answers) {
            match (op, answer) {
                (Op::Range(range), Answer::Range(answer)) => {
                    self.check_past_range(who, range, answer)?;
                }
                (Op::Txn(inner), Answer::Txn(outcome)) => {
                    self.check_past_txn(who, inner, outcome)?;
                }
                (Op::Range(_) | Op::Put(_) | Op::Delete(_) | Op::Txn(_), _) => {}
            }
        }
        Ok(())
    }
}

/// Refuses to read a span as of a revision if something in it was closed to someone then.
pub(crate) fn check_past_span(
    view: &impl View,
    who: &Principal,
    span: &Span,
    revision: Revision,
) -> Result<(), Refusal> {
    let shared = view.shared();
    if !shared.was_restricted() || revision >= view.revision() {
        return Ok(());
    }
    if read::any(view, span, revision, |entry| is_closed(shared, entry)) {
        return shared.refuse_bound(who);
    }
    // What compaction took away meanwhile was not seen.
    read::check_revision(view, Some(revision))
}

fn is_closed(shared: &Shared, entry: &Entry) -> bool {
    entry.is_restricted() && {
        let held = shared.find(entry.key());
        let held = held.and_then(|slot| slot.live_at(shared.revision().0));
        held.is_none_or(|held| held.modified() != entry.modified())
    }
}
