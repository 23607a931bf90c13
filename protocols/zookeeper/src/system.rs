//! `/zookeeper` and all beneath: ZooKeeper's own nodes, which are no part of the shared keyspace. What
//! other protocols put under these names is not shown. `/zookeeper/quota` and all beneath are the
//! keyspace's nodes aside; the others are not kept anywhere, and their watches are told apart by what
//! their names begin with.

use crate::errors::Code;
use crate::mount::Mount;
use crate::record::Write;
use crate::stat::Stat;
use bytes::Bytes;
use gateway::keyspace::Reader;
use gateway::keyspace::access::{AccessEntry, Identity, Permissions};
use gateway::keyspace::aside::{self, Aside, Limits, Role, Tally};
use gateway::keyspace::change::Cause;
use gateway::keyspace::node::{Action, NodeOp};

/// The name of the root's child that holds all others.
pub const NAME: &str = "zookeeper";

/// Its path.
pub const TOP: &str = "/zookeeper";
/// Where the members are told.
pub const CONFIG: &str = "/zookeeper/config";
const QUOTA: &str = "/zookeeper/quota";
/// The leaves of quotas: what may be there, and what is.
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// The name by which the keyspace and the watchers know one of these nodes; none of a path that is of
/// another realm. Names of quotas are paths aside, and no others are.
pub fn name(path: &[u8]) -> Option<Vec<u8>> {
    beneath(path, TOP)?;
    let own = beneath(path, QUOTA).unwrap_or(&path[1..]);
    Some([aside::ROOT, own].concat())
}

/// What follows the path of a node in its own and those beneath it.
fn beneath<'p>(path: &'p [u8], top: &str) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(top.as_bytes())?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// The path of one of these nodes by its name; none of what is of another realm.
pub fn path_of(name: &[u8]) -> Option<String> {
    let own = std::str::from_utf8(name.strip_prefix(aside::ROOT)?).ok()?;
    Some(match own.is_empty() || own.starts_with('/') {
        true => format!("{QUOTA}{own}"),
        false => format!("/{own}"),
    })
}

/// Whether a path is of the quotas.
pub fn is_quota(path: &str) -> bool {
    beneath(path.as_bytes(), QUOTA).is_some()
}

/// What a node of this path and data means to the keyspace.
pub fn role(path: &str, data: Option<&[u8]>, mount: &Mount) -> Role {
    let key = |of: &str| mount.key(of.as_bytes()).into_owned().into();
    let place = path
        .strip_prefix(QUOTA)
        .and_then(|rest| rest.rsplit_once('/'));
    match place {
        Some((of, LIMITS)) if !of.is_empty() => Role::Limits {
            of: key(of),
            limits: Quota::parse(data.unwrap_or_default()).hard,
        },
        Some((of, STATS)) if !of.is_empty() => Role::Tally { of: key(of) },
        Some(_) | None => Role::Plain,
    }
}

/// What is set for a part of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// What is refused to exceed, if that is enforced.
    pub hard: Limits,
    /// What is warned of.
    pub soft: Limits,
}

impl Quota {
    /// Reads `count=1,bytes=2=;byteHardLimit=3;countHardLimit=4`, where -1 is no limit. What cannot be
    /// read limits nothing.
    pub fn parse(data: &[u8]) -> Quota {
        let mut quota = Quota::default();
        let text = std::str::from_utf8(data).unwrap_or_default();
        for pair in text.split([',', ';']) {
            let mut parts = pair.split('=');
            let (name, value) = (parts.next(), parts.next().unwrap_or_default());
            let max = value.parse().ok().filter(|max: &i64| *max > -1);
            match name {
                Some("count") => quota.soft.nodes_max = max,
                Some("bytes") => quota.soft.bytes_max = max,
                Some("countHardLimit") => quota.hard.nodes_max = max,
                Some("byteHardLimit") => quota.hard.bytes_max = max,
                Some(_) | None => {}
            }
        }
        quota
    }

