//! Nodes aside: a tree of its own for what belongs to the replicated state but is no key, so that no
//! range shows it and no event tells it. Their paths begin with a byte that no other path begins with.
//!
//! They hold small things about the keyspace, and two of them mean something to it: one sets limits
//! for a part of the path tree, the other counts what is there.

use crate::tree;
use bytes::Bytes;
use imbl::OrdMap;
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// The path of the node that is always there, and what the paths of all others begin with.
pub const ROOT: &[u8] = b"\0";

/// Whether this is the path of a node aside.
pub fn is_aside(path: &[u8]) -> bool {
    path.first() == Some(&ROOT[0])
}

/// Whether this can be the path of a node aside.
pub(crate) fn is_path(path: &[u8]) -> bool {
    match path.strip_prefix(ROOT) {
        Some(rest) => rest.is_empty() || (rest != tree::ROOT && tree::is_path(rest)),
        None => false,
    }
}

/// What a node aside holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Aside {
    /// Its value.
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub value: Bytes,
    /// The value is empty because there is none.
    #[n(1)]
    pub null: bool,
    /// What it means to the keyspace.
    #[n(2)]
    pub role: Role,
    /// What it has counted.
    #[n(3)]
    pub tally: Tally,
}

/// What a node aside means to the keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// Nothing.
    #[default]
    #[n(0)]
    Plain,
    /// It sets limits for what lies at and beneath a path: the nearest such path counts.
    #[n(1)]
    Limits {
        /// The path.
        #[n(0)]
        #[cbor(with = "crate::codec::bytes")]
        of: Bytes,
        /// How much may be there.
        #[n(1)]
        limits: Limits,
    },
    /// It counts what lies at and beneath a path, from when this becomes its role, as far as no limits
    /// nearer by are set, and only while limits are set at that path.
    #[n(2)]
    Tally {
        /// The path.
        #[n(0)]
        #[cbor(with = "crate::codec::bytes")]
        of: Bytes,
    },
}

/// How much may lie at and beneath a path; none is any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Limits {
    /// Nodes, with a value or without.
    #[n(0)]
    pub nodes_max: Option<i64>,
    /// Bytes of values.
    #[n(1)]
    pub bytes_max: Option<i64>,
}

/// What lies at and beneath a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tally {
    /// Nodes, with a value or without.
    #[n(0)]
    pub nodes: i64,
    /// Bytes of values.
    #[n(1)]
    pub bytes: i64,
}

impl Tally {
    /// Both together.
    pub(crate) fn plus(self, other: Tally) -> Tally {
        Tally {
            nodes: self.nodes.wrapping_add(other.nodes),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

impl Limits {
    /// Whether so much may be there, of which `more` is new. What does not grow is never refused.
    pub(crate) fn admit(self, all: Tally, more: Tally) -> bool {
        let within =
            |max: Option<i64>, all: i64, more: i64| more == 0 || max.is_none_or(|max| all <= max);
        within(self.nodes_max, all.nodes, more.nodes)
            && within(self.bytes_max, all.bytes, more.bytes)
    }
}

/// What is set and counted at paths, found by path. It follows from the nodes aside.
#[derive(Clone, Default)]
pub(crate) struct Quotas(OrdMap<Arc<[u8]>, Quota>);

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    pub limits: Option<Limits>,
    /// The node aside that counts.
    pub tally: Option<Arc<[u8]>>,
}

impl Quotas {
    /// The nearest limits that are set for a path, and where it is counted. Costs nothing while none
    /// are set.
    pub fn over(&self, path: &[u8]) -> Option<&Quota> {
        if self.0.is_empty() {
            return None;
        }
        std::iter::successors(Some(path), |path| tree::parent(path))
            .filter_map(|path| self.0.get(path))
            .find(|quota| quota.limits.is_some())
    }

    /// Follows what became of the node aside at `name`.
    pub fn follow(&mut self, name: &Arc<[u8]>, before: Option<&Aside>, after: Option<&Aside>) {
        if let Some(aside) = before {
            self.change(&aside.role, |quota, is_tally| match is_tally {
                true => quota.tally = None,
                false => quota.limits = None,
            });
        }
        if let Some(aside) = after {
            let limits = match aside.role {
                Role::Limits { limits, .. } => Some(limits),
                Role::Plain | Role::Tally { .. } => None,
            };
            self.change(&aside.role, |quota, is_tally| match is_tally {
                true => quota.tally = Some(Arc::clone(name)),
                false => quota.limits = limits,
            });
        }
    }

    fn change(&mut self, role: &Role, change: impl FnOnce(&mut Quota, bool)) {
        let (of, is_tally) = match role {
            Role::Plain => return,
            Role::Limits { of, .. } => (of, false),
            Role::Tally { of } => (of, true),
        };
        let mut quota = self.0.get(&of[..]).cloned().unwrap_or_default();
        change(&mut quota, is_tally);
        if quota == Quota::default() {
            self.0.remove(&of[..]);
        } else {
            self.0.insert(of[..].into(), quota);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_aside_are_told_from_others() {
        for path in ["\0", "\0/a", "\0/a/b"] {
            assert!(is_path(path.as_bytes()), "{path:?}");
            assert!(!tree::is_path(path.as_bytes()), "{path:?}");
        }
        for path in ["", "/", "/a", "\0/", "\0a", "\0/a/", "\0\0/a", "\0/a//b"] {
            assert!(!is_path(path.as_bytes()), "{path:?}");
        }
        assert_eq!(tree::parent(b"\0/a"), Some(ROOT));
        assert_eq!(tree::parent(ROOT), None);
    }

    #[test]
    fn the_nearest_limits_count() {
        let aside = |role| Aside {
            value: Bytes::new(),
            null: false,
            role,
            tally: Tally::default(),
        };
        let limits = |of: &'static str, nodes_max| {
            let limits = Limits {
                nodes_max: Some(nodes_max),
                bytes_max: None,
            };
            aside(Role::Limits {
                of: of.into(),
                limits,
            })
        };
        let name = |name: &str| Arc::from(name.as_bytes());
        let mut quotas = Quotas::default();
        let (near, far) = (limits("/a/b", 1), limits("/a", 2));
        quotas.follow(&name("\0/1"), None, Some(&near));
        quotas.follow(&name("\0/2"), None, Some(&far));
        let tally = aside(Role::Tally {
            of: "/a/b/c".into(),
        });
        quotas.follow(&name("\0/3"), None, Some(&tally));
        let max = |quotas: &Quotas, path: &str| {
            let quota = quotas.over(path.as_bytes());
            quota.and_then(|quota| quota.limits?.nodes_max)
        };
        for (path, expected) in [
            ("/a/b", Some(1)),
            ("/a/b/c/d", Some(1)),
            ("/a/bc", Some(2)),
            ("/b", None),
        ] {
            assert_eq!(max(&quotas, path), expected, "{path}");
        }
        quotas.follow(&name("\0/1"), Some(&near), None);
        assert_eq!(max(&quotas, "/a/b/c"), Some(2));
        quotas.follow(&name("\0/2"), Some(&far), None);
        quotas.follow(&name("\0/3"), Some(&tally), None);
        assert!(quotas.0.is_empty());
    }
}
