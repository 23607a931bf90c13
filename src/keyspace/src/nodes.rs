//! The writer's side of the path tree: what keys coming and going mean for the nodes above them.
//! The steps that address nodes themselves are in [`steps`].

pub(crate) mod steps;

use crate::aside::{Aside, Tally};
use crate::change::Cause;
use crate::command::{Delete, Put};
use crate::node::{Deadline, Event, EventNode, Happening, KeyName, Kind, Name, NodeView, Step};
use crate::slot::{Entry, Slot};
use crate::tree::{self, Node};
use crate::types::{LeaseId, Revision, WallMs};
use crate::write::{Write, Writing};
use std::sync::Arc;

/// Keys: their nodes follow.
impl Writing<'_> {
    /// Puts a key; returns the entry before. A deadline that the node had goes, as one does that a
    /// write does not ask to keep.
    pub fn put(&mut self, put: &Put) -> Option<Entry> {
        let write = Write {
            key: &put.key,
            slot: None,
            value: put.value.as_deref(),
            null: false,
            lease: put.lease,
            event: self.next_event(&put.key),
            reborn: false,
            restricted: self.has_list(&put.key),
        };
        let (before, after) = self.write(&write, None);
        if write.event == 0 {
            return before;
        }
        let (previous, ends, acl) = self.with_tree(|tree| {
            let node = tree.get(write.key);
            let ends = node.is_some_and(|node| node.deadline.is_some());
            let acl = tree.acl(write.key);
            (tree::event_node(before.clone(), node), ends, acl)
        });
        let name = Name::Key(KeyName(after.slot().clone()));
        if previous.is_some() {
            self.steps.push(Step {
                revision: Revision(self.revision),
                name,
                what: Happening::Written,
                acl,
                parent_acl: None,
            });
            if before.is_none() {
                self.value_came(write.key);
            }
        } else {
            self.link(write.key, false);
            self.step(name, Happening::Created);
        }
        if ends && let Some(node) = self.record(write.key) {
            let deadline = next_deadline(&node, Deadline::Clear, self.wall);
            self.set_record(write.key, Some(Node { deadline, ..node }));
        }
        let cause = if before.is_some() {
            Cause::Set
        } else {
            Cause::Create
        };
        let entry = Some(after.clone());
        let node = self.with_tree(|tree| tree::event_node(entry, tree.get(write.key)));
        let node = node.expect("a value makes a node");
        // Who waits for events takes a directory's value for nothing.
        let silent = previous.as_ref().is_some_and(|node| node.directory);
        self.tell_write(cause, &after, node, previous, silent);
        before
    }

    /// Deletes the keys of a span; returns the entries before.
    pub fn delete(&mut self, delete: &Delete) -> Vec<Entry> {
        let slots = self.live_slots(&delete.span);
        self.delete_slots(&slots, Cause::Delete)
    }

    /// Removes a lease and deletes what is bound to it, in key order; returns the number of keys.
    pub fn end_lease(&mut self, lease: LeaseId, cause: Cause) -> Option<u64> {
        if !self.with_leases(|leases| leases.contains_key(&lease)) {
            return None;
        }
        let ended = self.leases().remove(&lease)?;
        self.shrink(ended.cost());
        let slots: Vec<Slot> = ended.keys.into_iter().collect();
        Some(self.delete_slots(&slots, cause).len() as u64)
    }

    /// Keys go in their order; then nodes go from below, so that whether one stays for the sake of
    /// what lies beneath is judged by what is left in the end.
    fn delete_slots(&mut self, slots: &[Slot], cause: Cause) -> Vec<Entry> {
        let mut erased = Vec::with_capacity(slots.len());
        for slot in slots {
            let event = self.next_event(slot.key());
            let before = self.erase(slot, cause, event);
            if event > 0 {
                let entry = Some(before.clone());
                let previous = self.with_tree(|tree| tree::event_node(entry, tree.get(slot.key())));
                let name = Name::Key(KeyName(slot.clone()));
                // A directory that loses its value stays, or goes unnoticed with the last beneath it.
                let silent = previous.as_ref().is_some_and(|node| node.directory);
                self.tell_end(cause, name, event, previous, silent);
            }
            erased.push(before);
        }
        let recorded: Vec<bool> = erased
            .iter()
            .map(|before| self.has_record(before.key()))
            .collect();
        for (before, recorded) in erased.iter().zip(recorded).rev() {
            // One that had children may have gone with the last of them.
            let gone = recorded && !self.has_record(before.key());
            if tree::is_path(before.key()) && !gone {
                self.value_gone(before);
            }
        }
        erased
    }

    /// A node that was there has a value now.
    fn value_came(&mut self, path: &[u8]) {
        let node = self.record(path).expect("what has no value has a record");
        let puts_before = node.puts_before + 1;
        self.set_record(
            path,
            Some(Node {
                puts_before,
                ..node
            }),
        );
    }

    /// A value has gone: its node stays if something lies beneath or it was made a directory.
    fn value_gone(&mut self, before: &Entry) {
        let path = before.key();
        let stays = |node: &Node| node.children > 0 || node.directory;
        let Some(node) = self.record(path).filter(stays) else {
            return self.unlink(path);
        };
        let node = Node {
            modified: self.revision,
            written: self.wall,
            puts_before: node.puts_before + before.version(),
            created_event: before.created_event(),
            modified_event: before.event(),
            ..node
        };
        self.set_record(path, Some(node));
        let name = Name::Key(KeyName(before.slot().clone()));
        self.step(name, Happening::Emptied);
    }

    /// Counts a node that comes to be as its parent's child; makes the parent if need be. With
    /// `keep`, the parent will stay when its last child goes.
    fn link(&mut self, path: &[u8], keep: bool) {
        let Some(parent) = tree::parent(path) else {
            return;
        };
        let known = self.record(parent).or_else(|| {
            let entry = self.value(parent)?;
            Some(Node::new(entry.created().0, entry.born()))
        });
        let mut node = known.unwrap_or_else(|| {
            self.link(parent, keep);
            self.step(Name::Path(parent.into()), Happening::Created);
            Node {
                created_event: self.event,
                modified_event: self.event,
                ..Node::new(self.revision, self.wall)
            }
        });
        node.children += 1;
        node.creates = node.creates.wrapping_add(1);
        node.children_changed = self.revision;
        node.kept |= keep;
        if matches!(node.kind, Kind::Container { .. }) {
            node.deadline = None;
        }
        self.set_record(parent, Some(node));
    }

    /// Takes a node away that has neither value nor children; its parent may go with it.
    fn unlink(&mut self, path: &[u8]) {
        self.step(Name::Path(path.into()), Happening::Deleted);
        if self.has_record(path) {
            self.set_record(path, None);
        }
        let parent = tree::parent(path).expect("the root always stays");
        let mut node = self.record(parent).expect("who has a child has a record");
        node.children = node
            .children
            .checked_sub(1)
            .expect("every child was counted");
        node.children_changed = self.revision;
        if let Kind::Container { linger_ms } = node.kind
            && node.children == 0
        {
            node.deadline = Some(WallMs(self.wall.0.saturating_add(linger_ms)));
        }
        let stays = node.stands_alone() || self.value(parent).is_some();
        self.set_record(parent, Some(node));
        if !stays {
            self.unlink(parent);
        }
    }

    fn record(&self, path: &[u8]) -> Option<Node> {
        self.with_tree(|tree| tree.get(path).cloned())
    }

    fn has_record(&self, path: &[u8]) -> bool {
        self.with_tree(|tree| tree.get(path).is_some())
    }

    fn set_record(&mut self, path: &[u8], node: Option<Node>) {
        let (before, after) = self.tree().put(path, node);
        self.shrink(before);
        self.grow(after);
        self.dirty = true;
    }

    /// Counts that so much more lies at a path, where that is counted.
    pub(crate) fn count(&mut self, path: &[u8], nodes: i64, bytes: i64) {
        let more = Tally { nodes, bytes };
        if more == Tally::default() {
            return;
        }
        let counted = self.with_tree(|tree| {
            let name = tree.quotas.over(path)?.tally.clone()?;
            tree::is_path(path).then_some(name)
        });
        let Some(name) = counted else { return };
        let node = self.record(&name).expect("what counts is there");
        let held = node.aside.as_deref().expect("what counts is aside");
        let aside = Some(Arc::new(Aside {
            tally: held.tally.plus(more),
            ..held.clone()
        }));
        self.set_record(&name, Some(Node { aside, ..node }));
    }

    /// Notes what happens to a node, while its record and that of the node above are there.
    fn step(&mut self, name: Name, what: Happening) {
        let path = name.as_bytes();
        let parent = match what {
            Happening::Created | Happening::Deleted => tree::parent(path),
            Happening::Written | Happening::Emptied => None,
        };
        let (acl, parent_acl) = self.with_tree(|tree| {
            let parent_acl = parent.and_then(|parent| tree.acl(parent));
            (tree.acl(path), parent_acl)
        });
        match what {
            Happening::Created => self.count(name.as_bytes(), 1, 0),
            Happening::Deleted => self.count(name.as_bytes(), -1, 0),
            Happening::Written | Happening::Emptied => {}
        }
        self.steps.push(Step {
            revision: Revision(self.revision),
            name,
            what,
            acl,
            parent_acl,
        });
    }

    fn view(&self, path: &[u8]) -> Option<NodeView> {
        let value = self.value(path);
        self.with_tree(|tree| tree::view(value, tree.get(path)))
    }

    /// A node as events tell it, so far.
    fn event_node(&self, path: &[u8]) -> Option<EventNode> {
        let value = self.value(path);
        self.with_tree(|tree| tree::event_node(value, tree.get(path)))
    }

    fn tell_write(
        &mut self,
        cause: Cause,
        after: &Entry,
        node: EventNode,
        previous: Option<EventNode>,
        silent: bool,
    ) {
        self.events.push(Event {
            index: after.event(),
            at: self.wall,
            cause,
            name: Name::Key(KeyName(after.slot().clone())),
            node,
            previous,
            silent,
            restricted: self.has_list(after.key()),
        });
    }

    /// Called while the node's record is there.
    fn tell_end(
        &mut self,
        cause: Cause,
        name: Name,
        event: u64,
        previous: Option<EventNode>,
        silent: bool,
    ) {
        let restricted = self.has_list(name.as_bytes());
        self.events.push(Event {
            index: event,
            at: self.wall,
            cause,
            name,
            node: EventNode {
                entry: None,
                directory: previous.as_ref().is_some_and(|node| node.directory),
                created: previous.as_ref().map_or(event, |node| node.created),
                modified: event,
                deadline: None,
            },
            previous,
            silent,
            restricted,
        });
    }
}

/// A node's deadline after a write. One that ends when idle counts from each write.
fn next_deadline(node: &Node, deadline: Deadline, wall: WallMs) -> Option<WallMs> {
    match (node.kind, deadline) {
        (Kind::Idle { ttl_ms }, _) => Some(WallMs(wall.0.saturating_add(ttl_ms))),
        // An empty container's end is not in the hands of who writes it.
        (Kind::Plain, Deadline::Keep)
        | (Kind::Container { .. }, Deadline::Keep | Deadline::Clear) => node.deadline,
        (Kind::Plain, Deadline::Clear) => None,
        (Kind::Plain | Kind::Container { .. }, Deadline::At(deadline)) => Some(deadline),
    }
}
