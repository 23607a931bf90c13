//! `/zookeeper` and all beneath: ZooKeeper's own nodes, which are no part of the shared keyspace. What
//! other protocols put under these names is not shown. Watches of these nodes are kept apart by what
//! their names begin with.

use crate::errors::Code;
use crate::record::Write;
use crate::stat::Stat;
use bytes::Bytes;
use gateway::keyspace::access::{AccessEntry, Identity, Permissions};
use gateway::keyspace::change::Cause;
use gateway::keyspace::node::{Action, NodeOp};

/// The name of the root's child that holds all others.
pub const NAME: &str = "zookeeper";

/// Its path.
pub const TOP: &str = "/zookeeper";
/// Where the members are told.
pub const CONFIG: &str = "/zookeeper/config";
const QUOTA: &str = "/zookeeper/quota";

/// What the names of these nodes begin with where they must not be taken for those of the keyspace.
const APART: u8 = 0;

/// The name under which one of these nodes is watched; none of a path that is of another realm.
pub fn name(path: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(TOP.as_bytes())?;
    let is_own = rest.is_empty() || rest.starts_with(b"/");
    is_own.then(|| [&[APART], path].concat())
}

/// The path of one of these nodes, by what it is watched under; none of what is of another realm.
pub fn path_of(name: &[u8]) -> Option<String> {
    let path = name.strip_prefix(&[APART])?;
    String::from_utf8(path.to_vec()).ok()
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
        QUOTA => Some(plain(&[])),
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

/// What a change of this realm comes to; none if it is of another.
pub fn step(write: &Write<'_>) -> Option<Result<NodeOp, Code>> {
    let path = match write {
        Write::Create(create) => create.path,
        Write::Delete { path, .. }
        | Write::SetData { path, .. }
        | Write::SetAcl { path, .. }
        | Write::Check { path, .. } => path,
    };
    is_system(path).then(|| change(write, path, node(path)))
}

fn change(write: &Write<'_>, path: &str, node: Option<SystemNode>) -> Result<NodeOp, Code> {
    let restricted = path.starts_with(CONFIG);
    let Some(node) = node else {
        return Err(match write {
            Write::Create(_) if restricted => Code::NoAuth,
            // Quotas are not kept.
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
