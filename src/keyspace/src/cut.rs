//! Taking the whole state out while the writer goes on. `restore` makes a keyspace of it again.

use crate::auth::Auth;
use crate::history::Trace;
use crate::index::Scan;
use crate::keyspace::Keyspace;
use crate::lease::Leases;
use crate::node::Event;
use crate::record::{
    AUTH_MAX, AuthHead, EventRecord, FORMAT, Head, LEASES_MAX, LeaseChunk, LeaseRecord, NODES_MAX,
    NodeChunk, NodeRecord, Place, Record, RoleChunk, RoleRecord, SlotRecord, StandingAlarm,
    UserChunk, UserRecord, VersionRecord, encode, unreadable,
};
use crate::shared::Shared;
use crate::slot::Slot;
use crate::tree::{Path, Tree};
use crate::types::{LeaseId, Revision};
use arc_swap::Guard;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Slots or changes copied under one hold of a lock.
const CHUNK: usize = 256;

/// A consistent view of a whole keyspace at one revision. Compacted versions are not dropped while
/// one is alive.
pub struct Cut {
    shared: Arc<Shared>,
    /// Keeps compacted versions where they are.
    _hold: Arc<()>,
    head: Head,
    leases: Leases,
    tree: Tree,
    events: VecDeque<Event>,
    auth: Arc<Auth>,
    /// Tell only the slots that changed after this revision.
    since: Option<Revision>,
    stage: Stage,
    len_hint: usize,
}

/// What a cut tells next.
enum Stage {
    Head,
    /// This chunk of leases: those after that id.
    Leases(u32, Option<LeaseId>),
    /// This chunk of nodes: those after that path.
    Nodes(u32, Option<Path>),
    /// This event, of those left.
    Events(u32),
    /// This chunk of users, and of roles: those after that name.
    Users(u32, Option<Arc<str>>),
    Roles(u32, Option<Arc<str>>),
    /// The slots that wait, last first; then those after the last one told.
    Slots(Vec<Slot>, Option<Slot>),
    /// Only the slots that wait, last first.
    Changed(Vec<Slot>),
}

impl Keyspace {
    /// The state as it is now, as records in key order, to be read elsewhere while the writer goes
    /// on. With `since`, only what changed after that revision (and what is small and always
    /// whole); `None` when compaction has passed `since`, so that only a whole cut will do.
    pub fn cut(&self, since: Option<Revision>) -> Option<Cut> {
        let shared = &self.shared;
        let (revision, compacted) = (shared.revision(), shared.compacted());
        if since.is_some_and(|since| since < compacted) {
            return None;
        }
        let leases = shared.leases.read().clone();
        let tree = shared.tree.read().clone();
        let events = shared.ring.read().events.clone();
        let auth = Guard::into_inner(shared.auth());
        let lease_chunks = leases.len().div_ceil(LEASES_MAX);
        let node_chunks = tree.nodes.len().div_ceil(NODES_MAX);
        let user_chunks = auth.users().len().div_ceil(AUTH_MAX);
        let role_chunks = auth.roles().len().div_ceil(AUTH_MAX);
        let small = lease_chunks + node_chunks + user_chunks + role_chunks;
        let count = |records: usize| u32::try_from(records).expect("they fit in memory");
        let history = shared.history.read();
        let slots = since.map_or_else(
            || shared.slots.len(),
            |since| history.find(revision.0 + 1) - history.find(since.0 + 1),
        );
        let alarms = shared.alarms.read();
        let alarms = alarms
            .iter()
            .map(|&(member, alarm)| StandingAlarm { member, alarm });
        Some(Cut {
            shared: Arc::clone(shared),
            _hold: Arc::clone(&shared.cuts),
            head: Head {
                format: FORMAT,
                revision,
                compacted,
                wall: self.wall,
                lease_chunks: count(lease_chunks),
                alarms: alarms.collect(),
                node_chunks: count(node_chunks),
                events: count(events.len()),
                event: shared.event(),
                auth: Some(AuthHead {
                    enabled: auth.enabled(),
                    revision: auth.revision(),
                    user_chunks: count(user_chunks),
                    role_chunks: count(role_chunks),
                }),
                stepped: shared.stepped.load(Ordering::Relaxed),
            },
            len_hint: 1 + small + events.len() + slots,
            auth,
            leases,
            tree,
            events,
            since,
            stage: Stage::Head,
        })
    }

