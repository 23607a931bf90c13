//! How the state's pieces become bytes: CBOR with numbered fields, so that fields can be added.
//!
//! A cut is one head, then chunks of the lease table and of the path tree, then the newest node
//! events, then chunks of the users and of the roles, then one record for each key. Record keys sort in that order. All but the keys are whole
//! in every cut, so that what has gone since an older cut is not there in the newer: the head says
//! how many records of each sort count.

use crate::access::AccessList;
use crate::aside::Aside;
use crate::auth::{Permission, Role, User};
use crate::change::Cause;
use crate::command::Alarm;
use crate::invariants;
use crate::lease::{Held, Lease};
use crate::node::{Event, EventNode, Kind, Name};
use crate::slot::{Birth, Entry, FIGURE_MAX, Figures, SUB_MAX, Stored};
use crate::tree::Node;
use crate::types::{LeaseId, Revision, WallMs};
use bytes::Bytes;
use imbl::OrdSet;
use minicbor::{Decode, Encode};
use std::fmt;
use std::sync::Arc;

/// The layout that this code writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 3;
/// Leases in one record.
pub(crate) const LEASES_MAX: usize = 512;
/// Nodes in one record.
pub(crate) const NODES_MAX: usize = 512;
/// Users, or roles, in one record: each may be as large as a thousand leases.
pub(crate) const AUTH_MAX: usize = 64;

/// One piece of a cut. Keys order the records and tell which replaces which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the record belongs.
    pub key: Bytes,
    /// What it holds, versioned.
    pub value: Bytes,
}

/// The records given to [`crate::Keyspace::restore`] are not those of a cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state's record {record} cannot be read: {reason}")]
pub struct Damaged {
    /// The record's key, escaped.
    pub record: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Damaged {
    pub(crate) fn new(key: &[u8], reason: impl fmt::Display) -> Damaged {
        Damaged {
            record: key.escape_ascii().to_string(),
            reason: reason.to_string(),
        }
    }
}

/// What a record is about, as its key tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place<'k> {
    Head,
    Leases(u32),
    Nodes(u32),
    Event(u32),
    Users(u32),
    Roles(u32),
    Slot(&'k [u8]),
}

impl<'k> Place<'k> {
    const HEAD: u8 = 0;
    const LEASES: u8 = 1;
    const NODES: u8 = 2;
    const EVENT: u8 = 3;
    const USERS: u8 = 4;
    const ROLES: u8 = 5;
    const SLOT: u8 = 16;

    pub fn to_key(self) -> Bytes {
        match self {
            Place::Head => Bytes::from_static(&[Place::HEAD]),
            Place::Leases(chunk) => numbered(Place::LEASES, chunk),
            Place::Nodes(chunk) => numbered(Place::NODES, chunk),
            Place::Event(place) => numbered(Place::EVENT, place),
            Place::Users(chunk) => numbered(Place::USERS, chunk),
            Place::Roles(chunk) => numbered(Place::ROLES, chunk),
            Place::Slot(key) => [&[Place::SLOT][..], key].concat().into(),
        }
    }

    pub fn damaged(self, reason: impl fmt::Display) -> Damaged {
        Damaged::new(&self.to_key(), reason)
    }

    pub fn of_key(key: &'k [u8]) -> Option<Place<'k>> {
        let (sort, rest) = key.split_first()?;
        let number = || rest.try_into().ok().map(u32::from_be_bytes);
        match *sort {
            Place::HEAD if rest.is_empty() => Some(Place::Head),
            Place::LEASES => number().map(Place::Leases),
            Place::NODES => number().map(Place::Nodes),
            Place::EVENT => number().map(Place::Event),
            Place::USERS => number().map(Place::Users),
            Place::ROLES => number().map(Place::Roles),
            Place::SLOT => Some(Place::Slot(rest)),
            _ => None,
        }
    }
}

fn numbered(sort: u8, number: u32) -> Bytes {
    [&[sort][..], &number.to_be_bytes()].concat().into()
}

/// What is one for the whole keyspace.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Head {
    #[n(0)]
    pub format: u32,
    #[n(1)]
    pub revision: Revision,
    #[n(2)]
    pub compacted: Revision,
    #[n(3)]
    pub wall: WallMs,
    #[n(4)]
    pub lease_chunks: u32,
    #[n(5)]
    pub alarms: Vec<StandingAlarm>,
    #[n(6)]
    pub node_chunks: u32,
    #[n(7)]
    pub events: u32,
    /// The node event counter.
    #[n(8)]
    pub event: u64,
    /// Not there before there were users.
    #[n(9)]
    pub auth: Option<AuthHead>,
    /// See [`crate::Reader::stepped`].
    #[n(10)]
    #[cbor(default)]
    pub stepped: u64,
}

/// What is one for all users and roles.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct AuthHead {
    #[n(0)]
    pub enabled: bool,
    #[n(1)]
    pub revision: u64,
    #[n(2)]
    pub user_chunks: u32,
    #[n(3)]
    pub role_chunks: u32,
}

