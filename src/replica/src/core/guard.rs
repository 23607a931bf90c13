//! What of a message is checked before raft-rs sees it, which trusts its peers and panics where
//! they are wrong.

use super::log::LogView;
use crate::entry::{self, KIND_BATCH, KIND_CHANGE};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{ProgressState, Raft, StateRole};

/// Greater terms and indexes are nobody's: they would overflow.
const NUMBER_MAX: u64 = u64::MAX / 4;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a message that any member sends.
    #[error("malformed message")]
    Malformed,
    /// The leader knows that this member acknowledged more than its log holds. etcd panics here
    /// (`tocommit is out of range`); the member must stop, for it has broken its word.
    #[error(
        "the log ends at entry {last} but this member acknowledged entry {acknowledged}: part of \
         its data is lost. Remove the member, delete its data directory and add it anew"
    )]
    LogLost {
        /// What it holds.
        last: u64,
        /// What it promised.
        acknowledged: u64,
    },
}

/// Gives back the message that raft-rs may see; `None` when it is best dropped.
pub fn check(raft: &Raft<LogView>, message: Message) -> Result<Option<Message>, Refused> {
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.reject_hint,
    ];
    if numbers.iter().any(|&number| number > NUMBER_MAX) {
        return Err(Refused::Malformed);
    }
    let kind = message.get_msg_type();
    let unstamped = matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex);
    if unstamped != (message.term == 0) {
        return Err(Refused::Malformed);
    }
    match kind {
        MessageType::MsgPropose => check_proposal(&message)?,
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if message.entries.len() != 1 {
                return Err(Refused::Malformed);
            }
        }
        MessageType::MsgAppend => check_append(&message)?,
        MessageType::MsgHeartbeat => check_heartbeat(raft, &message)?,
        MessageType::MsgAppendResponse => return Ok(check_append_response(raft, message)),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        // Nobody asks another member to hand over leadership: it is asked of the leader itself.
        | MessageType::MsgTransferLeader => return Err(Refused::Malformed),
        MessageType::MsgSnapshot
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => {}
    }
    Ok(Some(message))
}

fn check_proposal(message: &Message) -> Result<(), Refused> {
    let readable = |entry: &Entry| {
        let kind = match entry.get_entry_type() {
            EntryType::EntryNormal => KIND_BATCH,
            EntryType::EntryConfChange => KIND_CHANGE,
            EntryType::EntryConfChangeV2 => return false,
        };
        entry::check_forwarded(kind, &entry.data).is_ok()
    };
    let sound = !message.entries.is_empty() && message.entries.iter().all(readable);
    sound.then_some(()).ok_or(Refused::Malformed)
}

/// Entries must follow each other and the one they are said to follow.
fn check_append(message: &Message) -> Result<(), Refused> {
    let mut index = message.index;
    let mut term = message.log_term;
    for entry in &message.entries {
        if entry.index != index + 1 || entry.term < term || entry.term > message.term {
            return Err(Refused::Malformed);
        }
        index = entry.index;
        term = entry.term;
    }
    Ok(())
}

/// A heartbeat's commit index never exceeds what this member has acknowledged.
fn check_heartbeat(raft: &Raft<LogView>, message: &Message) -> Result<(), Refused> {
    let last = raft.raft_log.last_index();
    match message.term >= raft.term && message.commit > last {
        true => Err(Refused::LogLost {
            last,
            acknowledged: message.commit,
        }),
        false => Ok(()),
    }
}

/// An acknowledgement of what was never sent is dropped, and a rejection that contradicts an
/// acknowledgement does not move the next index below it.
fn check_append_response(raft: &Raft<LogView>, mut message: Message) -> Option<Message> {
    let last = raft.raft_log.last_index();
    if raft.state != StateRole::Leader || message.term != raft.term {
        return Some(message);
    }
    if !message.reject {
        return (message.index <= last).then_some(message);
    }
    let Some(progress) = raft.prs().get(message.from) else {
        return Some(message);
    };
    if progress.state == ProgressState::Probe {
        if message.index <= progress.matched {
            return None;
        }
        if message.reject_hint < progress.matched {
            message.reject_hint = progress.matched;
            // Without a term the hint is taken as it is.
            message.log_term = 0;
        }
    }
    Some(message)
}
