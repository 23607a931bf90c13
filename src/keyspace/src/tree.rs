//! The path tree: what is known of nodes beside their values.
//!
//! A node has a record here as soon as something has been created beneath it, or when it is a
//! directory, restricted, or bound to time. A leaf has none: its key says it all. Records of nodes
//! without a value are what makes them exist.

use crate::access::{AccessEntry, AccessList};
use crate::aside::{self, Aside, Quotas};
use crate::command::{Op, Txn};
use crate::node::{EventNode, Kind, NodeView};
use crate::shared::Shared;
use crate::slot::Entry;
use crate::types::{End, Revision, Span, WallMs};
use imbl::{OrdMap, OrdSet};
use std::ops::Bound;
use std::sync::Arc;

/// Longest path and most components of one. Every component above a node costs a record with its
/// own path, so that without these bounds one long key could cost the square of its length.
const PATH_BYTES_MAX: usize = 4096;
const COMPONENTS_MAX: usize = 128;

/// What a record counts towards the bytes in use beside its path and access list.
const NODE_BYTES: u64 = 192;
/// What one line of an access list counts beside its text.
const ACCESS_BYTES: u64 = 40;

pub(crate) const ROOT: &[u8] = b"/";

/// Whether a key is a path: `/`, or components that are not empty, not `.` or `..`, UTF-8 and free
/// of control characters, each after a slash. Other keys are keys and no more.
pub fn is_path(key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(ROOT) else {
        return false;
    };
    if rest.is_empty() {
        return true;
    }
    if key.len() > PATH_BYTES_MAX {
        return false;
    }
    let mut components = 0;
    let sound = rest.split(|byte| *byte == b'/').all(|component| {
        components += 1;
        !matches!(component, b"" | b"." | b"..")
    });
    sound && components <= COMPONENTS_MAX && is_text(rest)
}

/// Whether these are UTF-8 without control characters. Most keys are ASCII, where it is quickly said.
fn is_text(bytes: &[u8]) -> bool {
    if bytes.iter().all(|byte| (b' '..0x7f).contains(byte)) {
        return true;
    }
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// The path above; none above the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    match slash {
        _ if path.len() == 1 => None,
        0 => Some(ROOT),
        slash => Some(&path[..slash]),
    }
}

/// What all paths beneath start with.
pub(crate) fn prefix(path: &[u8]) -> Vec<u8> {
    if path == ROOT {
        path.to_vec()
    } else {
        [path, b"/"].concat()
    }
}

/// The first key beyond all paths beneath.
pub fn beyond(path: &[u8]) -> Vec<u8> {
    let mut end = prefix(path);
    end.pop();
    // The byte after the slash.
    end.push(b'0');
    end
}

/// The least path right beneath `above` that is not less than `start`, which begins with `above`, or
/// what every such path begins with; none where all are less.
fn first_child_from(above: &[u8], start: &[u8]) -> Option<Vec<u8>> {
    let prefix = prefix(above);
    let Some(rest) = start.strip_prefix(&prefix[..]) else {
        return (*start < *prefix).then_some(prefix);
    };
    Some(match rest.iter().position(|byte| *byte == b'/') {
        None => start.to_vec(),
        // Beneath this child nothing is a child; the next one's name goes on with what comes after
        // a slash.
        Some(slash) => [&prefix, &rest[..slash], b"0"].concat(),
    })
}

pub(crate) type Path = Arc<[u8]>;

/// What is known of a node beside its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub children: u32,
    pub creates: u32,
    pub children_changed: u64,
    /// It stays without a value and without children.
    pub kept: bool,
    /// It was made a directory.
    pub directory: bool,
    /// Since when it is there, with a value or without.
    pub created: u64,
    pub born: WallMs,
    /// Of a node without a value: when that last changed.
    pub modified: u64,
    pub written: WallMs,
    /// How often it had been written before the value that it has; where it has none, before that
    /// became so.
    pub puts_before: u64,
    pub created_event: u64,
    pub modified_event: u64,
    pub acl: Option<AccessList>,
    pub acl_version: u32,
    pub kind: Kind,
    pub deadline: Option<WallMs>,
    /// Of a node aside: what it holds.
    pub aside: Option<Arc<Aside>>,
}

