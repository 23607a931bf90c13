//! Replication: one Raft group around one keyspace.
//!
//! It knows Raft, the log's and the checkpoint's traits, members, and the keyspace as something that
//! applies commands. It must never know what a protocol means by a request. Time and sockets enter
//! in `shell` and `transport` only; `core` is driven by calls and replays from a seed.
//!
//! Start with [`Handle`], what everyone above holds; then `core`.

use keyspace::{Applied, Change, Command, LeaseId, Reader, Revision};
use thiserror::Error;

/// A member of the cluster, as replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name in the protocol, derived as etcd does.
    pub id: u64,
    /// Empty until it started and published itself.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it published itself.
    pub client_urls: Vec<String>,
    /// Receives the log, has no vote.
    pub learner: bool,
}

/// A member's view of the cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// Is told of every change, in order, on the applying thread, after readers can see it and before
/// whoever asked is answered. Must not block.
pub trait ChangeSink: Send {
    /// One command's changes; `revision` is the keyspace's after it.
    fn publish(&mut self, revision: Revision, changes: &[Change]);
}

/// The way to a running replica; clone it freely.
#[derive(Clone)]
pub struct Handle {}

impl Handle {
    /// Replicates a command and answers once it is applied here.
    pub async fn propose(&self, _command: Command) -> Result<Applied, Unavailable> {
        todo!()
    }
    /// Returns once everything acknowledged before the call, by any member, can be read here.
    pub async fn read_index(&self) -> Result<(), Unavailable> {
        todo!()
    }
    /// Reads of this member's state.
    pub fn reader(&self) -> &Reader {
        todo!()
    }
    /// This moment's view.
    pub fn status(&self) -> Status {
        todo!()
    }
    /// Changes of the view (leader, term), for those who must react.
    pub fn status_changes(&self) -> tokio::sync::watch::Receiver<Status> {
        todo!()
    }
    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }
    /// Adds a member (its id is made here, as etcd makes it) and answers with it.
    pub async fn member_add(
        &self,
        _peer_urls: Vec<String>,
        _learner: bool,
    ) -> Result<Member, MemberError> {
        todo!()
    }
    /// Removes a member.
    pub async fn member_remove(&self, _id: u64) -> Result<(), MemberError> {
        todo!()
    }
    /// Changes where a member's peers reach it.
    pub async fn member_update(
        &self,
        _id: u64,
        _peer_urls: Vec<String>,
    ) -> Result<(), MemberError> {
        todo!()
    }
    /// Gives a learner its vote.
    pub async fn member_promote(&self, _id: u64) -> Result<(), MemberError> {
        todo!()
    }
    /// Hands leadership to `to` and answers once it leads.
    pub async fn transfer_leader(&self, _to: u64) -> Result<(), MemberError> {
        todo!()
    }
    /// Starts a lease's time anew, on the leader (from whichever member). Answers the granted
    /// TTL, or `None` when there is no such lease. A lease whose time is over but whose end is not
    /// yet replicated makes the caller wait for that end.
    pub async fn lease_keep_alive(&self, _lease: LeaseId) -> Result<Option<u64>, Unavailable> {
        todo!()
    }
    /// What is left of a lease's time in milliseconds, by the leader's clock.
    pub async fn lease_remaining(&self, _lease: LeaseId) -> Result<Option<u64>, Unavailable> {
        todo!()
    }
    /// Digest of the applied state and the index it belongs to.
    pub async fn digest(&self) -> Result<(u64, u64), Unavailable> {
        todo!()
    }
    /// Hands leadership over if it is held, stops, and returns once all is on disk.
    pub async fn stop(&self) {
        todo!()
    }
}
