//! Replication: one Raft group around one keyspace.
//!
//! It knows Raft, the log's and the checkpoint's traits, members, and the keyspace as something that
//! applies commands. It must never know what a protocol means by a request. Time and sockets enter
//! in `shell` and `transport` only; `core` is driven by calls and replays from a seed.
//!
//! Start with [`Handle`], what everyone above holds; then `core`.

pub mod config;
pub mod core;
pub mod entry;
pub mod expiry;
mod handle;
pub mod identity;
pub mod machine;
pub mod proposals;
pub mod reads;
pub mod roster;
mod shell;
pub mod stats;
mod transport;

pub use config::{Config, StartError};
pub use handle::{HEALTHY_AFTER, Handle};
pub use machine::Answered;
pub use roster::{Member, NewMember};
pub use shell::start::{start, start_in_memory};
pub use transport::PeerService;

use keyspace::{Applied, Command, Revision};
use std::any::Any;
use thiserror::Error;

/// A member's view of the cluster at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub member: u64,
    /// The cluster.
    pub cluster: u64,
    /// The leader it knows, 0 if none.
    pub leader: u64,
    /// Raft's term.
    pub term: u64,
    /// The newest entry known to be committed.
    pub committed: u64,
    /// The newest entry applied here.
    pub applied: u64,
    /// Whether this member is a learner.
    pub learner: bool,
}

/// The outcome may be unknown: never report it as "did not happen".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// There is no leader, and the request says not to wait for one.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request was under way.
    #[error("leader changed")]
    LeaderChanged,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// No answer in time, and the leader was lost meanwhile.
    #[error("timed out, possibly because the leader failed")]
    TimedOutLeaderLost,
    /// No answer in time, and the connection to the leader is down.
    #[error("timed out, possibly because the connection to the leader was lost")]
    TimedOutDisconnected,
    /// Too much is already under way.
    #[error("too many requests")]
    TooMany,
    /// The member is stopping.
    #[error("stopped")]
    Stopped,
    /// Only the leader can do this.
    #[error("not the leader")]
    NotLeader,
}

/// Why a change of members was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemberRefusal {
    /// An id that exists.
    #[error("member id already exists")]
    IdExists,
    /// A peer URL that another member has.
    #[error("peer URL already exists")]
    PeerUrlExists,
    /// No such member.
    #[error("member not found")]
    NotFound,
    /// The change would leave too few started members for a quorum.
    #[error("not enough started members")]
    NotEnoughStarted,
    /// Members of the quorum are not connected.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// Only a learner can be promoted.
    #[error("not a learner")]
    NotLearner,
    /// The learner lags too far behind.
    #[error("learner not ready")]
    LearnerNotReady,
    /// There are as many learners as allowed.
    #[error("too many learners")]
    TooManyLearners,
    /// The members have changed since the version that the change was to follow.
    #[error("members have changed meanwhile")]
    OtherVersion,
    /// Leadership cannot go to that member.
    #[error("bad transferee")]
    BadTransferee,
}

/// What can go wrong with a change of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemberError {
    /// Refused.
    #[error(transparent)]
    Refused(#[from] MemberRefusal),
    /// Outcome possibly unknown.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Is told of every command and change of the members, in order, on the applying thread, after readers
/// can see what it did and before whoever asked is answered. Must not block.
pub trait ChangeSink: Send {
    /// One command and what it did, which may be nothing.
    fn publish(&mut self, command: &Command, applied: &Applied);
    /// A snapshot took the state's place, and revisions up to this one were skipped: what they
    /// changed is in the keyspace's history, as far as that reaches back.
    fn restored(&mut self, revision: Revision);
    /// The members are another version of themselves, and those who ask are shown it.
    fn members_changed(&mut self);
}

/// Why a replica ended that nobody stopped. Nothing is acknowledged after it.
#[derive(Debug, Error)]
pub enum Failure {
    /// The disk failed, or what is on it cannot be trusted.
    #[error(transparent)]
    Fault(#[from] store::Fault),
    /// The log holds what this version cannot read.
    #[error(transparent)]
    Unreadable(#[from] entry::Unreadable),
    /// The log lost what this member had acknowledged.
    #[error(transparent)]
    LogLost(core::Refused),
    /// This member is one no more.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// A broken invariant: better stopped than diverged.
    #[error("the {thread} thread panicked: {message}")]
    Panicked {
        /// Which thread.
        thread: &'static str,
        /// What it said.
        message: String,
    },
}

impl Failure {
    fn panicked(thread: &'static str, panic: &(dyn Any + Send)) -> Failure {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure::Panicked {
            thread,
            message: text.unwrap_or_else(|| "no message".to_owned()),
        }
    }
}
