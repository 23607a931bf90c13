//! Making a keyspace of a cut's records again.
//!
//! Half of the work is reading records ([`Part::read`]), which needs nothing but the record. The
//! other half is putting the parts into the indexes one after the other ([`Keyspace::assemble`]).
//! Who has threads can have the two done side by side. Both rely on the order of the records: the
//! ordered index is built from its leaves up, and no key is looked for.

use crate::history::Trace;
use crate::index::Builder;
use crate::invariants;
use crate::keyspace::Keyspace;
use crate::node::Event;
use crate::record::{
    Damaged, EventRecord, FORMAT, Head, LeaseChunk, NodeChunk, Place, Record, SlotRecord, decode,
};
use crate::ring::EVENTS_MAX;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::tree;
use crate::types::LeaseId;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// A record that was read.
pub struct Part(Content);

enum Content {
    Head(Box<Head>),
    Leases(u32, LeaseChunk),
    Nodes(u32, NodeChunk),
    Event(u32, Box<Event>),
    Slot(Slot),
}

impl Part {
    /// Reads a record, and copies what is kept of it.
    pub fn read(record: &Record) -> Result<Part, Damaged> {
        let unknown = || Damaged::new(&record.key, "there can be no such record");
        let content = match Place::of_key(&record.key).ok_or_else(unknown)? {
            Place::Head => Content::Head(Box::new(decode(record)?)),
            Place::Leases(chunk) => Content::Leases(chunk, decode(record)?),
            Place::Nodes(chunk) => Content::Nodes(chunk, decode(record)?),
            Place::Event(place) => {
                let event = decode::<EventRecord>(record)?.to_event();
                let unsound = || Damaged::new(&record.key, "its figures make no sense");
                Content::Event(place, Box::new(event.ok_or_else(unsound)?))
            }
            Place::Slot(key) => Content::Slot(read_slot(key, record)?),
        };
        Ok(Part(content))
    }
}

fn read_slot(key: &[u8], record: &Record) -> Result<Slot, Damaged> {
    let damaged = |reason| Damaged::new(&record.key, reason);
    let found: SlotRecord = decode(record)?;
    let mut slot: Option<Slot> = None;
    let mut last = 0;
    for version in &found.versions {
        if version.modified <= last {
            return Err(damaged("its revisions are out of order"));
        }
        last = version.modified;
        let stored = version.to_stored();
        let stored = stored.ok_or_else(|| damaged("a version's figures make no sense"))?;
        match &slot {
            Some(slot) => drop(slot.push(stored)),
            None => slot = Some(Slot::new(key, stored)),
        }
    }
    slot.ok_or_else(|| damaged("it has no versions"))
}

impl Keyspace {
    /// Rebuilds a keyspace from the records of a whole cut, overlaid with those of later partial
    /// ones, in key order.
    pub fn restore(records: impl Iterator<Item = Record>) -> Result<Keyspace, Damaged> {
        Keyspace::assemble(records.map(|record| Part::read(&record)))
    }

    /// What [`Keyspace::restore`] does, with records that were read. Room is made in advance for
    /// as many as there are at least by the iterator's own word, so that must be true.
    pub fn assemble(
        mut parts: impl Iterator<Item = Result<Part, Damaged>>,
    ) -> Result<Keyspace, Damaged> {
        let (expected, _) = parts.size_hint();
        let mut restoring = match parts.next().transpose()? {
            Some(Part(Content::Head(head))) => Restoring::new(*head, expected)?,
            Some(_) => return Err(Place::Head.damaged("other records come before it")),
            None => return Err(Place::Head.damaged("there are no records")),
        };
        for part in parts {
            restoring.take(part?)?;
        }
        restoring.finish()
    }
}

const OUT_OF_PLACE: &str = "it is out of place";

/// Records of one sort, of which the head says how many there are.
struct Numbered {
    taken: u32,
    count: u32,
}

impl Numbered {
    /// Whether the record of this number is wanted. Those beyond the count are left over from an
    /// older cut, when there were more; all others come in order.
    fn wants(&mut self, number: u32) -> Result<bool, &'static str> {
        if number >= self.count {
            return Ok(false);
        }
        if number != self.taken {
            return Err(OUT_OF_PLACE);
        }
        self.taken += 1;
        Ok(true)
    }

    fn check_whole<'k>(&self, place: impl Fn(u32) -> Place<'k>) -> Result<(), Damaged> {
        if self.taken < self.count {
            return Err(place(self.taken).damaged("it is missing"));
        }
        Ok(())
    }
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

/// A keyspace on its way back from records.
struct Restoring {
    head: Head,
    shared: Shared,
    index: Builder,
    lease_chunks: Numbered,
    node_chunks: Numbered,
    events: Numbered,
    children: Children,
    /// Revision, place within it, and slot of each change that the history needs.
    changes: Vec<(u64, u32, Slot)>,
    bytes: u64,
}

impl Restoring {
    fn new(head: Head, expected: usize) -> Result<Restoring, Damaged> {
        if head.format > FORMAT {
            let reason = format!("format {} is newer than {FORMAT}", head.format);
            return Err(Place::Head.damaged(reason));
        }
        if !invariants::compaction_lags(head.compacted.0, head.revision.0) || head.revision.0 == 0 {
            return Err(Place::Head.damaged("its revisions make no sense"));
        }
        let mut shared = Shared::with_room(head.revision.0, head.compacted.0, expected);
        let alarms = head
            .alarms
            .iter()
            .map(|standing| (standing.member, standing.alarm));
        *shared.alarms.get_mut() = alarms.collect();
        let numbered = |count| Numbered { taken: 0, count };
        Ok(Restoring {
            shared,
            index: Builder::default(),
            lease_chunks: numbered(head.lease_chunks),
            node_chunks: numbered(head.node_chunks),
            events: numbered(head.events),
            children: Children::default(),
            changes: Vec::with_capacity(expected),
            bytes: 0,
            head,
        })
    }

