//! Steps at nodes: which node is meant, what it is tested for, and what is done to it.

use super::next_deadline;
use crate::access::{self, AccessList, Identity, Permissions};
use crate::aside::{self, Aside, Role, Tally};
use crate::auth::Rights;
use crate::change::Cause;
use crate::node::{
    Action, Deadline, Event, EventNode, Happening, KeyName, Kind, Name, NodeAnswer, NodeOp,
    NodeRefusal, NodeTest, NodeView, NodeWrite, Parents, Sequence,
};
use crate::slot::{Entry, Slot};
use crate::tree::{self, Node, ROOT};
use crate::types::{End, LeaseId, Span};
use crate::write::{Write, Writing, len_of};
use bytes::Bytes;
use std::cell::LazyCell;
use std::ops::Bound;
use std::sync::Arc;

type Refused<T> = Result<T, NodeRefusal>;

/// Who asks for steps.
pub(crate) struct Asker<'a> {
    /// By what access lists may name; none passes them all.
    pub ids: Option<&'a [Identity]>,
    /// What their roles permit.
    pub rights: Rights<'a>,
}

impl Writing<'_> {
    /// Does one step for someone.
    pub fn node(&mut self, op: &NodeOp, asker: &Asker<'_>) -> Refused<NodeAnswer> {
        let path = self.resolve(op);
        // Before anything is told of the node.
        check_rights(&asker.rights, path.as_ref().unwrap_or(&op.path), &op.action)?;
        let path = path?;
        if is_root(&path) && !suits_root(&op.action) {
            return Err(NodeRefusal::BadPath);
        }
        let previous = self.view(&path);
        let parents = match &op.action {
            Action::Write(write) => Some(write.parents),
            Action::MakeDirectory { .. } => Some(Parents::Made),
            Action::Check | Action::Remove { .. } | Action::SetAcl(_) => None,
        };
        let above = LazyCell::new(|| tree::parent(&path).and_then(|parent| self.view(parent)));
        match parents.filter(|_| previous.is_none()) {
            Some(Parents::Required) if above.is_none() => return Err(NodeRefusal::NoParent),
            Some(Parents::Made) => self.check_no_file_above(&path)?,
            Some(Parents::Required) | None => {}
        }
        for test in &op.tests {
            self.check(&path, previous.as_ref(), &above, test, asker.ids)?;
        }
        match &op.action {
            Action::Check => {}
            Action::Write(write) => {
                let node = self.write_node(&path, write, previous.as_ref(), op.cause)?;
                return Ok(NodeAnswer {
                    path,
                    node,
                    previous,
                });
            }
            Action::MakeDirectory { deadline, .. } => {
                if self.is_of_session(previous.as_ref()) {
                    return Err(NodeRefusal::NotDirectory(path));
                }
                self.make_directory(&path, previous.as_ref(), *deadline, op.cause);
            }
            Action::Remove { recursive } => {
                self.remove(&path, previous.as_ref(), *recursive, op.cause)?;
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
            Action::MakeDirectory { sequence, .. } => *sequence,
            Action::Check | Action::Remove { .. } | Action::SetAcl(_) => None,
        };
        let numbered = |number: String| [&op.path[..], number.as_bytes()].concat();
        let path: Bytes = match sequence {
            None => op.path.clone(),
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

    fn check_no_file_above(&self, path: &[u8]) -> Refused<()> {
        let is_file = |path: &&[u8]| self.view(path).is_some_and(|view| !view.directory);
        match ancestors(path).into_iter().find(is_file) {
            Some(file) => Err(NodeRefusal::NotDirectory(Bytes::copy_from_slice(file))),
            None => Ok(()),
        }
    }

    /// Whether a session owns the node: it is a file, and ends with it.
    fn is_of_session(&self, node: Option<&NodeView>) -> bool {
        let lease = lease_of(node);
        lease != LeaseId::NONE
            && self.with_leases(|leases| {
                let lease = leases.get(&lease);
                lease.is_some_and(|lease| lease.session.is_some())
            })
    }

    /// The refusal of what needs a node that is not there: what is in the way to it.
    fn missing(&self, path: &[u8]) -> NodeRefusal {
        for above in ancestors(path) {
            match self.view(above) {
                Some(view) if view.directory => {}
                Some(_) => return NodeRefusal::NotDirectory(Bytes::copy_from_slice(above)),
                None => return NodeRefusal::Missing(Bytes::copy_from_slice(above)),
            }
        }
        NodeRefusal::Missing(Bytes::copy_from_slice(path))
    }

    /// See [`NodeTest::Unrestricted`].
    fn is_restricted(&self, path: &[u8], there: bool) -> bool {
        if self.with_tree(|tree| tree.restricted.is_empty()) {
            return false;
        }
        let nearest = match there {
            true => Some(path),
            false => std::iter::successors(tree::parent(path), |path| tree::parent(path))
                .find(|above| self.view(above).is_some()),
        };
        self.with_tree(|tree| {
            nearest.is_some_and(|path| tree.restricted.contains(path))
                || tree.restricts(&beneath(path))
        })
    }

    fn check(
        &self,
        path: &[u8],
        node: Option<&NodeView>,
        above: &LazyCell<Option<NodeView>, impl FnOnce() -> Option<NodeView>>,
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
            NodeTest::Unrestricted => {
                let restricted = by.is_some() && self.is_restricted(path, node.is_some());
                must(!restricted, NodeRefusal::Denied)
            }
            NodeTest::Room { bytes } => must(self.has_room(path, node, *bytes), NodeRefusal::Full),
            NodeTest::Allowed(wanted) => allowed(found()?.acl.as_ref(), *wanted),
            NodeTest::ParentAllowed(wanted) => {
                let parent = above.as_ref().ok_or(NodeRefusal::NoParent)?;
                allowed(parent.acl.as_ref(), *wanted)
            }
            NodeTest::ParentUnbound => must(
                lease_of(above.as_ref()) == LeaseId::NONE,
                NodeRefusal::ParentBound,
            ),
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
        let known = self.record(path);
        let held = known.as_ref().and_then(|node| node.aside.as_deref());
        let tally = match (&write.role, held) {
            (Role::Plain | Role::Limits { .. }, _) => Tally::default(),
            // Measuring looks at all that is there, and every other write waits for it.
            (role, Some(held)) if held.role == *role => held.tally,
            (Role::Tally { of }, _) => self.measure(of),
        };
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

    /// Writes a node, which looked so; answers how it looks then.
    fn write_node(
        &mut self,
        path: &[u8],
        write: &NodeWrite,
        previous: Option<&NodeView>,
        cause: Cause,
    ) -> Refused<Option<NodeView>> {
        if aside::is_aside(path) {
            self.write_aside(path, write);
            return Ok(self.view(path));
        }
        if let Some(lease) = write.lease.filter(|lease| *lease != LeaseId::NONE)
            && !self.with_leases(|leases| leases.contains_key(&lease))
        {
            return Err(NodeRefusal::LeaseNotFound(lease));
        }
        let directory = previous.filter(|node| node.directory);
        if let Some(directory) = directory.filter(|_| write.spares_directory) {
            self.change_deadline(path, write, cause, EventNode::of(directory));
            return Ok(self.view(path));
        }
        let restricted = match &previous {
            None => write.acl.is_some(),
            Some(previous) => previous.acl.is_some(),
        };
        let put = Write {
            restricted,
            key: path,
            slot: previous.and_then(|node| Some(node.entry.as_ref()?.slot())),
            value: write.value.as_deref(),
            null: write.null,
            lease: write.lease.filter(|lease| {
                let frees = *lease == LeaseId::NONE;
                !(frees && self.is_of_session(previous))
            }),
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
        let is = record.unwrap_or_else(|| Node::new(after.created().0, after.born()));
        let mut node = is.clone();
        match previous {
            None => {
                node.kind = write.kind;
                node.acl = write.acl.clone();
            }
            Some(valueless) if valueless.entry.is_none() => node.puts_before += 1,
            Some(_) => {}
        }
        node.deadline = next_deadline(&node, write.deadline, self.wall);
        let view = tree::view(Some(after.clone()), Some(&node)).expect("a value makes a node");
        if node != is {
            self.set_record(path, Some(node));
        }
        self.step(Name::Key(KeyName(after.slot().clone())), what);
        let (told, previous) = (EventNode::of(&view), previous.map(EventNode::of));
        // Who waits for events takes a directory's value for nothing.
        let valued = previous
            .as_ref()
            .is_some_and(|node| node.directory && node.entry.is_some());
        self.tell_write(cause, &after, told, previous, write.silent || valued);
        Ok(Some(view))
    }

    /// Changes a directory's deadline and nothing else. Its event says that it was changed, but as in
    /// etcd the node itself does not: whoever compares by that finds it as it was.
    fn change_deadline(
        &mut self,
        path: &[u8],
        write: &NodeWrite,
        cause: Cause,
        previous: EventNode,
    ) {
        let index = self.next_event(path);
        let record = self.record(path).expect("a directory has a record");
        let deadline = next_deadline(&record, write.deadline, self.wall);
        self.set_record(path, Some(Node { deadline, ..record }));
        let node = EventNode {
            modified: index,
            deadline,
            ..previous.clone()
        };
        self.events.push(Event {
            index,
            at: self.wall,
            cause,
            name: Name::Path(path.into()),
            node,
            previous: Some(previous),
            silent: write.silent,
            restricted: self.has_list(path),
        });
    }

    /// Makes a node a directory, which looked so.
    fn make_directory(
        &mut self,
        path: &[u8],
        previous: Option<&NodeView>,
        deadline: Deadline,
        cause: Cause,
    ) {
        let event = self.next_event(path);
        let value = previous.and_then(|node| node.entry.as_ref());
        if let Some(value) = value {
            self.erase(value.slot(), Cause::Delete, event);
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
            node.puts_before = previous.map_or(0, |node| node.puts);
            node.modified = self.revision;
            node.written = self.wall;
        }
        self.set_record(path, Some(node));
        let node = self.event_node(path).expect("a directory exists");
        self.events.push(Event {
            index: event,
            at: self.wall,
            cause,
            name: Name::Path(path.into()),
            node,
            previous: previous.map(EventNode::of),
            silent: false,
            restricted: self.has_list(path),
        });
    }

    /// Removes a node, which looked so, and with `recursive` all beneath it, as one event.
    fn remove(
        &mut self,
        path: &[u8],
        previous: Option<&NodeView>,
        recursive: bool,
        cause: Cause,
    ) -> Refused<()> {
        let Some(previous) = previous else {
            return Err(self.missing(path));
        };
        let has_children = previous.children > 0;
        if has_children && !recursive {
            return Err(NodeRefusal::NotEmpty);
        }
        let event = self.next_event(path);
        if event > 0 {
            let told = Some(EventNode::of(previous));
            self.tell_end(cause, Name::Path(path.into()), event, told, false);
        }
        if !has_children {
            if let Some(value) = &previous.entry {
                self.erase(value.slot(), cause, event);
            }
            self.unlink(path);
            return Ok(());
        }
        let records = self.records_from(path);
        let slots = self.slots_from(path);
        let mut ends: Vec<(&[u8], bool)> = records.iter().map(|path| (&path[..], true)).collect();
        for slot in &slots {
            self.erase(slot, cause, event);
            if !self.has_record(slot.key()) {
                ends.push((slot.key(), false));
            }
        }
        ends.sort_unstable();
        for (path, recorded) in ends.into_iter().rev() {
            // One that only its children implied has gone with the last of them.
            if !recorded || self.has_record(path) {
                self.unlink(path);
            }
        }
        Ok(())
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

    /// The slots of the keys that are a node or beneath it.
    fn slots_from(&self, path: &[u8]) -> Vec<Slot> {
        let mut slots = self.live_slots(&Span::single(Bytes::copy_from_slice(path)));
        slots.extend(self.live_slots(&beneath(path)));
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
            let previous = self.view(path);
            let removed = self.remove(path, previous.as_ref(), true, Cause::Expire);
            removed.expect("a recursive removal of what is there is never refused");
        }
    }
}

/// Refuses a step that takes more than the roles permit at what it touches.
fn check_rights(rights: &Rights<'_>, path: &[u8], action: &Action) -> Refused<()> {
    let may = match action {
        Action::Check => Permissions::READ,
        Action::Write(_)
        | Action::MakeDirectory { .. }
        | Action::SetAcl(_)
        | Action::Remove { .. } => Permissions::WRITE,
    };
    let mut checked = rights.check_key(path, may);
    if matches!(action, Action::Remove { recursive: true }) {
        checked = checked.and_then(|()| rights.check(&beneath(path), may));
    }
    checked.map_err(|_| NodeRefusal::Denied)
}

/// What a node with a value is bound to.
fn lease_of(node: Option<&NodeView>) -> LeaseId {
    let entry = node.and_then(|node| node.entry.as_ref());
    entry.map_or(LeaseId::NONE, Entry::lease)
}

/// What lies beneath a path.
fn beneath(path: &[u8]) -> Span {
    Span {
        start: tree::prefix(path).into(),
        end: End::Before(tree::beyond(path).into()),
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
