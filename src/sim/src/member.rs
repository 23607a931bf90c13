//! One run of one member: the replica's own parts (consensus, proposals, reads, lease clocks, the
//! machine), put together as the replica's threads put them together, but in one thread and with
//! time, disk and network given from outside.

use bytes::Bytes;
use keyspace::{Applied, Command, LeaseId, WallMs};
use replica::core::{
    Core, CoreConfig, MessageKind, Outgoing, Refused, Role, View, announced, snapshot_message,
};
use replica::entry::Step;
use replica::expiry::{CHECK_MS, Expiry, Renewal};
use replica::machine::{
    Content, Machine, Meta, Observer, Owner, Place, StepOutcome, to_keyspace, to_store,
};
use replica::proposals::{Proposal, Proposals, Waiter, Waiters, newest_run};
use replica::reads::Reads;
use replica::roster::{MemberChange, Roster};
use replica::{Answered, MemberRefusal};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use store::mem::{MemCheckpoints, MemDisk, MemLog};
use store::{CheckpointStore, Fault, ImageSink, Loaded, LogEntry, Mark, Record};

/// Ticks without a leader before an election.
pub const ELECTION_TICKS: usize = 10;
/// Length of a tick.
pub const TICK_MS: u64 = 20;
/// Where a cluster begins: what the first members know lies before the first entry, so that who
/// joins later gets it as a snapshot.
const FIRST: Place = Place { index: 1, term: 1 };
/// The cluster's id.
const CLUSTER: u64 = 1;
/// Applied entries after which an image is written: few, so that snapshots are needed.
const CHECKPOINT_ENTRIES: u64 = 12;
/// Entries kept behind an image for followers that lag.
const CATCHUP_ENTRIES: u64 = 2;
/// The digest is compared at every so many entries: it reads the whole state.
const DIGEST_EVERY: u64 = 4;

/// Names what someone waits for, and whether they still do.
#[derive(Clone, Debug)]
pub struct Token {
    /// Unique in the world.
    pub id: u64,
    /// Nobody will look at the answer.
    pub gave_up: Rc<Cell<bool>>,
}

impl Waiter for Token {
    fn gave_up(&self) -> bool {
        self.gave_up.get()
    }
}

/// Who waits until a read is possible, and the lease to renew then, if that is what it is for.
struct Reading {
    token: Token,
    lease: Option<LeaseId>,
}

/// What arrives at a member.
#[derive(Debug)]
pub enum Input {
    /// A tick of its clock.
    Tick,
    /// Another member's message.
    Message(u64, Packet),
    /// A client's command.
    Propose(Token, Command),
    /// A client's linearizable read.
    Read(Token),
    /// A client's keep-alive.
    KeepAlive(Token, LeaseId),
    /// A sign of life from a session's client, which nobody waits for.
    Touch(LeaseId),
    /// An operator's change of members.
    Change(Token, MemberChange),
    /// An operator wants another leader.
    Transfer(u64),
    /// Messages to this member were lost, as the sender's connection noticed.
    Unreachable(u64),
    /// What became of a snapshot that was sent.
    SnapshotSent(u64, bool),
}

/// What travels between members.
#[derive(Clone, Debug)]
pub enum Packet {
    /// One of Raft's messages.
    Message(Bytes),
    /// A snapshot: the message that announces it, and the state.
    Snapshot(Bytes, Arc<Image>),
    /// Sessions whose clients a member hears of.
    Touches(Vec<LeaseId>),
    /// The leader knows of them.
    Touched(Vec<LeaseId>),
}

/// A whole state on its way.
#[derive(Debug)]
pub struct Image {
    meta: Bytes,
    records: Vec<Record>,
}

/// What a member answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To a command.
    Answered(Answered),
    /// The read is possible now.
    Readable,
    /// To a keep-alive.
    Renewal(Renewal),
    /// To a change of members.
    Roster(Result<(), MemberRefusal>),
    /// The outcome is unknown.
    Unknown,
}

/// One command applied.
#[derive(Clone, Debug)]
pub struct Done {
    /// The entry it travelled in.
    pub index: u64,
    /// What it was.
    pub command: Command,
    /// What it did.
    pub applied: Applied,
}

