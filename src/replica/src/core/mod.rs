//! Consensus over one log, sans I/O: it is told of ticks, messages and proposals, and says what to
//! send and what is committed. No clock, thread, socket or randomness: equal calls from an equal
//! seed give equal answers, which is what the simulator replays.
//!
//! # A round
//!
//! 1. Any of [`Core::tick`], [`Core::step`], [`Core::propose`], [`Core::read_index`]…
//! 2. [`Core::begin`]: messages that need not wait for the disk (a leader's appends: they travel
//!    while it writes), entries that became committed, reads that became possible.
//! 3. [`Core::finish`]: writes and syncs the log; then the messages that had to wait (a follower's
//!    acknowledgements, votes) and what the sync committed.
//! 4. Again from 2 until `begin` has nothing.
//! 5. [`Core::applied`] once the machine took committed entries in.
//!
//! # Known faults of raft-rs 0.7.0, and why they do not happen here
//!
//! - *A late rejection moves a follower's next index below what it has acknowledged* (pull request
//!   557): `guard` rewrites or drops such a rejection.
//! - *Applying entries that are not persisted yet* (537, 543, 561) came with a setting that 0.7.0 does
//!   not have; it hands out persisted entries only, and `finish` persists before it asks.
//! - *A campaign reads all committed and unapplied entries into memory* (530): `log` gives it
//!   entries without content.
//! - *Election timeouts come from `thread_rng`*: overridden after every call that can draw one.
//! - *A leader that removed itself panics when it next commits*: it steps down as it applies its
//!   removal.
//! - *Sole voters panic when an election starts over entries that are not persisted*: ticks come
//!   first in a round, when everything of the round before is on disk.
//! - *Malformed messages panic* (no entry in a read request, no term in a vote request, a commit
//!   index beyond the log): `guard` refuses them.
//! - *Reads are dropped silently* (no leader, or one that has committed nothing in its term): whoever
//!   asked asks again, see [`crate::reads`].
//! - *Changes of members become empty entries while another is under way*: whoever proposed asks
//!   again, see [`crate::proposals`].

mod guard;
mod log;
mod logger;

pub use guard::Refused;

use crate::entry::{self, ChangeRequest};
use crate::machine::Place;
use crate::roster::{MemberChange, Roster};
use bytes::Bytes;
use log::LogView;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, EntryType, Message, MessageType};
use raft::{RawNode, ReadOnlyOption, SnapshotStatus, StateRole};
use store::{Fault, LogEntry, LogStore, Vote};

/// Entries in one append message, in bytes; one larger entry travels alone.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Append messages under way to one follower. As many rounds can be in flight over a slow network;
/// with full messages it bounds what waits for a stuck one.
const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// Committed entries handed out at once, in bytes.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;

/// What a core is built from.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This member.
    pub member: u64,
    /// Ticks without a leader before an election; the real timeout is drawn from one to two times
    /// this.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// What election timeouts are drawn from.
    pub seed: u64,
    /// Ask before an election whether it could be won.
    pub pre_vote: bool,
}

/// One member's part in the consensus.
pub struct Core {
    raft: RawNode<LogView>,
    /// Between `begin` and `finish`.
    ready: Option<raft::Ready>,
    timeouts: Timeouts,
}

/// A message to another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Whom to.
    pub to: u64,
    /// What, for the receiver's [`Core::step`].
    pub bytes: Bytes,
    /// What the sender must know of it.
    pub kind: MessageKind,
}

/// What the sender must know of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Lost ones are repeated by Raft.
    Ordinary,
    /// A heartbeat, which etcd counts when it could not be sent.
    Heartbeat,
    /// Announces a snapshot: see [`crate::snapshot_message`]. What became of it must be told to
    /// [`Core::report_snapshot`].
    Snapshot,
}

/// A read that was asked for with this context is possible once `index` is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// What [`Core::read_index`] was given.
    pub context: Vec<u8>,
    /// The commit index when the leader was sure to lead.
    pub index: u64,
}