impl Node {
    /// A record for a node that begins to exist, or to need one, now.
    pub fn new(revision: u64, born: WallMs) -> Node {
        Node {
            children: 0,
            creates: 0,
            children_changed: revision,
            kept: false,
            directory: false,
            created: revision,
            born,
            modified: revision,
            written: born,
            puts_before: 0,
            created_event: 0,
            modified_event: 0,
            acl: None,
            acl_version: 0,
            kind: Kind::Plain,
            deadline: None,
            aside: None,
        }
    }

    /// Whether it exists if it has no value.
    pub fn stands_alone(&self) -> bool {
        self.children > 0 || self.kept || self.directory
    }

    /// When it ends as things are: one that only ends when idle, or empty, does not while something
    /// lies beneath it.
    pub fn ends_at(&self) -> Option<WallMs> {
        match self.kind {
            Kind::Idle { .. } | Kind::Container { .. } => {
                self.deadline.filter(|_| self.children == 0)
            }
            Kind::Plain => self.deadline,
        }
    }

    pub fn cost(&self, path: &[u8]) -> u64 {
        let entries = self.acl.iter().flat_map(|acl| acl.iter());
        let entry = |entry: &AccessEntry| ACCESS_BYTES + entry.who.len_bytes() as u64;
        let held = self.aside.as_ref().map_or(0, |aside| aside.value.len());
        NODE_BYTES + (path.len() + held) as u64 + entries.map(entry).sum::<u64>()
    }
}

/// Every record. A clone shares everything, so that readers and cuts take one in O(1).
#[derive(Clone, Default)]
pub(crate) struct Tree {
    pub nodes: OrdMap<Path, Arc<Node>>,
    /// When nodes end, soonest first.
    pub deadlines: OrdSet<(WallMs, Path)>,
    /// The nodes with an access list.
    pub restricted: OrdSet<Path>,
    pub quotas: Quotas,
}

