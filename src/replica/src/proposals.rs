//! This member's own proposals, from the moment someone asks until their entry is committed. Sans
//! I/O; `W` is whatever waits for the answer.

use crate::core::Core;
use crate::entry::{self, Batch, ChangeRequest, Step, Ticket};
use crate::machine::{Content, Place, Prepared};
use crate::roster::MemberChange;
use bytes::Bytes;
use keyspace::WallMs;
use std::collections::{BTreeMap, VecDeque};
use store::{Fault, LogEntry, LogReader};

/// Content of one entry. A larger group of steps travels alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// The longest group of steps.
pub const PROPOSAL_BYTES_MAX: usize = 32 << 20;
// A longer entry stops every member that is given it.
const _: () = assert!(PROPOSAL_BYTES_MAX <= store::log::SEGMENT_BYTES as usize / 2);
/// Steps in one entry. Who waits for an entry is answered once all of it is applied: were all that
/// arrived during a round in one, its clients would go through every stage in step, and while one
/// stage works the others would wait.
const BATCH_STEPS_MAX: usize = 64;

/// How much of the log is read at once.
const SCAN_BYTES: u64 = 4 << 20;

/// The newest run of `member` that the log holds proposals of after entry `after`; 0 if none. What
/// cannot be read is for the replay to refuse.
pub fn newest_run(log: &dyn LogReader, member: u64, after: u64) -> Result<u64, Fault> {
    let mut newest = 0;
    let mut next = log.first_index().max(after + 1);
    while next <= log.last_index() {
        for entry in log.entries(next, log.last_index() + 1, SCAN_BYTES)? {
            next = entry.index + 1;
            let ticket = match entry.kind {
                entry::KIND_BATCH => entry::peek_batch(&entry.data).map(|(ticket, _)| ticket),
                _ => entry::decode_change(&entry.data).map(|request| request.ticket),
            };
            let own = ticket.ok().filter(|ticket| ticket.origin == member);
            newest = newest.max(own.map_or(0, |ticket| ticket.incarnation));
        }
    }
    Ok(newest)
}

/// Ticks after which a change of members is proposed again.
const CHANGE_RETRY_TICKS: u32 = 5;

/// Someone who waits for an answer, and may have given up.
pub trait Waiter {
    /// Nobody will look at the answer.
    fn gave_up(&self) -> bool;
}

/// Steps to be taken in order and together in one entry, and who waits for them.
pub struct Proposal<W> {
    steps: Vec<Step>,
    encoded: Vec<u8>,
    waiter: W,
}

impl<W> Proposal<W> {
    /// Encodes the steps; done where they are proposed, so that the replica's thread need not.
    pub fn new(steps: Vec<Step>, waiter: W) -> Proposal<W> {
        Proposal {
            encoded: entry::encode_steps(&steps),
            steps,
            waiter,
        }
    }

    /// The same with another waiter.
    pub fn with_waiter<V>(self, waiter: V) -> Proposal<V> {
        Proposal {
            steps: self.steps,
            encoded: self.encoded,
            waiter,
        }
    }

    /// How large it is in the log.
    pub fn len_bytes(&self) -> usize {
        self.encoded.len()
    }
}

/// Who waits for the steps of one entry: the next so many of them each.
pub type Waiters<W> = Vec<(usize, W)>;

/// A committed entry that is read, with those of this member who wait for it.
pub struct Committed<W> {
    /// The entry.
    pub prepared: Prepared,
    /// Whom to answer.
    pub waiters: Waiters<W>,
    /// Content in the log, in bytes.
    pub len_bytes: usize,
}

/// A batch that was proposed and is not committed yet.
struct Proposed<W> {
    /// As it travels, to be sent again when it may have been lost.
    encoded: Bytes,
    steps: Vec<Step>,
    waiters: Waiters<W>,
}

/// The change of members that was proposed and is not committed yet.
struct ProposedChange<W> {
    request: ChangeRequest,
    waiter: W,
    ticks: u32,
}

/// See the module.
pub struct Proposals<W> {
    member: u64,
    incarnation: u64,
    seq: u64,
    queue: VecDeque<Proposal<W>>,
    proposed: BTreeMap<u64, Proposed<W>>,
    changes: VecDeque<(MemberChange, W)>,
    change_seq: u64,
    /// One at a time: Raft makes an empty entry of a change that comes while another is under way.
    change: Option<ProposedChange<W>>,
}

impl<W: Waiter> Proposals<W> {
    /// For one run of a member; later runs need greater incarnations.
    pub fn new(member: u64, incarnation: u64) -> Proposals<W> {
        Proposals {
            member,
            incarnation,
            seq: 0,
            queue: VecDeque::new(),
            proposed: BTreeMap::new(),
            changes: VecDeque::new(),
            change_seq: 0,
            change: None,
        }
    }