/// What needs no disk.
#[derive(Debug, Default)]
pub struct Begun {
    /// To send at once.
    pub messages: Vec<Outgoing>,
    /// To apply, in order.
    pub committed: Vec<LogEntry>,
    /// Reads that became possible.
    pub reads: Vec<ReadReady>,
    /// The snapshot that was stepped is accepted: its state must be durable and in the machine's
    /// place before [`Core::finish`], which forgets the log before it.
    pub install: Option<Place>,
}

/// What had to wait for the disk.
#[derive(Debug, Default)]
pub struct Finished {
    /// To send now.
    pub messages: Vec<Outgoing>,
    /// To apply, in order.
    pub committed: Vec<LogEntry>,
}

/// What a member is in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one.
    #[default]
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A core's view of the group at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What this member is.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The leader, 0 if none is known.
    pub leader: u64,
    /// The newest entry known to be committed.
    pub committed: u64,
    /// This member leads, and has committed in its term: it can be asked for a read index.
    pub settled: bool,
    /// This member leads, is the only voter, and has committed in its term: what it has applied
    /// is everything that anyone was told.
    pub alone: bool,
}

/// The proposal was not taken: there is no leader now, or leadership is being handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no leader takes proposals now")]
pub struct NotTaken;

/// How far a member has the log, as the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Which member.
    pub member: u64,
    /// The newest entry it acknowledged.
    pub index: u64,
    /// Whether it was heard of lately.
    pub active: bool,
}

impl Core {
    /// Over a log, and the machine's state that belongs to it. Puts the log right where a
    /// snapshot was made durable but the log not yet cut.
    pub fn new(
        config: &CoreConfig,
        mut log: Box<dyn LogStore>,
        applied: Place,
        roster: &Roster,
    ) -> Result<Core, Fault> {
        align(&mut *log, applied)?;
        let view = LogView {
            log,
            conf: conf_state(roster),
            applied,
        };
        let mut timeouts = Timeouts::new(config);
        let raft_config = raft::Config {
            id: config.member,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied.index,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            read_only_option: ReadOnlyOption::Safe,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..raft::Config::default()
        };
        let mut raft = RawNode::new(&raft_config, view, &logger::to_tracing())
            .map_err(|error| refuse_log(&error))?;
        timeouts.redraw(&mut raft);
        Ok(Core {
            raft,
            ready: None,
            timeouts,
        })
    }

    /// A tick passed. First in a round: see the module's list of faults.
    pub fn tick(&mut self) {
        self.raft.tick();
        self.timeouts.redraw(&mut self.raft);
    }

    /// Lets the first election begin `ticks` earlier (etcd's `initial-election-tick-advance`).
    pub fn advance_election(&mut self, ticks: usize) {
        self.raft.raft.election_elapsed += ticks;
    }

    /// Starts an election now, for one who knows that there is nobody to wait for.
    pub fn campaign(&mut self) {
        // Refused when it leads already, which is as good.
        self.raft.campaign().ok();
        self.timeouts.redraw(&mut self.raft);
    }

    /// Takes a message of another member.
    pub fn step(&mut self, message: &[u8]) -> Result<(), Refused> {
        let message = Message::parse_from_bytes(message).map_err(|_| Refused::Malformed)?;
        let Some(message) = guard::check(&self.raft.raft, message)? else {
            return Ok(());
        };
        // What raft-rs refuses (unknown sender, a proposal without leader) is as good as lost.
        self.raft.step(message).ok();
        self.timeouts.redraw(&mut self.raft);
        Ok(())
    }

    /// Whether proposals can be taken now.
    pub fn takes_proposals(&self) -> bool {
        let raft = &self.raft.raft;
        raft.leader_id != 0 && raft.lead_transferee.is_none()
    }

