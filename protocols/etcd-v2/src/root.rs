//! Where v2's `/` lies in the shared keyspace.
//!
//! Clients speak of paths, the keyspace of keys. Both are the same where the roots are one.

use bytes::Bytes;
use gateway::keyspace::node::is_path;

/// v2's root: that of the keyspace, or a node of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// What keys begin with before the path; empty where the roots are one.
    prefix: Box<str>,
}

impl Root {
    /// The node of this key; none if it is no path.
    pub fn at(key: &str) -> Option<Root> {
        is_path(key.as_bytes()).then(|| Root {
            prefix: if key == "/" { "" } else { key }.into(),
        })
    }

    /// What keys begin with before the path.
    pub fn prefix(&self) -> &[u8] {
        self.prefix.as_bytes()
    }

    /// The key of a path.
    pub fn key(&self, path: &[u8]) -> Bytes {
        match path {
            b"/" if !self.prefix.is_empty() => Bytes::copy_from_slice(self.prefix.as_bytes()),
            path => [self.prefix.as_bytes(), path].concat().into(),
        }
    }

    /// The path of a key that is the root's or lies beneath it; of one above, the root.
    pub fn path<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match key.get(self.prefix.len()..) {
            Some(path @ [b'/', ..]) => path,
            Some(_) | None => b"/",
        }
    }

    /// The path of the first key that is missing on the way to `wanted`, a path. Clients know of no
    /// root that is not there: what is missing then is what lies right beneath it.
    pub fn missing<'k>(&self, key: &'k [u8], wanted: &'k [u8]) -> &'k [u8] {
        match self.path(key) {
            b"/" => {
                let names = wanted.split_inclusive(|byte| *byte == b'/');
                let len = names.take(2).map(<[u8]>::len).sum();
                let first = &wanted[..len];
                first.strip_suffix(b"/").unwrap_or(first)
            }
            path => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_keys_and_keys_paths() {
        let apps = Root::at("/apps/v2").expect("a path");
        for (root, path, key) in [
            (&Root::default(), "/", "/"),
            (&Root::default(), "/a/b", "/a/b"),
            (&apps, "/", "/apps/v2"),
            (&apps, "/a/b", "/apps/v2/a/b"),
        ] {
            assert_eq!(root.key(path.as_bytes()), key);
            assert_eq!(root.path(key.as_bytes()), path.as_bytes());
        }
        assert_eq!(apps.path(b"/apps"), b"/");
    }

    #[test]
    fn a_root_that_is_missing_is_not_told() {
        let apps = Root::at("/apps/v2").expect("a path");
        for (missing, wanted, told) in [
            ("/apps", "/a/b", "/a"),
            ("/apps/v2", "/a", "/a"),
            ("/apps/v2/a", "/a/b", "/a"),
            ("/apps/v2/a/b", "/a/b", "/a/b"),
        ] {
            let path = apps.missing(missing.as_bytes(), wanted.as_bytes());
            assert_eq!(path, told.as_bytes(), "{missing}");
        }
    }

    #[test]
    fn only_paths_are_roots() {
        assert_eq!(Root::at("/"), Some(Root::default()));
        for key in ["", "apps", "/apps/", "/a//b", "/a/.."] {
            assert_eq!(Root::at(key), None, "{key}");
        }
    }
}
