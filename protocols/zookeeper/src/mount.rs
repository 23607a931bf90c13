//! Where ZooKeeper's `/` lies in the shared keyspace.
//!
//! Clients speak of paths, the keyspace of keys. Everything of this crate speaks of paths until it
//! turns to the gateway, and turns keys back into paths before anything else is done with them.

use crate::ops::ROOT;
use crate::{path, system};
use bytes::Bytes;
use gateway::keyspace::change::Cause;
use gateway::keyspace::node::{Action, Deadline, NodeOp, NodeTest, NodeWrite};
use gateway::keyspace::{End, Reader, Span};
use std::borrow::Cow;

/// ZooKeeper's root: that of the keyspace, or a node of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What keys begin with before the path; empty where the roots are one.
    prefix: Box<str>,
}

impl Mount {
    /// The node of this key; none if it is no path.
    pub fn at(key: &str) -> Option<Mount> {
        path::is_valid(key).then(|| Mount {
            prefix: if key == ROOT { "" } else { key }.into(),
        })
    }

    /// The key of a node.
    pub fn key<'p>(&self, path: &'p [u8]) -> Cow<'p, [u8]> {
        match system::name(path) {
            Some(name) => name.into(),
            None => self.shared_key(path),
        }
    }

    /// The same, but of ZooKeeper's own nodes that of what they hide of the keyspace.
    pub fn shared_key<'p>(&self, path: &'p [u8]) -> Cow<'p, [u8]> {
        let prefix = self.prefix.as_bytes();
        match path {
            path if prefix.is_empty() => path.into(),
            b"/" => prefix.to_vec().into(),
            [b'/', ..] => [prefix, path].concat().into(),
            // What is no path must not become one, and of another node.
            path => [prefix, b"//", path].concat().into(),
        }
    }

    /// The same of a path that lies in `frames`.
    pub fn key_within(&self, path: &str, frames: &Bytes) -> Bytes {
        match self.key(path.as_bytes()) {
            Cow::Borrowed(key) => frames.slice_ref(key),
            Cow::Owned(key) => key.into(),
        }
    }

    /// The same of a path that a number is appended to, so that a slash at its end counts.
    pub fn stem_within(&self, path: &str, frames: &Bytes) -> Bytes {
        if let Some(name) = system::name(path.as_bytes()) {
            return name.into();
        }
        if self.prefix.is_empty() {
            return frames.slice_ref(path.as_bytes());
        }
        [self.prefix.as_bytes(), path.as_bytes()].concat().into()
    }

    /// The path of a key; none if it does not lie beneath the root.
    pub fn path<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        match key.strip_prefix(self.prefix.as_bytes())? {
            b"" => Some(ROOT.as_bytes()),
            path @ [b'/', ..] => Some(path),
            _ => None,
        }
    }

    /// The path of a key that clients may hear of: it is one that they could have created.
    pub fn shown<'k>(&self, key: &'k [u8]) -> Option<Cow<'k, str>> {
        if let Some(path) = system::path_of(key) {
            return Some(path.into());
        }
        let path = std::str::from_utf8(self.path(key)?).ok()?;
        (path::is_valid(path) && !system::is_system(path)).then_some(path.into())
    }

    /// The keys beneath the root.
    pub fn span(&self) -> Span {
        if self.prefix.is_empty() {
            return Span::all();
        }
        // `0` is what comes after the slash.
        Span {
            start: format!("{}/", self.prefix).into(),
            end: End::Before(format!("{}0", self.prefix).into()),
        }
    }

    /// The steps that make the root where it is missing; none where it is there, as that of the
    /// keyspace always is. It has no value: etcd's clients do not see it.
    pub fn steps(&self, reader: &Reader) -> Vec<NodeOp> {
        let node = |key: &str| reader.node(key.as_bytes()).1;
        if self.prefix.is_empty() || node(&self.prefix).is_some() {
            return Vec::new();
        }
        let step = |key: &str, tests: &[NodeTest], action: Action| NodeOp {
            path: Bytes::copy_from_slice(key.as_bytes()),
            tests: tests.to_vec(),
            action,
            cause: Cause::Set,
        };
        let directory = Action::MakeDirectory {
            deadline: Deadline::Clear,
            sequence: None,
        };
        let missing = [NodeTest::Missing];
        let first = self.ancestors().find(|key| node(key).is_none());
        let first = first.unwrap_or(&self.prefix);
        let above = path::parent(first).and_then(node);
        if above.is_none_or(|above| above.directory) {
            return vec![step(&self.prefix, &missing, directory)];
        }
        // A key that has nothing beneath it yet is no place for directories: something has to be
        // there first, and may go at once.
        let beneath_key = [NodeTest::Missing, NodeTest::ParentUnbound];
        vec![
            step(first, &beneath_key, Action::Write(null())),
            step(first, &[], directory.clone()),
            step(&self.prefix, &[], directory),
        ]
    }

    /// The keys from the topmost down to the root's own.
    fn ancestors(&self) -> impl Iterator<Item = &str> {
        let ends = self.prefix.match_indices('/').skip(1).map(|(at, _)| at);
        ends.chain([self.prefix.len()])
            .map(|end| &self.prefix[..end])
    }
}