    /// Queues steps for the next round.
    pub fn push(&mut self, proposal: Proposal<W>) {
        self.queue.push_back(proposal);
    }

    /// Queues a change of members.
    pub fn push_change(&mut self, change: MemberChange, waiter: W) {
        self.changes.push_back((change, waiter));
    }

    /// Proposes all that is queued, as few entries as the size allows. While there is no leader
    /// everything stays queued: etcd's proposals wait for one too, until they time out.
    pub fn flush(&mut self, core: &mut Core, wall: WallMs) {
        while core.takes_proposals() && !self.queue.is_empty() {
            let group = self.next_group();
            self.propose(core, wall, group);
        }
        if self.change.is_none()
            && core.takes_proposals()
            && let Some((change, waiter)) = self.changes.pop_front()
        {
            self.change_seq += 1;
            let proposed = ProposedChange {
                request: ChangeRequest {
                    ticket: self.ticket(self.change_seq),
                    change,
                },
                waiter,
                ticks: 0,
            };
            // Not taken, it is proposed again.
            core.propose_change(&proposed.request).ok();
            self.change = Some(proposed);
        }
    }

    /// A tick passed: a change of members that is not committed by now is proposed again, for Raft
    /// may have dropped it in favour of another. It is made once, however often it arrives.
    pub fn tick(&mut self, core: &mut Core) {
        if let Some(change) = &mut self.change {
            change.ticks += 1;
            if change.ticks.is_multiple_of(CHANGE_RETRY_TICKS) {
                // Not taken, there is a next time.
                core.propose_change(&change.request).ok();
            }
        }
    }

    /// Proposes again, in order, all that is not committed: the way to the leader is another now,
    /// and may have lost it. What was not lost is there twice, and taken once.
    pub fn repeat(&mut self, core: &mut Core) {
        for proposed in self.proposed.values() {
            // Not taken, the way changes once more.
            core.propose(proposed.encoded.clone()).ok();
        }
        if let Some(change) = &self.change {
            core.propose_change(&change.request).ok();
        }
    }

    /// Steps that only a leader may decide; void if this member does not lead. Nobody waits.
    pub fn propose_leading(&mut self, core: &mut Core, wall: WallMs, steps: &[Step]) {
        let encoded = entry::encode_steps(steps);
        let ticket = self.next_ticket();
        let encoded = std::iter::once(encoded.as_slice());
        let batch = entry::encode_batch(ticket, wall, steps.len(), encoded);
        // Refused means that someone else's clock counts now.
        core.propose_leading(batch.into()).ok();
    }

    fn next_ticket(&mut self) -> Ticket {
        self.seq += 1;
        self.ticket(self.seq)
    }

    fn ticket(&self, seq: u64) -> Ticket {
        Ticket {
            origin: self.member,
            incarnation: self.incarnation,
            seq,
        }
    }

    /// What goes into the next entry; those who gave up while they waited for a leader are left out.
    fn next_group(&mut self) -> Vec<Proposal<W>> {
        let mut group: Vec<Proposal<W>> = Vec::new();
        let (mut bytes, mut steps) = (0, 0);
        while let Some(next) = self.queue.front() {
            let fits = bytes + next.len_bytes() <= BATCH_BYTES_MAX
                && steps + next.steps.len() <= BATCH_STEPS_MAX;
            if !fits && !group.is_empty() {
                break;
            }
            bytes += next.len_bytes();
            steps += next.steps.len();
            let next = self.queue.pop_front().expect("it has a front");
            if !next.waiter.gave_up() {
                group.push(next);
            }
        }
        group
    }

    fn propose(&mut self, core: &mut Core, wall: WallMs, group: Vec<Proposal<W>>) {
        let steps_len = group.iter().map(|proposal| proposal.steps.len()).sum();
        if steps_len == 0 {
            return;
        }
        let ticket = self.next_ticket();
        let encoded = group.iter().map(|proposal| proposal.encoded.as_slice());
        let batch: Bytes = entry::encode_batch(ticket, wall, steps_len, encoded).into();
        if core.propose(batch.clone()).is_err() {
            group
                .into_iter()
                .rev()
                .for_each(|proposal| self.queue.push_front(proposal));
            return;
        }
        let mut waiting = Proposed {
            encoded: batch,
            steps: Vec::with_capacity(steps_len),
            waiters: Vec::with_capacity(group.len()),
        };
        for proposal in group {
            waiting
                .waiters
                .push((proposal.steps.len(), proposal.waiter));
            waiting.steps.extend(proposal.steps);
        }
        self.proposed.insert(ticket.seq, waiting);
    }