/// What came of some inputs.
#[derive(Default)]
pub struct Output {
    /// To send: whom to, what.
    pub packets: Vec<(u64, Packet)>,
    /// To answer.
    pub answers: Vec<(Token, Answer)>,
    /// Commands applied, in order.
    pub done: Vec<Done>,
    /// The last entry applied and the digest there, at some entries.
    pub digests: Vec<(u64, u64, u64)>,
    /// The state was replaced by a snapshot.
    pub restored: bool,
    /// Snapshots that arrived: from whom, and whether they were taken.
    pub snapshots_taken: Vec<(u64, bool)>,
}

/// What a member's clocks say.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since the world began; runs evenly.
    pub now_ms: u64,
    /// The time of day; may jump.
    pub wall: WallMs,
}

/// Why a member stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Its disk failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Its disk lost what it had promised.
    #[error(transparent)]
    LogLost(Refused),
}

/// A snapshot that arrived: the machine it makes, its image, and who sent it.
type Arrived = (Machine, Box<dyn ImageSink>, u64);

/// One run of a member.
pub struct Member {
    owner: Owner,
    core: Core,
    machine: Machine,
    proposals: Proposals<Token>,
    reads: Reads<Reading>,
    clocks: Expiry,
    checkpoints: MemCheckpoints,
    /// Reads that are possible once an entry is applied.
    waiting: Vec<(u64, Vec<Reading>)>,
    /// A snapshot that arrived and was stepped.
    arrived: Option<Arrived>,
    /// Changes of members that Raft was not told of yet.
    changed: Vec<(Place, Option<MemberChange>)>,
    /// Raft was told of everything applied up to here.
    told: Place,
    entries_since_image: u64,
    next_check_ms: u64,
    /// Sessions whose clients were heard of and which the leader has not taken note of.
    touched: BTreeSet<LeaseId>,
}

/// Gathers what the machine did.
struct Gather<'a> {
    index: u64,
    done: &'a mut Vec<Done>,
}

impl Observer for Gather<'_> {
    fn applied(&mut self, command: &Command, applied: &Applied) {
        self.done.push(Done {
            index: self.index,
            command: command.clone(),
            applied: applied.clone(),
        });
    }
}

impl Member {
    /// Starts on what the disk holds; on an empty one as one of the `first` members of a cluster, or
    /// as one that joins.
    pub fn start(
        id: u64,
        disk: &MemDisk,
        first: Option<&Roster>,
        wall: WallMs,
    ) -> Result<Member, Fault> {
        let mut checkpoints = MemCheckpoints::open(disk);
        let loaded = checkpoints.load()?.map(restore).transpose()?;
        let is_new = loaded.is_none();
        let (mut owner, machine) = loaded.unwrap_or_else(|| {
            let owner = Owner {
                member: id,
                cluster: CLUSTER,
                incarnation: 0,
            };
            let machine = match first {
                Some(roster) => Machine::new(roster.clone(), FIRST),
                None => Machine::new(Roster::default(), Place::default()),
            };
            (owner, machine)
        });
        let log = Box::new(MemLog::open(disk));
        let logged = newest_run(&*log, id, machine.place().index)?;
        owner.incarnation = machine.next_incarnation(&owner, logged, wall);
        let mark = machine.mark(owner);
        if is_new || !checkpoints.increment(mark.index, mark, Vec::new())? {
            write_image(&mut checkpoints, &machine, owner)?;
        }
        let config = CoreConfig {
            member: id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            seed: owner.incarnation,
            pre_vote: true,
        };
        let mut core = Core::new(&config, log, machine.place(), machine.roster())?;
        core.advance_election(ELECTION_TICKS - 1);
        Ok(Member {
            owner,
            core,
            told: machine.place(),
            machine,
            proposals: Proposals::new(id, owner.incarnation),
            reads: Reads::new(id, owner.incarnation),
            clocks: Expiry::default(),
            checkpoints,
            waiting: Vec::new(),
            changed: Vec::new(),
            arrived: None,
            entries_since_image: 0,
            next_check_ms: 0,
            touched: BTreeSet::new(),
        })
    }

    /// Its state, to be read.
    pub fn reader(&self) -> keyspace::Reader {
        self.machine.reader()
    }

    /// The last entry applied, and the digest and revision there.
    pub fn digest(&self) -> (u64, u64, u64) {
        let revision = self.machine.revision().0;
        (self.machine.place().index, self.machine.digest(), revision)
    }

    /// The last entry applied.
    pub fn applied(&self) -> u64 {
        self.machine.place().index
    }

    /// Its view of the group.
    pub fn view(&self) -> View {
        self.core.view()
    }