impl Tree {
    /// A tree of nothing but the roots, which always are.
    pub fn new() -> Tree {
        let mut tree = Tree::default();
        for root in [ROOT, aside::ROOT] {
            let node = Node {
                kept: true,
                directory: true,
                ..Node::new(0, WallMs(0))
            };
            tree.put(root, Some(node));
        }
        tree
    }

    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path).map(|node| &**node)
    }

    /// Puts a record in place, or takes it away. Returns what both counted towards the bytes in use:
    /// the one before, and this one.
    pub fn put(&mut self, path: &[u8], node: Option<Node>) -> (u64, u64) {
        let name = self
            .nodes
            .get_key_value(path)
            .map(|(name, _)| Arc::clone(name));
        let name = name.unwrap_or_else(|| path.into());
        let cost = |node: Option<&Node>| node.map_or(0, |node| node.cost(path));
        let before = self.nodes.get(path).cloned();
        if let Some(deadline) = before.as_ref().and_then(|node| node.ends_at()) {
            self.deadlines.remove(&(deadline, Arc::clone(&name)));
        }
        if let Some(deadline) = node.as_ref().and_then(Node::ends_at) {
            self.deadlines.insert((deadline, Arc::clone(&name)));
        }
        if node.as_ref().is_some_and(|node| node.acl.is_some()) {
            self.restricted.insert(Arc::clone(&name));
        } else if before.as_ref().is_some_and(|node| node.acl.is_some()) {
            self.restricted.remove(path);
        }
        let (was, is) = (
            before.as_ref().and_then(|node| node.aside.as_deref()),
            node.as_ref().and_then(|node| node.aside.as_deref()),
        );
        self.quotas.follow(&name, was, is);
        let costs = (cost(before.as_deref()), cost(node.as_ref()));
        match node {
            Some(node) => self.nodes.insert(name, Arc::new(node)),
            None => self.nodes.remove(path),
        };
        costs
    }

    /// A node's access list.
    pub fn acl(&self, path: &[u8]) -> Option<AccessList> {
        if self.restricted.is_empty() {
            return None;
        }
        self.get(path)?.acl.clone()
    }

    /// Whether one of these keys is a node with an access list.
    pub fn restricts(&self, span: &Span) -> bool {
        self.restricts_some(span, |_| true)
    }

    /// Whether one of these keys is a node with an access list, and meant.
    pub fn restricts_some(&self, span: &Span, meant: impl Fn(&[u8]) -> bool) -> bool {
        let start = &span.start[..];
        let end = match &span.end {
            End::Single => return self.restricted.contains(start) && meant(start),
            End::Before(end) if **end <= *start => return false,
            End::Before(end) => Bound::Excluded(&end[..]),
            End::Unbounded => Bound::Unbounded,
        };
        let bounds = (Bound::Included(start), end);
        let mut among = self.restricted.range::<_, [u8]>(bounds);
        among.any(|path| meant(path))
    }

    /// Whether one of these keys could be right beneath a node with an access list that is not among
    /// them itself.
    pub fn restricts_above(&self, span: &Span) -> bool {
        if self.restricted.is_empty() {
            return false;
        }
        let start = &span.start[..];
        let end = match &span.end {
            End::Single => return parent(start).is_some_and(|it| self.restricted.contains(it)),
            End::Before(end) => Some(&end[..]),
            End::Unbounded => None,
        };
        // What comes before all of them, and has some of them beneath it, begins as the first does.
        (1..=start.len().min(PATH_BYTES_MAX))
            .map(|len| &start[..len])
            .filter(|above| self.restricted.contains(*above))
            .filter_map(|above| first_child_from(above, start))
            .any(|first| end.is_none_or(|end| first[..] < *end))
    }

    /// Whether an access list stands against a transaction, whichever branch it takes; `live` says
    /// of a key whether it is there.
    pub fn denies(&self, txn: &Txn, live: &impl Fn(&[u8]) -> bool) -> bool {
        let op = |op: &Op| match op {
            Op::Range(range) => self.restricts(&range.span),
            Op::Put(put) => {
                let span = Span::single(put.key.clone());
                self.restricts(&span) || (!live(&put.key) && self.restricts_above(&span))
            }
            Op::Delete(delete) => {
                self.restricts(&delete.span) || self.restricts_above(&delete.span)
            }
            Op::Txn(inner) => self.denies(inner, live),
        };
        !self.restricted.is_empty()
            && (txn.guards.iter().any(|guard| self.restricts(&guard.span))
                || txn.then.iter().chain(&txn.otherwise).any(op))
    }

    /// Those whose time has come by `wall`, soonest first.
    pub fn due(&self, wall: WallMs) -> impl Iterator<Item = &(WallMs, Path)> {
        self.deadlines
            .iter()
            .take_while(move |(deadline, _)| *deadline <= wall)
    }
}

/// A node's value at a revision: nodes aside have none of this kind, whatever key is spelled so.
pub(crate) fn value(shared: &Shared, path: &[u8], at: Revision) -> Option<Entry> {
    if aside::is_aside(path) {
        return None;
    }
    shared.find(path)?.live_at(at.0)
}

/// A node's view from its value and its record; none where neither makes it exist.
pub(crate) fn view(entry: Option<Entry>, node: Option<&Node>) -> Option<NodeView> {
    let fresh;
    let node = match (&entry, node) {
        (Some(_), Some(node)) => node,
        (None, Some(node)) if node.stands_alone() => node,
        (None, _) => return None,
        (Some(entry), None) => {
            fresh = Node::new(entry.created().0, entry.born());
            &fresh
        }
    };
    let entry_ref = entry.as_ref();
    Some(NodeView {
        directory: entry.is_none() || node.directory || node.children > 0,
        children: node.children,
        creates: node.creates,
        children_changed: Revision(node.children_changed),
        created: Revision(node.created),
        modified: entry_ref.map_or(Revision(node.modified), Entry::modified),
        born: node.born,
        written: entry_ref.map_or(node.written, Entry::written),
        puts: node.puts_before + entry_ref.map_or(1, Entry::version),
        created_event: entry_ref.map_or(node.created_event, Entry::created_event),
        modified_event: entry_ref.map_or(node.modified_event, Entry::event),
        acl: node.acl.clone(),
        acl_version: node.acl_version,
        kind: node.kind,
        deadline: node.deadline,
        aside: node.aside.clone(),
        entry,
    })
}

