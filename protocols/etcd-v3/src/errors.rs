//! What goes wrong, in etcd's words. Clients match these texts, so they are etcd's to the letter
//! (api/v3rpc/rpctypes/error.go), and this is the only place that has them.

use crate::calls::CODE_LABELS;
use gateway::keyspace::Refusal;
use gateway::keyspace::auth::AuthRefusal;
use gateway::keyspace::command::Alarm;
use gateway::{MemberError, MemberRefusal, Unavailable};
use std::borrow::Cow;

/// gRPC's status codes, as far as etcd uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The caller went away.
    Cancelled,
    /// Errors that etcd has no code for.
    Unknown,
    /// The request makes no sense, whatever the state.
    InvalidArgument,
    /// There is no such thing.
    NotFound,
    /// The caller may not do that.
    PermissionDenied,
    /// No room, or too big.
    ResourceExhausted,
    /// The request makes no sense in this state.
    FailedPrecondition,
    /// A revision or a duration outside of what is possible.
    OutOfRange,
    /// Not offered.
    Unimplemented,
    /// The server's own fault.
    Internal,
    /// Try again, maybe elsewhere.
    Unavailable,
    /// Members disagree about the state.
    DataLoss,
}

impl Code {
    /// Its number on the wire.
    pub fn number(self) -> i32 {
        match self {
            Code::Cancelled => 1,
            Code::Unknown => 2,
            Code::InvalidArgument => 3,
            Code::NotFound => 5,
            Code::PermissionDenied => 7,
            Code::ResourceExhausted => 8,
            Code::FailedPrecondition => 9,
            Code::OutOfRange => 11,
            Code::Unimplemented => 12,
            Code::Internal => 13,
            Code::Unavailable => 14,
            Code::DataLoss => 15,
        }
    }
}

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind, which clients decide by whether to retry.
    pub code: Code,
    /// The text, which they tell the errors of a kind apart by.
    pub message: Cow<'static, str>,
}

impl Code {
    /// The code of this number; those that etcd has no use for are unknown.
    pub fn of(number: i32) -> Code {
        match number {
            1 => Code::Cancelled,
            3 => Code::InvalidArgument,
            5 => Code::NotFound,
            7 => Code::PermissionDenied,
            8 => Code::ResourceExhausted,
            9 => Code::FailedPrecondition,
            11 => Code::OutOfRange,
            12 => Code::Unimplemented,
            13 => Code::Internal,
            14 => Code::Unavailable,
            15 => Code::DataLoss,
            _ => Code::Unknown,
        }
    }
}

impl Error {
    const fn fixed(code: Code, message: &'static str) -> Error {
        Error {
            code,
            message: Cow::Borrowed(message),
        }
    }

    /// Why a watcher is cancelled, as etcd says it: in the way Go shows an error of gRPC.
    pub fn as_cancel_reason(&self) -> Cow<'static, str> {
        let code = CODE_LABELS[self.code.number() as usize];
        format!("rpc error: code = {code} desc = {}", self.message).into()
    }

    /// A kind of request that is not offered.
    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Error {
        Error {
            code: Code::Unimplemented,
            message: message.into(),
        }
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Error = Error::fixed(Code::$code, concat!("etcdserver: ", $text));)*
    };
}