    /// Proposes a batch; it travels to the leader if that is another, and may be lost on the way.
    pub fn propose(&mut self, batch: Bytes) -> Result<(), NotTaken> {
        let entry = raft::eraftpb::Entry {
            data: batch,
            ..Default::default()
        };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raft.raft.id;
        message.set_entries(vec![entry].into());
        self.raft.step(message).map_err(|_| NotTaken)
    }

    /// Proposes a batch if this member leads, and never through another: what the leader's clock
    /// decided is void once it does not lead.
    pub fn propose_leading(&mut self, batch: Bytes) -> Result<(), NotTaken> {
        match self.raft.raft.state {
            StateRole::Leader => self.propose(batch),
            StateRole::Follower | StateRole::PreCandidate | StateRole::Candidate => Err(NotTaken),
        }
    }

    /// Proposes a change of members.
    pub fn propose_change(&mut self, request: &ChangeRequest) -> Result<(), NotTaken> {
        let change = entry::encode_change(request);
        self.raft
            .propose_conf_change(Vec::new(), change)
            .map_err(|_| NotTaken)
    }

    /// Asks when a linearizable read is possible; the context must be unlike any other member's.
    /// The answer may never come.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.raft.read_index(context);
    }

    /// Begins to hand leadership to a voter; given up after an election timeout. Nothing happens
    /// unless this member leads: raft-rs would pass the wish on, and members take none from others.
    pub fn transfer_leader(&mut self, to: u64) {
        if self.raft.raft.state == StateRole::Leader {
            self.raft.transfer_leader(to);
        }
    }

    /// Messages to `member` are being lost.
    pub fn report_unreachable(&mut self, member: u64) {
        self.raft.report_unreachable(member);
    }

    /// What became of the snapshot sent to `member`.
    pub fn report_snapshot(&mut self, member: u64, arrived: bool) {
        let status = match arrived {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.raft.report_snapshot(member, status);
    }

    /// Starts a round's output; `None` when there is none.
    pub fn begin(&mut self) -> Option<Begun> {
        assert!(self.ready.is_none(), "a round must be finished first");
        if !self.raft.has_ready() {
            return None;
        }
        let mut ready = self.raft.ready();
        let reads = ready.take_read_states().into_iter();
        let begun = Begun {
            messages: outgoing(ready.take_messages()),
            committed: logged(ready.take_committed_entries()),
            reads: reads
                .map(|read| ReadReady {
                    context: read.request_ctx,
                    index: read.index,
                })
                .collect(),
            install: installs(&ready),
        };
        self.ready = Some(ready);
        Some(begun)
    }

    /// Makes the round durable, and gives what had to wait for that. After a [`Fault`] the member
    /// must stop: nobody knows what is on the disk.
    pub fn finish(&mut self) -> Result<Finished, Fault> {
        let mut ready = self.ready.take().expect("finish follows begin");
        let hard = self.raft.raft.hard_state();
        let vote = Vote {
            term: hard.term,
            vote: hard.vote,
            commit: hard.commit,
        };
        let entries = logged(ready.take_entries());
        let installed = installs(&ready);
        let view = self.raft.mut_store();
        if let Some(place) = installed {
            view.log.reset(place.index, place.term)?;
            view.applied = place;
            view.conf = ready.snapshot().get_metadata().get_conf_state().clone();
        }
        if ready.must_sync() {
            view.log.append(&entries, vote)?;
        }
        let mut messages = ready.take_persisted_messages();
        let mut light = self.raft.advance_append(ready);
        messages.extend(light.take_messages());
        if let Some(place) = installed {
            self.raft.advance_apply_to(place.index);
        }
        Ok(Finished {
            messages: outgoing(messages),
            committed: logged(light.take_committed_entries()),
        })
    }

    /// The machine took in everything up to `place`. `change` is the change of members that the
    /// entry at `place` made, if it made one.
    pub fn applied(&mut self, place: Place, change: Option<&MemberChange>) {
        if place.index <= self.raft.store().applied.index {
            return;
        }
        if let Some(change) = change {
            let conf = self
                .raft
                .apply_conf_change(&entry::raft_change(change))
                .expect("the roster allows only changes of one voter that leave one");
            self.raft.mut_store().conf = conf;
            let raft = &mut self.raft.raft;
            let removed = raft.prs().get(raft.id).is_none();
            if removed && raft.state == StateRole::Leader {
                raft.become_follower(raft.term, 0);
            }
        }
        self.raft.mut_store().applied = place;
        self.raft.advance_apply_to(place.index);
        self.timeouts.redraw(&mut self.raft);
    }

    /// Entries up to `index` are in two images and no follower is expected to want them.
    pub fn cut_log(&mut self, index: u64) -> Result<(), Fault> {
        let view = self.raft.mut_store();
        match index > 0 && index <= view.applied.index {
            true => view.log.cut(index),
            false => Ok(()),
        }
    }

    /// This moment's view.
    pub fn view(&self) -> View {
        let raft = &self.raft.raft;
        View {
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            term: raft.term,
            leader: raft.leader_id,
            committed: raft.raft_log.committed,
            settled: raft.state == StateRole::Leader && raft.commit_to_current_term(),
            alone: raft.state == StateRole::Leader
                && raft.prs().is_singleton()
                && raft.apply_to_current_term(),
        }
    }

    /// How far the others have the log; empty unless this member leads.
    pub fn matches(&self) -> Vec<Match> {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return Vec::new();
        }
        let mut matches: Vec<Match> = raft
            .prs()
            .iter()
            .map(|(&member, progress)| Match {
                member,
                index: progress.matched,
                active: progress.recent_active,
            })
            .collect();
        matches.sort_unstable_by_key(|found| found.member);
        matches
    }

    /// The place of an entry that was applied and is not cut off.
    pub fn place_of(&self, index: u64) -> Place {
        let term = self.raft.raft.raft_log.term(index);
        Place {
            index,
            term: term.expect("what was applied since the last checkpoint is in the log"),
        }
    }

    /// Entries between the log's ends, for tests and tools.
    pub fn log_bounds(&self) -> (u64, u64) {
        let log = &self.raft.store().log;
        (log.first_index(), log.last_index())
    }
}

