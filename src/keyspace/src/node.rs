//! Nodes of the path tree as commands and answers speak of them.
//!
//! A key that is a clean path is a node, and so is every path above it. A node may have no value:
//! then no range shows it, and it exists because of what lies beneath, or because someone asked for
//! a directory.

use crate::access::{AccessList, Permissions};
use crate::aside::{Aside, Role};
use crate::change::Cause;
use crate::slot::{Entry, Slot};
pub use crate::tree::{beyond, is_path, parent};
use crate::types::{LeaseId, Revision, WallMs};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// One step at one node. The tests are judged when the step's turn comes, and so by what the steps
/// before it did; if one fails, nothing of the whole command has happened.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct NodeOp {
    /// Which node. With a sequence, what the number is appended to.
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub path: Bytes,
    /// What must hold, in this order.
    #[n(1)]
    pub tests: Vec<NodeTest>,
    /// What is done.
    #[n(2)]
    pub action: Action,
    /// What watchers are told as the reason.
    #[n(3)]
    pub cause: Cause,
}

impl NodeOp {
    /// Whether the step may take space.
    pub fn grows(&self) -> bool {
        match self.action {
            Action::Write(_) | Action::MakeDirectory { .. } | Action::SetAcl(Some(_)) => true,
            Action::Check | Action::Remove { .. } | Action::SetAcl(None) => false,
        }
    }
}

/// A condition on a node.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum NodeTest {
    /// It is there, with a value or without.
    #[n(0)]
    Exists,
    /// It is not there.
    #[n(1)]
    Missing,
    /// Its value changed this many times, as [`NodeView::puts`] counts.
    #[n(2)]
    Version(#[n(0)] u64),
    /// Its access list was changed this many times.
    #[n(3)]
    AclVersion(#[n(0)] u32),
    /// It has this value, and was last changed by this event; each only where given. Both are looked
    /// at before either refuses.
    #[n(4)]
    Same {
        /// The value.
        #[n(0)]
        #[cbor(with = "crate::codec::maybe_bytes")]
        value: Option<Bytes>,
        /// The event.
        #[n(1)]
        event: Option<u64>,
    },
    /// It is no directory: it is not there, or has a value, was not made one, and has nothing
    /// beneath.
    #[n(5)]
    File,
    /// It is there, and its access list permits this to whoever asks.
    #[n(6)]
    Allowed(#[n(0)] Permissions),
    /// The same of the node above.
    #[n(7)]
    ParentAllowed(#[n(0)] Permissions),
    /// A value of so many bytes does not take it beyond the nearest limits that are set for it.
    #[n(8)]
    Room {
        /// Bytes of the value.
        #[n(0)]
        bytes: u64,
    },
    /// Neither it nor anything beneath has an access list; where it is not there, neither has the
    /// nearest node above.
    #[n(9)]
    Unrestricted,
    /// The node above is bound to no lease.
    #[n(10)]
    ParentUnbound,
}

/// What a [`NodeOp`] does once its tests hold.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Action {
    /// Nothing: only the tests count.
    #[n(0)]
    Check,
    /// Gives the node a value, creating it if need be.
    #[n(1)]
    Write(#[n(0)] NodeWrite),
    /// Makes it a directory, which stays when it is empty; a value that is there goes.
    #[n(2)]
    MakeDirectory {
        /// What becomes of its deadline.
        #[n(0)]
        deadline: Deadline,
        /// Append a number to the path.
        #[n(1)]
        sequence: Option<Sequence>,
    },
    /// Removes the node; refused while something lies beneath unless `recursive`.
    #[n(3)]
    Remove {
        /// With all that lies beneath, as one event.
        #[n(0)]
        recursive: bool,
    },
    /// Replaces its access list; none opens it to everyone.
    #[n(4)]
    SetAcl(
        #[n(0)]
        #[cbor(with = "crate::codec::maybe_shared")]
        Option<AccessList>,
    ),
}

/// See [`Action::Write`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct NodeWrite {
    /// The new value; none keeps the one there is (and writes an empty one where there is none).
    #[n(0)]
    #[cbor(with = "crate::codec::maybe_bytes")]
    pub value: Option<Bytes>,
    /// The value is empty because there is none: some clients can tell.
    #[n(1)]
    pub null: bool,
    /// Bind to this lease, or with [`LeaseId::NONE`] to none, unless a session owns the node, which it
    /// then keeps; none keeps the binding there is.
    #[n(2)]
    pub lease: Option<LeaseId>,
    /// What becomes of the node's deadline.
    #[n(3)]
    pub deadline: Deadline,
    /// What kind of node it becomes if it is created.
    #[n(4)]
    pub kind: Kind,
    /// The access list it gets if it is created; none opens it to everyone.
    #[n(5)]
    #[cbor(with = "crate::codec::maybe_shared")]
    pub acl: Option<AccessList>,
    /// Append a number to the path.
    #[n(6)]
    pub sequence: Option<Sequence>,
    /// What becomes of missing parents.
    #[n(7)]
    pub parents: Parents,
    /// The node counts as created by this event even if it was there.
    #[n(8)]
    pub reborn: bool,
    /// Watchers of events are not to be told.
    #[n(9)]
    pub silent: bool,
    /// What it is to mean to the keyspace, if it is a node aside.
    #[n(10)]
    pub role: Role,
    /// Where a directory is, it stays one: of all this, only its deadline changes.
    #[n(11)]
    #[cbor(default)]
    pub spares_directory: bool,
}

impl NodeWrite {
    /// Sets this value; creates a plain node, open to everyone, where none is. Its parent has to be
    /// there; what it is bound to stays.
    pub fn new(value: impl Into<Bytes>) -> NodeWrite {
        NodeWrite {
            value: Some(value.into()),
            null: false,
            lease: None,
            deadline: Deadline::Keep,
            kind: Kind::Plain,
            acl: None,
            sequence: None,
            parents: Parents::Required,
            reborn: false,
            silent: false,
            role: Role::Plain,
            spares_directory: false,
        }
    }
}

/// What becomes of a node's deadline, after which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Deadline {
    /// It stays as it is.
    #[n(0)]
    Keep,
    /// It goes.
    #[n(1)]
    Clear,
    /// It is this.
    #[n(2)]
    At(#[n(0)] WallMs),
}

/// What kind of node it is beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Kind {
    /// A plain one.
    #[default]
    #[n(0)]
    Plain,
    /// Ends some time after its last child has gone.
    #[n(1)]
    Container {
        /// After how long.
        #[n(0)]
        linger_ms: u64,
    },
    /// Ends when it was not written for so long and has nothing beneath.
    #[n(2)]
    Idle {
        /// How long.
        #[n(0)]
        ttl_ms: u64,
    },
}

/// Which number is appended to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Sequence {
    /// How many children the parent ever had, as ten digits. Wraps to negative numbers after 2^31.
    #[n(0)]
    Creates,
    /// The event that this write makes, as twenty digits.
    #[n(1)]
    Event,
}

