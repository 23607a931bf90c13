//! Nodes and events as etcd v2 tells them, written straight into a buffer.

use crate::json;
use crate::root::Root;
use crate::time;
use gateway::keyspace::auth::Rights;
use gateway::keyspace::change::Cause;
use gateway::keyspace::node::{Event, EventNode, NodeAnswer, is_path, parent};
use gateway::keyspace::{Entry, Moment, NodeView, Permissions, WallMs};
use std::cell::Cell;

/// What is told of a node beside what lies beneath it. What is none, or zero, is left out.
struct Shown<'a> {
    path: &'a [u8],
    value: Option<&'a [u8]>,
    directory: bool,
    deadline: Option<WallMs>,
    modified: u64,
    created: u64,
}

impl<'a> Shown<'a> {
    fn of_view(path: &'a [u8], view: &'a NodeView) -> Shown<'a> {
        Shown {
            path,
            value: value(view.entry.as_ref(), view.directory),
            directory: view.directory,
            deadline: view.deadline,
            modified: view.modified_event,
            created: view.created_event,
        }
    }

    fn of_event(path: &'a [u8], node: &'a EventNode) -> Shown<'a> {
        Shown {
            path,
            value: value(node.entry.as_ref(), node.directory),
            directory: node.directory,
            deadline: node.deadline,
            modified: node.modified,
            created: node.created,
        }
    }

    /// Appends it, with what `beneath` appends in the place where the nodes beneath belong. Times to
    /// live are those of `now`. The root has no name and no indexes.
    fn encode(&self, out: &mut Vec<u8>, now: WallMs, beneath: impl FnOnce(&mut Vec<u8>)) {
        let is_root = self.path == b"/";
        out.push(b'{');
        if !is_root {
            field(out, "key");
            json::string(out, self.path);
        }
        if let Some(value) = self.value {
            field(out, "value");
            json::string(out, value);
        }
        if self.directory {
            field(out, "dir");
            out.extend_from_slice(b"true");
        }
        if let Some(deadline) = self.deadline {
            field(out, "expiration");
            json::string(out, time::rfc_3339(deadline).as_bytes());
            let ttl_s = time::ttl_s(now, deadline);
            if ttl_s != 0 {
                field(out, "ttl");
                json::number(out, ttl_s);
            }
        }
        beneath(out);
        let indexes = [
            ("modifiedIndex", self.modified),
            ("createdIndex", self.created),
        ];
        for (name, index) in indexes {
            if index > 0 && !is_root {
                field(out, name);
                json::number(out, index);
            }
        }
        out.push(b'}');
    }
}

/// A directory's value, which other protocols may have given it, is not told.
fn value(entry: Option<&Entry>, directory: bool) -> Option<&[u8]> {
    entry.filter(|_| !directory).map(Entry::value)
}

/// Begins a field; a comma goes before all but the first.
fn field(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn nothing(_: &mut Vec<u8>) {}

/// Begins an answer, or an event.
fn begin(action: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(b'{');
    field(&mut out, "action");
    json::string(&mut out, action.as_bytes());
    out
}

fn end(mut out: Vec<u8>) -> Vec<u8> {
    out.extend_from_slice(b"}\n");
    out
}

/// The word for what happened.
fn action(cause: Cause) -> &'static str {
    match cause {
        Cause::Set => "set",
        Cause::Create => "create",
        Cause::Update => "update",
        Cause::CompareAndSwap => "compareAndSwap",
        Cause::Delete => "delete",
        Cause::CompareAndDelete => "compareAndDelete",
        Cause::Expire => "expire",
    }
}

/// What a write did, by the event of this index. With `brief` no more than that is told.
pub fn written(
    answer: &NodeAnswer,
    cause: Cause,
    index: u64,
    root: &Root,
    now: WallMs,
    brief: bool,
) -> Vec<u8> {
    let mut out = begin(action(cause));
    if brief {
        return end(out);
    }
    let path = root.path(&answer.path);
    let previous = answer.previous.as_ref();
    field(&mut out, "node");
    let shown = match (&answer.node, previous) {
        (Some(view), _) => Shown {
            // A directory whose time to live was changed does not say so later.
            modified: index,
            ..Shown::of_view(path, view)
        },
        (None, previous) => Shown {
            path,
            value: None,
            directory: previous.is_some_and(|view| view.directory),
            deadline: None,
            modified: index,
            created: previous.map_or(index, |view| view.created_event),
        },
    };
    shown.encode(&mut out, now, nothing);
    if let Some(view) = previous {
        field(&mut out, "prevNode");
        Shown::of_view(path, view).encode(&mut out, now, nothing);
    }
    end(out)
}

/// An event, with the times to live of when it happened.
pub fn event(event: &Event, root: &Root) -> Vec<u8> {
    let path = root.path(event.name.as_bytes());
    let mut out = begin(action(event.cause));
    field(&mut out, "node");
    Shown::of_event(path, &event.node).encode(&mut out, event.at, nothing);
    if let Some(previous) = &event.previous {
        field(&mut out, "prevNode");
        Shown::of_event(path, previous).encode(&mut out, event.at, nothing);
    }
    end(out)
}