    /// A digest of the whole state, for comparing members at equal index.
    pub fn digest(&self) -> u64 {
        let cut = self.cut(None).expect("a whole cut can always be taken");
        let mut digest = Digest(0);
        for record in cut {
            digest.absorb(&record.key);
            digest.absorb(&record.value);
        }
        digest.0
    }
}

impl Cut {
    /// The revision whose state this is.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// About how many records there will be.
    pub fn len_hint(&self) -> usize {
        self.len_hint
    }

    fn lease_chunk(&self, chunk: u32, after: Option<LeaseId>) -> (Record, Option<LeaseId>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let leases = self.leases.range((from, Bound::Unbounded)).take(LEASES_MAX);
        let leases: Vec<_> = leases
            .map(|(id, lease)| LeaseRecord::of(*id, lease))
            .collect();
        let last = leases.last().map(|lease| lease.lease);
        let record = Record {
            key: Place::Leases(chunk).to_key(),
            value: encode(&LeaseChunk { leases }),
        };
        (record, last)
    }

    fn node_chunk(&self, chunk: u32, after: Option<&Path>) -> (Record, Option<Path>) {
        let from = after.map_or(Bound::Unbounded, |path| Bound::Excluded(&path[..]));
        let range = self.tree.nodes.range::<_, [u8]>((from, Bound::Unbounded));
        let nodes: Vec<_> = range.take(NODES_MAX).collect();
        let last = nodes.last().map(|(path, _)| Path::clone(path));
        let nodes = nodes
            .iter()
            .map(|(path, node)| NodeRecord::of(path, node))
            .collect();
        let record = Record {
            key: Place::Nodes(chunk).to_key(),
            value: encode(&NodeChunk { nodes }),
        };
        (record, last)
    }

    fn user_chunk(&self, chunk: u32, after: Option<&str>) -> (Record, Option<Arc<str>>) {
        let users: Vec<_> = self.auth.users_after(after).take(AUTH_MAX).collect();
        let last = users.last().map(|(name, _)| Arc::clone(name));
        let users = users.iter();
        let users = users
            .map(|(name, user)| UserRecord::of(name, user))
            .collect();
        let record = Record {
            key: Place::Users(chunk).to_key(),
            value: encode(&UserChunk { users }),
        };
        (record, last)
    }

    fn role_chunk(&self, chunk: u32, after: Option<&str>) -> (Record, Option<Arc<str>>) {
        let roles: Vec<_> = self.auth.roles_after(after).take(AUTH_MAX).collect();
        let last = roles.last().map(|(name, _)| Arc::clone(name));
        let roles = roles.iter();
        let roles = roles
            .map(|(name, role)| RoleRecord::of(name, role))
            .collect();
        let record = Record {
            key: Place::Roles(chunk).to_key(),
            value: encode(&RoleChunk { roles }),
        };
        (record, last)
    }

    fn first_slots(&self) -> Stage {
        let Some(since) = self.since else {
            return Stage::Slots(Vec::new(), None);
        };
        let mut slots = Vec::new();
        let mut place = self.shared.history.read().find(since.0 + 1);
        loop {
            let history = self.shared.history.read();
            let within = |t: &&Trace| t.revision <= self.head.revision.0;
            let traces = (place..place + CHUNK).map_while(|p| history.get(p).filter(within));
            let before = slots.len();
            slots.extend(traces.map(|trace| trace.slot.clone()));
            if slots.len() < before + CHUNK {
                break;
            }
            place += CHUNK;
        }
        slots.sort_unstable_by(|a, b| b.cmp(a));
        slots.dedup();
        Stage::Changed(slots)
    }

