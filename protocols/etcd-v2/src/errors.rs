//! What goes wrong, in etcd v2's numbers and words (etcdserver/api/v2error/error.go). Clients match
//! both, and this is the only place that has them.

use crate::json;
use crate::node::Unseen;
use crate::query::Query;
use crate::root::Root;
use bytes::Bytes;
use gateway::keyspace::Refusal;
use gateway::keyspace::command::Alarm;
use gateway::keyspace::node::NodeRefusal;
use gateway::{Unavailable, Unwaited};

/// The kinds of errors that a server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// There is no such key.
    KeyNotFound,
    /// Another value or index than asked for.
    CompareFailed,
    /// A directory.
    NotAFile,
    /// A file, where a directory would have to be.
    NotADirectory,
    /// The key is there.
    KeyExists,
    /// The root cannot be changed.
    RootReadOnly,
    /// Something lies beneath.
    DirectoryNotEmpty,
    /// Not for this caller.
    Unauthorized,
    /// An empty value to compare with.
    PrevValueRequired,
    /// A time to live that is none.
    TtlNotANumber,
    /// An index that is none.
    IndexNotANumber,
    /// Another parameter that makes no sense.
    InvalidField,
    /// A form that cannot be read.
    InvalidForm,
    /// A refresh with a value.
    RefreshValue,
    /// A refresh without a time to live.
    RefreshTtlRequired,
    /// Whether it was done is not known, or there is no room.
    RaftInternal,
    /// Events that are not kept any more.
    EventsCleared,
}

impl Code {
    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Code::KeyNotFound => 100,
            Code::CompareFailed => 101,
            Code::NotAFile => 102,
            Code::NotADirectory => 104,
            Code::KeyExists => 105,
            Code::RootReadOnly => 107,
            Code::DirectoryNotEmpty => 108,
            Code::Unauthorized => 110,
            Code::PrevValueRequired => 201,
            Code::TtlNotANumber => 202,
            Code::IndexNotANumber => 203,
            Code::InvalidField => 209,
            Code::InvalidForm => 210,
            Code::RefreshValue => 211,
            Code::RefreshTtlRequired => 212,
            Code::RaftInternal => 300,
            Code::EventsCleared => 401,
        }
    }

    /// HTTP's status.
    pub fn status(self) -> u16 {
        match self {
            Code::Unauthorized => 401,
            Code::NotAFile | Code::DirectoryNotEmpty => 403,
            Code::KeyNotFound => 404,
            Code::CompareFailed | Code::KeyExists => 412,
            Code::RaftInternal => 500,
            Code::NotADirectory
            | Code::RootReadOnly
            | Code::PrevValueRequired
            | Code::TtlNotANumber
            | Code::IndexNotANumber
            | Code::InvalidField
            | Code::InvalidForm
            | Code::RefreshValue
            | Code::RefreshTtlRequired
            | Code::EventsCleared => 400,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Code::KeyNotFound => "Key not found",
            Code::CompareFailed => "Compare failed",
            Code::NotAFile => "Not a file",
            Code::NotADirectory => "Not a directory",
            Code::KeyExists => "Key already exists",
            Code::RootReadOnly => "Root is read only",
            Code::DirectoryNotEmpty => "Directory not empty",
            Code::Unauthorized => "The request requires user authentication",
            Code::PrevValueRequired => "PrevValue is Required in POST form",
            Code::TtlNotANumber => "The given TTL in POST form is not a number",
            Code::IndexNotANumber => "The given index in POST form is not a number",
            Code::InvalidField => "Invalid field",
            Code::InvalidForm => "Invalid POST form",
            Code::RefreshValue => "Value provided on refresh",
            Code::RefreshTtlRequired => "A TTL must be provided on refresh",
            Code::RaftInternal => "Raft Internal Error",
            Code::EventsCleared => "The event in requested index is outdated and cleared",
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind.
    pub code: Code,
    /// What exactly; not shown if empty.
    pub cause: Bytes,
    /// The newest event when the request was judged; 0 for what was not judged by the state.
    pub index: u64,
}

impl Error {
    /// One of a request that makes no sense, whatever the state.
    pub fn of_request(code: Code, cause: impl Into<String>) -> Error {
        Error {
            code,
            cause: cause.into().into(),
            index: 0,
        }
    }

    /// One of what the state does not allow, at a path.
    pub fn of_state(code: Code, path: &[u8], index: u64) -> Error {
        Error {
            code,
            cause: Bytes::copy_from_slice(path),
            index,
        }
    }

    /// One of a caller who may not.
    pub fn unauthorized() -> Error {
        Error::of_request(Code::Unauthorized, "Insufficient credentials")
    }

    /// One of a name that is no path. etcd takes any.
    pub fn invalid_key() -> Error {
        Error::of_request(Code::InvalidField, "invalid key")
    }

    /// Why the node at a path is not shown, as of this index.
    pub fn unseen(unseen: &Unseen, root: &Root, path: &[u8], index: u64) -> Error {
        match unseen {
            Unseen::Missing(key) => {
                Error::of_state(Code::KeyNotFound, root.missing(key, path), index)
            }
            Unseen::File(key) => Error::of_state(Code::NotADirectory, root.path(key), index),
            Unseen::Restricted => Error::unauthorized(),
            // etcd would tell it, if it has the memory.
            Unseen::TooLarge => {
                Error::of_request(Code::RaftInternal, "etcdserver: too much to list")
            }
        }
    }

    /// Its content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"errorCode\":".to_vec();
        json::number(&mut out, self.code.number());
        out.extend_from_slice(b",\"message\":");
        json::string(&mut out, self.code.message().as_bytes());
        if !self.cause.is_empty() {
            out.extend_from_slice(b",\"cause\":");
            json::string(&mut out, &self.cause);
        }
        out.extend_from_slice(b",\"index\":");
        json::number(&mut out, self.index);
        out.extend_from_slice(b"}\n");
        out
    }
}

