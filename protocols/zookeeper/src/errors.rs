//! What goes wrong, in ZooKeeper's numbers, and what becomes of the connection.

use gateway::keyspace::Refusal;
use gateway::keyspace::command::Alarm;
use gateway::keyspace::node::NodeRefusal;
use thiserror::Error;

/// ZooKeeper's error codes, as far as a server of ours answers with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Code {
    /// The server's own trouble.
    #[error("system error")]
    SystemError,
    /// Not done, because another part of the same multi failed.
    #[error("runtime inconsistency")]
    RuntimeInconsistency,
    /// The request cannot be read.
    #[error("marshalling error")]
    MarshallingError,
    /// Not offered.
    #[error("unimplemented")]
    Unimplemented,
    /// The request makes no sense.
    #[error("bad arguments")]
    BadArguments,
    /// There is no such node.
    #[error("no node")]
    NoNode,
    /// An access list does not permit it.
    #[error("not authorized")]
    NoAuth,
    /// Another version than expected.
    #[error("bad version")]
    BadVersion,
    /// The parent ends with a session.
    #[error("ephemerals cannot have children")]
    NoChildrenForEphemerals,
    /// The node is there.
    #[error("node exists")]
    NodeExists,
    /// The node has children.
    #[error("node not empty")]
    NotEmpty,
    /// The session is over.
    #[error("session expired")]
    SessionExpired,
    /// The access list is none.
    #[error("invalid access list")]
    InvalidAcl,
    /// The proof of an identity is none.
    #[error("authentication failed")]
    AuthFailed,
    /// Without a leader, nothing is written.
    #[error("not writable")]
    NotReadOnly,
    /// Whoever has not shown who it is is not served.
    #[error("authentication required")]
    AuthRequired,
    /// There is no such watch.
    #[error("no watcher")]
    NoWatcher,
    /// Members are not changed this way.
    #[error("reconfig is disabled")]
    ReconfigDisabled,
    /// The members would not be enough, or not ready, to decide anything.
    #[error("no quorum of the new members")]
    NewConfigNoQuorum,
    /// There is no room.
    #[error("quota exceeded")]
    QuotaExceeded,
    /// The client holds too much already.
    #[error("throttled")]
    Throttled,
}

impl Code {
    /// Its number on the wire.
    pub fn number(self) -> i32 {
        match self {
            Code::SystemError => -1,
            Code::RuntimeInconsistency => -2,
            Code::MarshallingError => -5,
            Code::Unimplemented => -6,
            Code::BadArguments => -8,
            Code::NewConfigNoQuorum => -13,
            Code::NoNode => -101,
            Code::NoAuth => -102,
            Code::BadVersion => -103,
            Code::NoChildrenForEphemerals => -108,
            Code::NodeExists => -110,
            Code::NotEmpty => -111,
            Code::SessionExpired => -112,
            Code::InvalidAcl => -114,
            Code::AuthFailed => -115,
            Code::NotReadOnly => -119,
            Code::NoWatcher => -121,
            Code::ReconfigDisabled => -123,
            Code::AuthRequired => -124,
            Code::QuotaExceeded => -125,
            Code::Throttled => -127,
        }
    }
}

/// What a write that was not done comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer with an error; the step that failed, if one did.
    Answer(Code, Option<usize>),
    /// The session is over: that is answered, and the connection closed.
    Expired,
    /// The connection is closed without an answer, so that the client knows that it does not know.
    Lost,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Node { step, reason } => of_node(step, reason),
            Refusal::LeaseNotFound(_) => Failure::Expired,
            // The session went on elsewhere, or a write before this one never arrived. ZooKeeper
            // cuts such a connection; the client finds out on its new one.
            Refusal::Moved | Refusal::OutOfTurn => Failure::Lost,
            // To ZooKeeper only part of a tree can be full; to those who write it is the same.
            Refusal::Alarmed(Alarm::NoSpace) => Failure::Answer(Code::QuotaExceeded, None),
            Refusal::Alarmed(Alarm::Corrupt) => Failure::Answer(Code::SystemError, None),
            // Who asked is a user no more.
            Refusal::Denied | Refusal::Unnamed | Refusal::Outdated => {
                Failure::Answer(Code::NoAuth, None)
            }
            Refusal::KeyNotFound
            | Refusal::Auth(_)
            | Refusal::LeaseExists(_)
            | Refusal::Compacted { compacted: _ }
            | Refusal::Future { newest: _ } => {
                unreachable!("no request of ZooKeeper asks for what is refused so: {refusal}")
            }
        }
    }
}

fn of_node(step: usize, reason: NodeRefusal) -> Failure {
    let code = match reason {
        NodeRefusal::BadPath => Code::BadArguments,
        NodeRefusal::Missing(_) | NodeRefusal::NoParent | NodeRefusal::NotDirectory(_) => {
            Code::NoNode
        }
        NodeRefusal::Exists => Code::NodeExists,
        NodeRefusal::ParentBound => Code::NoChildrenForEphemerals,
        NodeRefusal::NotEmpty => Code::NotEmpty,
        NodeRefusal::OtherVersion | NodeRefusal::OtherAclVersion => Code::BadVersion,
        NodeRefusal::Denied => Code::NoAuth,
        NodeRefusal::Full => Code::QuotaExceeded,
        NodeRefusal::LeaseNotFound(_) => return Failure::Expired,
        NodeRefusal::Changed { .. } | NodeRefusal::Directory => {
            unreachable!("no step of ZooKeeper's tests for that: {reason}")
        }
    };
    Failure::Answer(code, Some(step))
}
