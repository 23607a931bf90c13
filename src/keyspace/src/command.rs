//! The only verbs an adapter may speak. A command is what the replicated log carries; everything
//! that a member could see differently (time, random ids) is already inside it or in the stamp.

use crate::access::Identity;
use crate::auth::{AuthChanges, Principal};
use crate::node::NodeOp;
use crate::types::{LeaseId, Revision, Span};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::cmp::Ordering;
use std::sync::Arc;

/// One replicated step.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Command {
    /// Guards, then one of two lists of operations, all at one revision.
    #[n(0)]
    Txn(#[n(0)] Txn),
    /// Forget versions superseded at or before this revision.
    #[n(1)]
    Compact(#[n(0)] Revision),
    /// Create a lease.
    #[n(2)]
    Grant(#[n(0)] Grant),
    /// End a lease and delete what is bound to it, in key order, at one revision; on whose behalf.
    #[n(3)]
    Revoke(
        #[n(0)] LeaseId,
        #[n(1)]
        #[cbor(default)]
        Principal,
    ),
    /// The leader's clock says that these are over. Each lease ends as in `Revoke`, with the cause
    /// `Expire`; nodes whose own deadline has passed by the stamp go too, the first thousand.
    #[n(4)]
    Expire(#[n(0)] Vec<Expired>),
    /// Remaining time of long leases, so that a new leader does not restart their clocks.
    #[n(5)]
    Checkpoint(#[n(0)] Vec<LeaseRemaining>),
    /// Raise or clear a member's alarm.
    #[n(6)]
    Alarm(#[n(0)] AlarmChange),
    /// Steps at nodes of the path tree, one after the other, all at one revision; if one cannot be
    /// done, none is.
    #[n(7)]
    Nodes(#[n(0)] Nodes),
    /// A session goes on through another connection.
    #[n(8)]
    Attach(#[n(0)] Attach),
    /// A session's own client ends it, when it is that connection's turn: otherwise as `Revoke`.
    #[n(9)]
    Close(#[n(0)] Turn),
    /// Change users and roles. Moves no revision but their own.
    #[n(10)]
    Auth(#[n(0)] AuthChanges),
}

impl Command {
    /// Says on whose behalf it is, where what it touches decides whether they may. All other commands
    /// are judged, if at all, before they are given to the log.
    pub fn set_principal(&mut self, by: &Principal) {
        match self {
            Command::Txn(txn) => txn.principal = by.clone(),
            Command::Revoke(_, principal) => *principal = by.clone(),
            Command::Nodes(nodes) => nodes.principal = by.clone(),
            Command::Auth(changes) => changes.principal = by.clone(),
            Command::Compact(_)
            | Command::Grant(_)
            | Command::Expire(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Attach(_)
            | Command::Close(_) => {}
        }
    }
}

/// See [`Command::Grant`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Grant {
    /// Chosen by the proposer; never 0.
    #[n(0)]
    pub lease: LeaseId,
    /// Granted time to live.
    #[n(1)]
    pub ttl_ms: u64,
    /// What makes a session of it.
    #[n(2)]
    pub session: Option<Session>,
}

/// What makes a session of a lease: one client at a time holds it, and resumes it elsewhere with the
/// password.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Session {
    /// What it is resumed with.
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub password: Bytes,
    /// Through which connection it is held: chosen afresh for each.
    #[n(1)]
    pub attachment: u64,
}

/// See [`Command::Attach`]. Refused as if there were no such lease when the password is another.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attach {
    /// Which session.
    #[n(0)]
    pub lease: LeaseId,
    /// What it was opened with.
    #[n(1)]
    #[cbor(with = "crate::codec::bytes")]
    pub password: Bytes,
    /// The new connection, whose turns count from 0. Those of the one before are over.
    #[n(2)]
    pub attachment: u64,
    /// The time to live that was agreed on anew.
    #[n(3)]
    pub ttl_ms: u64,
}

/// See [`Command::Nodes`].
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Nodes {
    /// Whose turn it must be; none for what is no session's.
    #[n(0)]
    pub turn: Option<Turn>,
    /// Who the client has shown to be, for the steps' tests of access lists; none passes them all.
    #[n(1)]
    #[cbor(with = "crate::codec::maybe_shared")]
    pub by: Option<Arc<[Identity]>>,
    /// The steps.
    #[n(2)]
    pub ops: Vec<NodeOp>,
    /// On whose behalf, for what users may do.
    #[n(3)]
    #[cbor(default)]
    pub principal: Principal,
}

/// A session's write, or its end: which one of which of its connections. One that is not the connection's next
/// is refused, so that none takes effect after an earlier one was lost, nor after the session went
/// on through another connection. It is the next one's turn then, even if the steps are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Turn {
    /// The session.
    #[n(0)]
    pub lease: LeaseId,
    /// The connection.
    #[n(1)]
    pub attachment: u64,
    /// Which of its writes, from 0.
    #[n(2)]
    pub seq: u64,
}

/// A lease whose time is over, see [`Command::Expire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Expired {
    /// Which one.
    #[n(0)]
    pub lease: LeaseId,
    /// The connection that held it when its time was over, if it is a session. It lives if it has
    /// gone on through another one since: whoever resumed it was told so.
    #[n(1)]
    pub attachment: Option<u64>,
}

/// See [`Command::Checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct LeaseRemaining {
    /// Which lease.
    #[n(0)]
    pub lease: LeaseId,
    /// What was left of its time when the leader wrote this.
    #[n(1)]
    pub remaining_ms: u64,
}

/// See [`Command::Alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct AlarmChange {
    /// The member that has the trouble.
    #[n(0)]
    pub member: u64,
    /// Which trouble.
    #[n(1)]
    pub alarm: Alarm,
    /// Raise (true) or clear (false).
    #[n(2)]
    pub raised: bool,
}

/// Troubles that make the whole cluster refuse some work until an operator clears them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Alarm {
    /// A member ran over its space quota: nothing that grows the keyspace is accepted.
    #[n(0)]
    NoSpace,
    /// A member's state differs from the others': nothing is accepted.
    #[n(1)]
    Corrupt,
}

/// Guards are all judged against the state before the transaction, nested ones too, before any
/// operation runs; then `then` or `otherwise` runs, and later operations see earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Txn {
    /// All must hold for `then`.
    #[n(0)]
    pub guards: Vec<Guard>,
    /// Runs when the guards hold.
    #[n(1)]
    pub then: Vec<Op>,
    /// Runs when one does not.
    #[n(2)]
    pub otherwise: Vec<Op>,
    /// On whose behalf. Clients have no identity here that an access list could name, so that theirs
    /// is refused if it touches a node that has one. Of transactions inside, the outermost says so for
    /// all.
    #[n(3)]
    #[cbor(default)]
    pub principal: Principal,
}

impl Txn {
    /// Runs these operations whatever there is.
    pub fn unconditional(then: Vec<Op>) -> Txn {
        Txn {
            then,
            ..Txn::default()
        }
    }

    /// The operations that run when the guards hold, or do not.
    pub(crate) fn branch(&self, holds: bool) -> &[Op] {
        if holds { &self.then } else { &self.otherwise }
    }

    /// Whether some operation satisfies `test`, in either branch and at any depth.
    fn any(&self, test: &dyn Fn(&Op) -> bool) -> bool {
        self.then.iter().chain(&self.otherwise).any(|op| match op {
            Op::Txn(inner) => inner.any(test),
            Op::Range(_) | Op::Put(_) | Op::Delete(_) => test(op),
        })
    }

    /// Whether some operation would write: such a transaction has to go through the log.
    pub fn writes(&self) -> bool {
        self.any(&|op| matches!(op, Op::Put(_) | Op::Delete(_)))
    }

    /// Whether some operation would take space.
    pub fn puts(&self) -> bool {
        self.any(&|op| matches!(op, Op::Put(_)))
    }
}

/// A condition on every key of a span. Over a span without keys, value tests fail and all others
/// compare with zero (etcd's rule).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Guard {
    /// Which keys.
    #[n(0)]
    pub span: Span,
    /// What must hold for each.
    #[n(1)]
    pub test: Test,
    /// How the key's figure must stand to the given one.
    #[n(2)]
    pub relation: Relation,
}