/// What was asked for when something was refused.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The path.
    pub path: &'a [u8],
    /// The parameters.
    pub query: &'a Query,
    /// Whose paths are which keys.
    pub root: &'a Root,
}

impl Asked<'_> {
    /// The error of a refusal at this index.
    pub fn refused(&self, refusal: Refusal, index: u64) -> Error {
        match refusal {
            Refusal::Node { step: _, reason } => self.refused_at_node(reason, index),
            // etcd v2 knows no quota; v3's words say what to do.
            Refusal::Alarmed(Alarm::NoSpace) => Error::of_request(
                Code::RaftInternal,
                "etcdserver: mvcc: database space exceeded",
            ),
            Refusal::Alarmed(Alarm::Corrupt) => {
                Error::of_request(Code::RaftInternal, "etcdserver: corrupt cluster")
            }
            // Who asked is a user no more.
            Refusal::Denied | Refusal::Unnamed | Refusal::Outdated => Error::unauthorized(),
            Refusal::KeyNotFound
            | Refusal::LeaseNotFound(_)
            | Refusal::LeaseExists(_)
            | Refusal::Compacted { compacted: _ }
            | Refusal::Future { newest: _ }
            | Refusal::Moved
            | Refusal::OutOfTurn
            | Refusal::Auth(_) => {
                unreachable!("no request of etcd v2 asks for what is refused so: {refusal}")
            }
        }
    }

    fn refused_at_node(&self, reason: NodeRefusal, index: u64) -> Error {
        let at = |code, path: &[u8]| Error::of_state(code, path, index);
        match reason {
            NodeRefusal::Missing(key) => at(Code::KeyNotFound, self.root.missing(&key, self.path)),
            NodeRefusal::NotDirectory(key) => at(Code::NotADirectory, self.root.path(&key)),
            NodeRefusal::Exists => at(Code::KeyExists, self.path),
            NodeRefusal::Directory => at(Code::NotAFile, self.path),
            NodeRefusal::NotEmpty => at(Code::DirectoryNotEmpty, self.path),
            NodeRefusal::Changed { value, event } => at(
                Code::CompareFailed,
                &self.differences(value.as_deref(), event),
            ),
            NodeRefusal::Denied => Error::unauthorized(),
            NodeRefusal::BadPath => Error::invalid_key(),
            NodeRefusal::NoParent
            | NodeRefusal::ParentBound
            | NodeRefusal::OtherVersion
            | NodeRefusal::OtherAclVersion
            | NodeRefusal::LeaseNotFound(_)
            | NodeRefusal::Full => {
                unreachable!("no step of etcd v2 tests for that: {reason}")
            }
        }
    }

    /// `[wanted != found]` of what differs.
    fn differences(&self, value: Option<&[u8]>, event: Option<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(found) = value {
            let wanted = self.query.prev_value.as_deref().unwrap_or_default();
            out = [b"[", wanted, b" != ", found, b"]"].concat();
        }
        if let Some(found) = event {
            if !out.is_empty() {
                out.push(b' ');
            }
            let wanted = self.query.prev_index.unwrap_or_default();
            out.extend_from_slice(format!("[{wanted} != {found}]").as_bytes());
        }
        out
    }
}