/// What an event says of a node, from its value and its record; none where neither makes it exist.
pub(crate) fn event_node(entry: Option<Entry>, node: Option<&Node>) -> Option<EventNode> {
    if entry.is_none() && !node.is_some_and(Node::stands_alone) {
        return None;
    }
    let of_node = |figure: fn(&Node) -> u64| node.map_or(0, figure);
    let created = of_node(|node| node.created_event);
    let modified = of_node(|node| node.modified_event);
    Some(EventNode {
        directory: entry.is_none() || node.is_some_and(|n| n.directory || n.children > 0),
        created: entry.as_ref().map_or(created, Entry::created_event),
        modified: entry.as_ref().map_or(modified, Entry::event),
        deadline: node.and_then(|node| node.deadline),
        entry,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_keys() {
        for path in ["/", "/a", "/a/b", "/a.b/..c/ü/\u{1f600}", "/a b"] {
            assert!(is_path(path.as_bytes()), "{path}");
        }
        for key in [
            "", "a", "a/b", "//", "//a", "/a/", "/a//b", "/./a", "/a/..", "/a\n", "/\u{85}",
        ] {
            assert!(!is_path(key.as_bytes()), "{key}");
        }
        assert!(!is_path(b"/\xff"));
        assert!(is_path("/a".repeat(COMPONENTS_MAX).as_bytes()));
        assert!(!is_path("/a".repeat(COMPONENTS_MAX + 1).as_bytes()));
        assert!(!is_path(
            format!("/{}", "a".repeat(PATH_BYTES_MAX)).as_bytes()
        ));
    }

    fn restricted(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            let node = Node {
                acl: Some([].into()),
                ..Node::new(1, WallMs(0))
            };
            tree.put(path.as_bytes(), Some(node));
        }
        tree
    }

    fn span(start: &'static str, end: &'static str) -> Span {
        Span {
            start: start.into(),
            end: match end {
                "" => End::Single,
                "-" => End::Unbounded,
                end => End::Before(end.into()),
            },
        }
    }

    #[test]
    fn spans_touch_the_restricted_nodes_among_them() {
        let tree = restricted(&["/a/b"]);
        for (start, end, touches) in [
            ("/a/b", "", true),
            ("/a", "", false),
            ("/a/b/c", "", false),
            ("/a/", "/a0", true),
            ("/a/b/", "/a/b0", false),
            ("/", "-", true),
            ("/b", "-", false),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(tree.restricts(&span(start, end)), touches, "{start} {end}");
        }
        assert!(!Tree::new().restricts(&span("/", "-")));
    }

    #[test]
    fn spans_may_hold_children_of_restricted_nodes() {
        for (above, start, end, holds) in [
            ("/", "/a", "", true),
            ("/", "/a/b", "", false),
            ("/", "/a/", "/a0", false),
            ("/", "/a/", "/a1", true),
            ("/", "/a/b", "-", true),
            ("/a", "/a/b", "/a/c", true),
            ("/a", "/a/b/c", "/a/b0", false),
            ("/a", "/a/b/c", "/a/b1", true),
            ("/a", "/a!", "/a/", false),
            ("/a", "/a!", "/a0", true),
            ("/a", "/b", "-", false),
            ("/a", "/ab", "-", false),
        ] {
            let tree = restricted(&[above]);
            let told = tree.restricts_above(&span(start, end));
            assert_eq!(told, holds, "{above}: {start} {end}");
        }
    }

    #[test]
    fn parents_and_what_lies_beneath() {
        assert_eq!(parent(b"/a/b"), Some(&b"/a"[..]));
        assert_eq!(parent(b"/a"), Some(ROOT));
        assert_eq!(parent(ROOT), None);
        assert_eq!(
            (prefix(b"/a"), beyond(b"/a")),
            (b"/a/".to_vec(), b"/a0".to_vec())
        );
        assert_eq!((prefix(ROOT), beyond(ROOT)), (b"/".to_vec(), b"0".to_vec()));
    }
}
