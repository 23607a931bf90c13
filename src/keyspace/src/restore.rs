//! Making a keyspace of a cut's records again.
//!
//! Nearly all records are keys', and they come in order. So the ordered index is built from its
//! leaves up, without looking for any key, and runs of neighbouring records can be restored beside
//! each other by whoever has threads: [`Restoring::begin`], a [`Restoring::run`] for each, and
//! [`Restoring::finish`].

use crate::aside;
use crate::auth::Auth;
use crate::history::Trace;
use crate::index::Builder;
use crate::invariants;
use crate::keyspace::Keyspace;
use crate::record::{
    Damaged, EventRecord, FORMAT, Head, LeaseChunk, NodeChunk, Place, Record, RoleChunk,
    SlotRecord, UserChunk, decode, unreadable,
};
use crate::ring::EVENTS_MAX;
use crate::shared::Shared;
use crate::slot::{Slot, cost};
use crate::tree;
use crate::types::LeaseId;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

impl Keyspace {
    /// Rebuilds a keyspace from the records of a whole cut, overlaid with those of later partial
    /// ones, in key order.
    pub fn restore(mut records: impl Iterator<Item = Record>) -> Result<Keyspace, Damaged> {
        let restoring = Restoring::begin(&mut records)?;
        let run = restoring.run(records)?;
        restoring.finish(vec![run])
    }
}

/// A keyspace on its way back from records.
pub struct Restoring {
    head: Head,
    shared: Shared,
    /// Of the records that the head counts, how many were taken in.
    lease_chunks: u32,
    node_chunks: u32,
    events: u32,
    user_chunks: u32,
    role_chunks: u32,
    auth: Auth,
    bytes: u64,
}

/// Keys that follow each other, restored. Their slots are in the map already.
#[derive(Default)]
pub struct Run {
    index: Builder,
    /// Revision, place within it, and slot of each change that the history needs.
    changes: Vec<(u64, u32, Slot)>,
    /// What is bound to a lease.
    bound: Vec<(LeaseId, Slot)>,
    children: Children,
    bytes: u64,
}

/// How many children were found beneath each node.
#[derive(Default)]
struct Children {
    counts: HashMap<Vec<u8>, u32>,
    /// The parent of the last one, and how many of its children are not in `counts` yet: neighbours
    /// in key order mostly share theirs.
    parent: Vec<u8>,
    uncounted: u32,
}

const OUT_OF_PLACE: &str = "it is out of place";

impl Restoring {
    /// Takes in what comes before the first key. Makes room for as many keys as the iterator says
    /// there are records at least: that must be true.
    pub fn begin(records: &mut impl Iterator<Item = Record>) -> Result<Restoring, Damaged> {
        let (expected, _) = records.size_hint();
        let first = records.next();
        let first = first.ok_or_else(|| Place::Head.damaged("there are no records"))?;
        if Place::of_key(&first.key) != Some(Place::Head) {
            return Err(Damaged::new(&first.key, "no head came before it"));
        }
        let mut restoring = Restoring::new(decode(&first)?, expected)?;
        while let Some(next) = restoring.next() {
            let record = records.next();
            let record = record.ok_or_else(|| next.damaged("it is missing"))?;
            match Place::of_key(&record.key) {
                Some(place) if place == next => restoring.take(place, &record)?,
                Some(place) if restoring.is_left_over(place) => {}
                Some(Place::Slot(_)) => return Err(next.damaged("it is missing")),
                Some(_) | None => return Err(Damaged::new(&record.key, OUT_OF_PLACE)),
            }
        }
        let (shared, head) = (&restoring.shared, &restoring.head);
        shared.publish_with(Vec::new(), head.event, || {});
        shared.stepped.store(head.stepped, Ordering::Relaxed);
        Ok(restoring)
    }

    fn new(head: Head, expected: usize) -> Result<Restoring, Damaged> {
        if head.format > FORMAT {
            let reason = format!("format {} is newer than {FORMAT}", head.format);
            return Err(Place::Head.damaged(reason));
        }
        if !invariants::compaction_lags(head.compacted.0, head.revision.0) || head.revision.0 == 0 {
            return Err(Place::Head.damaged("its revisions make no sense"));
        }
        if head.events as usize > EVENTS_MAX {
            return Err(Place::Head.damaged("it counts too many events"));
        }
        let mut shared = Shared::with_room(head.revision.0, head.compacted.0, expected);
        let alarms = head
            .alarms
            .iter()
            .map(|standing| (standing.member, standing.alarm));
        *shared.alarms.get_mut() = alarms.collect();
        Ok(Restoring {
            shared,
            lease_chunks: 0,
            node_chunks: 0,
            events: 0,
            user_chunks: 0,
            role_chunks: 0,
            auth: head
                .auth
                .map_or_else(Auth::default, |auth| Auth::of(auth.enabled, auth.revision)),
            head,
            bytes: 0,
        })
    }