    /// Who belongs to the cluster, as applied here.
    pub fn roster(&self) -> &Roster {
        self.machine.roster()
    }

    /// Everyone who waits for it; it is about to die.
    pub fn abandon(&mut self) -> Vec<Token> {
        let waiting = std::mem::take(&mut self.waiting);
        let waiting = waiting.into_iter().flat_map(|(_, readings)| readings);
        let reading = waiting.chain(self.reads.drain()).map(|r| r.token);
        reading.chain(self.proposals.drain()).collect()
    }

    /// Takes inputs in and begins a round. Answers whether one is to be finished, which takes as
    /// long as the disk does.
    pub fn begin(
        &mut self,
        inputs: Vec<Input>,
        clock: Clock,
        out: &mut Output,
    ) -> Result<bool, Stopped> {
        // At most one tick a round, and first: after a stall nobody is to be blamed for the time
        // that was lost.
        if inputs.iter().any(|input| matches!(input, Input::Tick)) {
            self.core.tick();
            self.reads.tick();
            self.tell_touches(clock, out);
            self.reads.retain(|reading| !reading.token.gave_up());
            self.proposals.forget_abandoned();
        }
        for input in inputs {
            self.take_in(input, clock, out)?;
        }
        for (place, change) in std::mem::take(&mut self.changed) {
            self.core.applied(place, change.as_ref());
            self.told = place;
        }
        if self.machine.place().index > self.told.index {
            self.told = self.machine.place();
            self.core.applied(self.told, None);
        }
        self.proposals.flush(&mut self.core, clock.wall);
        if self.core.view().role == Role::Leader {
            self.end_leases(clock);
        }
        self.reads.flush(&mut self.core);
        self.round(clock, out)
    }

    /// Finishes the round: the disk has done its work. Answers whether there is another.
    pub fn finish(&mut self, clock: Clock, out: &mut Output) -> Result<bool, Stopped> {
        let finished = self.core.finish()?;
        self.send(finished.messages, out);
        self.apply(finished.committed, clock, out)?;
        self.round(clock, out)
    }

    fn round(&mut self, clock: Clock, out: &mut Output) -> Result<bool, Stopped> {
        let begun = self.core.begin();
        self.look(clock);
        let Some(begun) = begun else {
            if let Some((_, _, from)) = self.arrived.take() {
                out.snapshots_taken.push((from, false));
            }
            return Ok(false);
        };
        self.send(begun.messages, out);
        self.apply(begun.committed, clock, out)?;
        for ready in &begun.reads {
            let tokens = self.reads.take(ready);
            self.waiting.push((ready.index, tokens));
        }
        self.answer_reads(clock, out);
        if let Some(place) = begun.install {
            self.install(place, clock, out)?;
        }
        Ok(true)
    }

    fn take_in(&mut self, input: Input, clock: Clock, out: &mut Output) -> Result<(), Stopped> {
        match input {
            Input::Tick => {}
            Input::Message(_, Packet::Message(message)) => self.step(&message)?,
            Input::Message(from, Packet::Snapshot(message, image)) => {
                self.arrived = self.receive(from, &message, &image)?;
                self.step(&message)?;
            }
            Input::Message(from, Packet::Touches(sessions)) if self.clocks.is_leading() => {
                self.renew(&sessions, clock);
                out.packets.push((from, Packet::Touched(sessions)));
            }
            // It is told again.
            Input::Message(_, Packet::Touches(_)) => {}
            Input::Message(_, Packet::Touched(sessions)) => {
                self.touched.retain(|session| !sessions.contains(session));
            }
            Input::Touch(session) => {
                self.touched.insert(session);
            }
            Input::Propose(token, command) => {
                let steps = vec![Step::Command(command)];
                self.proposals.push(Proposal::new(steps, token));
            }
            Input::Read(token) => self.reads.push(Reading { token, lease: None }),
            // Only the leader's clocks count, and whether it leads is for the others to say.
            Input::KeepAlive(token, lease) if self.clocks.is_leading() => {
                let lease = Some(lease);
                self.reads.push(Reading { token, lease });
            }
            Input::KeepAlive(token, _) => out.answers.push((token, Answer::Unknown)),
            Input::Change(token, change) => self.proposals.push_change(change, token),
            Input::Transfer(to) => self.core.transfer_leader(to),
            Input::Unreachable(member) => self.core.report_unreachable(member),
            Input::SnapshotSent(member, arrived) => self.core.report_snapshot(member, arrived),
        }
        Ok(())
    }

