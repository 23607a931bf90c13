//! The clocks of leases. They run on the leader only; what is replicated of a lease is that it was
//! granted, that it ended, and now and then how much of its time is left. Nodes' own deadlines are
//! replicated, by the time of day: of them only whether it is time to propose their end is kept
//! here. Pure: time arrives as `now_ms`, on a clock that never runs backwards.

use keyspace::command::{Expired, LeaseRemaining};
use keyspace::{Command, LeaseId, LeaseView};
use std::collections::{BTreeMap, BTreeSet};

/// Leases ended in one go. With a check every [`CHECK_MS`] it makes etcd's 1,000 a second.
pub const EXPIRED_MAX: usize = 100;
/// How often to look for expired leases.
pub const CHECK_MS: u64 = 100;
/// An end that was proposed and has not come is proposed anew (etcd's `expiredLeaseRetryInterval`).
const RETRY_MS: u64 = 3_000;
/// How often the remaining time of long leases is written down, and of leases of at least what time
/// (etcd's `checkpointInterval`).
const CHECKPOINT_MS: u64 = 5 * 60 * 1_000;
/// Remaining times written in one go (etcd's `maxLeaseCheckpointBatchSize`).
const CHECKPOINTS_MAX: usize = 1_000;

/// What a keep-alive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The clock starts anew.
    Renewed {
        /// The granted time.
        ttl_ms: u64,
    },
    /// There is no such lease.
    Missing,
    /// Its time is over but its end is not yet replicated: ask again when a lease ended. (A client
    /// must not be told that a lease lives that others may see end.)
    Ending,
}

/// The clocks of all leases.
#[derive(Debug, Default)]
pub struct Expiry {
    clocks: BTreeMap<LeaseId, Clock>,
    /// When something is to be done about a lease: end it, or propose its end again.
    due: BTreeSet<(u64, LeaseId)>,
    /// When a lease's remaining time is to be written down.
    notes: BTreeSet<(u64, LeaseId)>,
    leading: bool,
    /// The end of nodes was proposed and is not proposed again before.
    nodes_from_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    ttl_ms: u64,
    /// The connection that holds it, if it is a session.
    attachment: Option<u64>,
    deadline_ms: u64,
    /// This clock's entry in `due`.
    due_ms: u64,
    /// This clock's entry in `notes`.
    note_ms: u64,
    /// Remaining time as last written down; a keep-alive makes it void.
    noted: bool,
}

impl Expiry {
    /// Starts over with the leases that the replicated state holds.
    pub fn reset(&mut self, now_ms: u64, leases: impl IntoIterator<Item = LeaseView>) {
        *self = Expiry {
            leading: self.leading,
            ..Expiry::default()
        };
        for lease in leases {
            self.start(now_ms, &lease);
        }
    }

    /// This member leads from now on: every clock starts anew, at what was last written down of it,
    /// and gets `grace_ms` more, as clients could reach nobody meanwhile.
    pub fn lead(
        &mut self,
        now_ms: u64,
        grace_ms: u64,
        leases: impl IntoIterator<Item = LeaseView>,
    ) {
        self.reset(now_ms + grace_ms, leases);
        self.leading = true;
    }

    /// Another member leads, or none.
    pub fn follow(&mut self) {
        self.leading = false;
    }