impl From<Unavailable> for Error {
    fn from(unavailable: Unavailable) -> Error {
        let cause = match unavailable {
            Unavailable::NoLeader => "no leader",
            Unavailable::LeaderChanged => "leader changed",
            Unavailable::TimedOut => "request timed out",
            Unavailable::TimedOutLeaderLost => {
                "request timed out, possibly due to previous leader failure"
            }
            Unavailable::TimedOutDisconnected => {
                "request timed out, possibly due to connection lost"
            }
            Unavailable::TooMany => "too many requests",
            Unavailable::Stopped => "server stopped",
            Unavailable::NotLeader => "not leader",
        };
        Error::of_request(Code::RaftInternal, format!("etcdserver: {cause}"))
    }
}

impl From<Unwaited> for Error {
    fn from(unwaited: Unwaited) -> Error {
        match unwaited {
            Unwaited::Cleared {
                asked,
                oldest,
                newest,
            } => Error {
                code: Code::EventsCleared,
                cause: format!("the requested history has been cleared [{oldest}/{asked}]").into(),
                index: newest,
            },
            Unwaited::Denied => Error::unauthorized(),
            Unwaited::TooMany => Unavailable::TooMany.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: Query, reason: NodeRefusal) -> String {
        let asked = Asked {
            path: b"/a/k",
            query: &query,
            root: &Root::default(),
        };
        let error = asked.refused(Refusal::Node { step: 0, reason }, 7);
        String::from_utf8(error.encode()).expect("text")
    }

    #[test]
    fn errors_are_spelled_as_etcd_spells_them() {
        assert_eq!(
            refused(Query::default(), NodeRefusal::Missing("/a".into())),
            "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/a\",\"index\":7}\n"
        );
        assert_eq!(
            refused(Query::default(), NodeRefusal::Denied),
            "{\"errorCode\":110,\"message\":\"The request requires user authentication\",\
             \"cause\":\"Insufficient credentials\",\"index\":0}\n"
        );
    }

    #[test]
    fn only_what_differs_is_told() {
        let query = || Query {
            prev_value: Some("<zz>".into()),
            prev_index: Some(9),
            ..Query::default()
        };
        let value = || Some(Bytes::from("one"));
        for (value, event, expected) in [
            (value(), Some(5), r#""[\u003czz\u003e != one] [9 != 5]""#),
            (value(), None, r#""[\u003czz\u003e != one]""#),
            (None, Some(5), r#""[9 != 5]""#),
        ] {
            let told = refused(query(), NodeRefusal::Changed { value, event });
            assert!(told.contains(&format!("\"cause\":{expected},")), "{told}");
        }
    }
}