    /// The slots after `last`, last first.
    fn more_slots(&self, last: Option<&Slot>) -> Vec<Slot> {
        let mut slots = Vec::new();
        let from = last.map_or(Bound::Unbounded, |slot| Bound::Excluded(slot.key()));
        let scan = Scan {
            before: None,
            live_only: false,
            max: CHUNK,
        };
        self.shared.index.read().scan(from, &scan, &mut slots);
        slots.reverse();
        slots
    }

    /// The record of one slot; none if no readable revision knows it.
    fn slot_record(&self, slot: &Slot) -> Option<Record> {
        let versions = slot.versions(self.head.revision.0);
        let figures = versions
            .iter()
            .map(|entry| (entry.modified().0, entry.is_tombstone()));
        let gone = unreadable(figures, self.head.compacted.0);
        let versions: Vec<_> = versions[gone..].iter().map(VersionRecord::of).collect();
        if versions.is_empty() {
            return None;
        }
        Some(Record {
            key: Place::Slot(slot.key()).to_key(),
            value: encode(&SlotRecord { versions }),
        })
    }
}

impl Iterator for Cut {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            match &mut self.stage {
                Stage::Head => {
                    self.stage = Stage::Leases(0, None);
                    return Some(Record {
                        key: Place::Head.to_key(),
                        value: encode(&self.head),
                    });
                }
                Stage::Leases(chunk, after) => {
                    let (chunk, after) = (*chunk, *after);
                    if chunk == self.head.lease_chunks {
                        self.stage = Stage::Nodes(0, None);
                        continue;
                    }
                    let (record, last) = self.lease_chunk(chunk, after);
                    self.stage = Stage::Leases(chunk + 1, last);
                    return Some(record);
                }
                Stage::Nodes(chunk, after) => {
                    let (chunk, after) = (*chunk, after.take());
                    if chunk == self.head.node_chunks {
                        self.stage = Stage::Events(0);
                        continue;
                    }
                    let (record, last) = self.node_chunk(chunk, after.as_ref());
                    self.stage = Stage::Nodes(chunk + 1, last);
                    return Some(record);
                }
                Stage::Events(place) => {
                    let place = *place;
                    let Some(event) = self.events.pop_front() else {
                        self.stage = Stage::Users(0, None);
                        continue;
                    };
                    self.stage = Stage::Events(place + 1);
                    return Some(Record {
                        key: Place::Event(place).to_key(),
                        value: encode(&EventRecord::of(&event)),
                    });
                }
                Stage::Users(chunk, after) => {
                    let (chunk, after) = (*chunk, after.take());
                    let (record, last) = self.user_chunk(chunk, after.as_deref());
                    if last.is_none() {
                        self.stage = Stage::Roles(0, None);
                        continue;
                    }
                    self.stage = Stage::Users(chunk + 1, last);
                    return Some(record);
                }
                Stage::Roles(chunk, after) => {
                    let (chunk, after) = (*chunk, after.take());
                    let (record, last) = self.role_chunk(chunk, after.as_deref());
                    if last.is_none() {
                        self.stage = self.first_slots();
                        continue;
                    }
                    self.stage = Stage::Roles(chunk + 1, last);
                    return Some(record);
                }
                Stage::Slots(waiting, last) => {
                    let Some(slot) = waiting.pop() else {
                        let last = last.take();
                        let more = self.more_slots(last.as_ref());
                        if more.is_empty() {
                            return None;
                        }
                        self.stage = Stage::Slots(more, None);
                        continue;
                    };
                    *last = Some(slot.clone());
                    if let Some(record) = self.slot_record(&slot) {
                        return Some(record);
                    }
                }
                Stage::Changed(waiting) => {
                    let slot = waiting.pop()?;
                    if let Some(record) = self.slot_record(&slot) {
                        return Some(record);
                    }
                }
            }
        }
    }
}

/// A running 64-bit digest: fast, and equal on every machine. It finds differences; it is no defence
/// against someone who seeks equal digests.
struct Digest(u64);

impl Digest {
    fn absorb(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.mix(u64::from_le_bytes(padded));
        }
    }

    /// Multiplying by an odd number and folding the high half down loses nothing and spreads each
    /// bit over the word.
    fn mix(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}
