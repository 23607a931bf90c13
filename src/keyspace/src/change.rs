//! What one command did: the outcome for whoever asked, and the changes for whoever watches.

use crate::auth::AuthRefusal;
use crate::command::Alarm;
use crate::node::{NodeAnswer, NodeRefusal, Step};
use crate::slot::Entry;
use crate::types::{LeaseId, Revision};
use minicbor::{Decode, Encode};
use thiserror::Error;

/// Everything that applying one command produced.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The keyspace's revision after the command.
    pub revision: Revision,
    /// The answer, or why nothing was done. Equal on every member.
    pub outcome: Result<Outcome, Refusal>,
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// What happened to the nodes of the path tree, step by step.
    pub steps: Vec<Step>,
    /// The node event counter after the command.
    pub event: u64,
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// To [`crate::Command::Txn`].
    Txn(TxnOutcome),
    /// To commands whose success says it all.
    Done,
    /// To [`crate::Command::Revoke`], [`crate::Command::Close`] and [`crate::Command::Expire`]: how many
    /// keys went.
    Ended(u64),
    /// To [`crate::Command::Nodes`]: one answer for each step.
    Nodes(Vec<NodeAnswer>),
}

/// Which branch a transaction took and what its operations answered.
#[derive(Clone, Debug)]
pub struct TxnOutcome {
    /// Whether the guards held.
    pub succeeded: bool,
    /// One answer for each operation of the branch taken.
    pub answers: Vec<Answer>,
}

/// One operation's answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To a range.
    Range(RangeAnswer),
    /// To a put: the entry before, if it was asked for and there was one.
    Put(Option<Entry>),
    /// To a delete: how many went, and, if asked for, what they were.
    Delete {
        /// Number of keys deleted.
        deleted: u64,
        /// The entries before, if asked for.
        previous: Vec<Entry>,
    },
    /// To a nested transaction.
    Txn(TxnOutcome),
}

/// What a [`crate::command::Range`] found.
#[derive(Clone, Debug)]
pub struct RangeAnswer {
    /// The entries; empty when only a count was asked for.
    pub entries: Vec<Entry>,
    /// Number of keys in the span, whatever the limit and the filters.
    pub count: u64,
    /// Whether the limit left some out.
    pub more: bool,
    /// The keyspace's revision when this was read.
    pub revision: Revision,
}

/// One key's change at one revision, as watchers see it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The entry as it is now; a tombstone when the key was deleted.
    pub entry: Entry,
    /// The entry before, if the key existed.
    pub previous: Option<Entry>,
    /// What led to it.
    pub cause: Cause,
}

/// Why a key changed. etcd v2 names it in every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// Written, whether or not it was there.
    #[n(0)]
    Set,
    /// Written where nothing was.
    #[n(1)]
    Create,
    /// Written where something had to be.
    #[n(2)]
    Update,
    /// Written because what was there compared equal.
    #[n(3)]
    CompareAndSwap,
    /// Deleted by a request.
    #[n(4)]
    Delete,
    /// Deleted because what was there compared equal.
    #[n(5)]
    CompareAndDelete,
    /// Deleted by time.
    #[n(6)]
    Expire,
}

/// Why nothing was done. Deterministic: part of the replicated result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A put that keeps value or lease met no key, or an operation was empty.
    #[error("key not found")]
    KeyNotFound,
    /// No such lease.
    #[error("lease {} not found", .0.0)]
    LeaseNotFound(LeaseId),
    /// A lease of this id exists.
    #[error("lease {} already exists", .0.0)]
    LeaseExists(LeaseId),
    /// The revision asked for, or to compact to, is gone; `compacted` is the oldest readable one.
    #[error("revision has been compacted; the oldest readable is {compacted}")]
    Compacted {
        /// The revision of the last compaction.
        compacted: Revision,
    },
    /// The revision asked for has not happened.
    #[error("revision is in the future; the newest is {newest}")]
    Future {
        /// The keyspace's revision.
        newest: Revision,
    },
    /// Another connection holds the session.
    #[error("the session has moved to another connection")]
    Moved,
    /// An earlier write of the same connection was lost.
    #[error("an earlier write of the session was lost")]
    OutOfTurn,
    /// Neither an access list nor a role permits it.
    #[error("not permitted")]
    Denied,
    /// It takes a user, and none is named.
    #[error("no user is named")]
    Unnamed,
    /// Users and roles have changed since it was shown who asks.
    #[error("users and roles have changed since the user was known")]
    Outdated,
    /// Users and roles cannot be changed so.
    #[error(transparent)]
    Auth(#[from] AuthRefusal),
    /// An alarm stands.
    #[error("refused while the {0:?} alarm stands")]
    Alarmed(Alarm),
    /// A step at a node could not be done, and so none was.
    #[error("step {step}: {reason}")]
    Node {
        /// Which step, from 0.
        step: usize,
        /// Why.
        reason: NodeRefusal,
    },
}
