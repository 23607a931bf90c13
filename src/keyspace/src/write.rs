//! One revision in the making: versions go into their slots, and all become visible at once.

use crate::change::{Cause, Change};
use crate::history::Trace;
use crate::index::{Index, Scan};
use crate::invariants;
use crate::lease::Lease;
use crate::read::View;
use crate::shared::Shared;
use crate::slot::{Entry, Figures, Slot, Stored};
use crate::types::{End, LeaseId, Revision, Span, WallMs};
use parking_lot::RwLockWriteGuard;
use std::ops::Bound;
use std::sync::atomic::Ordering;

/// The writer at work on the next revision. Its own reads see what it has written so far.
pub(crate) struct Writing<'a> {
    shared: &'a Shared,
    /// Held from the first key that appears or disappears on.
    index: Option<RwLockWriteGuard<'a, Index>>,
    revision: u64,
    wall: WallMs,
    /// By `sub`.
    changes: Vec<Change>,
    /// Those of `changes` that came to nothing: keys created and deleted at this revision.
    undone: Vec<u32>,
}

/// A put, with everything decided but what is kept.
pub(crate) struct Write<'a> {
    pub key: &'a [u8],
    /// None keeps the value.
    pub value: Option<&'a [u8]>,
    /// None keeps the binding.
    pub lease: Option<LeaseId>,
}

impl View for Writing<'_> {
    fn shared(&self) -> &Shared {
        self.shared
    }
    fn revision(&self) -> Revision {
        Revision(if self.changes.is_empty() {
            self.revision - 1
        } else {
            self.revision
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
        }
    }

    fn index(&mut self) -> &mut Index {
        self.index.get_or_insert_with(|| self.shared.index.write())
    }

    /// Writes one key; returns the entry before. What a put keeps is empty where an earlier
    /// operation of the same transaction deleted the key.
    pub fn put(&mut self, write: &Write, cause: Cause) -> Option<Entry> {
        let slot = self.shared.find(write.key);
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
        };
        let kept_value = before.as_ref().map_or(&[][..], Entry::value);
        let born = before.as_ref().map_or(self.wall, Entry::born);
        let stored = Stored::new(&figures, born, write.value.unwrap_or(kept_value));
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
        self.record(slot.newest(), before.clone(), cause);
        before
    }

    /// Deletes the keys of a span; returns the entries before.
    pub fn delete(&mut self, span: &Span, cause: Cause) -> Vec<Entry> {
        let mut slots = Vec::new();
        if span.end == End::Single {
            slots.extend(self.shared.find(&span.start));
        } else {
            let scan = Scan {
                before: span.before(),
                live_only: true,
                max: usize::MAX,
            };
            self.with_index(|index, _| index.scan(Bound::Included(&span.start), &scan, &mut slots));
        }
        slots
            .iter()
            .filter_map(|slot| self.delete_slot(slot, cause))
            .collect()
    }

    /// Deletes one key, if it is there; returns the entry before.
    pub fn delete_slot(&mut self, slot: &Slot, cause: Cause) -> Option<Entry> {
        let before = Some(slot.newest()).filter(|entry| !entry.is_tombstone())?;
        self.rebind(slot, before.lease(), LeaseId::NONE);
        let sub = self.sub_of(Some(&before));
        let is_new = self
            .changes
            .get(sub as usize)
            .is_some_and(|change| change.previous.is_none());
        if is_new {
            self.undo(slot, &before);
            return Some(before);
        }
        self.index().set_live(slot.key(), false);
        let figures = Figures::tombstone(self.revision, sub, self.wall);
        self.replace(slot, Stored::new(&figures, before.born(), b""));
        self.record(slot.newest(), Some(before.clone()), cause);
        Some(before)
    }

    /// The place among this revision's changes: the key's own if it was touched before.
    fn sub_of(&self, newest: Option<&Entry>) -> u32 {
        match newest {
            Some(newest) if newest.modified().0 == self.revision => newest.sub(),
            Some(_) | None => {
                u32::try_from(self.changes.len()).expect("a command holds fewer than 2^32 changes")
            }
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

    /// Takes back a key that this revision created, as if it had never been.
    fn undo(&mut self, slot: &Slot, newest: &Entry) {
        self.undone.push(newest.sub());
        self.shrink(newest.cost());
        if slot.pop().is_some() {
            self.index().set_live(slot.key(), false);
        } else {
            self.index().remove(slot.key());
            self.shared.slots.remove(slot.key());
        }
    }

    /// Notes what happened to a key; a later step at the same key takes the earlier one's place,
    /// since watchers get one event for each key and revision.
    fn record(&mut self, entry: Entry, previous: Option<Entry>, cause: Cause) {
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
        let mut leases = self.shared.leases.write();
        if let Some(lease) = leases.get_mut(&from) {
            lease.keys.remove(slot);
        }
        if let Some(lease) = leases.get_mut(&to) {
            lease.keys.insert(slot.clone());
        }
    }

    /// Removes a lease and deletes what is bound to it, in key order; returns the number of keys.
    pub fn end_lease(&mut self, lease: LeaseId, cause: Cause) -> Option<u64> {
        let ended: Lease = self.shared.leases.write().remove(&lease)?;
        self.shrink(ended.cost());
        for slot in &ended.keys {
            self.delete_slot(slot, cause);
        }
        Some(ended.keys.len() as u64)
    }

    fn grow(&self, bytes: u64) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: u64) {
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Publishes the revision, if anything was changed, and returns the changes.
    pub fn finish(mut self) -> Vec<Change> {
        if self.changes.is_empty() {
            return self.changes;
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
        self.shared.publish(self.revision);
        self.changes
    }
}