    /// Tells the leader which sessions' clients were heard of, until it has taken note.
    fn tell_touches(&mut self, clock: Clock, out: &mut Output) {
        let sessions: Vec<LeaseId> = self.touched.iter().copied().collect();
        let leader = self.core.view().leader;
        if self.clocks.is_leading() {
            self.renew(&sessions, clock);
            self.touched.clear();
        } else if leader != 0 && !sessions.is_empty() {
            out.packets.push((leader, Packet::Touches(sessions)));
        }
    }

    fn renew(&mut self, sessions: &[LeaseId], clock: Clock) {
        for session in sessions {
            self.clocks.touched(clock.now_ms, *session);
        }
    }

    fn step(&mut self, message: &[u8]) -> Result<(), Stopped> {
        match self.core.step(message) {
            Ok(()) => Ok(()),
            Err(refused @ Refused::LogLost { .. }) => Err(Stopped::LogLost(refused)),
            Err(refused @ Refused::Malformed) => panic!("nobody here sends that: {refused}"),
        }
    }

    /// Writes the records to an image that does not count yet, and makes a machine of them.
    fn receive(
        &mut self,
        from: u64,
        message: &[u8],
        image: &Image,
    ) -> Result<Option<Arrived>, Stopped> {
        let place = announced(message).expect("it travels with such a message");
        let meta = Meta::decode(&image.meta).expect("nobody damages messages here");
        let meta = meta.moved_to(self.owner);
        let mark = Mark {
            index: place.index,
            term: place.term,
            meta: meta.encode(),
        };
        let mut sink = self.checkpoints.begin_image(mark)?;
        for record in &image.records {
            sink.push(record.clone())?;
        }
        let records = image.records.iter().cloned().map(to_keyspace);
        let machine = Machine::restore(place, &meta, records).expect("the records of a cut");
        Ok(Some((machine, sink, from)))
    }

    /// The state first, then (in `finish`) the log: a crash between them finds the new state and
    /// puts the log right.
    fn install(&mut self, place: Place, clock: Clock, out: &mut Output) -> Result<(), Stopped> {
        let (machine, image, from) = self.arrived.take().expect("it was just stepped");
        assert_eq!(machine.place(), place, "Raft installs what was stepped");
        image.finish()?;
        self.machine.replace(machine);
        self.told = place;
        self.entries_since_image = 0;
        self.clocks
            .reset(clock.now_ms, self.machine.reader().leases());
        out.restored = true;
        out.snapshots_taken.push((from, true));
        self.answer_reads(clock, out);
        Ok(())
    }

    fn send(&mut self, messages: Vec<Outgoing>, out: &mut Output) {
        for message in messages {
            let packet = match message.kind {
                MessageKind::Ordinary | MessageKind::Heartbeat => Packet::Message(message.bytes),
                MessageKind::Snapshot => self.snapshot(&message.bytes),
            };
            out.packets.push((message.to, packet));
        }
    }

    /// The state as it is now, in place of the one that Raft announced.
    fn snapshot(&self, message: &[u8]) -> Packet {
        let (mark, cut) = self.machine.cut(self.owner, None).expect("a whole cut");
        let place = place_of(&mark);
        let message = snapshot_message(message, place, self.machine.roster());
        let image = Image {
            meta: mark.meta,
            records: cut.map(to_store).collect(),
        };
        Packet::Snapshot(message.expect("it was just made"), Arc::new(image))
    }

    fn apply(
        &mut self,
        entries: Vec<LogEntry>,
        clock: Clock,
        out: &mut Output,
    ) -> Result<(), Stopped> {
        for entry in entries {
            let committed = self.proposals.take(&entry).expect("written by a member");
            let mut gather = Gather {
                index: entry.index,
                done: &mut out.done,
            };
            let first = gather.done.len();
            let effect = self.machine.apply(&committed.prepared, &mut gather);
            for done in &out.done[first..] {
                keep_clocks(&mut self.clocks, done, clock);
            }
            if matches!(committed.prepared.content, Content::Change(_)) {
                self.changed.push((committed.prepared.place, effect.change));
            }
            answer(effect.steps, committed.waiters, out);
            self.entries_since_image += 1;
            if entry.index % DIGEST_EVERY == 0 && self.machine.place().index == entry.index {
                out.digests.push(self.digest());
            }
        }
        self.answer_reads(clock, out);
        self.checkpoint()
    }