/// Election timeouts from a seed, in place of those that raft-rs draws.
struct Timeouts {
    state: u64,
    election_ticks: usize,
    current: usize,
    drawn_for: (u64, StateRole),
}

impl Timeouts {
    fn new(config: &CoreConfig) -> Timeouts {
        let mut timeouts = Timeouts {
            state: config.seed ^ config.member,
            election_ticks: config.election_ticks,
            current: 0,
            drawn_for: (0, StateRole::Follower),
        };
        timeouts.current = timeouts.draw();
        timeouts
    }

    /// splitmix64: small, and good enough to keep members apart.
    fn draw(&mut self) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let range = self.election_ticks as u64;
        self.election_ticks + (z % range) as usize
    }

    /// raft-rs draws anew whenever term or role change, and sometimes when they do not; ours is
    /// put in place each time.
    fn redraw(&mut self, raft: &mut RawNode<LogView>) {
        let now = (raft.raft.term, raft.raft.state);
        if now != self.drawn_for {
            self.drawn_for = now;
            self.current = self.draw();
        }
        raft.raft.set_randomized_election_timeout(self.current);
    }
}

/// After a crash between a snapshot's state and the log's reset, the log still is the old one.
fn align(log: &mut dyn LogStore, applied: Place) -> Result<(), Fault> {
    if applied.index == 0 || log.term(applied.index) == Some(applied.term) {
        return Ok(());
    }
    if log.first_index() > applied.index + 1 {
        return Err(Fault {
            action: "open the log",
            path: String::new(),
            cause: format!(
                "it begins at entry {} but the state ends at {}; restore this member from a backup \
                 or remove it and add it anew",
                log.first_index(),
                applied.index
            ),
        });
    }
    let vote = log.vote();
    log.reset(applied.index, applied.term)?;
    log.append(&[], vote)
}

