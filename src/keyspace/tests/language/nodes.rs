//! The language of steps at nodes, separated by semicolons:
//!
//! ```text
//! write /a 1 missing; write /a/b- x seq=creates; write /a keep deadline=50 exists silent
//! mkdir /d; remove /a version=2; remove /d recursive; acl /a open; check /a version=1
//! write /p 1 acl=digest:bob:rw,world:anyone:r; write /p 2 may=w; write /p/c 3 parentmay=c
//! ```
//!
//! Parents are required unless `made` is said. A path that begins with a tilde is one aside:
//!
//! ```text
//! write ~/q x limits=/a:3:100; write ~/s x tally=/a; write /a/b 1 room=1
//! ```

use keyspace::aside::{Limits, Role};
use keyspace::change::Cause;
use keyspace::node::{Action, Deadline, Kind, NodeOp, NodeTest, NodeWrite, Parents, Sequence};
use keyspace::{AccessEntry, AccessList, Identity, LeaseId, Permissions, WallMs};

type Parsed<T> = Result<T, String>;

pub fn ops(text: &str) -> Parsed<Vec<NodeOp>> {
    text.split(';').map(|step| op(step.trim())).collect()
}

fn op(text: &str) -> Parsed<NodeOp> {
    let mut words = text.split_whitespace();
    let verb = words.next().ok_or("a verb is missing")?;
    let path = words.next().ok_or("a path is missing")?;
    let (action, cause) = match verb {
        "check" => (Action::Check, Cause::Set),
        "write" => {
            let value = words.next().ok_or("a value is missing")?;
            (Action::Write(write(value)), Cause::Set)
        }
        "mkdir" => (
            Action::MakeDirectory {
                deadline: Deadline::Clear,
                sequence: None,
            },
            Cause::Set,
        ),
        "remove" => (Action::Remove { recursive: false }, Cause::Delete),
        "acl" => {
            let acl = words.next().ok_or("a list is missing")?;
            (Action::SetAcl(access_list(acl)?), Cause::Set)
        }
        other => return Err(format!("not a step: {other}")),
    };
    let mut op = NodeOp {
        path: path.replacen('~', "\0", 1).into(),
        tests: Vec::new(),
        action,
        cause,
    };
    for word in words {
        let (name, given) = word.split_once('=').unwrap_or((word, ""));
        if !test(&mut op.tests, name, given)? && !detail(&mut op, name, given)? {
            return Err(format!("not part of a step: {word}"));
        }
    }
    Ok(op)
}

fn write(value: &str) -> NodeWrite {
    NodeWrite {
        value: Some(value.to_owned().into())
            .filter(|_| value != "keep")
            .map(|given| if value == "null" { "".into() } else { given }),
        null: value == "null",
        deadline: Deadline::Clear,
        ..NodeWrite::new("")
    }
}

fn test(tests: &mut Vec<NodeTest>, name: &str, given: &str) -> Parsed<bool> {
    let test = match name {
        "exists" => NodeTest::Exists,
        "missing" => NodeTest::Missing,
        "file" => NodeTest::File,
        "unrestricted" => NodeTest::Unrestricted,
        "parentunbound" => NodeTest::ParentUnbound,
        "may" => NodeTest::Allowed(permissions(given)?),
        "parentmay" => NodeTest::ParentAllowed(permissions(given)?),
        "room" => NodeTest::Room {
            bytes: number(given)?,
        },
        "version" => NodeTest::Version(number(given)?),
        "aclversion" => NodeTest::AclVersion(number(given)?),
        "same" => {
            let (value, event) = given.split_once('@').ok_or("neither value nor event")?;
            NodeTest::Same {
                value: Some(value.to_owned().into()).filter(|_| !value.is_empty()),
                event: Some(event)
                    .filter(|e| !e.is_empty())
                    .map(number)
                    .transpose()?,
            }
        }
        _ => return Ok(false),
    };
    tests.push(test);
    Ok(true)
}

