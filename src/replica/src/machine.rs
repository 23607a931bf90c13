//! The replicated state machine: the keyspace, who belongs to the cluster, and how far each member's
//! proposals have come. Pure: equal logs give equal machines on every member.

use crate::entry::{
    self, Batch, ChangeRequest, KIND_BATCH, KIND_CHANGE, KIND_CHANGES, Step, Ticket,
};
use crate::roster::{MemberChange, Roster};
use crate::{Member, MemberRefusal};
use bytes::Bytes;
use keyspace::{
    Applied, Command, Cut, Keyspace, Outcome, Reader, Refusal, Revision, Stamp, WallMs,
};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use store::{LogEntry, Mark, Record};

/// Everything that all members hold alike.
pub struct Machine {
    keyspace: Keyspace,
    roster: Roster,
    origins: BTreeMap<u64, Progress>,
    /// The last entry whose effects are in.
    place: Place,
}

/// An entry's place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
}

/// The newest of an origin. A forwarded proposal may arrive twice or late; what is not newer than
/// this is dropped, so that everything happens at most once and in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Progress {
    /// Of its batches.
    #[n(0)]
    batch: Ticket,
    /// Of its changes of members. They are repeated on their own, so batches do not overtake them.
    #[n(1)]
    change: Ticket,
}

impl Progress {
    /// Whether `ticket` is newer than `newest`, which it is from now on.
    fn advance(newest: &mut Ticket, ticket: Ticket) -> bool {
        let is_new = ticket > *newest;
        if is_new {
            *newest = ticket;
        }
        is_new
    }
}

/// What a checkpoint's mark holds beside the keyspace's records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Meta {
    /// Whose disk this is.
    #[n(0)]
    pub owner: Owner,
    #[n(1)]
    roster: Roster,
    #[n(2)]
    origins: BTreeMap<u64, Progress>,
}

/// Whose disk a checkpoint is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Owner {
    /// The member.
    #[n(0)]
    pub member: u64,
    /// The cluster it belongs to.
    #[n(1)]
    pub cluster: u64,
    /// Its newest run, see [`Machine::next_incarnation`].
    #[n(2)]
    pub incarnation: u64,
}

/// An entry on its way from the log to the machine, read.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum Content {
    /// A leader's first entry.
    Nothing,
    /// Steps.
    Batch(Batch),
    /// A change of members.
    Change(ChangeRequest),
}

/// What came of one entry.
#[derive(Debug)]
pub struct Effect {
    /// What came of each step, in order; `None` when the entry was dropped as one seen before.
    pub steps: Option<Vec<StepOutcome>>,
    /// For a change of members: what Raft must now do, if it was possible.
    pub change: Option<MemberChange>,
}

/// What a command came to, for whoever asked: its changes were for the observer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The keyspace's revision after the command.
    pub revision: Revision,
    /// The node event counter after it.
    pub event: u64,
    /// The answer, or why nothing was done.
    pub outcome: Result<Outcome, Refusal>,
}

/// What came of one step.
#[derive(Debug)]
pub enum StepOutcome {
    /// Of a command.
    Answered(Answered),
    /// Of a change to the roster: the number of its version then.
    Roster(Result<u64, MemberRefusal>),
}

/// Is told of every command, in order, right after readers can see what it did.
pub trait Observer {
    /// One command and what it did.
    fn applied(&mut self, command: &Command, applied: &Applied);
}

impl Prepared {
    /// Reads an entry. An error means that the log cannot be trusted, or that a newer version of
    /// this program wrote it.
    pub fn read(entry: &LogEntry) -> Result<Prepared, entry::Unreadable> {
        let content = match entry.kind {
            KIND_CHANGE | KIND_CHANGES if entry.data.is_empty() => Content::Nothing,
            KIND_CHANGE => Content::Change(entry::decode_change(&entry.data)?),
            KIND_BATCH if !entry.data.is_empty() => {
                Content::Batch(entry::decode_batch(&entry.data)?)
            }
            _ => Content::Nothing,
        };
        Ok(Prepared {
            place: Place::of(entry),
            content,
        })
    }
}

impl Place {
    /// An entry's place.
    pub fn of(entry: &LogEntry) -> Place {
        Place {
            index: entry.index,
            term: entry.term,
        }
    }
}

impl Machine {
    /// The state a cluster begins with.
    pub fn new(roster: Roster, place: Place) -> Machine {
        Machine {
            keyspace: Keyspace::new(),
            roster,
            origins: BTreeMap::new(),
            place,
        }
    }

    /// The state that a checkpoint holds.
    pub fn restore(
        place: Place,
        meta: &Meta,
        records: impl Iterator<Item = keyspace::Record>,
    ) -> Result<Machine, keyspace::Damaged> {
        let keyspace = Keyspace::restore(records)?;
        Ok(Machine::over(keyspace, place, meta))
    }

    /// The state of which this is the keyspace.
    pub fn over(keyspace: Keyspace, place: Place, meta: &Meta) -> Machine {
        Machine {
            keyspace,
            roster: meta.roster.clone(),
            origins: meta.origins.clone(),
            place,
        }
    }

    /// The last entry whose effects are in.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Who belongs to the cluster.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Makes `member` the only member, whatever the log says: how a cluster is rebuilt from one.
    pub fn reduce_to(&mut self, member: u64) {
        self.roster.reduce_to(member);
    }

