//! The writer's side of the path tree: what keys coming and going mean for the nodes above them, and
//! the steps that address nodes themselves.

use crate::access::{self, AccessList, Identity, Permissions};
use crate::aside::{self, Aside, Role, Tally};
use crate::change::Cause;
use crate::command::{Delete, Put};
use crate::node::{
    Action, Deadline, Event, EventNode, Happening, KeyName, Kind, Name, NodeAnswer, NodeOp,
    NodeRefusal, NodeTest, NodeView, NodeWrite, Parents, Sequence, Step,
};
use crate::slot::{Entry, Slot};
use crate::tree::{self, Node, ROOT};
use crate::types::{End, LeaseId, Revision, Span, WallMs};
use crate::write::{Write, Writing, len_of};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

type Refused<T> = Result<T, NodeRefusal>;

/// Keys: their nodes follow.
impl Writing<'_> {
    /// Puts a key; returns the entry before. A deadline that the node had goes, as one does that a
    /// write does not ask to keep.
    pub fn put(&mut self, put: &Put) -> Option<Entry> {
        let write = Write {
            key: &put.key,
            value: put.value.as_deref(),
            null: false,
            lease: put.lease,
            event: self.next_event(&put.key),
            reborn: false,
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
        self.tell_write(cause, &after, previous, false);
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
                self.tell_end(cause, name, event, previous);
            }
            erased.push(before);
        }
        let recorded: Vec<bool> = erased
            .iter()
            .map(|before| self.record(before.key()).is_some())
            .collect();
        for (before, recorded) in erased.iter().zip(recorded).rev() {
            // One that had children may have gone with the last of them.
            let gone = recorded && self.record(before.key()).is_none();
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
        let mut node = match (self.record(parent), self.value(parent)) {
            (Some(node), _) => node,
            (None, Some(entry)) => Node::new(entry.created().0, entry.born()),
            (None, None) => {
                self.link(parent, keep);
                self.step(Name::Path(parent.into()), Happening::Created);
                Node {
                    created_event: self.event,
                    modified_event: self.event,
                    ..Node::new(self.revision, self.wall)
                }
            }
        };
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
        if self.record(path).is_some() {
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

    fn set_record(&mut self, path: &[u8], node: Option<Node>) {
        let (before, after) = self.tree().put(path, node);
        self.shrink(before);
        self.grow(after);
        self.dirty = true;
    }

    /// Counts that so much more lies at a path, where that is counted.
    pub(crate) fn count(&mut self, path: &[u8], nodes: i64, bytes: i64) {
        let more = Tally { nodes, bytes };
        let counted = self.with_tree(|tree| {
            let name = tree.quotas.over(path)?.tally.clone()?;
            (more != Tally::default() && tree::is_path(path)).then_some(name)
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

    /// What lies at and beneath a path.
    fn measure(&self, path: &[u8]) -> Tally {
        let slots = self.slots_from(path);
        let valued = slots.iter().map(|slot| Tally {
            nodes: 1,
            bytes: len_of(Some(&slot.newest())),
        });
        let records = self.records_from(path).into_iter();
        let valueless = records.filter(|path| self.value(path).is_none());
        let valueless = valueless.map(|_| Tally { nodes: 1, bytes: 0 });
        valued.chain(valueless).fold(Tally::default(), Tally::plus)
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
        previous: Option<EventNode>,
        silent: bool,
    ) {
        let entry = Some(after.clone());
        let node = self.with_tree(|tree| tree::event_node(entry, tree.get(after.key())));
        self.events.push(Event {
            index: after.event(),
            cause,
            name: Name::Key(KeyName(after.slot().clone())),
            node: node.expect("a value makes a node"),
            previous,
            silent,
        });
    }

    fn tell_end(&mut self, cause: Cause, name: Name, event: u64, previous: Option<EventNode>) {
        self.events.push(Event {
            index: event,
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
            silent: false,
        });
    }
}

/// Steps at nodes.
impl Writing<'_> {
    /// Does one step, on whose behalf; where access lists are not to be asked, on nobody's.
    pub fn node(&mut self, op: &NodeOp, by: Option<&[Identity]>) -> Refused<NodeAnswer> {
        let path = self.resolve(op)?;
        if is_root(&path) && !suits_root(&op.action) {
            return Err(NodeRefusal::BadPath);
        }
        let previous = self.view(&path);
        let parents = match &op.action {
            Action::Write(write) => Some(write.parents),
            Action::MakeDirectory { .. } => Some(Parents::Made),
            Action::Check | Action::Remove { .. } | Action::SetAcl(_) => None,
        };
        let parents = parents.filter(|_| previous.is_none());
        if let Some(parents) = parents {
            self.check_parents(&path, parents)?;
        }
        for test in &op.tests {
            self.check(&path, previous.as_ref(), test, by)?;
        }
        if parents == Some(Parents::Required) {
            self.check_parent_unbound(&path)?;
        }
        match &op.action {
            Action::Check => {}
            Action::Write(write) => self.write_node(&path, write, op.cause)?,
            Action::MakeDirectory { deadline } => {
                self.make_directory(&path, *deadline, op.cause);
            }
            Action::Remove { recursive } => {
                self.remove(&path, *recursive, op.cause)?;
            }
            Action::SetAcl(acl) => self.set_acl(&path, acl.clone(), previous.as_ref())?,
        }
        Ok(NodeAnswer {
            node: self.view(&path),
            path,
            previous,
        })
    }

    /// The path meant, with its number.
    fn resolve(&self, op: &NodeOp) -> Refused<Bytes> {
        let sequence = match &op.action {
            Action::Write(write) => write.sequence,
            Action::Check
            | Action::MakeDirectory { .. }
            | Action::Remove { .. }
            | Action::SetAcl(_) => None,
        };
        let numbered = |number: String| [&op.path[..], number.as_bytes()].concat();
        let path: Bytes = match sequence {
            None => Bytes::copy_from_slice(&op.path),
            Some(Sequence::Creates) => {
                // The path so far may end in a slash; what is appended makes a name of it.
                let probe = numbered("0".to_owned());
                let parent = tree::parent(&probe).and_then(|parent| self.view(parent));
                let creates = parent.ok_or(NodeRefusal::NoParent)?.creates;
                numbered(format!("{:010}", creates.cast_signed())).into()
            }
            Some(Sequence::Event) => numbered(format!("{:020}", self.event + 1)).into(),
        };
        let sound = match aside::is_aside(&path) {
            true => aside::is_path(&path) && suits_aside(&op.action),
            false => tree::is_path(&path),
        };
        if sound {
            Ok(path)
        } else {
            Err(NodeRefusal::BadPath)
        }
    }

    fn check_parents(&self, path: &[u8], parents: Parents) -> Refused<()> {
        match parents {
            Parents::Required => {
                let parent = tree::parent(path).and_then(|parent| self.view(parent));
                parent.map(|_| ()).ok_or(NodeRefusal::NoParent)
            }
            Parents::Made => {
                let is_file = |path: &&[u8]| self.view(path).is_some_and(|view| !view.directory);
                match ancestors(path).into_iter().find(is_file) {
                    Some(file) => Err(NodeRefusal::NotDirectory(Bytes::copy_from_slice(file))),
                    None => Ok(()),
                }
            }
        }
    }

    fn check_parent_unbound(&self, path: &[u8]) -> Refused<()> {
        let parent = tree::parent(path).and_then(|parent| self.value(parent));
        let bound = parent.is_some_and(|entry| entry.lease() != LeaseId::NONE);
        if bound {
            Err(NodeRefusal::ParentBound)
        } else {
            Ok(())
        }
    }

    /// The refusal of what needs a node that is not there.
    fn missing(&self, path: &[u8]) -> NodeRefusal {
        let gone = ancestors(path)
            .into_iter()
            .find(|above| self.view(above).is_none());
        NodeRefusal::Missing(Bytes::copy_from_slice(gone.unwrap_or(path)))
    }

    fn check(
        &self,
        path: &[u8],
        node: Option<&NodeView>,
        test: &NodeTest,
        by: Option<&[Identity]>,
    ) -> Refused<()> {
        let found = || node.ok_or_else(|| self.missing(path));
        let must = |holds: bool, refusal| if holds { Ok(()) } else { Err(refusal) };
        let allowed = |acl: Option<&AccessList>, wanted: Permissions| {
            let may = by.is_none_or(|by| access::allows(acl.map(|acl| &**acl), by, wanted));
            must(may, NodeRefusal::Denied)
        };
        match test {
            NodeTest::Exists => found().map(|_| ()),
            NodeTest::Missing => must(node.is_none(), NodeRefusal::Exists),
            NodeTest::Version(version) => {
                must(found()?.puts == *version, NodeRefusal::OtherVersion)
            }
            NodeTest::AclVersion(version) => must(
                found()?.acl_version == *version,
                NodeRefusal::OtherAclVersion,
            ),
            NodeTest::Same { value, event } => {
                let node = found()?;
                let is = node.entry.as_ref().map_or(&[][..], Entry::value);
                let other_value = value.as_ref().filter(|value| value[..] != *is);
                let other_event = event.filter(|event| *event != node.modified_event);
                let refusal = NodeRefusal::Changed {
                    value: other_value.map(|_| Bytes::copy_from_slice(is)),
                    event: other_event.map(|_| node.modified_event),
                };
                must(other_value.is_none() && other_event.is_none(), refusal)
            }
            NodeTest::File => must(
                node.is_none_or(|node| !node.directory),
                NodeRefusal::Directory,
            ),
            NodeTest::Room { bytes } => must(self.has_room(path, node, *bytes), NodeRefusal::Full),
            NodeTest::Allowed(wanted) => allowed(found()?.acl.as_ref(), *wanted),
            NodeTest::ParentAllowed(wanted) => {
                let parent = tree::parent(path).and_then(|parent| self.view(parent));
                let parent = parent.ok_or(NodeRefusal::NoParent)?;
                allowed(parent.acl.as_ref(), *wanted)
            }
        }
    }

    /// Whether a value of so many bytes keeps within the nearest limits.
    fn has_room(&self, path: &[u8], node: Option<&NodeView>, bytes: u64) -> bool {
        let Some(quota) = self.with_tree(|tree| tree.quotas.over(path).cloned()) else {
            return true;
        };
        let counter = quota.tally.and_then(|name| self.record(&name));
        let held = counter.as_ref().and_then(|node| node.aside.as_deref());
        let (Some(limits), Some(held)) = (quota.limits, held) else {
            return true;
        };
        let entry = node.and_then(|node| node.entry.as_ref());
        let more = Tally {
            nodes: i64::from(node.is_none()),
            bytes: bytes.cast_signed() - len_of(entry),
        };
        limits.admit(held.tally.plus(more), more)
    }

    /// Writes a node that is no key: its record holds its value.
    fn write_aside(&mut self, path: &[u8], write: &NodeWrite) {
        let tally = match &write.role {
            Role::Tally { of } => self.measure(of),
            Role::Plain | Role::Limits { .. } => Tally::default(),
        };
        let known = self.record(path);
        let what = if known.is_some() {
            Happening::Written
        } else {
            self.link(path, true);
            Happening::Created
        };
        let node = match known {
            Some(node) => Node {
                puts_before: node.puts_before + 1,
                ..node
            },
            None => Node {
                acl: write.acl.clone(),
                kept: true,
                ..Node::new(self.revision, self.wall)
            },
        };
        let value = write.value.as_deref().unwrap_or_default();
        let held = Aside {
            value: Bytes::copy_from_slice(value),
            null: write.null,
            role: write.role.clone(),
            tally,
        };
        let node = Node {
            modified: self.revision,
            written: self.wall,
            aside: Some(Arc::new(held)),
            ..node
        };
        self.set_record(path, Some(node));
        self.step(Name::Path(path.into()), what);
    }

    fn write_node(&mut self, path: &[u8], write: &NodeWrite, cause: Cause) -> Refused<()> {
        if aside::is_aside(path) {
            self.write_aside(path, write);
            return Ok(());
        }
        if let Some(lease) = write.lease.filter(|lease| *lease != LeaseId::NONE)
            && !self.with_leases(|leases| leases.contains_key(&lease))
        {
            return Err(NodeRefusal::LeaseNotFound(lease));
        }
        let previous = self.event_node(path);
        let put = Write {
            key: path,
            value: write.value.as_deref(),
            null: write.null,
            lease: write.lease,
            event: self.next_event(path),
            reborn: write.reborn,
        };
        let (_, after) = self.write(&put, Some(cause));
        let what = if previous.is_some() {
            Happening::Written
        } else {
            self.link(path, true);
            Happening::Created
        };
        let record = self.record(path);
        let is = record
            .clone()
            .unwrap_or_else(|| Node::new(after.created().0, after.born()));
        let mut node = is.clone();
        match &previous {
            None => {
                node.kind = write.kind;
                node.acl = write.acl.clone();
            }
            Some(valueless) if valueless.entry.is_none() => node.puts_before += 1,
            Some(_) => {}
        }
        node.deadline = next_deadline(&node, write.deadline, self.wall);
        if node != is {
            self.set_record(path, Some(node));
        }
        self.step(Name::Key(KeyName(after.slot().clone())), what);
        self.tell_write(cause, &after, previous, write.silent);
        Ok(())
    }

    fn make_directory(&mut self, path: &[u8], deadline: Deadline, cause: Cause) {
        let previous = self.event_node(path);
        let event = self.next_event(path);
        let value = self
            .shared
            .find(path)
            .filter(|slot| !slot.newest().is_tombstone());
        let puts = self.view(path).map_or(0, |view| view.puts);
        if let Some(slot) = &value {
            self.erase(slot, Cause::Delete, event);
            self.step(Name::Path(path.into()), Happening::Emptied);
        }
        if previous.is_none() {
            self.link(path, true);
            self.step(Name::Path(path.into()), Happening::Created);
        }
        let is_new = value.is_some() || previous.is_none();
        let record = self
            .record(path)
            .unwrap_or_else(|| Node::new(self.revision, self.wall));
        let mut node = Node {
            directory: true,
            created_event: if is_new { event } else { record.created_event },
            modified_event: event,
            deadline: next_deadline(&record, deadline, self.wall),
            ..record
        };
        if value.is_some() {
            node.puts_before = puts;
            node.modified = self.revision;
            node.written = self.wall;
        }
        self.set_record(path, Some(node));
        let node = self.event_node(path).expect("a directory exists");
        self.events.push(Event {
            index: event,
            cause,
            name: Name::Path(path.into()),
            node,
            previous,
            silent: false,
        });
    }

    /// Removes a node, and with `recursive` all beneath it, as one event.
    fn remove(&mut self, path: &[u8], recursive: bool, cause: Cause) -> Refused<()> {
        let Some(previous) = self.event_node(path) else {
            return Err(self.missing(path));
        };
        let has_children = self.record(path).is_some_and(|node| node.children > 0);
        if has_children && !recursive {
            return Err(NodeRefusal::NotEmpty);
        }
        let event = self.next_event(path);
        let records = self.records_from(path);
        let slots = self.slots_from(path);
        let mut ends: Vec<(&[u8], bool)> = records.iter().map(|path| (&path[..], true)).collect();
        for slot in &slots {
            self.erase(slot, cause, event);
            if self.record(slot.key()).is_none() {
                ends.push((slot.key(), false));
            }
        }
        ends.sort_unstable();
        for (path, recorded) in ends.into_iter().rev() {
            // One that only its children implied has gone with the last of them.
            if !recorded || self.record(path).is_some() {
                self.unlink(path);
            }
        }
        if event > 0 {
            self.tell_end(cause, Name::Path(path.into()), event, Some(previous));
        }
        Ok(())
    }

    /// The slots of the keys that are a node or beneath it.
    fn slots_from(&self, path: &[u8]) -> Vec<Slot> {
        let mut slots = self.live_slots(&Span::single(Bytes::copy_from_slice(path)));
        slots.extend(self.live_slots(&Span {
            start: tree::prefix(path).into(),
            end: End::Before(tree::beyond(path).into()),
        }));
        // Keys that are no paths are not beneath anything.
        slots.retain(|slot| tree::is_path(slot.key()));
        slots
    }

    /// The paths of the records of a node and of all beneath it.
    fn records_from(&self, path: &[u8]) -> Vec<Arc<[u8]>> {
        let (start, end) = (tree::prefix(path), tree::beyond(path));
        let bounds = (Bound::Excluded(&start[..]), Bound::Excluded(&end[..]));
        self.with_tree(|tree| {
            let own = tree
                .nodes
                .get_key_value(path)
                .map(|(name, _)| Arc::clone(name));
            let beneath = tree.nodes.range::<_, [u8]>(bounds);
            own.into_iter()
                .chain(beneath.map(|(name, _)| Arc::clone(name)))
                .collect()
        })
    }

    fn set_acl(
        &mut self,
        path: &[u8],
        acl: Option<AccessList>,
        previous: Option<&NodeView>,
    ) -> Refused<()> {
        let Some(previous) = previous else {
            return Err(self.missing(path));
        };
        let record = self.record(path);
        let record = record.unwrap_or_else(|| Node::new(previous.created.0, previous.born));
        let node = Node {
            acl,
            acl_version: record.acl_version.wrapping_add(1),
            ..record
        };
        self.set_record(path, Some(node));
        Ok(())
    }

    /// Ends a node whose deadline has passed, if it still has.
    pub fn expire_node(&mut self, path: &[u8]) {
        let deadline = self.record(path).and_then(|node| node.ends_at());
        if deadline.is_some_and(|deadline| deadline <= self.wall) {
            let removed = self.remove(path, true, Cause::Expire);
            removed.expect("a recursive removal of what is there is never refused");
        }
    }
}

fn is_root(path: &[u8]) -> bool {
    path == ROOT || path == aside::ROOT
}

/// Whether a node aside, which no session takes along and no time, can have this done to it.
fn suits_aside(action: &Action) -> bool {
    match action {
        Action::Check | Action::SetAcl(_) | Action::Remove { recursive: false } => true,
        Action::Write(write) => {
            write.lease.is_none_or(|lease| lease == LeaseId::NONE)
                && write.kind == Kind::Plain
                && !matches!(write.deadline, Deadline::At(_))
        }
        Action::MakeDirectory { .. } | Action::Remove { recursive: true } => false,
    }
}

/// Whether a root, which always is and never ends, can have this done to it.
fn suits_root(action: &Action) -> bool {
    match action {
        Action::Check | Action::SetAcl(_) => true,
        Action::Write(write) => !matches!(write.deadline, Deadline::At(_)),
        Action::MakeDirectory { .. } | Action::Remove { .. } => false,
    }
}

/// All paths above one, from the root down.
fn ancestors(path: &[u8]) -> Vec<&[u8]> {
    let mut above: Vec<&[u8]> =
        std::iter::successors(tree::parent(path), |p| tree::parent(p)).collect();
    above.reverse();
    above
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