fn detail(op: &mut NodeOp, name: &str, given: &str) -> Parsed<bool> {
    let until = match given {
        "keep" => Ok(Deadline::Keep),
        at => number(at).map(|at| Deadline::At(WallMs(at))),
    };
    match (&mut op.action, name) {
        (_, "cause") => {
            op.cause = match given {
                "create" => Cause::Create,
                "update" => Cause::Update,
                "cas" => Cause::CompareAndSwap,
                "cad" => Cause::CompareAndDelete,
                other => return Err(format!("not a cause: {other}")),
            }
        }
        (Action::Remove { recursive }, "recursive") => *recursive = true,
        (Action::MakeDirectory { deadline, .. }, "deadline") => *deadline = until?,
        (Action::Write(write), "deadline") => write.deadline = until?,
        (Action::Write(write), "lease") => write.lease = Some(LeaseId(number(given)?)),
        (Action::Write(write), "acl") => write.acl = access_list(given)?,
        (Action::Write(write), "container") => {
            write.kind = Kind::Container { linger_ms: 60_000 };
        }
        (Action::Write(write), "idle") => {
            write.kind = Kind::Idle {
                ttl_ms: number(given)?,
            }
        }
        (Action::Write(write), "made") => write.parents = Parents::Made,
        (Action::Write(write), "reborn") => write.reborn = true,
        (Action::Write(write), "silent") => write.silent = true,
        (Action::Write(write), "sparing") => write.spares_directory = true,
        (Action::Write(write), "tally") => {
            write.role = Role::Tally {
                of: given.to_owned().into(),
            }
        }
        (Action::Write(write), "limits") => write.role = limits(given)?,
        (
            Action::Write(NodeWrite { sequence, .. }) | Action::MakeDirectory { sequence, .. },
            "seq",
        ) => {
            *sequence = Some(match given {
                "creates" => Sequence::Creates,
                "event" => Sequence::Event,
                other => return Err(format!("not a sequence: {other}")),
            })
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `/path:nodes:bytes`, where nothing is any amount.
fn limits(text: &str) -> Parsed<Role> {
    let parts: Vec<&str> = text.split(':').collect();
    let [of, nodes, bytes] = parts[..] else {
        return Err(format!("not limits: {text}"));
    };
    let max = |text: &str| Some(text).filter(|text| !text.is_empty()).map(number);
    Ok(Role::Limits {
        of: of.to_owned().into(),
        limits: Limits {
            nodes_max: max(nodes).transpose()?,
            bytes_max: max(bytes).transpose()?,
        },
    })
}

/// Lines of an access list, separated by commas.
fn access_list(text: &str) -> Parsed<Option<AccessList>> {
    if text == "open" {
        return Ok(None);
    }
    let entry = |line: &str| {
        let (who, may) = line.rsplit_once(':').ok_or("no permissions")?;
        let permissions = permissions(may)?;
        let who = identity(who)?;
        Ok(AccessEntry { permissions, who })
    };
    let entries: Parsed<Vec<_>> = text.split(',').map(entry).collect();
    Ok(Some(entries?.into()))
}

/// `scheme:id`.
pub fn identity(text: &str) -> Parsed<Identity> {
    let (scheme, id) = text.split_once(':').ok_or("no scheme")?;
    Ok(Identity::new(scheme, id))
}

const PERMISSIONS: [(char, Permissions); 5] = [
    ('r', Permissions::READ),
    ('w', Permissions::WRITE),
    ('c', Permissions::CREATE),
    ('d', Permissions::DELETE),
    ('a', Permissions::ADMIN),
];

fn permissions(text: &str) -> Parsed<Permissions> {
    text.chars().try_fold(Permissions(0), |all, letter| {
        let known = PERMISSIONS.iter().find(|(known, _)| *known == letter);
        let (_, permission) = known.ok_or(format!("no permission: {letter}"))?;
        Ok(all | *permission)
    })
}

pub fn show_access(list: &AccessList) -> String {
    let entry = |entry: &AccessEntry| {
        let held = PERMISSIONS
            .iter()
            .filter(|(_, one)| entry.permissions.meets(*one));
        let letters: String = held.map(|(letter, _)| letter).collect();
        format!("{}:{}:{letters}", entry.who.scheme, entry.who.id)
    };
    list.iter().map(entry).collect::<Vec<_>>().join(",")
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Parsed<T> {
    text.parse().map_err(|e| format!("{text}: {e}"))
}
