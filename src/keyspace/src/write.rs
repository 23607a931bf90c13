//! One revision in the making: versions go into their slots, and all become visible at once.

use crate::change::{Cause, Change};
use crate::history::Trace;
use crate::index::{Index, Scan};
use crate::invariants;
use crate::lease::Leases;
use crate::node::{Event, Step};
use crate::read::View;
use crate::shared::Shared;
use crate::slot::{Birth, Entry, Figures, SUB_MAX, Slot, Stored};
use crate::tree::{self, Tree};
use crate::types::{End, LeaseId, Revision, Span, WallMs};
use parking_lot::RwLockWriteGuard;
use std::ops::Bound;
use std::sync::atomic::Ordering;

/// The writer at work on the next revision. Its own reads see what it has written so far. Dropped
/// without [`Writing::finish`] or [`Writing::abort`], it must not have written anything.
pub(crate) struct Writing<'a> {
    pub(crate) shared: &'a Shared,
    /// Held from the first key that appears or disappears on.
    index: Option<RwLockWriteGuard<'a, Index>>,
    pub(crate) revision: u64,
    pub(crate) wall: WallMs,
    /// By `sub`.
    changes: Vec<Change>,
    /// Those of `changes` that came to nothing: keys created and deleted at this revision.
    undone: Vec<u32>,
    /// Something changed that is no key.
    pub(crate) dirty: bool,
    /// Drafts of what is published with the revision, where this revision touches it.
    leases: Option<Leases>,
    tree: Option<Tree>,
    pub(crate) events: Vec<Event>,
    /// The event counter so far.
    pub(crate) event: u64,
    pub(crate) steps: Vec<Step>,
    /// By how much the bytes in use change, modulo 2^64.
    bytes: u64,
}

/// What a revision did, for watchers.
#[derive(Default)]
pub(crate) struct Finished {
    pub changes: Vec<Change>,
    pub steps: Vec<Step>,
}

impl Finished {
    pub fn append(&mut self, mut later: Finished) {
        self.changes.append(&mut later.changes);
        self.steps.append(&mut later.steps);
    }
}

/// A put, with everything decided but what is kept.
pub(crate) struct Write<'a> {
    pub key: &'a [u8],
    /// The key's, if it was looked up.
    pub slot: Option<&'a Slot>,
    /// None keeps the value.
    pub value: Option<&'a [u8]>,
    pub null: bool,
    /// None keeps the binding.
    pub lease: Option<LeaseId>,
    /// The node event that it makes; 0 for none.
    pub event: u64,
    /// The event counts as the key's creation even if it was there.
    pub reborn: bool,
    /// The key is a node with an access list.
    pub restricted: bool,
}

impl View for Writing<'_> {
    fn shared(&self) -> &Shared {
        self.shared
    }
    fn revision(&self) -> Revision {
        let wrote = self.dirty || !self.changes.is_empty();
        Revision(if wrote {
            self.revision
        } else {
            self.revision - 1
        })
    }
    fn bound(&self) -> u64 {
        self.revision
    }
    fn with_index<T>(&self, read: impl FnOnce(&Index, bool) -> T) -> T {
        match &self.index {
            Some(index) => read(index, true),
            None => read(&self.shared.index.read(), true),
        }
    }
}