    /// Reads a committed entry; one of ours need not be decoded again, and brings its waiters.
    pub fn take(&mut self, entry: &LogEntry) -> Result<Committed<W>, entry::Unreadable> {
        let committed = |content, waiters| Committed {
            prepared: Prepared {
                place: Place::of(entry),
                content,
            },
            waiters,
            len_bytes: entry.data.len(),
        };
        if entry.kind == entry::KIND_BATCH && !entry.data.is_empty() {
            let (ticket, wall) = entry::peek_batch(&entry.data)?;
            if let Some(ours) = self.take_batch(ticket) {
                let batch = Batch {
                    ticket,
                    wall,
                    steps: ours.steps,
                };
                return Ok(committed(Content::Batch(batch), ours.waiters));
            }
        }
        let content = Prepared::read(entry)?.content;
        let waiters = match &content {
            Content::Change(request) => self.take_change(request),
            Content::Batch(_) | Content::Nothing => Vec::new(),
        };
        Ok(committed(content, waiters))
    }

    fn take_batch(&mut self, ticket: Ticket) -> Option<Proposed<W>> {
        let ours = ticket == self.ticket(ticket.seq);
        ours.then(|| self.proposed.remove(&ticket.seq)).flatten()
    }

    fn take_change(&mut self, request: &ChangeRequest) -> Waiters<W> {
        let ours = self
            .change
            .take_if(|ours| ours.request.ticket == request.ticket);
        ours.into_iter().map(|ours| (1, ours.waiter)).collect()
    }

    /// Forgets what nobody waits for any more. If it is committed yet, it is decoded like another
    /// member's.
    pub fn forget_abandoned(&mut self) {
        self.queue.retain(|proposal| !proposal.waiter.gave_up());
        self.changes.retain(|(_, waiter)| !waiter.gave_up());
        self.proposed
            .retain(|_, ours| ours.waiters.iter().any(|(_, waiter)| !waiter.gave_up()));
        self.change.take_if(|ours| ours.waiter.gave_up());
    }

    /// Everyone who still waits, for the end.
    pub fn drain(&mut self) -> impl Iterator<Item = W> {
        let queued = std::mem::take(&mut self.queue).into_iter();
        let changes = std::mem::take(&mut self.changes).into_iter();
        let proposed = std::mem::take(&mut self.proposed).into_values();
        queued
            .map(|proposal| proposal.waiter)
            .chain(changes.map(|(_, waiter)| waiter))
            .chain(self.change.take().map(|ours| ours.waiter))
            .chain(proposed.flat_map(|ours| ours.waiters.into_iter().map(|(_, waiter)| waiter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Machine, Owner};
    use crate::roster::Roster;
    use store::mem::{MemDisk, MemLog};
    use store::{LogStore, Vote};

    fn batch(index: u64, origin: u64, incarnation: u64) -> LogEntry {
        let ticket = Ticket {
            origin,
            incarnation,
            seq: 1,
        };
        LogEntry {
            index,
            term: 1,
            kind: entry::KIND_BATCH,
            data: entry::encode_batch(ticket, WallMs(0), 0, std::iter::empty()).into(),
        }
    }

    /// With the time of day gone back over a restart, a member called its new run by a smaller
    /// number than the one before, and all it proposed was dropped as seen before.
    #[test]
    fn a_new_run_is_greater_than_any_before_whatever_the_time_of_day_says() {
        let mut log = MemLog::open(&MemDisk::new());
        let empty = LogEntry {
            data: bytes::Bytes::new(),
            ..batch(2, 1, 0)
        };
        let entries = [
            batch(1, 1, 900),
            empty,
            batch(3, 1, 700),
            batch(4, 2, 5_000),
        ];
        log.append(&entries, Vote::default())
            .expect("the disk is whole");
        let logged = newest_run(&log, 1, 0).expect("the disk is whole");
        assert_eq!(logged, 900, "its own, not another's");

        let machine = Machine::new(Roster::default(), Place { index: 0, term: 0 });
        let owner = |incarnation| Owner {
            member: 1,
            cluster: 1,
            incarnation,
        };
        let next = |written, wall| machine.next_incarnation(&owner(written), logged, WallMs(wall));
        assert_eq!(next(0, 5), 901, "after what the log holds");
        assert_eq!(next(1_000, 5), 1_001, "after what was written at its start");
        assert_eq!(next(1_000, 4_000), 4_000, "else the time of day");
    }
}