errors! {
    /// An empty key.
    EMPTY_KEY = InvalidArgument "key is not provided";
    /// Nothing to keep the value or lease of; or an operation without content.
    KEY_NOT_FOUND = InvalidArgument "key not found";
    /// A value beside ignore_value.
    VALUE_PROVIDED = InvalidArgument "value is provided";
    /// A lease beside ignore_lease.
    LEASE_PROVIDED = InvalidArgument "lease is provided";
    /// More operations than allowed.
    TOO_MANY_OPS = InvalidArgument "too many operations in txn request";
    /// One key written twice in one transaction.
    DUPLICATE_KEY = InvalidArgument "duplicate key given in txn request";
    /// A client version that is not text.
    INVALID_CLIENT_API_VERSION = InvalidArgument "invalid client api version";
    /// An unknown sort order or target.
    INVALID_SORT_OPTION = InvalidArgument "invalid sort option";
    /// The revision is compacted.
    COMPACTED = OutOfRange "mvcc: required revision has been compacted";
    /// The revision has not happened.
    FUTURE_REVISION = OutOfRange "mvcc: required revision is a future revision";
    /// A call that takes a user, without one; or a user without a name.
    USER_EMPTY = InvalidArgument "user name is empty";
    /// The user is there.
    USER_EXISTS = FailedPrecondition "user name already exists";
    /// There is no such user.
    USER_NOT_FOUND = FailedPrecondition "user name not found";
    /// A role without a name.
    ROLE_EMPTY = InvalidArgument "role name is empty";
    /// The role is there.
    ROLE_EXISTS = FailedPrecondition "role name already exists";
    /// There is no such role.
    ROLE_NOT_FOUND = FailedPrecondition "role name not found";
    /// The user does not have the role.
    ROLE_NOT_GRANTED = FailedPrecondition "role is not granted to the user";
    /// The role has no permission for that very range.
    PERMISSION_NOT_GRANTED = FailedPrecondition "permission is not granted to the role";
    /// Authentication cannot be without its root, nor a permission without keys.
    INVALID_AUTH_MGMT = InvalidArgument "invalid auth management";
    /// Nothing can be enabled without a root user.
    ROOT_USER_NOT_FOUND = FailedPrecondition "root user does not exist";
    /// Nor without its role.
    ROOT_ROLE_NOT_GRANTED = FailedPrecondition "root user does not have root role";
    /// Users and roles have changed since the caller was known.
    AUTH_REVISION_OLD = InvalidArgument "revision of auth store is old";
    /// Not for this caller.
    PERMISSION_DENIED = PermissionDenied "permission denied";
    /// Over the space quota.
    NO_SPACE = ResourceExhausted "mvcc: database space exceeded";
    /// No such lease.
    LEASE_NOT_FOUND = NotFound "requested lease not found";
    /// A lease of this id exists.
    LEASE_EXISTS = FailedPrecondition "lease already exists";
    /// A lease longer than 9,000,000,000 seconds.
    LEASE_TTL_TOO_LARGE = OutOfRange "too large lease TTL";
    /// A member of this id exists.
    MEMBER_EXISTS = FailedPrecondition "member ID already exist";
    /// Another member has this peer URL.
    PEER_URL_EXISTS = FailedPrecondition "Peer URLs already exists";
    /// Too few started members. (etcd lets this one leave without its code.)
    MEMBER_NOT_ENOUGH_STARTED = Unknown "re-configuration failed due to not enough started members";
    /// Peer URLs that are none.
    MEMBER_BAD_URLS = InvalidArgument "given member URLs are invalid";
    /// No such member.
    MEMBER_NOT_FOUND = NotFound "member not found";
    /// Promotion of a voter.
    MEMBER_NOT_LEARNER = FailedPrecondition "can only promote a learner member";
    /// Promotion of a learner that lags.
    LEARNER_NOT_READY = FailedPrecondition "can only promote a learner member which is in sync with leader";
    /// More learners than allowed.
    TOO_MANY_LEARNERS = FailedPrecondition "too many learner members in cluster";
    /// A request over the limit.
    REQUEST_TOO_LARGE = InvalidArgument "request is too large";
    /// Too much under way. (etcd lets this one leave without its code.)
    TOO_MANY_REQUESTS = Unknown "too many requests";
    /// No leader.
    NO_LEADER = Unavailable "no leader";
    /// Only the leader can do it.
    NOT_LEADER = FailedPrecondition "not leader";
    /// The leader changed meanwhile.
    LEADER_CHANGED = Unavailable "leader changed";
    /// The server is stopping.
    STOPPED = Unavailable "server stopped";
    /// No answer in time.
    TIMEOUT = Unavailable "request timed out";
    /// No answer in time; the leader was lost.
    TIMEOUT_LEADER_LOST = Unavailable "request timed out, possibly due to previous leader failure";
    /// No answer in time; the connection to the leader was lost.
    TIMEOUT_DISCONNECTED = Unavailable "request timed out, possibly due to connection lost";
    /// Leadership did not go over in time. (etcd has no code for this one.)
    LEADER_TRANSFER_TIMEOUT = Unknown "request timed out, leader transfer took too long";
    /// The quorum is not connected.
    UNHEALTHY = Unavailable "unhealthy cluster";
    /// Members disagree.
    CORRUPT = DataLoss "corrupt cluster";
    /// Learners answer little.
    NOT_SUPPORTED_FOR_LEARNER = FailedPrecondition "rpc not supported for learner";
    /// Leadership cannot go there.
    BAD_LEADER_TRANSFEREE = FailedPrecondition "bad leader transferee";
}