    /// The softest limit that so much exceeds: a hard one stands in the soft one's place.
    pub fn exceeded(&self, tally: Tally) -> Option<&'static str> {
        let beyond = |hard: Option<i64>, soft: Option<i64>, is: i64| {
            hard.or(soft).is_some_and(|max| is > max)
        };
        if beyond(self.hard.nodes_max, self.soft.nodes_max, tally.nodes) {
            Some("count")
        } else if beyond(self.hard.bytes_max, self.soft.bytes_max, tally.bytes) {
            Some("bytes")
        } else {
            None
        }
    }
}

/// The limits that are set at a node of this key.
pub fn quota_at(reader: &Reader, mount: &Mount, key: &[u8]) -> Quota {
    let path = mount.path(key).unwrap_or_default();
    let name = [aside::ROOT, path, b"/", LIMITS.as_bytes()].concat();
    let node = reader.node(&name).1;
    let held = node.and_then(|node| node.aside);
    held.map_or(Quota::default(), |held| Quota::parse(&held.value))
}

/// The data of a node aside.
pub fn data(held: Option<&Aside>) -> Option<Vec<u8>> {
    match held {
        // The topmost one holds nothing, and so no null either.
        None => Some(Vec::new()),
        Some(held) => match held.role {
            Role::Tally { .. } => {
                let Tally { nodes, bytes } = held.tally;
                Some(format!("count={nodes},bytes={bytes}").into_bytes())
            }
            Role::Plain | Role::Limits { .. } => (!held.null).then(|| held.value.to_vec()),
        },
    }
}

/// One of the nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemNode {
    /// Its data.
    pub data: String,
    /// Its stat.
    pub stat: Stat,
    /// Its children's names.
    pub children: &'static [&'static str],
    /// Who may do what; none is everyone everything.
    pub acl: Option<[AccessEntry; 1]>,
}

/// Whether a path is of this realm.
pub fn is_system(path: &str) -> bool {
    path.strip_prefix(TOP)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The node of this path, as if the server stood alone.
pub fn node(path: &str) -> Option<SystemNode> {
    let plain = |children: &'static [&'static str]| {
        let count = i32::try_from(children.len()).expect("two at most");
        SystemNode {
            data: String::new(),
            stat: Stat {
                // As ZooKeeper's, which count no creation of theirs.
                cversion: -count,
                num_children: count,
                ..Stat::default()
            },
            children,
            acl: None,
        }
    };
    match path {
        TOP => Some(plain(&["config", "quota"])),
        CONFIG => {
            let config = plain(&[]);
            Some(SystemNode {
                stat: Stat {
                    aversion: -1,
                    ..config.stat
                },
                acl: Some([AccessEntry {
                    permissions: Permissions::READ,
                    who: Identity::anyone(),
                }]),
                ..config
            })
        }
        _ => None,
    }
}

/// How many of the nodes lie beneath a path.
pub fn count_beneath(path: &str) -> usize {
    match path {
        // ZooKeeper counts what starts with the path and a slash, and so here the root as well.
        "" => 4,
        "/" => 3,
        TOP => 2,
        _ => 0,
    }
}

/// What lies beneath a path in the keyspace lies beneath these.
pub fn roots(path: &str) -> impl Iterator<Item = &str> {
    let (own, kept) = match path {
        "" | "/" => (Some("/"), Some(QUOTA)),
        TOP => (None, Some(QUOTA)),
        _ => (Some(path), None),
    };
    own.into_iter().chain(kept)
}

/// What a change comes to where nothing is kept; none if it is elsewhere.
pub fn step(write: &Write<'_>) -> Option<Result<NodeOp, Code>> {
    let path = match write {
        Write::Create(create) => create.path,
        Write::Delete { path, .. }
        | Write::SetData { path, .. }
        | Write::SetAcl { path, .. }
        | Write::Check { path, .. } => path,
    };
    if path == QUOTA {
        return match write {
            Write::Create(_) => Some(Err(Code::NodeExists)),
            Write::Delete { .. } => Some(Err(Code::BadArguments)),
            Write::SetData { .. } | Write::SetAcl { .. } | Write::Check { .. } => None,
        };
    }
    let is_kept = is_quota(path) || !is_system(path);
    (!is_kept).then(|| change(write, path, node(path)))
}

