//! What a log entry carries: a batch of steps from one member, or a change of members.
//!
//! A batch is `[origin, incarnation, seq, wall_ms, [step…]]` in CBOR. Its steps are encoded where they
//! are proposed, so that whoever builds the batch only copies bytes.

use crate::proposals::PROPOSAL_BYTES_MAX;
use crate::roster::{Description, MemberChange};
use keyspace::{Command, WallMs};
use minicbor::{Decode, Decoder, Encode, Encoder};
use protobuf::Message as _;
use raft::eraftpb;
use store::LogEntry;

/// [`LogEntry::kind`] of a batch, and of the empty entry a new leader begins with.
pub const KIND_BATCH: u8 = 0;
/// [`LogEntry::kind`] of a change of one member.
pub const KIND_CHANGE: u8 = 1;
/// [`LogEntry::kind`] of a change of several members at once; never proposed, only understood.
pub const KIND_CHANGES: u8 = 2;

/// Names one batch or change of members for good, and orders those of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Ticket {
    /// The member that proposed it.
    #[n(0)]
    pub origin: u64,
    /// Which run of that member; later runs have greater ones.
    #[n(1)]
    pub incarnation: u64,
    /// Its place among that run's proposals.
    #[n(2)]
    pub seq: u64,
}

/// What a batch's bytes take at most before its steps': six numbers in CBOR.
const HEADER_BYTES_MAX: usize = 6 * 9;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Step {
    /// To the keyspace.
    #[n(0)]
    Command(#[n(0)] Command),
    /// To the roster.
    #[n(1)]
    Describe(#[n(0)] Description),
}

/// The steps that one entry carries, to be taken in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its name.
    pub ticket: Ticket,
    /// The proposer's clock.
    pub wall: WallMs,
    /// What to do.
    pub steps: Vec<Step>,
}

/// A change of members, as the entry carries it beside what Raft must know.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ChangeRequest {
    /// Its name.
    #[n(0)]
    pub ticket: Ticket,
    /// What to change.
    #[n(1)]
    pub change: MemberChange,
}

/// An entry's bytes are not what any version of this program wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log entry cannot be read: {0}")]
pub struct Unreadable(String);

impl From<minicbor::decode::Error> for Unreadable {
    fn from(error: minicbor::decode::Error) -> Unreadable {
        Unreadable(error.to_string())
    }
}

impl From<protobuf::ProtobufError> for Unreadable {
    fn from(error: protobuf::ProtobufError) -> Unreadable {
        Unreadable(error.to_string())
    }
}

/// What a step's bytes are expected to take beside the values in it.
const STEP_BYTES: usize = 128;

/// The bytes of steps, one after the other, ready to be copied into a batch.
pub fn encode_steps(steps: &[Step]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(steps.len() * STEP_BYTES);
    for step in steps {
        minicbor::encode(step, &mut encoded).expect("writing to memory cannot fail");
    }
    encoded
}

/// A batch's bytes, from the bytes of its steps, as [`encode_steps`] gives them.
pub fn encode_batch<'a>(
    ticket: Ticket,
    wall: WallMs,
    steps_len: usize,
    steps: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<u8> {
    let len_bytes: usize = steps.clone().map(<[u8]>::len).sum();
    let mut e = Encoder::new(Vec::with_capacity(HEADER_BYTES_MAX + len_bytes));
    let header = e
        .array(5)
        .and_then(|e| e.u64(ticket.origin))
        .and_then(|e| e.u64(ticket.incarnation))
        .and_then(|e| e.u64(ticket.seq))
        .and_then(|e| e.u64(wall.0))
        .and_then(|e| e.array(steps_len as u64));
    header.expect("writing to memory cannot fail");
    let mut bytes = e.into_writer();
    steps.for_each(|step| bytes.extend_from_slice(step));
    bytes
}

fn decode_header(d: &mut Decoder<'_>) -> Result<(Ticket, WallMs), Unreadable> {
    d.array()?;
    let ticket = Ticket {
        origin: d.u64()?,
        incarnation: d.u64()?,
        seq: d.u64()?,
    };
    Ok((ticket, WallMs(d.u64()?)))
}

/// Name and time of an entry's batch without reading its steps.
pub fn peek_batch(data: &[u8]) -> Result<(Ticket, WallMs), Unreadable> {
    decode_header(&mut Decoder::new(data))
}

/// The batch of an entry of kind [`KIND_BATCH`] that is not empty.
pub fn decode_batch(data: &[u8]) -> Result<Batch, Unreadable> {
    let mut d = Decoder::new(data);
    let (ticket, wall) = decode_header(&mut d)?;
    let steps = d.array_iter()?.collect::<Result<_, _>>()?;
    Ok(Batch {
        ticket,
        wall,
        steps,
    })
}

/// Raft's own form of a change; the request travels in its context.
pub(crate) fn encode_change(request: &ChangeRequest) -> eraftpb::ConfChange {
    let mut change = raft_change(&request.change);
    let context = minicbor::to_vec(request).expect("writing to memory cannot fail");
    change.set_context(context.into());
    change
}

/// What Raft must know of a change.
pub(crate) fn raft_change(change: &MemberChange) -> eraftpb::ConfChange {
    use eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
    let kind = match change {
        MemberChange::Add { learner: true, .. } => AddLearnerNode,
        MemberChange::Add { learner: false, .. } | MemberChange::Promote { .. } => AddNode,
        MemberChange::Remove { .. } => RemoveNode,
    };
    let mut raft_change = eraftpb::ConfChange::default();
    raft_change.set_change_type(kind);
    raft_change.set_node_id(change.id());
    raft_change
}

/// The request of an entry of kind [`KIND_CHANGE`].
pub fn decode_change(data: &[u8]) -> Result<ChangeRequest, Unreadable> {
    let change = eraftpb::ConfChange::parse_from_bytes(data)?;
    Ok(minicbor::decode(change.get_context())?)
}

/// Whether an entry that another member forwarded may enter the log: what every member must be
/// able to read later is read once before, and has to fit in.
pub fn check_forwarded(kind: u8, data: &[u8]) -> Result<(), Unreadable> {
    if data.len() > HEADER_BYTES_MAX + PROPOSAL_BYTES_MAX {
        return Err(Unreadable(format!("{} bytes are too many", data.len())));
    }
    match kind {
        KIND_BATCH => decode_batch(data).map(drop),
        KIND_CHANGE => decode_change(data).map(drop),
        other => Err(Unreadable(format!("kind {other} is never forwarded"))),
    }
}

pub(crate) fn from_raft(entry: eraftpb::Entry) -> LogEntry {
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind: match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal => KIND_BATCH,
            eraftpb::EntryType::EntryConfChange => KIND_CHANGE,
            eraftpb::EntryType::EntryConfChangeV2 => KIND_CHANGES,
        },
        data: entry.data,
    }
}

pub(crate) fn to_raft(entry: LogEntry) -> eraftpb::Entry {
    let mut raft_entry = eraftpb::Entry::default();
    raft_entry.set_entry_type(match entry.kind {
        KIND_CHANGE => eraftpb::EntryType::EntryConfChange,
        KIND_CHANGES => eraftpb::EntryType::EntryConfChangeV2,
        _ => eraftpb::EntryType::EntryNormal,
    });
    raft_entry.index = entry.index;
    raft_entry.term = entry.term;
    raft_entry.data = entry.data;
    raft_entry
}