/// A value that is none.
fn null() -> NodeWrite {
    NodeWrite {
        null: true,
        ..NodeWrite::new(Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount() -> Mount {
        Mount::at("/apps/zk").expect("a path")
    }

    #[test]
    fn only_paths_are_roots() {
        assert_eq!(Mount::at("/"), Some(Mount::default()));
        for key in ["", "apps", "/apps/", "/apps//zk", "/apps/.."] {
            assert_eq!(Mount::at(key), None, "{key}");
        }
    }

    #[test]
    fn paths_become_keys_and_keys_paths() {
        let mount = mount();
        for (path, key) in [
            ("/", "/apps/zk"),
            ("/a", "/apps/zk/a"),
            ("/a/b", "/apps/zk/a/b"),
        ] {
            assert_eq!(mount.key(path.as_bytes()), key.as_bytes());
            assert_eq!(mount.path(key.as_bytes()), Some(path.as_bytes()));
            assert_eq!(mount.shown(key.as_bytes()).as_deref(), Some(path));
        }
        for outside in ["/", "/apps", "/apps/zkx", "/apps/other/a", "zk"] {
            assert_eq!(mount.path(outside.as_bytes()), None, "{outside}");
        }
    }

    #[test]
    fn what_is_no_path_is_no_other_nodes_key() {
        let key = mount().key(b"x").into_owned();
        assert_eq!(key, b"/apps/zk//x");
        assert_eq!(mount().shown(&key), None);
        assert_eq!(mount().key(b""), &b"/apps/zk//"[..]);
    }

    #[test]
    fn the_shared_root_changes_nothing() {
        let mount = Mount::default();
        assert!(matches!(mount.key(b"/a"), Cow::Borrowed(b"/a")));
        assert_eq!(mount.shown(b"/a").as_deref(), Some("/a"));
        assert_eq!(mount.shown(b"/zookeeper/config"), None);
        assert_eq!(mount.shown(b"a"), None);
    }

    #[test]
    fn zookeepers_own_nodes_are_no_keys() {
        for path in ["/zookeeper", "/zookeeper/config", "/zookeeper/quota/a"] {
            let key = mount().key(path.as_bytes()).into_owned();
            assert_eq!(key, *Mount::default().key(path.as_bytes()));
            assert_eq!(mount().shown(&key).as_deref(), Some(path));
        }
    }

    #[test]
    fn ancestors_come_from_the_top() {
        let mount = mount();
        let ancestors: Vec<_> = mount.ancestors().collect();
        assert_eq!(ancestors, ["/apps", "/apps/zk"]);
    }
}