/// Why a node is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// There is none: the key of the first that is missing on the way to it.
    Missing(Vec<u8>),
    /// The node of this key, on the way to it, is a file.
    File(Vec<u8>),
    /// It, or one that would be shown with it, has an access list, or may not be read.
    Restricted,
    /// It is more than it may be.
    TooLarge,
}

/// How much may be told of what lies beneath a node.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most nodes.
    pub nodes_max: u64,
    /// The most that they take, but for the last of them.
    pub bytes_max: usize,
}

impl Bounds {
    /// Whatever there is.
    pub const NONE: Bounds = Bounds {
        nodes_max: u64::MAX,
        bytes_max: usize::MAX,
    };
}

/// Reads a node, and what lies right beneath a directory, or all of it.
pub struct Reading<'a> {
    /// The state.
    pub moment: &'a Moment,
    /// Whose paths are which keys.
    pub root: &'a Root,
    /// What times to live count from.
    pub now: WallMs,
    /// All that lies beneath.
    pub recursive: bool,
    /// What the client may read of that.
    pub rights: Rights<'a>,
    /// Access lists bind the client.
    pub bound: bool,
    /// How much to tell at most.
    pub bounds: Bounds,
    /// How many nodes were listed.
    pub listed: Cell<u64>,
}

impl Reading<'_> {
    /// The node of a key as an answer. In byte order, whether or not that is asked for.
    pub fn node(&self, key: &[u8]) -> Result<Vec<u8>, Unseen> {
        let mut out = begin("get");
        field(&mut out, "node");
        match self.find(key) {
            Ok(view) => {
                // By a slash at its end a file is no other than without.
                if !view.directory {
                    self.check(key)?;
                }
                self.encode(&mut out, key, &view, true)?;
            }
            // A root that nobody has written beneath yet.
            Err(Unseen::Missing(_)) if self.root.path(key) == b"/" => {
                out.extend_from_slice(b"{\"dir\":true}");
            }
            Err(unseen) => return Err(unseen),
        }
        Ok(end(out))
    }

    /// Refuses to show a node that the client's roles keep from it.
    fn check(&self, key: &[u8]) -> Result<(), Unseen> {
        let checked = self.rights.check_key(key, Permissions::READ);
        checked.map_err(|_| Unseen::Restricted)
    }

    /// A key that is no path may be one of etcd v3, but is no node.
    fn find(&self, key: &[u8]) -> Result<NodeView, Unseen> {
        if is_path(key)
            && let Some(view) = self.moment.node(key)
        {
            return Ok(view);
        }
        let mut above: Vec<&[u8]> =
            std::iter::successors(parent(key), |path| parent(path)).collect();
        above.reverse();
        for path in above {
            match self.moment.node(path).filter(|_| is_path(path)) {
                Some(view) if view.directory => {}
                Some(_) => return Err(Unseen::File(path.to_vec())),
                None => return Err(Unseen::Missing(path.to_vec())),
            }
        }
        Err(Unseen::Missing(key.to_vec()))
    }

    fn encode(
        &self,
        out: &mut Vec<u8>,
        key: &[u8],
        view: &NodeView,
        listed: bool,
    ) -> Result<(), Unseen> {
        if self.bound && view.acl.is_some() {
            return Err(Unseen::Restricted);
        }
        let mut result = Ok(());
        let shown = Shown::of_view(self.root.path(key), view);
        shown.encode(out, self.now, |out| {
            if view.directory && listed {
                result = self.encode_beneath(out, key, view.children);
            }
        });
        result
    }

    /// Appends the nodes beneath that are not hidden, if there are any.
    fn encode_beneath(&self, out: &mut Vec<u8>, key: &[u8], children: u32) -> Result<(), Unseen> {
        self.listed.update(|listed| listed + u64::from(children));
        if self.listed.get() > self.bounds.nodes_max {
            return Err(Unseen::TooLarge);
        }
        let mut child = if key == b"/" {
            Vec::new()
        } else {
            key.to_vec()
        };
        child.push(b'/');
        let stem = child.len();
        let mut any = false;
        for name in self.moment.children(key) {
            // A name that begins with an underscore is for those who know it.
            if name.starts_with(b"_") {
                continue;
            }
            child.truncate(stem);
            child.extend_from_slice(&name);
            let Some(view) = self.moment.node(&child) else {
                continue;
            };
            self.check(&child)?;
            if any {
                out.push(b',');
            } else {
                field(out, "nodes");
                out.push(b'[');
                any = true;
            }
            self.encode(out, &child, &view, self.recursive)?;
            if out.len() > self.bounds.bytes_max {
                return Err(Unseen::TooLarge);
            }
        }
        if any {
            out.push(b']');
        }
        Ok(())
    }
}
