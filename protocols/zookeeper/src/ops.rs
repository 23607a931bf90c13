//! What requests ask of the keyspace, and what its answers are in ZooKeeper's records. Pure.

use crate::acl;
use crate::config::Options;
use crate::errors::Code;
use crate::jute::Write as _;
use crate::mount::Mount;
use crate::path;
use crate::record::{Create, CreateForm, Write, result};
use crate::stat::{self, Stat};
use crate::system;
use bytes::Bytes;
use gateway::keyspace::LeaseId;
use gateway::keyspace::access::{Identity, Permissions};
use gateway::keyspace::aside;
use gateway::keyspace::change::Cause;
use gateway::keyspace::node::{Action, Kind, NodeAnswer, NodeOp, NodeTest, NodeWrite, Sequence};

/// The longest time to live that ZooKeeper can keep: it has 40 bits for it.
const TTL_MS_MAX: i64 = 0xff_ffff_ffff;

/// The root's path.
pub const ROOT: &str = "/";

/// Who asks, and what is allowed here.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The session.
    pub session: LeaseId,
    /// Who the client has shown to be.
    pub ids: &'a [Identity],
    /// The settings.
    pub options: &'a Options,
}

/// The steps of a change or of a multi.
#[derive(Debug)]
pub struct Steps {
    /// One for each change, up to the one that can only fail.
    pub ops: Vec<NodeOp>,
    /// The error of that one.
    pub doomed: Option<Code>,
    /// What their access lists take, whose lines `auth` stand for more than was sent.
    pub list_bytes: usize,
}

/// A change that can only fail, but in its turn, and not before another that fails earlier.
pub struct Doomed {
    /// Why.
    code: Code,
    /// Of a creation, the parent: that it is missing or forbids it comes first.
    parent: Option<Bytes>,
}

impl From<Code> for Doomed {
    fn from(code: Code) -> Doomed {
        Doomed { code, parent: None }
    }
}

impl Doomed {
    /// A step that is refused where something is that always is.
    fn step(self) -> NodeOp {
        let mut tests = Vec::new();
        if self.parent.is_some() {
            tests.push(NodeTest::Exists);
            tests.push(NodeTest::Allowed(Permissions::CREATE));
        }
        tests.push(NodeTest::Missing);
        let path = self.parent.unwrap_or(Bytes::from_static(b"/"));
        op(path, tests, Action::Check, Cause::Set)
    }
}