impl<'a> Writing<'a> {
    pub fn new(shared: &'a Shared, wall: WallMs) -> Writing<'a> {
        Writing {
            shared,
            index: None,
            revision: shared.revision().0 + 1,
            wall,
            changes: Vec::new(),
            undone: Vec::new(),
            dirty: false,
            leases: None,
            tree: None,
            events: Vec::new(),
            event: shared.event(),
            steps: Vec::new(),
            bytes: 0,
        }
    }

    fn index(&mut self) -> &mut Index {
        self.index.get_or_insert_with(|| self.shared.index.write())
    }

    /// The leases as they are so far, to be changed.
    pub(crate) fn leases(&mut self) -> &mut Leases {
        self.leases
            .get_or_insert_with(|| self.shared.leases.read().clone())
    }

    pub(crate) fn with_leases<T>(&self, read: impl FnOnce(&Leases) -> T) -> T {
        match &self.leases {
            Some(leases) => read(leases),
            None => read(&self.shared.leases.read()),
        }
    }

    pub(crate) fn with_tree<T>(&self, read: impl FnOnce(&Tree) -> T) -> T {
        match &self.tree {
            Some(tree) => read(tree),
            None => read(&self.shared.tree.read()),
        }
    }

    /// Whether a node has an access list so far.
    pub(crate) fn has_list(&self, path: &[u8]) -> bool {
        match &self.tree {
            Some(tree) => tree.restricted.contains(path),
            None => {
                self.shared.is_restricted() && self.shared.tree.read().restricted.contains(path)
            }
        }
    }

    /// A version that a list protects may be all that is left of it when its command ends.
    fn note_restricted(&self, figures: &Figures) {
        if figures.restricted {
            self.shared.note_restricted();
        }
    }

    /// The tree as it is so far, to be changed.
    pub(crate) fn tree(&mut self) -> &mut Tree {
        self.tree
            .get_or_insert_with(|| self.shared.tree.read().clone())
    }

    /// A node's value as it is so far.
    pub(crate) fn value(&self, path: &[u8]) -> Option<Entry> {
        tree::value(self.shared, path, Revision(self.revision))
    }

    /// Writes a key; returns the entry before, and after. Without a cause, what was there before
    /// tells. What a put keeps is empty where an earlier
    /// operation of the same transaction deleted the key.
    pub fn write(&mut self, write: &Write, cause: Option<Cause>) -> (Option<Entry>, Entry) {
        let known = write.slot.cloned();
        let slot = known.or_else(|| self.shared.find(write.key));
        let newest = slot.as_ref().map(Slot::newest);
        let sub = self.sub_of(newest.as_ref());
        let before = newest.filter(|entry| !entry.is_tombstone());
        let kept_lease = before.as_ref().map_or(LeaseId::NONE, Entry::lease);
        let figures = Figures {
            created: before
                .as_ref()
                .map_or(self.revision, |before| before.created().0),
            modified: self.revision,
            sub,
            count: before.as_ref().map_or(0, Entry::version) + 1,
            lease: write.lease.unwrap_or(kept_lease),
            written: self.wall,
            event: write.event,
            null: write.null,
            restricted: write.restricted,
        };
        let kept_value = before.as_ref().map_or(&[][..], Entry::value);
        let mut birth = before.as_ref().map_or(
            Birth {
                wall: self.wall,
                event: write.event,
            },
            Entry::birth,
        );
        if write.reborn {
            birth.event = write.event;
        }
        self.note_restricted(&figures);
        let stored = Stored::new(&figures, birth, write.value.unwrap_or(kept_value));
        let slot = match slot {
            Some(slot) => {
                if before.is_none() {
                    self.index().set_live(write.key, true);
                }
                self.replace(&slot, stored);
                slot
            }
            None => self.appear(write.key, stored),
        };
        self.rebind(&slot, kept_lease, figures.lease);
        let after = slot.newest();
        self.count(write.key, 0, len_of(Some(&after)) - len_of(before.as_ref()));
        let told = if before.is_some() {
            Cause::Set
        } else {
            Cause::Create
        };
        self.note(after.clone(), before.clone(), cause.unwrap_or(told));
        (before, after)
    }

    /// The slots of the live keys of a span, in order.
    pub fn live_slots(&self, span: &Span) -> Vec<Slot> {
        let mut slots = Vec::new();
        if span.end == End::Single {
            let slot = self.shared.find(&span.start);
            slots.extend(slot.filter(|slot| !slot.newest().is_tombstone()));
        } else {
            let scan = Scan {
                before: span.before(),
                live_only: true,
                max: usize::MAX,
            };
            self.with_index(|index, _| index.scan(Bound::Included(&span.start), &scan, &mut slots));
        }
        slots
    }

    /// Takes the value of one key that is live; returns the entry before.
    pub fn erase(&mut self, slot: &Slot, cause: Cause, event: u64) -> Entry {
        let before = slot.newest();
        self.count(slot.key(), 0, -len_of(Some(&before)));
        self.rebind(slot, before.lease(), LeaseId::NONE);
        let sub = self.sub_of(Some(&before));
        let is_new = self
            .changes
            .get(sub as usize)
            .is_some_and(|change| change.previous.is_none());
        if is_new {
            self.undone.push(before.sub());
            self.shrink(before.cost());
            self.take_off(slot);
            return before;
        }
        self.index().set_live(slot.key(), false);
        let figures = Figures {
            restricted: self.has_list(slot.key()),
            ..Figures::tombstone(self.revision, sub, self.wall, event)
        };
        self.note_restricted(&figures);
        self.replace(slot, Stored::new(&figures, before.birth(), b""));
        self.note(slot.newest(), Some(before.clone()), cause);
        before
    }

    /// The place among this revision's changes: the key's own if it was touched before.
    fn sub_of(&self, newest: Option<&Entry>) -> u32 {
        match newest {
            Some(newest) if newest.modified().0 == self.revision => newest.sub(),
            Some(_) | None => u32::try_from(self.changes.len())
                .ok()
                .filter(|sub| *sub <= SUB_MAX)
                .expect("no command is large enough to hold 2^30 changes"),
        }
    }

    fn appear(&mut self, key: &[u8], first: Stored) -> Slot {
        let slot = Slot::new(key, first);
        self.index().insert(slot.clone(), true);
        self.shared.slots.insert(slot.clone());
        self.grow(slot.newest().cost());
        slot
    }

    fn replace(&mut self, slot: &Slot, stored: Stored) {
        if let Some(replaced) = slot.push(stored) {
            self.shrink(replaced.cost());
        }
        self.grow(slot.newest().cost());
    }

    /// Takes off what this revision put on a slot, as if it had never been.
    fn take_off(&mut self, slot: &Slot) {
        if slot.pop().is_some() {
            let live = !slot.newest().is_tombstone();
            self.index().set_live(slot.key(), live);
        } else {
            self.index().remove(slot.key());
            self.shared.slots.remove(slot.key());
        }
    }

    /// Notes what happened to a key; a later step at the same key takes the earlier one's place,
    /// since watchers get one event for each key and revision.
    fn note(&mut self, entry: Entry, previous: Option<Entry>, cause: Cause) {
        let sub = entry.sub() as usize;
        if let Some(change) = self.changes.get_mut(sub) {
            change.entry = entry;
            change.cause = cause;
        } else {
            self.changes.push(Change {
                entry,
                previous,
                cause,
            });
        }
    }

    fn rebind(&mut self, slot: &Slot, from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        let leases = self.leases();
        if let Some(lease) = leases.get_mut(&from) {
            lease.keys.remove(slot);
        }
        if let Some(lease) = leases.get_mut(&to) {
            lease.keys.insert(slot.clone());
        }
    }

    pub(crate) fn grow(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    pub(crate) fn shrink(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_sub(bytes);
    }

    /// Forgets everything, as if nothing had been asked for.
    pub fn abort(mut self) {
        for change in std::mem::take(&mut self.changes) {
            let slot = change.entry.slot();
            if slot.newest().modified().0 == self.revision {
                self.take_off(slot);
            }
        }
    }

    /// Publishes the revision, if anything was changed, and returns what was.
    pub fn finish(mut self) -> Finished {
        // A lease may have ended that had no keys.
        if let Some(leases) = self.leases.take() {
            *self.shared.leases.write() = leases;
        }
        self.shared.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        if self.changes.is_empty() && !self.dirty {
            return Finished::default();
        }
        if !self.undone.is_empty() {
            self.undone.sort_unstable();
            self.changes
                .retain(|change| self.undone.binary_search(&change.entry.sub()).is_err());
        }
        let mut history = self.shared.history.write();
        for change in &self.changes {
            history.push(Trace {
                revision: self.revision,
                slot: change.entry.slot().clone(),
            });
        }
        drop(history);
        let before = self.shared.revision().0;
        assert!(invariants::revision_advances(before, self.revision));
        let (shared, tree, revision) = (self.shared, self.tree, self.revision);
        shared.publish_with(self.events, self.event, || match tree {
            Some(tree) => {
                let mut published = shared.tree.write();
                shared.put_tree(&mut published, tree);
                shared.publish(revision);
            }
            None => shared.publish(revision),
        });
        Finished {
            changes: self.changes,
            steps: self.steps,
        }
    }

    /// Counts a node event, if the key is a node; 0 if it is not.
    pub(crate) fn next_event(&mut self, key: &[u8]) -> u64 {
        if !tree::is_path(key) {
            return 0;
        }
        self.event += 1;
        self.event
    }
}

/// Bytes of a value that may be there.
pub(crate) fn len_of(entry: Option<&Entry>) -> i64 {
    let bytes = entry.map_or(0, |entry| entry.value().len());
    i64::try_from(bytes).expect("values fit in memory")
}