    fn answer_reads(&mut self, clock: Clock, out: &mut Output) {
        let applied = self.machine.place().index;
        let waiting = std::mem::take(&mut self.waiting);
        let (possible, waiting) = waiting
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        self.waiting = waiting;
        for reading in Vec::into_iter(possible).flat_map(|(_, readings)| readings) {
            let Reading { token, lease } = reading;
            let answer = match lease {
                None => Answer::Readable,
                Some(lease) if self.clocks.is_leading() => {
                    Answer::Renewal(self.clocks.keep_alive(clock.now_ms, lease))
                }
                Some(_) => Answer::Unknown,
            };
            out.answers.push((token, answer));
        }
    }

    /// Writes an image, or an increment, when enough was applied since the last.
    fn checkpoint(&mut self) -> Result<(), Stopped> {
        if self.entries_since_image < CHECKPOINT_ENTRIES {
            return Ok(());
        }
        self.entries_since_image = 0;
        write_image(&mut self.checkpoints, &self.machine, self.owner)?;
        let index = self.machine.place().index;
        let kept = index.saturating_sub(CATCHUP_ENTRIES);
        let needed_from = self.checkpoints.log_needed_from().min(kept);
        Ok(self.core.cut_log(needed_from)?)
    }

    fn end_leases(&mut self, clock: Clock) {
        if clock.now_ms < self.next_check_ms {
            return;
        }
        self.next_check_ms = clock.now_ms + CHECK_MS;
        let reader = self.machine.reader();
        let node_is_due = || reader.is_due(clock.wall);
        if let Some(expired) = self.clocks.take_expired(clock.now_ms, node_is_due) {
            let steps = [Step::Command(Command::Expire(expired))];
            self.proposals
                .propose_leading(&mut self.core, clock.wall, &steps);
        }
    }

    fn look(&mut self, clock: Clock) {
        let leads = self.core.view().role == Role::Leader;
        if leads && !self.clocks.is_leading() {
            let grace_ms = ELECTION_TICKS as u64 * TICK_MS;
            let leases = self.machine.reader().leases();
            self.clocks.lead(clock.now_ms, grace_ms, leases);
        } else if !leads {
            self.clocks.follow();
        }
    }
}

fn restore(loaded: Loaded) -> Result<(Owner, Machine), Fault> {
    let meta = Meta::decode(&loaded.mark.meta).expect("what was written is read back");
    let mut fault = None;
    let records = loaded.records.map_while(|record| match record {
        Ok(record) => Some(to_keyspace(record)),
        Err(found) => {
            fault = Some(found);
            None
        }
    });
    let machine = Machine::restore(place_of(&loaded.mark), &meta, records);
    match fault {
        Some(fault) => Err(fault),
        None => {
            let machine = machine.expect("a checkpoint that the store calls whole can be read");
            Ok((meta.owner, machine))
        }
    }
}

fn write_image(store: &mut MemCheckpoints, machine: &Machine, owner: Owner) -> Result<(), Fault> {
    let (mark, cut) = machine.cut(owner, None).expect("a whole cut");
    let mut image = store.begin_image(mark)?;
    for record in cut {
        image.push(to_store(record))?;
    }
    image.finish()
}

fn place_of(mark: &Mark) -> Place {
    Place {
        index: mark.index,
        term: mark.term,
    }
}

fn keep_clocks(clocks: &mut Expiry, done: &Done, clock: Clock) {
    if done.applied.outcome.is_err() {
        return;
    }
    clocks.applied(clock.now_ms, &done.command);
}

/// Gives every waiter its steps' outcomes; without outcomes the proposal was overtaken by a later
/// one of this member.
fn answer(outcomes: Option<Vec<StepOutcome>>, waiters: Waiters<Token>, out: &mut Output) {
    let Some(outcomes) = outcomes else {
        let unknown = waiters
            .into_iter()
            .map(|(_, token)| (token, Answer::Unknown));
        out.answers.extend(unknown);
        return;
    };
    let mut outcomes = outcomes.into_iter();
    for (steps_len, token) in waiters {
        assert_eq!(steps_len, 1, "every proposal here is one step");
        let answer = match outcomes.next().expect("an outcome for every step") {
            StepOutcome::Answered(answered) => Answer::Answered(answered),
            StepOutcome::Roster(outcome) => Answer::Roster(outcome.map(drop)),
        };
        out.answers.push((token, answer));
    }
}