fn change(write: &Write<'_>, path: &str, node: Option<SystemNode>) -> Result<NodeOp, Code> {
    let restricted = path.starts_with(CONFIG);
    let Some(node) = node else {
        return Err(match write {
            Write::Create(_) if restricted => Code::NoAuth,
            // Nothing of clients is kept here.
            Write::Create(_) => Code::Unimplemented,
            Write::Delete { .. }
            | Write::SetData { .. }
            | Write::SetAcl { .. }
            | Write::Check { .. } => Code::NoNode,
        });
    };
    match write {
        Write::Create(_) => Err(Code::NodeExists),
        Write::Delete { .. } => Err(Code::BadArguments),
        Write::SetData { .. } | Write::SetAcl { .. } if restricted => Err(Code::NoAuth),
        Write::SetData { .. } | Write::SetAcl { .. } => Err(Code::Unimplemented),
        Write::Check { version, .. } if *version != -1 && *version != node.stat.version => {
            Err(Code::BadVersion)
        }
        Write::Check { .. } => Ok(NodeOp {
            path: Bytes::from_static(b"/"),
            tests: Vec::new(),
            action: Action::Check,
            cause: Cause::Set,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_each_others() {
        for (path, known) in [
            ("/zookeeper", "\0zookeeper"),
            ("/zookeeper/config", "\0zookeeper/config"),
            ("/zookeeper/quotas", "\0zookeeper/quotas"),
            ("/zookeeper/quota", "\0"),
            ("/zookeeper/quota/a/b", "\0/a/b"),
        ] {
            assert_eq!(name(path.as_bytes()).as_deref(), Some(known.as_bytes()));
            assert_eq!(path_of(known.as_bytes()).as_deref(), Some(path));
        }
        for other in ["/", "/a", "/zookeepers", "zookeeper"] {
            assert_eq!(name(other.as_bytes()), None, "{other}");
            assert_eq!(path_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn quotas_are_spelled_as_zookeeper_does() {
        let limits = |nodes_max, bytes_max| Limits {
            nodes_max,
            bytes_max,
        };
        for (text, soft, hard) in [
            ("count=4,bytes=5", (Some(4), Some(5)), (None, None)),
            ("count=-1,bytes=-1", (None, None), (None, None)),
            (
                "count=1,bytes=-1=;byteHardLimit=9;countHardLimit=3",
                (Some(1), None),
                (Some(3), Some(9)),
            ),
            ("nonsense", (None, None), (None, None)),
            ("count=x", (None, None), (None, None)),
        ] {
            let expected = Quota {
                soft: limits(soft.0, soft.1),
                hard: limits(hard.0, hard.1),
            };
            assert_eq!(Quota::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn leaves_of_quotas_mean_something() {
        let mount = Mount::at("/m").expect("a path");
        let of = Bytes::from_static(b"/m/a/b");
        let stats = role("/zookeeper/quota/a/b/zookeeper_stats", None, &mount);
        assert_eq!(stats, Role::Tally { of: of.clone() });
        let limits = role(
            "/zookeeper/quota/a/b/zookeeper_limits",
            Some(b"countHardLimit=3"),
            &mount,
        );
        let hard = Limits {
            nodes_max: Some(3),
            bytes_max: None,
        };
        assert_eq!(limits, Role::Limits { of, limits: hard });
        for path in [
            "/zookeeper/quota/a",
            "/zookeeper/quota/zookeeper_stats",
            "/a/zookeeper_limits",
        ] {
            assert_eq!(role(path, None, &mount), Role::Plain, "{path}");
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_told() {
        let tally = |nodes, bytes| Tally { nodes, bytes };
        let quota = Quota::parse(b"count=2,bytes=5=;countHardLimit=4");
        assert_eq!(quota.exceeded(tally(4, 5)), None);
        assert_eq!(quota.exceeded(tally(5, 5)), Some("count"));
        assert_eq!(quota.exceeded(tally(1, 6)), Some("bytes"));
    }
}