/// A name that the health service does not know.
pub const UNKNOWN_SERVICE: Error = Error::fixed(Code::NotFound, "unknown service");

impl From<gateway::Error> for Error {
    fn from(error: gateway::Error) -> Error {
        match error {
            gateway::Error::Refused(refusal) => refusal.into(),
            gateway::Error::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::KeyNotFound => KEY_NOT_FOUND,
            Refusal::LeaseNotFound(_) => LEASE_NOT_FOUND,
            Refusal::LeaseExists(_) => LEASE_EXISTS,
            Refusal::Compacted { compacted: _ } => COMPACTED,
            Refusal::Future { newest: _ } => FUTURE_REVISION,
            Refusal::Denied => PERMISSION_DENIED,
            Refusal::Unnamed => USER_EMPTY,
            Refusal::Outdated => AUTH_REVISION_OLD,
            Refusal::Auth(refusal) => refusal.into(),
            Refusal::Alarmed(Alarm::NoSpace) => NO_SPACE,
            Refusal::Alarmed(Alarm::Corrupt) => CORRUPT,
            Refusal::Moved | Refusal::OutOfTurn | Refusal::Node { .. } => {
                unreachable!("no call of etcd v3 addresses nodes or sessions")
            }
        }
    }
}

impl From<AuthRefusal> for Error {
    fn from(refusal: AuthRefusal) -> Error {
        match refusal {
            AuthRefusal::RootMissing => ROOT_USER_NOT_FOUND,
            AuthRefusal::RootUnprivileged => ROOT_ROLE_NOT_GRANTED,
            AuthRefusal::RootNeeded | AuthRefusal::NoKeys => INVALID_AUTH_MGMT,
            AuthRefusal::UserNameEmpty => USER_EMPTY,
            AuthRefusal::UserExists => USER_EXISTS,
            AuthRefusal::UserMissing => USER_NOT_FOUND,
            AuthRefusal::RoleNameEmpty => ROLE_EMPTY,
            AuthRefusal::RoleExists => ROLE_EXISTS,
            AuthRefusal::RoleMissing => ROLE_NOT_FOUND,
            AuthRefusal::RoleNotGranted => ROLE_NOT_GRANTED,
            AuthRefusal::PermissionNotGranted => PERMISSION_NOT_GRANTED,
            AuthRefusal::TooLarge => REQUEST_TOO_LARGE,
            AuthRefusal::Overtaken => AUTH_REVISION_OLD,
        }
    }
}

impl From<Unavailable> for Error {
    fn from(unavailable: Unavailable) -> Error {
        match unavailable {
            Unavailable::NoLeader => NO_LEADER,
            Unavailable::LeaderChanged => LEADER_CHANGED,
            Unavailable::TimedOut => TIMEOUT,
            Unavailable::TimedOutLeaderLost => TIMEOUT_LEADER_LOST,
            Unavailable::TimedOutDisconnected => TIMEOUT_DISCONNECTED,
            Unavailable::TooMany => TOO_MANY_REQUESTS,
            Unavailable::Stopped => STOPPED,
            Unavailable::NotLeader => NOT_LEADER,
        }
    }
}

impl From<MemberError> for Error {
    fn from(error: MemberError) -> Error {
        match error {
            MemberError::Refused(refusal) => refusal.into(),
            MemberError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<MemberRefusal> for Error {
    fn from(refusal: MemberRefusal) -> Error {
        match refusal {
            MemberRefusal::IdExists => MEMBER_EXISTS,
            MemberRefusal::PeerUrlExists => PEER_URL_EXISTS,
            MemberRefusal::NotFound => MEMBER_NOT_FOUND,
            MemberRefusal::NotEnoughStarted => MEMBER_NOT_ENOUGH_STARTED,
            MemberRefusal::Unhealthy => UNHEALTHY,
            MemberRefusal::NotLearner => MEMBER_NOT_LEARNER,
            MemberRefusal::LearnerNotReady => LEARNER_NOT_READY,
            MemberRefusal::TooManyLearners => TOO_MANY_LEARNERS,
            MemberRefusal::BadTransferee => BAD_LEADER_TRANSFEREE,
            // Nobody who speaks etcd's protocol asks for a version.
            MemberRefusal::OtherVersion => UNHEALTHY,
        }
    }
}