    /// Whether the clocks run here.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// What a command of these means to the clocks.
    pub fn applied(&mut self, now_ms: u64, command: &Command) {
        let started = match command {
            Command::Grant(grant) => LeaseView {
                lease: grant.lease,
                ttl_ms: grant.ttl_ms,
                remaining_ms: None,
                attachment: grant.session.as_ref().map(|session| session.attachment),
            },
            Command::Attach(attach) => LeaseView {
                lease: attach.lease,
                ttl_ms: attach.ttl_ms,
                remaining_ms: None,
                attachment: Some(attach.attachment),
            },
            Command::Revoke(lease, _) => return self.ended(*lease),
            Command::Close(turn) => return self.ended(turn.lease),
            Command::Expire(leases) => {
                leases.iter().for_each(|expired| self.expired(expired));
                // There may be more nodes.
                self.nodes_from_ms = 0;
                return;
            }
            Command::Txn(_)
            | Command::Compact(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Nodes(_)
            | Command::Auth(_) => return,
        };
        if self.leading {
            self.start(now_ms, &started);
        }
    }

    fn start(&mut self, now_ms: u64, lease: &LeaseView) {
        let (id, ttl_ms) = (lease.lease, lease.ttl_ms);
        self.ended(id);
        let deadline_ms = now_ms.saturating_add(lease.remaining_ms.unwrap_or(ttl_ms));
        let clock = Clock {
            ttl_ms,
            attachment: lease.attachment,
            deadline_ms,
            due_ms: deadline_ms,
            note_ms: now_ms.saturating_add(CHECKPOINT_MS),
            noted: lease.remaining_ms.is_some(),
        };
        self.clocks.insert(id, clock);
        self.due.insert((clock.due_ms, id));
        if ttl_ms > CHECKPOINT_MS {
            self.notes.insert((clock.note_ms, id));
        }
    }

    /// A session that has gone on through another connection meanwhile lives, and so its clock.
    fn expired(&mut self, expired: &Expired) {
        let clock = self.clocks.get(&expired.lease);
        if clock.is_some_and(|clock| clock.attachment == expired.attachment) {
            self.ended(expired.lease);
        }
    }

    /// A lease ended.
    fn ended(&mut self, lease: LeaseId) {
        if let Some(clock) = self.clocks.remove(&lease) {
            self.due.remove(&(clock.due_ms, lease));
            self.notes.remove(&(clock.note_ms, lease));
        }
    }

    /// Starts a lease's clock anew.
    pub fn keep_alive(&mut self, now_ms: u64, lease: LeaseId) -> Renewal {
        let Some(clock) = self.clocks.get(&lease).copied() else {
            return Renewal::Missing;
        };
        if clock.deadline_ms <= now_ms {
            return Renewal::Ending;
        }
        self.restart(now_ms, lease, clock);
        Renewal::Renewed {
            ttl_ms: clock.ttl_ms,
        }
    }

    /// Starts a session's clock anew, as its client was heard of. One whose end was proposed goes on
    /// only if that proposal is lost.
    pub fn touched(&mut self, now_ms: u64, lease: LeaseId) {
        if let Some(clock) = self.clocks.get(&lease).copied() {
            self.restart(now_ms, lease, clock);
        }
    }

    fn restart(&mut self, now_ms: u64, lease: LeaseId, clock: Clock) {
        let anew = LeaseView {
            lease,
            ttl_ms: clock.ttl_ms,
            remaining_ms: None,
            attachment: clock.attachment,
        };
        self.start(now_ms, &anew);
        if clock.noted {
            // What was written down is less than what is left now; a new leader must not use it.
            self.note_at(now_ms, lease);
        }
    }

    fn note_at(&mut self, note_ms: u64, lease: LeaseId) {
        if let Some(clock) = self.clocks.get_mut(&lease) {
            self.notes.remove(&(clock.note_ms, lease));
            clock.note_ms = note_ms;
            self.notes.insert((note_ms, lease));
        }
    }

    /// Granted time and what is left of it.
    pub fn remaining(&self, now_ms: u64, lease: LeaseId) -> Option<(u64, u64)> {
        let clock = self.clocks.get(&lease)?;
        Some((clock.ttl_ms, clock.deadline_ms.saturating_sub(now_ms)))
    }

    /// What [`Command::Expire`] is to end now, if anything: leases, oldest first, at most
    /// [`EXPIRED_MAX`], and whichever nodes are due when it is applied. `node_is_due` tells whether
    /// there are any.
    pub fn take_expired(
        &mut self,
        now_ms: u64,
        node_is_due: impl FnOnce() -> bool,
    ) -> Option<Vec<Expired>> {
        if !self.leading {
            return None;
        }
        let due = self.due.iter().take_while(|(due_ms, _)| *due_ms <= now_ms);
        let expired: Vec<(u64, LeaseId)> = due.take(EXPIRED_MAX).copied().collect();
        let mut ends = Vec::with_capacity(expired.len());
        for (due_ms, lease) in expired {
            self.due.remove(&(due_ms, lease));
            self.due.insert((now_ms + RETRY_MS, lease));
            let clock = self.clocks.get_mut(&lease);
            let clock = clock.expect("what is due has a clock");
            clock.due_ms = now_ms + RETRY_MS;
            let attachment = clock.attachment;
            ends.push(Expired { lease, attachment });
        }
        let nodes_end = self.nodes_from_ms <= now_ms && node_is_due();
        if ends.is_empty() && !nodes_end {
            return None;
        }
        self.nodes_from_ms = now_ms + RETRY_MS;
        Some(ends)
    }

    /// Remaining times to be written down now.
    pub fn take_notes(&mut self, now_ms: u64) -> Vec<LeaseRemaining> {
        if !self.leading {
            return Vec::new();
        }
        let due = self
            .notes
            .iter()
            .take_while(|(note_ms, _)| *note_ms <= now_ms);
        let due: Vec<(u64, LeaseId)> = due.take(CHECKPOINTS_MAX).copied().collect();
        let mut notes = Vec::new();
        for (_, lease) in due {
            self.note_at(now_ms + CHECKPOINT_MS, lease);
            let Some(clock) = self.clocks.get_mut(&lease) else {
                continue;
            };
            let remaining_ms = clock.deadline_ms.saturating_sub(now_ms);
            clock.noted = remaining_ms < clock.ttl_ms;
            if remaining_ms > 0 {
                notes.push(LeaseRemaining {
                    lease,
                    remaining_ms,
                });
            }
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyspace::command::Grant;

    const TTL_MS: u64 = 10_000;
    const NONE: [i64; 0] = [];

    fn view(lease: i64, ttl_ms: u64, remaining_ms: Option<u64>) -> LeaseView {
        LeaseView {
            lease: LeaseId(lease),
            ttl_ms,
            remaining_ms,
            attachment: None,
        }
    }

    fn leading(leases: &[LeaseView]) -> Expiry {
        let mut expiry = Expiry::default();
        expiry.lead(0, 0, leases.iter().cloned());
        expiry
    }

    fn expire(leases: &[i64]) -> Command {
        let expired = |lease: &i64| Expired {
            lease: LeaseId(*lease),
            attachment: None,
        };
        Command::Expire(leases.iter().map(expired).collect())
    }

    /// The leases that end at this time.
    fn ending(expiry: &mut Expiry, now_ms: u64) -> Vec<i64> {
        let expired = expiry.take_expired(now_ms, || false).unwrap_or_default();
        expired.iter().map(|it| it.lease.0).collect()
    }

    #[test]
    fn a_lease_ends_when_its_time_is_over_and_not_before() {
        let mut expiry = leading(&[]);
        expiry.applied(
            5,
            &Command::Grant(Grant {
                lease: LeaseId(1),
                ttl_ms: TTL_MS,
                session: None,
            }),
        );
        assert_eq!(ending(&mut expiry, TTL_MS + 4), NONE);
        assert_eq!(expiry.remaining(TTL_MS, LeaseId(1)), Some((TTL_MS, 5)));
        assert_eq!(ending(&mut expiry, TTL_MS + 5), [1]);
        assert_eq!(expiry.keep_alive(TTL_MS + 5, LeaseId(1)), Renewal::Ending);
        expiry.applied(TTL_MS + 5, &expire(&[1]));
        assert_eq!(expiry.keep_alive(TTL_MS + 5, LeaseId(1)), Renewal::Missing);
        assert_eq!(expiry.remaining(TTL_MS, LeaseId(1)), None);
    }

    #[test]
    fn a_keep_alive_starts_the_clock_anew() {
        let mut expiry = leading(&[view(1, TTL_MS, None)]);
        let renewed = Renewal::Renewed { ttl_ms: TTL_MS };
        assert_eq!(expiry.keep_alive(TTL_MS - 1, LeaseId(1)), renewed);
        assert_eq!(ending(&mut expiry, 2 * TTL_MS - 2), NONE);
        assert_eq!(ending(&mut expiry, 2 * TTL_MS - 1), [1]);
    }

    #[test]
    fn the_oldest_end_first_and_no_more_than_fit() {
        let leases = EXPIRED_MAX as i64 + 1;
        let late_first = |lease| view(lease, TTL_MS - lease as u64, None);
        let mut expiry = leading(&(0..leases).map(late_first).collect::<Vec<_>>());
        let oldest: Vec<i64> = (1..leases).rev().collect();
        assert_eq!(ending(&mut expiry, TTL_MS), oldest);
        assert_eq!(ending(&mut expiry, TTL_MS), [0]);
    }

    /// The proposal may be lost with a connection or a leader.
    #[test]
    fn an_end_that_does_not_come_is_proposed_again() {
        let mut expiry = leading(&[view(1, TTL_MS, None)]);
        assert_eq!(ending(&mut expiry, TTL_MS), [1]);
        assert_eq!(ending(&mut expiry, TTL_MS + RETRY_MS - 1), NONE);
        assert_eq!(ending(&mut expiry, TTL_MS + RETRY_MS), [1]);
    }

    #[test]
    fn only_a_leader_ends_anything() {
        let mut expiry = Expiry::default();
        expiry.reset(0, [view(1, TTL_MS, None)]);
        assert_eq!(expiry.take_expired(2 * TTL_MS, || true), None);
        expiry.lead(2 * TTL_MS, 0, [view(1, TTL_MS, None)]);
        expiry.follow();
        assert_eq!(expiry.take_expired(4 * TTL_MS, || true), None);
        assert!(expiry.take_notes(4 * TTL_MS).is_empty());
    }

    /// Clients could reach nobody while there was no leader.
    #[test]
    fn a_new_leader_gives_the_whole_time_and_grace() {
        let mut expiry = Expiry::default();
        expiry.lead(1_000, 500, [view(1, TTL_MS, None)]);
        assert_eq!(ending(&mut expiry, 1_499 + TTL_MS), NONE);
        assert_eq!(ending(&mut expiry, 1_500 + TTL_MS), [1]);
    }

    /// Else a lease of an hour would live for ever under a leader that changes every half.
    #[test]
    fn a_new_leader_goes_on_from_what_was_written_down() {
        let long_ms = 4 * CHECKPOINT_MS;
        let mut expiry = leading(&[view(1, long_ms, None), view(2, CHECKPOINT_MS, None)]);
        assert!(expiry.take_notes(CHECKPOINT_MS - 1).is_empty());
        let remaining_ms = 3 * CHECKPOINT_MS;
        let note = LeaseRemaining {
            lease: LeaseId(1),
            remaining_ms,
        };
        assert_eq!(
            expiry.take_notes(CHECKPOINT_MS),
            [note],
            "short ones need none"
        );
        let mut next = leading(&[view(1, long_ms, Some(remaining_ms))]);
        assert_eq!(ending(&mut next, remaining_ms - 1), NONE);
        assert_eq!(ending(&mut next, remaining_ms), [1]);
    }

    /// What was written down is void then: the next leader must not end the lease too soon.
    #[test]
    fn a_keep_alive_writes_down_the_whole_time_at_once() {
        let long_ms = 4 * CHECKPOINT_MS;
        let mut expiry = leading(&[view(1, long_ms, Some(7))]);
        expiry.keep_alive(5, LeaseId(1));
        let note = LeaseRemaining {
            lease: LeaseId(1),
            remaining_ms: long_ms,
        };
        assert_eq!(expiry.take_notes(5), [note]);
        assert!(expiry.take_notes(5).is_empty());
    }

    /// A session's client that is heard of too late may still be heard before its end is applied.
    #[test]
    fn a_touched_session_lives_on_if_the_proposal_of_its_end_is_lost() {
        let mut expiry = leading(&[view(1, TTL_MS, None)]);
        assert_eq!(ending(&mut expiry, TTL_MS), [1]);
        expiry.touched(TTL_MS + 1, LeaseId(1));
        assert_eq!(ending(&mut expiry, TTL_MS + RETRY_MS), NONE);
        assert_eq!(ending(&mut expiry, 2 * TTL_MS + 1), [1]);
    }

    #[test]
    fn due_nodes_are_ended_once_at_a_time() {
        let mut expiry = leading(&[]);
        assert_eq!(expiry.take_expired(0, || false), None);
        assert_eq!(expiry.take_expired(1, || true), Some(Vec::new()));
        assert_eq!(expiry.take_expired(2, || true), None, "it is under way");
        expiry.applied(2, &expire(&[]));
        assert_eq!(expiry.take_expired(3, || true), Some(Vec::new()));
        assert_eq!(expiry.take_expired(2 + RETRY_MS, || true), None);
        assert_eq!(expiry.take_expired(3 + RETRY_MS, || true), Some(Vec::new()));
    }
}