    fn take(&mut self, part: Part) -> Result<(), Damaged> {
        let (place, taken) = match &part.0 {
            Content::Head(_) => (Place::Head, Err(OUT_OF_PLACE)),
            Content::Leases(chunk, found) => (Place::Leases(*chunk), self.leases(*chunk, found)),
            Content::Nodes(chunk, found) => (Place::Nodes(*chunk), self.nodes(*chunk, found)),
            Content::Event(place, event) => (Place::Event(*place), self.event(*place, event)),
            Content::Slot(slot) => (Place::Slot(slot.key()), self.slot(slot)),
        };
        taken.map_err(|reason| place.damaged(reason))
    }

    fn leases(&mut self, chunk: u32, found: &LeaseChunk) -> Result<(), &'static str> {
        if !self.lease_chunks.wants(chunk)? {
            return Ok(());
        }
        let leases = self.shared.leases.get_mut();
        for found in found.leases.iter().cloned() {
            let id = found.lease;
            let lease = found.into_lease();
            self.bytes += lease.cost();
            if leases.insert(id, lease).is_some() {
                return Err("a lease is there twice");
            }
        }
        Ok(())
    }

    fn nodes(&mut self, chunk: u32, found: &NodeChunk) -> Result<(), &'static str> {
        if !self.node_chunks.wants(chunk)? {
            return Ok(());
        }
        for found in &found.nodes {
            let ends_root = found.path == tree::ROOT && found.deadline.is_some();
            if !tree::is_path(&found.path) || ends_root {
                return Err("there can be no such node");
            }
            let node = found.to_node();
            let (before, after) = self.shared.tree.get_mut().put(&found.path, Some(node));
            self.bytes = self.bytes.wrapping_sub(before).wrapping_add(after);
        }
        Ok(())
    }

    fn event(&mut self, place: u32, event: &Event) -> Result<(), &'static str> {
        if !self.events.wants(place)? {
            return Ok(());
        }
        let ring = self.shared.ring.get_mut();
        let last = ring.events.back().map_or(0, |event| event.index);
        if event.index <= last || event.index > self.head.event {
            return Err("its figures make no sense");
        }
        ring.push(event.clone());
        Ok(())
    }

    /// Puts a slot into the indexes and under its lease, without the versions that no readable
    /// revision shows.
    fn slot(&mut self, slot: &Slot) -> Result<(), &'static str> {
        if self.index.last().is_some_and(|last| last >= slot) {
            return Err(OUT_OF_PLACE);
        }
        let compacted = self.head.compacted.0;
        while slot.drop_oldest(compacted).is_some() {}
        let newest = slot.newest_figures();
        if newest.modified > self.head.revision.0 {
            return Err("it is newer than the state");
        }
        if slot.spent_at(newest.modified, compacted).is_some() {
            return Ok(());
        }
        slot.each_version(|figures, cost| {
            if figures.modified >= compacted {
                self.changes
                    .push((figures.modified, figures.sub, slot.clone()));
            }
            self.bytes += cost;
        });
        if newest.lease != LeaseId::NONE {
            let lease = self.shared.leases.get_mut().get_mut(&newest.lease);
            let lease = lease.ok_or("its lease is missing")?;
            lease.keys.insert(slot.clone());
        }
        let live = !newest.is_tombstone();
        if live && tree::is_path(slot.key()) {
            self.children.add(slot.key());
        }
        self.index.push(slot.clone(), live);
        self.shared.slots.insert(slot.clone());
        Ok(())
    }

    /// Every node must have as many children as its record says, and a reason to exist.
    fn check_tree(&mut self) -> Result<(), Damaged> {
        let nodes = self.shared.tree.get_mut().nodes.clone();
        for (path, node) in &nodes {
            let valued = self
                .shared
                .find(path)
                .is_some_and(|slot| !slot.newest().is_tombstone());
            if !valued && !node.stands_alone() {
                return Err(Damaged::new(path, "a node has no reason to exist"));
            }
            if !valued {
                self.children.add(path);
            }
        }
        self.children.settle();
        let mut counts = std::mem::take(&mut self.children.counts);
        for (path, node) in &nodes {
            if counts.remove(&path[..]).unwrap_or(0) != node.children {
                return Err(Damaged::new(path, "a node has another number of children"));
            }
        }
        match counts.keys().min() {
            Some(path) => Err(Damaged::new(path, "a node with children has no record")),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Keyspace, Damaged> {
        self.lease_chunks.check_whole(Place::Leases)?;
        self.node_chunks.check_whole(Place::Nodes)?;
        self.events.check_whole(Place::Event)?;
        if self.events.count as usize > EVENTS_MAX {
            return Err(Place::Head.damaged("it counts too many events"));
        }
        self.check_tree()?;
        self.shared.add_events(Vec::new(), self.head.event);
        *self.shared.index.get_mut() = self.index.finish();
        self.changes
            .sort_unstable_by_key(|(revision, sub, _)| (*revision, *sub));
        let history = self.shared.history.get_mut();
        for (revision, _, slot) in self.changes {
            history.push(Trace { revision, slot });
        }
        self.shared.bytes.store(self.bytes, Ordering::Relaxed);
        Ok(Keyspace::of(self.shared, self.head.wall))
    }
}