fn refuse_log(error: &raft::Error) -> Fault {
    Fault {
        action: "open the log",
        path: String::new(),
        cause: error.to_string(),
    }
}

pub(crate) fn conf_state(roster: &Roster) -> ConfState {
    let mut conf = ConfState::default();
    conf.set_voters(roster.voters());
    conf.set_learners(roster.learners());
    conf
}

/// Where the snapshot stands that this round puts in the log's place, if it does.
fn installs(ready: &raft::Ready) -> Option<Place> {
    let metadata = ready.snapshot().get_metadata();
    (metadata.index > 0).then_some(Place {
        index: metadata.index,
        term: metadata.term,
    })
}

fn logged(entries: Vec<raft::eraftpb::Entry>) -> Vec<LogEntry> {
    entries.into_iter().map(entry::from_raft).collect()
}

fn outgoing(messages: Vec<Message>) -> Vec<Outgoing> {
    let encode = |message: Message| Outgoing {
        to: message.to,
        kind: match message.get_msg_type() {
            MessageType::MsgSnapshot => MessageKind::Snapshot,
            MessageType::MsgHeartbeat => MessageKind::Heartbeat,
            _ => MessageKind::Ordinary,
        },
        bytes: message
            .write_to_bytes()
            .expect("all fields of our own messages are set")
            .into(),
    };
    messages.into_iter().map(encode).collect()
}

/// The message that announces a snapshot, changed to announce the state as it is now: the state
/// went on since Raft asked for it.
pub fn snapshot_message(message: &[u8], place: Place, roster: &Roster) -> Result<Bytes, Refused> {
    let mut message = Message::parse_from_bytes(message).map_err(|_| Refused::Malformed)?;
    let metadata = message.mut_snapshot().mut_metadata();
    metadata.index = place.index;
    metadata.term = place.term;
    metadata.set_conf_state(conf_state(roster));
    let bytes = message.write_to_bytes().map_err(|_| Refused::Malformed)?;
    Ok(bytes.into())
}

/// Whether taking this message in makes the log longer.
pub fn grows_log(message: &[u8]) -> bool {
    let kind = Message::parse_from_bytes(message).map(|message| message.get_msg_type());
    matches!(kind, Ok(MessageType::MsgAppend | MessageType::MsgPropose))
}

/// Where the snapshot that a message announces stands, if it announces one.
pub fn announced(message: &[u8]) -> Option<Place> {
    let message = Message::parse_from_bytes(message).ok()?;
    let metadata = message.get_snapshot().get_metadata();
    let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    is_snapshot.then_some(Place {
        index: metadata.index,
        term: metadata.term,
    })
}

/// A message in one line, for transcripts: `MsgAppend term=2 prev=4@1 commit=4 [5@2]`.
pub fn describe(message: &[u8]) -> String {
    let Ok(m) = Message::parse_from_bytes(message) else {
        return "malformed".to_owned();
    };
    let mut line = format!("{:?} term={}", m.get_msg_type(), m.term);
    let mut add = |word: String| {
        line.push(' ');
        line.push_str(&word);
    };
    if m.index > 0 {
        add(format!("at={}@{}", m.index, m.log_term));
    }
    if m.commit > 0 {
        add(format!("commit={}", m.commit));
    }
    if m.reject {
        add(format!("rejected hint={}", m.reject_hint));
    }
    let snapshot = m.get_snapshot().get_metadata();
    if snapshot.index > 0 {
        add(format!("snapshot={}@{}", snapshot.index, snapshot.term));
    }
    if !m.entries.is_empty() && m.get_msg_type() != MessageType::MsgReadIndex {
        let entries = m.entries.iter();
        let entries: Vec<String> = entries
            .map(|e| match e.get_entry_type() {
                EntryType::EntryNormal => format!("{}@{}", e.index, e.term),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    format!("{}@{}!", e.index, e.term)
                }
            })
            .collect();
        add(format!("[{}]", entries.join(" ")));
    }
    line
}