    /// The next record that the head counts; none once all are in.
    fn next(&self) -> Option<Place<'static>> {
        let leases = Place::Leases(self.lease_chunks);
        let nodes = Place::Nodes(self.node_chunks);
        let event = Place::Event(self.events);
        let users = Place::Users(self.user_chunks);
        let roles = Place::Roles(self.role_chunks);
        let wanted = |place: &Place<'_>| !self.is_left_over(*place);
        let sorts = [leases, nodes, event, users, roles];
        sorts.into_iter().find(wanted)
    }

    /// Whether a record is from an older cut, when there were more of its sort.
    fn is_left_over(&self, place: Place<'_>) -> bool {
        match place {
            Place::Leases(chunk) => chunk >= self.head.lease_chunks,
            Place::Nodes(chunk) => chunk >= self.head.node_chunks,
            Place::Event(event) => event >= self.head.events,
            Place::Users(chunk) => self.head.auth.is_none_or(|auth| chunk >= auth.user_chunks),
            Place::Roles(chunk) => self.head.auth.is_none_or(|auth| chunk >= auth.role_chunks),
            Place::Head | Place::Slot(_) => false,
        }
    }

    fn take(&mut self, place: Place<'_>, record: &Record) -> Result<(), Damaged> {
        match place {
            Place::Leases(_) => self.leases(record),
            Place::Nodes(_) => self.nodes(record),
            Place::Event(_) => self.event(record),
            Place::Users(_) => self.users(record),
            Place::Roles(_) => self.roles(record),
            Place::Head | Place::Slot(_) => Err(place.damaged(OUT_OF_PLACE)),
        }
    }

    fn leases(&mut self, record: &Record) -> Result<(), Damaged> {
        self.lease_chunks += 1;
        let found: LeaseChunk = decode(record)?;
        let leases = self.shared.leases.get_mut();
        for found in found.leases {
            let id = found.lease;
            let lease = found.into_lease();
            self.bytes += lease.cost();
            if leases.insert(id, lease).is_some() {
                return Err(Damaged::new(&record.key, "a lease is there twice"));
            }
        }
        Ok(())
    }

    fn nodes(&mut self, record: &Record) -> Result<(), Damaged> {
        self.node_chunks += 1;
        let found: NodeChunk = decode(record)?;
        for found in found.nodes {
            let is_aside = aside::is_path(&found.path);
            let ends_root = found.path == tree::ROOT && found.deadline.is_some();
            if (!is_aside && !tree::is_path(&found.path)) || ends_root {
                return Err(Damaged::new(&record.key, "there can be no such node"));
            }
            let node = found.to_node();
            let (before, after) = self.shared.tree.get_mut().put(&found.path, Some(node));
            self.bytes = self.bytes.wrapping_sub(before).wrapping_add(after);
        }
        Ok(())
    }

    fn event(&mut self, record: &Record) -> Result<(), Damaged> {
        self.events += 1;
        let found: EventRecord = decode(record)?;
        let ring = self.shared.ring.get_mut();
        let last = ring.events.back().map_or(0, |event| event.index);
        let event = found.to_event().filter(|event| event.index > last);
        let event = event.filter(|event| event.index <= self.head.event);
        ring.push(event.ok_or_else(|| Damaged::new(&record.key, "its figures make no sense"))?);
        Ok(())
    }

    fn users(&mut self, record: &Record) -> Result<(), Damaged> {
        self.user_chunks += 1;
        let found: UserChunk = decode(record)?;
        for found in found.users {
            let fresh = !found.name.is_empty() && self.auth.user(&found.name).is_none();
            let put = self.auth.put_user(&found.name, Some(found.to_user()));
            if !fresh || put.is_err() {
                return Err(Damaged::new(&record.key, "there can be no such user"));
            }
        }
        Ok(())
    }

    fn roles(&mut self, record: &Record) -> Result<(), Damaged> {
        self.role_chunks += 1;
        let found: RoleChunk = decode(record)?;
        for found in found.roles {
            let fresh = !found.name.is_empty() && self.auth.role(&found.name).is_none();
            let put = self.auth.put_role(&found.name, Some(found.to_role()));
            if !fresh || put.is_err() {
                return Err(Damaged::new(&record.key, "there can be no such role"));
            }
        }
        Ok(())
    }

    /// Restores keys that follow each other.
    pub fn run(&self, records: impl Iterator<Item = Record>) -> Result<Run, Damaged> {
        let mut run = Run::default();
        for record in records {
            match Place::of_key(&record.key) {
                Some(Place::Slot(key)) => self.slot(key, &record, &mut run)?,
                Some(place) if self.is_left_over(place) => {}
                Some(_) | None => return Err(Damaged::new(&record.key, OUT_OF_PLACE)),
            }
        }
        run.children.settle();
        Ok(run)
    }

    fn slot(&self, key: &[u8], record: &Record, run: &mut Run) -> Result<(), Damaged> {
        let damaged = |reason: &str| Damaged::new(&record.key, reason);
        let found: SlotRecord = decode(record)?;
        let order = found.versions.iter().map(|version| version.modified);
        if !order.clone().is_sorted_by(|a, b| a < b) || order.max() > Some(self.head.revision.0) {
            return Err(damaged("its revisions are out of order"));
        }
        let figures = found
            .versions
            .iter()
            .map(|version| (version.modified, version.is_tombstone()));
        let readable = &found.versions[unreadable(figures, self.head.compacted.0)..];
        let Some(newest) = readable.last() else {
            return Ok(());
        };
        let mut slot: Option<Slot> = None;
        for version in readable {
            let stored = version.to_stored();
            let stored = stored.ok_or_else(|| damaged("a version's figures make no sense"))?;
            let slot = match &slot {
                Some(slot) => {
                    slot.push(stored);
                    slot
                }
                None => slot.insert(Slot::new(key, stored)),
            };
            if version.modified >= self.head.compacted.0 {
                let change = (version.modified, version.sub, slot.clone());
                run.changes.push(change);
            }
            if version.restricted {
                self.shared.note_restricted();
            }
            run.bytes += cost(key, version.value);
        }
        let slot = slot.expect("there is a newest version");
        if run.index.last().is_some_and(|last| *last >= slot) {
            return Err(damaged(OUT_OF_PLACE));
        }
        let live = !newest.is_tombstone();
        if newest.lease != LeaseId::NONE {
            run.bound.push((newest.lease, slot.clone()));
        }
        if live && tree::is_path(key) {
            run.children.add(key);
        }
        run.index.push(slot.clone(), live);
        self.shared.slots.insert(slot);
        Ok(())
    }

    /// Puts the runs together, which come in their order.
    pub fn finish(mut self, runs: Vec<Run>) -> Result<Keyspace, Damaged> {
        let mut all = Run::default();
        all.changes
            .reserve_exact(runs.iter().map(|run| run.changes.len()).sum());
        for run in runs {
            if let (Some(last), Some(first)) = (all.index.last(), run.index.first())
                && last >= first
            {
                return Err(Place::Slot(first.key()).damaged(OUT_OF_PLACE));
            }
            all.append(run);
        }
        let leases = self.shared.leases.get_mut();
        for (lease, slot) in all.bound {
            let lease = leases.get_mut(&lease);
            let missing = || Place::Slot(slot.key()).damaged("its lease is missing");
            lease.ok_or_else(missing)?.keys.insert(slot.clone());
        }
        self.check_tree(all.children)?;
        *self.shared.index.get_mut() = all.index.finish();
        all.changes
            .sort_unstable_by_key(|(revision, sub, _)| (*revision, *sub));
        let history = self.shared.history.get_mut();
        for (revision, _, slot) in all.changes {
            history.push(Trace { revision, slot });
        }
        let tree = self.shared.tree.read().clone();
        self.shared.put_tree(&mut self.shared.tree.write(), tree);
        if !self.auth.is_sound() {
            return Err(Place::Head.damaged("nobody could manage its users"));
        }
        self.shared
            .bytes
            .store(self.bytes + all.bytes, Ordering::Relaxed);
        self.shared.put_auth(self.auth);
        Ok(Keyspace::of(self.shared, self.head.wall))
    }

    /// Every node must have as many children as its record says, and a reason to exist.
    fn check_tree(&mut self, mut children: Children) -> Result<(), Damaged> {
        let nodes = self.shared.tree.get_mut().nodes.clone();
        for (path, node) in &nodes {
            let slot = self.shared.find(path).filter(|_| !aside::is_aside(path));
            let valued = slot.is_some_and(|slot| !slot.newest().is_tombstone());
            if !valued && !node.stands_alone() {
                return Err(Damaged::new(path, "a node has no reason to exist"));
            }
            if !valued {
                children.add(path);
            }
        }
        children.settle();
        for (path, node) in &nodes {
            if children.counts.remove(&path[..]).unwrap_or(0) != node.children {
                return Err(Damaged::new(path, "a node has another number of children"));
            }
        }
        match children.counts.keys().min() {
            Some(path) => Err(Damaged::new(path, "a node with children has no record")),
            None => Ok(()),
        }
    }
}

impl Run {
    fn append(&mut self, mut next: Run) {
        self.index.append(next.index);
        self.changes.append(&mut next.changes);
        self.bound.append(&mut next.bound);
        for (parent, count) in next.children.counts {
            *self.children.counts.entry(parent).or_default() += count;
        }
        self.bytes += next.bytes;
    }
}

impl Children {
    fn add(&mut self, path: &[u8]) {
        let Some(parent) = tree::parent(path) else {
            return;
        };
        if parent != self.parent {
            self.settle();
            self.parent = parent.to_vec();
        }
        self.uncounted += 1;
    }

    fn settle(&mut self) {
        let uncounted = std::mem::take(&mut self.uncounted);
        if uncounted > 0 {
            *self.counts.entry(self.parent.clone()).or_default() += uncounted;
        }
    }
}