/// What becomes of missing parents. Either way the parent stays when its last child goes, unlike one
/// that only the keys beneath imply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Parents {
    /// There must be a parent, and it must not be bound to a lease.
    #[n(0)]
    Required,
    /// Made as directories; a parent that is a file refuses.
    #[n(1)]
    Made,
}

/// What a [`NodeOp`] came to.
#[derive(Clone, Debug)]
pub struct NodeAnswer {
    /// The path, with the number if there was one to append.
    pub path: Bytes,
    /// The node now; none when it is not there.
    pub node: Option<NodeView>,
    /// The node before.
    pub previous: Option<NodeView>,
}

/// Why a [`NodeOp`] was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeRefusal {
    /// The path is none, or the root's where that cannot be meant.
    #[error("not a path that this can be done to")]
    BadPath,
    /// There is no such node; the first that is missing on the way to it, unless a file is in the way.
    #[error("no node {}", .0.escape_ascii())]
    Missing(Bytes),
    /// The parent is missing.
    #[error("no parent")]
    NoParent,
    /// The node is there.
    #[error("the node exists")]
    Exists,
    /// The parent is bound to a lease, and so can have no children.
    #[error("the parent is bound to a lease")]
    ParentBound,
    /// Something lies beneath.
    #[error("the node has children")]
    NotEmpty,
    /// Another version than expected.
    #[error("the version is another")]
    OtherVersion,
    /// Another access list's version than expected.
    #[error("the access list's version is another")]
    OtherAclVersion,
    /// Another value or event than expected; what was found, where it differed.
    #[error("the node has changed")]
    Changed {
        /// The value found, if that differed.
        value: Option<Bytes>,
        /// The event found, if that differed.
        event: Option<u64>,
    },
    /// The node is a directory.
    #[error("the node is a directory")]
    Directory,
    /// This one on the way is a file.
    #[error("{} is a file", .0.escape_ascii())]
    NotDirectory(Bytes),
    /// No such lease.
    #[error("lease {} not found", .0.0)]
    LeaseNotFound(LeaseId),
    /// An access list does not permit it.
    #[error("not permitted")]
    Denied,
    /// More than the limits that are set for it.
    #[error("limits are set that it would exceed")]
    Full,
}