    /// What the next run of `owner` calls itself: greater than any before, even where the time of
    /// day went back. It must be durable before anything is proposed: with a smaller one every
    /// proposal would count as seen before, and two runs of one number would take each other's
    /// proposals for their own. `logged` is what the log knows of it, should the newest checkpoint
    /// have been lost.
    pub fn next_incarnation(&self, owner: &Owner, logged: u64, wall: WallMs) -> u64 {
        let seen = self.origins.get(&owner.member);
        let seen = seen.map_or(0, |p| p.batch.incarnation.max(p.change.incarnation));
        let before = seen.max(logged).max(owner.incarnation);
        wall.0.max(before + 1)
    }

    /// A handle for readers.
    pub fn reader(&self) -> Reader {
        self.keyspace.reader()
    }

    /// The keyspace's revision.
    pub fn revision(&self) -> Revision {
        self.keyspace.reader().revision()
    }

    /// A digest of everything that members hold alike in the keyspace.
    pub fn digest(&self) -> u64 {
        self.keyspace.digest()
    }

    /// Postponed work of up to about a millisecond; whether some is left.
    pub fn tidy(&mut self) -> bool {
        self.keyspace.tidy()
    }

    /// Takes the next entry's effects in. An entry at or before the last one is skipped: a snapshot
    /// brought it already.
    pub fn apply(&mut self, prepared: &Prepared, observer: &mut dyn Observer) -> Effect {
        let nothing = Effect {
            steps: None,
            change: None,
        };
        if prepared.place.index <= self.place.index {
            return nothing;
        }
        assert_eq!(
            prepared.place.index,
            self.place.index + 1,
            "entries apply in order"
        );
        self.place = prepared.place;
        match &prepared.content {
            Content::Nothing => nothing,
            Content::Batch(batch) => {
                let newest = &mut self.progress(batch.ticket).batch;
                if !Progress::advance(newest, batch.ticket) {
                    return nothing;
                }
                let stamp = Stamp {
                    index: prepared.place.index,
                    wall: batch.wall,
                };
                let steps = batch.steps.iter();
                let steps = steps.map(|step| self.step(stamp, step, observer));
                Effect {
                    steps: Some(steps.collect()),
                    change: None,
                }
            }
            Content::Change(request) => {
                let newest = &mut self.progress(request.ticket).change;
                if !Progress::advance(newest, request.ticket) {
                    return nothing;
                }
                let outcome = self.roster.change(&request.change);
                Effect {
                    change: outcome.is_ok().then(|| request.change.clone()),
                    steps: Some(vec![StepOutcome::Roster(
                        outcome.map(|()| self.note_roster(true)),
                    )]),
                }
            }
        }
    }

    /// How far the proposals of a ticket's origin have come.
    fn progress(&mut self, ticket: Ticket) -> &mut Progress {
        self.origins.entry(ticket.origin).or_default()
    }

    fn step(&mut self, stamp: Stamp, step: &Step, observer: &mut dyn Observer) -> StepOutcome {
        match step {
            Step::Command(command) => {
                let applied = self.keyspace.apply(stamp, command);
                observer.applied(command, &applied);
                StepOutcome::Answered(Answered {
                    revision: applied.revision,
                    event: applied.event,
                    outcome: applied.outcome,
                })
            }
            Step::Describe(description) => {
                let moved = self.roster.describe(description);
                StepOutcome::Roster(moved.map(|moved| match moved {
                    true => self.note_roster(description.is_order()),
                    false => self.roster.version().number,
                }))
            }
        }
    }

    /// Notes that the roster changed, and answers the number of its version now.
    fn note_roster(&mut self, order: bool) -> u64 {
        let (revision, wall) = (self.revision(), self.keyspace.wall());
        self.roster.changed(order, revision, wall);
        self.roster.version().number
    }

    /// Becomes `other`, for everyone who holds a reader already.
    pub fn replace(&mut self, other: Machine) {
        self.keyspace.replace(other.keyspace);
        self.roster = other.roster;
        self.origins = other.origins;
        self.place = other.place;
    }

    /// A copy of the state, to be written elsewhere while this one goes on. With `since`, only what
    /// changed after that revision; `None` when only a whole copy will do.
    pub fn cut(&self, owner: Owner, since: Option<Revision>) -> Option<(Mark, Cut)> {
        let cut = self.keyspace.cut(since)?;
        Some((self.mark(owner), cut))
    }

    /// What a checkpoint of the state as it is now says about itself.
    pub fn mark(&self, owner: Owner) -> Mark {
        let meta = Meta {
            owner,
            roster: self.roster.clone(),
            origins: self.origins.clone(),
        };
        Mark {
            index: self.place.index,
            term: self.place.term,
            meta: meta.encode(),
        }
    }
}

impl Meta {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        minicbor::to_vec(self)
            .expect("writing to memory cannot fail")
            .into()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Meta, entry::Unreadable> {
        Ok(minicbor::decode(bytes)?)
    }

    /// The same state on another member's disk.
    pub fn moved_to(mut self, owner: Owner) -> Meta {
        self.owner = owner;
        self
    }

    /// Who belonged to the cluster.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The members.
    pub fn members(&self) -> Vec<Member> {
        self.roster.members().cloned().collect()
    }
}

/// The keyspace's record as the store's.
pub fn to_store(record: keyspace::Record) -> Record {
    Record {
        key: record.key,
        value: record.value,
    }
}

/// The store's record as the keyspace's.
pub fn to_keyspace(record: Record) -> keyspace::Record {
    keyspace::Record {
        key: record.key,
        value: record.value,
    }
}