/// What a [`Guard`] looks at, with the figure to compare against.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Test {
    /// Number of puts since the key's creation.
    #[n(0)]
    Version(#[n(0)] i64),
    /// Revision of the key's creation.
    #[n(1)]
    Created(#[n(0)] i64),
    /// Revision of its last change.
    #[n(2)]
    Modified(#[n(0)] i64),
    /// Its bytes.
    #[n(3)]
    Value(
        #[n(0)]
        #[cbor(with = "crate::codec::bytes")]
        Bytes,
    ),
    /// The lease it is bound to.
    #[n(4)]
    Lease(#[n(0)] i64),
}

/// How what is found must stand to what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Relation {
    /// found = given
    #[n(0)]
    Equal,
    /// found > given
    #[n(1)]
    Greater,
    /// found < given
    #[n(2)]
    Less,
    /// found ≠ given
    #[n(3)]
    NotEqual,
}

impl Relation {
    /// Whether `ordering`, of found against given, satisfies the relation.
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Relation::Equal => ordering.is_eq(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
            Relation::NotEqual => ordering.is_ne(),
        }
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Op {
    /// Read keys.
    #[n(0)]
    Range(#[n(0)] Range),
    /// Write one key.
    #[n(1)]
    Put(#[n(0)] Put),
    /// Delete keys.
    #[n(2)]
    Delete(#[n(0)] Delete),
    /// A transaction inside.
    #[n(3)]
    Txn(#[n(0)] Txn),
}

/// Reads the keys of a span. Steps in this order: limit, filter, sort, truncate (etcd's rule; the
/// limit is pushed down only where neither filter nor sort asks for more).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Range {
    /// Which keys.
    #[n(0)]
    pub span: Span,
    /// Read the state as of this revision; none means the newest.
    #[n(1)]
    pub revision: Option<Revision>,
    /// At most this many entries; 0 means all.
    #[n(2)]
    pub limit: u64,
    /// Other orders than by key.
    #[n(3)]
    pub sort: Option<Sort>,
    /// Only entries whose revisions lie within.
    #[n(4)]
    pub filter: Filter,
    /// Leave the entries out and only count.
    #[n(5)]
    pub count_only: bool,
}

impl Range {
    /// Everything in `span`, newest, in key order.
    pub fn of(span: Span) -> Range {
        Range {
            span,
            revision: None,
            limit: 0,
            sort: None,
            filter: Filter::default(),
            count_only: false,
        }
    }
}

/// Bounds on revisions, inclusive; 0 means no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Filter {
    /// Least modification revision.
    #[n(0)]
    pub modified_min: u64,
    /// Greatest modification revision.
    #[n(1)]
    pub modified_max: u64,
    /// Least creation revision.
    #[n(2)]
    pub created_min: u64,
    /// Greatest creation revision.
    #[n(3)]
    pub created_max: u64,
}

/// The order of a [`Range`]'s answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sort {
    /// What to sort by.
    #[n(0)]
    pub by: SortBy,
    /// Greatest first.
    #[n(1)]
    pub descending: bool,
    /// Whether the client asked for an order at all. Where it did not but named something other
    /// than the key, etcd cuts at the limit first and then sorts ascending.
    #[n(2)]
    pub after_limit: bool,
}

/// What a [`Sort`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SortBy {
    /// The key's bytes.
    #[n(0)]
    Key,
    /// Number of puts since creation.
    #[n(1)]
    Version,
    /// Revision of creation.
    #[n(2)]
    Created,
    /// Revision of the last change.
    #[n(3)]
    Modified,
    /// The value's bytes.
    #[n(4)]
    Value,
}

/// Writes one key.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Put {
    /// Which key.
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub key: Bytes,
    /// The new value; none keeps the one that is there (and refuses when there is none).
    #[n(1)]
    #[cbor(with = "crate::codec::maybe_bytes")]
    pub value: Option<Bytes>,
    /// Bind to this lease (`LeaseId::NONE` detaches); none keeps the binding (and refuses when
    /// there is no key).
    #[n(2)]
    pub lease: Option<LeaseId>,
    /// Answer with the entry that was there before.
    #[n(3)]
    pub want_previous: bool,
}

impl Put {
    /// Sets this value, bound to no lease.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put {
            key: key.into(),
            value: Some(value.into()),
            lease: Some(LeaseId::NONE),
            want_previous: false,
        }
    }
}

/// Deletes the keys of a span.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Delete {
    /// Which keys.
    #[n(0)]
    pub span: Span,
    /// Answer with the entries that were there before.
    #[n(1)]
    pub want_previous: bool,
}