#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct StandingAlarm {
    #[n(0)]
    pub member: u64,
    #[n(1)]
    pub alarm: Alarm,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct LeaseChunk {
    #[n(0)]
    pub leases: Vec<LeaseRecord>,
}

/// A lease without its keys: each key names its lease.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct LeaseRecord {
    #[n(0)]
    pub lease: LeaseId,
    #[n(1)]
    pub ttl_ms: u64,
    #[n(2)]
    pub remaining_ms: Option<u64>,
    #[n(3)]
    pub session: Option<SessionRecord>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct SessionRecord {
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub password: Bytes,
    #[n(1)]
    pub attachment: u64,
    #[n(2)]
    pub next: u64,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct NodeChunk {
    #[n(0)]
    pub nodes: Vec<NodeRecord>,
}

/// What is known of a node beside its value.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct NodeRecord {
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub path: Bytes,
    #[n(1)]
    pub children: u32,
    #[n(2)]
    pub creates: u32,
    #[n(3)]
    pub children_changed: u64,
    #[n(4)]
    pub kept: bool,
    #[n(5)]
    pub directory: bool,
    #[n(6)]
    pub created: u64,
    #[n(7)]
    pub born: WallMs,
    #[n(8)]
    pub created_event: u64,
    #[n(9)]
    pub modified_event: u64,
    #[n(10)]
    #[cbor(with = "crate::codec::maybe_shared")]
    pub acl: Option<AccessList>,
    #[n(11)]
    pub acl_version: u32,
    #[n(12)]
    pub kind: Kind,
    #[n(13)]
    pub deadline: Option<WallMs>,
    #[n(14)]
    pub modified: u64,
    #[n(15)]
    pub written: WallMs,
    #[n(16)]
    pub puts_before: u64,
    #[n(17)]
    pub aside: Option<Aside>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct UserChunk {
    #[n(0)]
    pub users: Vec<UserRecord>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct UserRecord {
    #[n(0)]
    pub name: Box<str>,
    #[n(1)]
    pub password: Option<Box<str>>,
    #[n(2)]
    pub roles: Vec<Box<str>>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct RoleChunk {
    #[n(0)]
    pub roles: Vec<RoleRecord>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct RoleRecord {
    #[n(0)]
    pub name: Box<str>,
    #[n(1)]
    pub permissions: Vec<Permission>,
    #[n(2)]
    pub created: u64,
    #[n(3)]
    pub modified: u64,
}

impl UserRecord {
    pub fn of(name: &str, user: &User) -> UserRecord {
        UserRecord {
            name: name.into(),
            password: user.password.clone(),
            roles: user.roles.iter().map(|role| (**role).into()).collect(),
        }
    }

    pub fn to_user(&self) -> User {
        User {
            password: self.password.clone(),
            roles: self.roles.iter().map(|role| (**role).into()).collect(),
        }
    }
}

impl RoleRecord {
    pub fn of(name: &str, role: &Role) -> RoleRecord {
        let permissions = role.permissions().map(|(span, may)| Permission {
            span: span.clone(),
            may,
        });
        RoleRecord {
            name: name.into(),
            permissions: permissions.collect(),
            created: role.created(),
            modified: role.modified(),
        }
    }

    pub fn to_role(&self) -> Role {
        let permissions = self.permissions.iter();
        let role = permissions.fold(Role::new(self.created), |role, it| {
            role.with(&it.span, it.may, self.modified)
        });
        // One without permissions may have had some.
        role.changed(self.modified)
    }
}

impl LeaseRecord {
    pub fn of(id: LeaseId, lease: &Lease) -> LeaseRecord {
        LeaseRecord {
            lease: id,
            ttl_ms: lease.ttl_ms,
            remaining_ms: lease.remaining_ms,
            session: lease.session.as_ref().map(|held| SessionRecord {
                password: held.password.clone(),
                attachment: held.attachment,
                next: held.next,
            }),
        }
    }

    /// The lease, without its keys.
    pub fn into_lease(self) -> Lease {
        Lease {
            ttl_ms: self.ttl_ms,
            remaining_ms: self.remaining_ms,
            session: self.session.map(|found| Held {
                password: found.password,
                attachment: found.attachment,
                next: found.next,
            }),
            keys: OrdSet::new(),
        }
    }
}

impl NodeRecord {
    pub fn of(path: &[u8], node: &Node) -> NodeRecord {
        NodeRecord {
            path: Bytes::copy_from_slice(path),
            children: node.children,
            creates: node.creates,
            children_changed: node.children_changed,
            kept: node.kept,
            directory: node.directory,
            created: node.created,
            born: node.born,
            created_event: node.created_event,
            modified_event: node.modified_event,
            acl: node.acl.clone(),
            acl_version: node.acl_version,
            kind: node.kind,
            deadline: node.deadline,
            modified: node.modified,
            written: node.written,
            puts_before: node.puts_before,
            aside: node.aside.as_deref().cloned(),
        }
    }

    pub fn to_node(&self) -> Node {
        Node {
            children: self.children,
            creates: self.creates,
            children_changed: self.children_changed,
            kept: self.kept,
            directory: self.directory,
            created: self.created,
            born: self.born,
            created_event: self.created_event,
            modified_event: self.modified_event,
            acl: self.acl.clone(),
            acl_version: self.acl_version,
            kind: self.kind,
            deadline: self.deadline,
            modified: self.modified,
            written: self.written,
            puts_before: self.puts_before,
            aside: self.aside.clone().map(Arc::new),
        }
    }
}

#[derive(Debug, Encode, Decode)]
pub(crate) struct EventRecord<'b> {
    #[n(0)]
    pub index: u64,
    #[n(1)]
    pub cause: Cause,
    #[n(2)]
    #[cbor(with = "crate::codec::bytes")]
    pub path: Bytes,
    #[b(3)]
    pub node: EventNodeRecord<'b>,
    #[b(4)]
    pub previous: Option<EventNodeRecord<'b>>,
    #[n(5)]
    pub silent: bool,
    #[n(6)]
    pub at: WallMs,
    #[n(7)]
    pub restricted: bool,
}

#[derive(Debug, Encode, Decode)]
pub(crate) struct EventNodeRecord<'b> {
    #[b(0)]
    pub entry: Option<VersionRecord<'b>>,
    #[n(1)]
    pub directory: bool,
    #[n(2)]
    pub created: u64,
    #[n(3)]
    pub modified: u64,
    #[n(4)]
    pub deadline: Option<WallMs>,
}

impl<'b> EventNodeRecord<'b> {
    fn of(node: &'b EventNode) -> EventNodeRecord<'b> {
        EventNodeRecord {
            entry: node.entry.as_ref().map(VersionRecord::of),
            directory: node.directory,
            created: node.created,
            modified: node.modified,
            deadline: node.deadline,
        }
    }

    fn to_node(&self, path: &[u8]) -> Option<EventNode> {
        let entry = match &self.entry {
            Some(version) => Some(Entry::apart(path, version.to_stored()?)),
            None => None,
        };
        Some(EventNode {
            entry,
            directory: self.directory,
            created: self.created,
            modified: self.modified,
            deadline: self.deadline,
        })
    }
}

impl<'b> EventRecord<'b> {
    pub fn of(event: &'b Event) -> EventRecord<'b> {
        EventRecord {
            index: event.index,
            cause: event.cause,
            path: Bytes::copy_from_slice(event.name.as_bytes()),
            node: EventNodeRecord::of(&event.node),
            previous: event.previous.as_ref().map(EventNodeRecord::of),
            silent: event.silent,
            at: event.at,
            restricted: event.restricted,
        }
    }

    /// The event, if the figures of its versions make sense.
    pub fn to_event(&self) -> Option<Event> {
        let previous = match &self.previous {
            Some(previous) => Some(previous.to_node(&self.path)?),
            None => None,
        };
        Some(Event {
            index: self.index,
            cause: self.cause,
            name: Name::Path(self.path[..].into()),
            node: self.node.to_node(&self.path)?,
            previous,
            silent: self.silent,
            at: self.at,
            restricted: self.restricted,
        })
    }
}

/// A key's retained versions, oldest first.
#[derive(Debug, Encode, Decode)]
pub(crate) struct SlotRecord<'b> {
    #[b(0)]
    pub versions: Vec<VersionRecord<'b>>,
}

#[derive(Debug, Encode, Decode)]
pub(crate) struct VersionRecord<'b> {
    #[n(0)]
    pub created: u64,
    #[n(1)]
    pub modified: u64,
    #[n(2)]
    pub sub: u32,
    #[n(3)]
    pub count: u64,
    #[n(4)]
    pub lease: LeaseId,
    #[n(5)]
    pub written: WallMs,
    #[n(6)]
    pub born: WallMs,
    #[b(7)]
    #[cbor(with = "minicbor::bytes")]
    pub value: &'b [u8],
    #[n(8)]
    pub event: u64,
    #[n(9)]
    pub null: bool,
    #[n(10)]
    pub born_event: u64,
    #[n(11)]
    #[cbor(default)]
    pub restricted: bool,
}

impl<'b> VersionRecord<'b> {
    pub fn of(entry: &'b Entry) -> VersionRecord<'b> {
        VersionRecord {
            created: entry.created().0,
            modified: entry.modified().0,
            sub: entry.sub(),
            count: entry.version(),
            lease: entry.lease(),
            written: entry.written(),
            born: entry.born(),
            value: entry.value(),
            event: entry.event(),
            null: entry.is_null(),
            born_event: entry.created_event(),
            restricted: entry.is_restricted(),
        }
    }

    /// The version, if its figures make sense and fit where they are kept.
    pub fn to_stored(&self) -> Option<Stored> {
        let packed = [
            self.created,
            self.count,
            self.written.0,
            self.event,
            self.born.0,
            self.born_event,
        ];
        let sound = invariants::figures_agree(self.created, self.modified, self.count)
            && packed.iter().all(|figure| *figure <= FIGURE_MAX)
            && self.sub <= SUB_MAX;
        let figures = Figures {
            created: self.created,
            modified: self.modified,
            sub: self.sub,
            count: self.count,
            lease: self.lease,
            written: self.written,
            event: self.event,
            null: self.null,
            restricted: self.restricted,
        };
        let birth = Birth {
            wall: self.born,
            event: self.born_event,
        };
        sound.then(|| Stored::new(&figures, birth, self.value))
    }

    /// Whether this version is a deletion.
    pub fn is_tombstone(&self) -> bool {
        self.created == 0
    }
}

/// Of versions in order (given by their revision and whether they are tombstones), how many at the
/// front no revision from `compacted` on shows. A deletion at `compacted` itself is kept, since a
/// watch may start there.
pub(crate) fn unreadable(versions: impl Iterator<Item = (u64, bool)>, compacted: u64) -> usize {
    let (mut before, mut gone) = (0, 0);
    for (modified, tombstone) in versions.take_while(|(modified, _)| *modified <= compacted) {
        before += 1;
        gone = if tombstone && modified < compacted {
            before
        } else {
            before - 1
        };
    }
    gone
}

pub(crate) fn encode<T: Encode<()>>(value: &T) -> Bytes {
    minicbor::to_vec(value)
        .expect("writing to memory cannot fail")
        .into()
}

pub(crate) fn decode<'b, T: Decode<'b, ()>>(record: &'b Record) -> Result<T, Damaged> {
    let mut decoder = minicbor::Decoder::new(&record.value);
    let value = decoder.decode().map_err(|e| Damaged::new(&record.key, e))?;
    if decoder.position() < record.value.len() {
        return Err(Damaged::new(&record.key, "bytes follow the record's end"));
    }
    Ok(value)
}