impl Steps {
    /// The steps of `writes`, which lie in `frames`.
    pub fn of(writes: &[Write<'_>], frames: &Bytes, caller: Caller<'_>) -> Steps {
        let mut steps = Steps {
            ops: Vec::with_capacity(writes.len()),
            doomed: None,
            list_bytes: 0,
        };
        for write in writes {
            let step = step(write, frames, caller).and_then(|op| {
                steps.list_bytes += list_bytes(&op.action);
                match steps.list_bytes <= caller.options.frame_bytes_max {
                    true => Ok(op),
                    false => Err(Code::InvalidAcl.into()),
                }
            });
            match step {
                Ok(op) => steps.ops.push(op),
                Err(doomed) => {
                    steps.doomed = Some(doomed.code);
                    steps.ops.push(doomed.step());
                    break;
                }
            }
        }
        steps
    }
}

/// What the access list takes that a step gives to a node.
fn list_bytes(action: &Action) -> usize {
    let list = match action {
        Action::Write(write) => write.acl.as_ref(),
        Action::SetAcl(list) => list.as_ref(),
        Action::Check | Action::MakeDirectory { .. } | Action::Remove { .. } => None,
    };
    list.map_or(0, |list| acl::bytes_of(list.iter().map(|entry| &entry.who)))
}

/// The error of a step that failed, of `steps` of which the last may be doomed.
pub fn code_of(step: usize, code: Code, steps: usize, doomed: Option<Code>) -> Code {
    match doomed {
        Some(doomed) if step + 1 == steps && code == Code::NodeExists => doomed,
        Some(_) | None => code,
    }
}

/// The step of one change, or why there can be none. The tests come in ZooKeeper's order.
fn step(write: &Write<'_>, frames: &Bytes, caller: Caller<'_>) -> Result<NodeOp, Doomed> {
    if let Some(answer) = system::step(write) {
        return Ok(answer?);
    }
    match write {
        Write::Create(create) => create_step(create, frames, caller),
        Write::Delete { path, version } => {
            if !path.contains('/') || path.contains('\0') || *path == ROOT {
                return Err(Code::BadArguments.into());
            }
            let mut tests = vec![
                NodeTest::ParentAllowed(Permissions::DELETE),
                NodeTest::Exists,
            ];
            tests.extend(version_test(*version));
            let action = Action::Remove { recursive: false };
            let path = existing(path, frames, caller)?;
            Ok(op(path, tests, action, Cause::Delete))
        }
        Write::SetData {
            path,
            data,
            version,
        } => {
            let role = system::role(path, *data, &caller.options.mount);
            let path = valid(path, frames, caller)?;
            let mut tests = vec![NodeTest::Exists, NodeTest::Allowed(Permissions::WRITE)];
            tests.extend(room(*data, caller));
            tests.extend(version_test(*version));
            let write = NodeWrite {
                role,
                ..value(*data, frames)
            };
            Ok(op(path, tests, Action::Write(write), Cause::Update))
        }
        Write::SetAcl { path, acl, version } => {
            let path = valid(path, frames, caller)?;
            let list = acl::expand(acl, caller.ids, caller.options)?;
            let mut tests = vec![NodeTest::Exists, NodeTest::Allowed(Permissions::ADMIN)];
            tests.extend((*version != -1).then(|| NodeTest::AclVersion(version.cast_unsigned())));
            Ok(op(path, tests, Action::SetAcl(list), Cause::Set))
        }
        Write::Check { path, version } => {
            let mut tests = vec![NodeTest::Exists, NodeTest::Allowed(Permissions::READ)];
            tests.extend(version_test(*version));
            let path = existing(path, frames, caller)?;
            Ok(op(path, tests, Action::Check, Cause::Set))
        }
    }
}

fn create_step(create: &Create<'_>, frames: &Bytes, caller: Caller<'_>) -> Result<NodeOp, Doomed> {
    let mode = Mode::of(create, caller.options)?;
    let parent = path::parent(create.path).filter(|_| !create.path.contains('\0'));
    let parent = parent.ok_or(Code::BadArguments)?;
    let list = acl::expand(&create.acl, caller.ids, caller.options)?;
    let mount = &caller.options.mount;
    if !path::is_valid(parent) {
        return Err(Code::NoNode.into());
    }
    let doomed = |code| Doomed {
        code,
        parent: Some(mount.key_within(parent, frames)),
    };
    if create.path == ROOT && !mode.sequential {
        return Err(doomed(Code::NodeExists));
    }
    let is_valid = match mode.sequential {
        // What is appended makes a name even of nothing.
        true => path::is_valid(&format!("{}0", create.path)),
        false => path::is_valid(create.path),
    };
    if !is_valid {
        return Err(doomed(Code::BadArguments));
    }
    let write = NodeWrite {
        lease: Some(if mode.ephemeral {
            caller.session
        } else {
            LeaseId::NONE
        }),
        kind: mode.kind,
        acl: list,
        sequence: mode.sequential.then_some(Sequence::Creates),
        role: system::role(create.path, create.data, mount),
        ..value(create.data, frames)
    };
    let mut tests = vec![
        NodeTest::ParentAllowed(Permissions::CREATE),
        NodeTest::Missing,
        NodeTest::ParentUnbound,
    ];
    tests.extend(room(create.data, caller));
    let path = mount.stem_within(create.path, frames);
    Ok(op(path, tests, Action::Write(write), Cause::Create))
}

/// What kind of node is to be created.
struct Mode {
    ephemeral: bool,
    sequential: bool,
    kind: Kind,
}

impl Mode {
    fn of(create: &Create<'_>, options: &Options) -> Result<Mode, Code> {
        let (ephemeral, sequential, idle) = match create.flags {
            // A container is one because of the kind of its request, not of this flag.
            0 | 4 => (false, false, false),
            1 => (true, false, false),
            2 => (false, true, false),
            3 => (true, true, false),
            5 => (false, false, true),
            6 => (false, true, true),
            _ => return Err(Code::BadArguments),
        };
        if idle && !options.extended_types {
            return Err(Code::Unimplemented);
        }
        let kind = match create.form {
            CreateForm::Ttl { ttl_ms } if idle && (1..=TTL_MS_MAX).contains(&ttl_ms) => {
                Kind::Idle {
                    ttl_ms: ttl_ms.unsigned_abs(),
                }
            }
            CreateForm::Ttl { .. } => return Err(Code::BadArguments),
            CreateForm::Plain | CreateForm::WithStat | CreateForm::Container if idle => {
                return Err(Code::BadArguments);
            }
            CreateForm::Container => Kind::Container {
                linger_ms: options.container_linger_ms,
            },
            CreateForm::Plain | CreateForm::WithStat => Kind::Plain,
        };
        Ok(Mode {
            ephemeral: ephemeral && kind == Kind::Plain,
            sequential,
            kind,
        })
    }
}

fn op(path: Bytes, tests: Vec<NodeTest>, action: Action, cause: Cause) -> NodeOp {
    NodeOp {
        path,
        tests,
        action,
        cause,
    }
}

/// A value to write, which lies in `frames`.
fn value(data: Option<&[u8]>, frames: &Bytes) -> NodeWrite {
    NodeWrite {
        null: data.is_none(),
        ..NodeWrite::new(data.map_or_else(Bytes::new, |data| frames.slice_ref(data)))
    }
}

/// That quotas leave room for the data, where they are enforced.
fn room(data: Option<&[u8]>, caller: Caller<'_>) -> Option<NodeTest> {
    let bytes = data.map_or(0, <[u8]>::len) as u64;
    let enforced = caller.options.enforce_quota;
    enforced.then_some(NodeTest::Room { bytes })
}

fn version_test(version: i32) -> Option<NodeTest> {
    (version != -1).then(|| NodeTest::Version(stat::puts_of(version)))
}

/// The key of a path as ZooKeeper demands it of what is written.
fn valid(path: &str, frames: &Bytes, caller: Caller<'_>) -> Result<Bytes, Code> {
    match path::is_valid(path) {
        true => Ok(caller.options.mount.key_within(path, frames)),
        false => Err(Code::BadArguments),
    }
}

/// The key of a node that has to be there: what cannot be a node's path is not.
fn existing(path: &str, frames: &Bytes, caller: Caller<'_>) -> Result<Bytes, Code> {
    valid(path, frames, caller).map_err(|_| Code::NoNode)
}

/// What a change that was done answers. The root's stat is not all in the keyspace: `complete` sees
/// to the rest.
pub fn encode_write(
    out: &mut Vec<u8>,
    write: &Write<'_>,
    answer: &NodeAnswer,
    mount: &Mount,
    complete: impl Fn(&mut Stat),
) {
    let path = mount.shown(&answer.path);
    let stat = |out: &mut Vec<u8>| {
        let node = answer.node.as_ref().expect("it was just written");
        let mut stat = Stat::of(node);
        if aside::is_aside(&answer.path) {
            stat.data_length = stat::length_of(system::data(node.aside.as_deref()).as_deref());
        }
        if path.as_deref() == Some(ROOT) {
            complete(&mut stat);
        }
        stat.encode(out);
    };
    match write {
        Write::Create(create) => {
            out.buffer(path.as_deref().map(str::as_bytes));
            match create.form {
                CreateForm::Plain => {}
                CreateForm::WithStat | CreateForm::Container | CreateForm::Ttl { .. } => stat(out),
            }
        }
        Write::SetData { .. } | Write::SetAcl { .. } => stat(out),
        Write::Delete { .. } | Write::Check { .. } => {}
    }
}

/// What a multi that was done answers.
pub fn encode_multi(
    out: &mut Vec<u8>,
    writes: &[Write<'_>],
    answers: &[NodeAnswer],
    mount: &Mount,
    complete: impl Fn(&mut Stat),
) {
    for (write, answer) in writes.iter().zip(answers) {
        part(out, kind_of(write));
        encode_write(out, write, answer, mount, &complete);
    }
    end(out);
}

/// What a multi of `len` parts answers that was not done: it says so of every part.
pub fn encode_failed_multi(out: &mut Vec<u8>, len: usize, failed: usize, code: Code) {
    for at in 0..len {
        let number = match at.cmp(&failed) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => code.number(),
            std::cmp::Ordering::Greater => Code::RuntimeInconsistency.number(),
        };
        error_part(out, number);
    }
    end(out);
}

/// The header of a part that was done.
pub fn part(out: &mut Vec<u8>, kind: i32) {
    out.int(kind);
    out.boolean(false);
    out.int(0);
}

/// A part that was not done.
pub fn error_part(out: &mut Vec<u8>, number: i32) {
    out.int(result::ERROR);
    out.boolean(false);
    out.int(number);
    out.int(number);
}

/// The end of the parts.
pub fn end(out: &mut Vec<u8>) {
    out.int(result::ERROR);
    out.boolean(true);
    out.int(-1);
}

/// What kind of result a change has in a multi's answer.
fn kind_of(write: &Write<'_>) -> i32 {
    match write {
        Write::Create(create) => match create.form {
            CreateForm::Plain => result::CREATE,
            CreateForm::WithStat | CreateForm::Container | CreateForm::Ttl { .. } => {
                result::CREATE_2
            }
        },
        Write::Delete { .. } => result::DELETE,
        Write::SetData { .. } => result::SET_DATA,
        Write::Check { .. } => result::CHECK,
        Write::SetAcl { .. } => unreachable!("no multi sets access lists"),
    }
}