/// One node as it is at one revision.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its value's entry; none when it has no value.
    pub entry: Option<Entry>,
    /// Whether it was made a directory, has something beneath, or has no value.
    pub directory: bool,
    /// Nodes right beneath.
    pub children: u32,
    /// Nodes ever created right beneath; wraps.
    pub creates: u32,
    /// Revision at which a child last came or went; that of its creation if none ever did.
    pub children_changed: Revision,
    /// Revision of its creation: since then it is there, with a value or without.
    pub created: Revision,
    /// Revision of its value's last change, be it that the value went.
    pub modified: Revision,
    /// When it was created.
    pub born: WallMs,
    /// When its value last changed.
    pub written: WallMs,
    /// How often its value changed since it is there, its creation included. Unlike its entry's
    /// version it goes on when the value goes or comes back.
    pub puts: u64,
    /// The event that created it; 0 for none.
    pub created_event: u64,
    /// The event that last changed it; 0 for none.
    pub modified_event: u64,
    /// Who may do what; none is everyone everything.
    pub acl: Option<AccessList>,
    /// How often that was changed.
    pub acl_version: u32,
    /// What kind of node.
    pub kind: Kind,
    /// When it ends.
    pub deadline: Option<WallMs>,
    /// What it holds, if it is a node aside.
    pub aside: Option<Arc<Aside>>,
}

/// A node's name, shared.
#[derive(Clone)]
pub enum Name {
    /// That of a key.
    Key(KeyName),
    /// That of a node without a value.
    Path(Arc<[u8]>),
}

/// A key's own bytes, shared with the keyspace.
#[derive(Clone)]
pub struct KeyName(pub(crate) Slot);

impl Name {
    /// The path.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Key(key) => key.0.key(),
            Name::Path(path) => path,
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// What one step of a command did to one node: every step shows, where [`crate::Change`]s show what
/// a revision did to a key as a whole.
#[derive(Clone, Debug)]
pub struct Step {
    /// The revision of it: one command can make several.
    pub revision: Revision,
    /// Which node.
    pub name: Name,
    /// What happened to it.
    pub what: Happening,
    /// Its access list; if it is gone, the one it had.
    pub acl: Option<AccessList>,
    /// The access list of the node above, where that has a child more or less now.
    pub parent_acl: Option<AccessList>,
}

/// What can happen to a node. That a parent's children changed follows from `Created` and `Deleted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It came to be.
    Created,
    /// Its value was written.
    Written,
    /// Its value went, but it stays.
    Emptied,
    /// It is gone.
    Deleted,
}

/// One change of one node in the order of the event counter, which moves once for each.
#[derive(Clone, Debug)]
pub struct Event {
    /// The counter after it.
    pub index: u64,
    /// When it happened.
    pub at: WallMs,
    /// Why.
    pub cause: Cause,
    /// Which node.
    pub name: Name,
    /// The node after it; a deleted one has no entry, but still says whether it was a directory.
    pub node: EventNode,
    /// The node before it.
    pub previous: Option<EventNode>,
    /// Not to be told to watchers.
    pub silent: bool,
    /// The node had an access list, so that not everybody may be told.
    pub restricted: bool,
}

impl Event {
    /// Whether it tells of a file, be it what there is now or what there was.
    pub(crate) fn is_of_file(&self) -> bool {
        !self.node.directory || self.previous.as_ref().is_some_and(|node| !node.directory)
    }
}

impl EventNode {
    /// What an event says of the node that looks so.
    pub(crate) fn of(node: &NodeView) -> EventNode {
        EventNode {
            entry: node.entry.clone(),
            directory: node.directory,
            created: node.created_event,
            modified: node.modified_event,
            deadline: node.deadline,
        }
    }
}

/// What an [`Event`] says of a node.
#[derive(Clone, Debug)]
pub struct EventNode {
    /// Its value's entry.
    pub entry: Option<Entry>,
    /// Whether it is a directory.
    pub directory: bool,
    /// The event that created it.
    pub created: u64,
    /// The event that last changed it.
    pub modified: u64,
    /// When it ends.
    pub deadline: Option<WallMs>,
}
