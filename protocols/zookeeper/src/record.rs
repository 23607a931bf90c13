//! What clients ask, as records borrowed from the frame they came in.
//!
//! [`parse`] tells three kinds of bad requests apart, as ZooKeeper does: one without a header, one of
//! a type that is not served, and one whose body is not what its type says.

use crate::jute::{self, Parsed};

/// The xid of events, which answer nothing.
pub const EVENT_XID: i32 = -1;

/// The header of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the client calls the request.
    pub xid: i32,
    /// Which kind of request.
    pub kind: i32,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<'a> {
    /// Changes something.
    Write(Write<'a>),
    /// Changes several things, or none.
    Multi(Vec<Write<'a>>),
    /// Reads something.
    Read(Read<'a>),
    /// Reads several things.
    MultiRead(Vec<Read<'a>>),
    /// How many nodes lie beneath.
    GetAllChildrenNumber {
        /// Which node.
        path: &'a str,
    },
    /// Answers once everything acknowledged before is here.
    Sync {
        /// Answered back.
        path: &'a str,
    },
    /// Watches again, after a reconnect.
    SetWatches(SetWatches<'a>),
    /// Watches until told otherwise.
    AddWatch {
        /// Which node.
        path: &'a str,
        /// 0 for the node and its children, 1 for all beneath as well.
        mode: i32,
    },
    /// Whether there is a watch.
    CheckWatches {
        /// Which node.
        path: &'a str,
        /// Which kind.
        kind: i32,
    },
    /// Watches no longer.
    RemoveWatches {
        /// Which node.
        path: &'a str,
        /// Which kind.
        kind: i32,
    },
    /// Adds an identity.
    Auth {
        /// By which rules.
        scheme: &'a str,
        /// The proof.
        token: &'a [u8],
    },
    /// Adds an identity by SASL, step by step.
    Sasl {
        /// The client's part of this step.
        token: &'a [u8],
    },
    /// Changes the members.
    Reconfig(Reconfig<'a>),
    /// Who the client is.
    WhoAmI,
    /// Says that the client lives.
    Ping,
    /// Ends the session.
    CloseSession,
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub enum Write<'a> {
    /// Creates a node.
    Create(Create<'a>),
    /// Deletes one.
    Delete {
        /// Which node.
        path: &'a str,
        /// Only at this version; -1 for any.
        version: i32,
    },
    /// Replaces a node's data.
    SetData {
        /// Which node.
        path: &'a str,
        /// What it gets.
        data: Option<&'a [u8]>,
        /// Only at this version; -1 for any.
        version: i32,
    },
    /// Replaces a node's access list.
    SetAcl {
        /// Which node.
        path: &'a str,
        /// What it gets.
        acl: Vec<Acl<'a>>,
        /// Only at this version of the list; -1 for any.
        version: i32,
    },
    /// Changes nothing, but has to hold for what comes with it.
    Check {
        /// Which node.
        path: &'a str,
        /// Its version; -1 for any.
        version: i32,
    },
}

/// See [`Write::Create`].
#[derive(Clone, Debug, PartialEq)]
pub struct Create<'a> {
    /// Which of the kinds of request.
    pub form: CreateForm,
    /// Which node.
    pub path: &'a str,
    /// What it gets.
    pub data: Option<&'a [u8]>,
    /// Who may do what.
    pub acl: Vec<Acl<'a>>,
    /// What kind of node.
    pub flags: i32,
}

/// The requests that create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateForm {
    /// Answered with the path.
    Plain,
    /// Answered with the stat as well; so are the others.
    WithStat,
    /// Creates a container.
    Container,
    /// Creates what ends when idle.
    Ttl {
        /// For so long, in milliseconds.
        ttl_ms: i64,
    },
}

/// One entry of an access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl<'a> {
    /// What may be done.
    pub permissions: i32,
    /// By whose rules; null is refused later than what cannot be read.
    pub scheme: Option<&'a str>,
    /// By whom.
    pub id: &'a str,
}

/// A read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read<'a> {
    /// A node's stat.
    Exists {
        /// Which node.
        path: &'a str,
        /// Watch it, even if it is not there.
        watch: bool,
    },
    /// A node's data and stat.
    GetData {
        /// Which node.
        path: &'a str,
        /// Watch it.
        watch: bool,
    },
    /// The names of a node's children.
    GetChildren {
        /// Which node.
        path: &'a str,
        /// Watch them.
        watch: bool,
        /// Answer with the node's stat as well.
        with_stat: bool,
    },
    /// A node's access list.
    GetAcl {
        /// Which node.
        path: &'a str,
    },
    /// What the session's end would delete.
    GetEphemerals {
        /// Only paths that start so.
        prefix: Option<&'a str>,
    },
}

impl<'a> Read<'a> {
    /// The node that is read, if it is about one.
    pub fn path(&self) -> Option<&'a str> {
        match self {
            Read::Exists { path, .. }
            | Read::GetData { path, .. }
            | Read::GetChildren { path, .. }
            | Read::GetAcl { path } => Some(path),
            Read::GetEphemerals { .. } => None,
        }
    }
}

/// A change of the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconfig<'a> {
    /// Servers that come, or change.
    pub joining: Option<&'a str>,
    /// Numbers of servers that go.
    pub leaving: Option<&'a str>,
    /// All servers, in place of the two.
    pub members: Option<&'a str>,
    /// The version of the members that it is to follow; -1 for any.
    pub from: i64,
}

/// What a client had watched on another connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetWatches<'a> {
    /// What it has seen: whatever happened later is to be told now.
    pub zxid: i64,
    /// Nodes that it had read.
    pub data: Vec<&'a str>,
    /// Nodes that it had found missing.
    pub exist: Vec<&'a str>,
    /// Nodes whose children it had read.
    pub child: Vec<&'a str>,
    /// Nodes that it watches until told otherwise.
    pub persistent: Vec<&'a str>,
    /// The same, with all beneath.
    pub recursive: Vec<&'a str>,
}

/// Why a frame is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It has no header, or is a proof of identity that cannot be read: nobody is answered.
    Unanswerable,
    /// This kind of request is not served.
    Kind(Header),
    /// It is not what its kind says.
    Body(Header),
}

/// The types of requests, under ZooKeeper's names.
#[expect(missing_docs, reason = "ZooKeeper's names say what they are")]
mod kind {
    pub const CLOSE_SESSION: i32 = -11;
    pub const ERROR: i32 = -1;
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const GET_CHILDREN: i32 = 8;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const GET_CHILDREN_2: i32 = 12;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE_2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
    pub const AUTH: i32 = 100;
    pub const SET_WATCHES: i32 = 101;
    pub const SASL: i32 = 102;
    pub const GET_EPHEMERALS: i32 = 103;
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub const SET_WATCHES_2: i32 = 105;
    pub const ADD_WATCH: i32 = 106;
    pub const WHO_AM_I: i32 = 107;
}

/// The greatest of the flags of creations.
const FLAGS_MAX: i32 = 6;

/// The kinds of results in the answer to a multi.
pub mod result {
    pub use super::kind::{
        CHECK, CREATE, CREATE_2, DELETE, ERROR, GET_CHILDREN, GET_DATA, SET_DATA,
    };
}

/// Reads a request.
pub fn parse(frame: &[u8]) -> Result<(Header, Request<'_>), Bad> {
    let (body, header) = header(frame).map_err(|_| Bad::Unanswerable)?;
    let request = request(header.kind, body).ok_or(Bad::Kind(header))?;
    let (_, request) = request.map_err(|_| match header.kind {
        kind::AUTH | kind::SASL => Bad::Unanswerable,
        _ => Bad::Body(header),
    })?;
    Ok((header, request))
}

fn header(input: &[u8]) -> Parsed<'_, Header> {
    let (rest, xid) = jute::int(input)?;
    let (rest, kind) = jute::int(rest)?;
    Ok((rest, Header { xid, kind }))
}

/// The body of a request; none where the kind is not served. What follows the body is ignored, as
/// ZooKeeper does.
fn request(kind: i32, body: &[u8]) -> Option<Parsed<'_, Request<'_>>> {
    Some(match kind {
        kind::CREATE
        | kind::CREATE_2
        | kind::CREATE_CONTAINER
        | kind::CREATE_TTL
        | kind::DELETE
        | kind::SET_DATA => write(kind, body)?.map(to(Request::Write)),
        kind::SET_ACL => set_acl(body).map(to(Request::Write)),
        kind::MULTI => multi(body, multi_write).map(to(Request::Multi)),
        kind::EXISTS
        | kind::GET_DATA
        | kind::GET_ACL
        | kind::GET_CHILDREN
        | kind::GET_CHILDREN_2
        | kind::GET_EPHEMERALS => read(kind, body)?.map(to(Request::Read)),
        kind::MULTI_READ => multi(body, multi_read).map(to(Request::MultiRead)),
        kind::GET_ALL_CHILDREN_NUMBER => {
            jute::text(body).map(to(|path| Request::GetAllChildrenNumber { path }))
        }
        kind::SYNC => jute::text(body).map(to(|path| Request::Sync { path })),
        kind::SET_WATCHES => set_watches(body, false).map(to(Request::SetWatches)),
        kind::SET_WATCHES_2 => set_watches(body, true).map(to(Request::SetWatches)),
        kind::ADD_WATCH => {
            path_and_int(body).map(to(|(path, mode)| Request::AddWatch { path, mode }))
        }
        kind::CHECK_WATCHES => {
            path_and_int(body).map(to(|(path, kind)| Request::CheckWatches { path, kind }))
        }
        kind::REMOVE_WATCHES => {
            path_and_int(body).map(to(|(path, kind)| Request::RemoveWatches { path, kind }))
        }
        kind::AUTH => auth(body),
        kind::SASL => jute::buffer(body).map(to(|token: Option<_>| Request::Sasl {
            token: token.unwrap_or_default(),
        })),
        kind::RECONFIG => reconfig(body).map(to(Request::Reconfig)),
        kind::WHO_AM_I => Ok((body, Request::WhoAmI)),
        kind::PING => Ok((body, Request::Ping)),
        kind::CLOSE_SESSION => Ok((body, Request::CloseSession)),
        _ => return None,
    })
}

/// Makes something else of what was parsed.
fn to<'a, T, U>(make: impl Fn(T) -> U) -> impl Fn((&'a [u8], T)) -> (&'a [u8], U) {
    move |(rest, parsed)| (rest, make(parsed))
}

/// A change that may be part of a multi; none for other kinds. ZooKeeper cannot read a multi that
/// creates with flags it does not know.
fn multi_write(kind: i32, body: &[u8]) -> Option<Parsed<'_, Write<'_>>> {
    let parsed = write(kind, body)?;
    Some(match &parsed {
        Ok((_, Write::Create(create))) if !(0..=FLAGS_MAX).contains(&create.flags) => {
            Err(jute::malformed(body))
        }
        Ok(_) | Err(_) => parsed,
    })
}

/// A change; none for other kinds.
fn write(kind: i32, body: &[u8]) -> Option<Parsed<'_, Write<'_>>> {
    Some(match kind {
        kind::CREATE => create(body, CreateForm::Plain),
        kind::CREATE_2 => create(body, CreateForm::WithStat),
        kind::CREATE_CONTAINER => create(body, CreateForm::Container),
        kind::CREATE_TTL => create_ttl(body),
        kind::DELETE => {
            path_and_int(body).map(to(|(path, version)| Write::Delete { path, version }))
        }
        kind::SET_DATA => set_data(body),
        kind::CHECK => path_and_int(body).map(to(|(path, version)| Write::Check { path, version })),
        _ => return None,
    })
}

fn create(input: &[u8], form: CreateForm) -> Parsed<'_, Write<'_>> {
    let (rest, path) = jute::text(input)?;
    let (rest, data) = jute::buffer(rest)?;
    let (rest, acl) = jute::vector(rest, acl)?;
    let (rest, flags) = jute::int(rest)?;
    let create = Create {
        form,
        path,
        data,
        acl,
        flags,
    };
    Ok((rest, Write::Create(create)))
}

fn create_ttl(input: &[u8]) -> Parsed<'_, Write<'_>> {
    let (rest, write) = create(input, CreateForm::WithStat)?;
    let (rest, ttl_ms) = jute::long(rest)?;
    let Write::Create(create) = write else {
        unreachable!("it was read as a creation");
    };
    let form = CreateForm::Ttl { ttl_ms };
    Ok((rest, Write::Create(Create { form, ..create })))
}

fn set_data(input: &[u8]) -> Parsed<'_, Write<'_>> {
    let (rest, path) = jute::text(input)?;
    let (rest, data) = jute::buffer(rest)?;
    let (rest, version) = jute::int(rest)?;
    let set = Write::SetData {
        path,
        data,
        version,
    };
    Ok((rest, set))
}

fn set_acl(input: &[u8]) -> Parsed<'_, Write<'_>> {
    let (rest, path) = jute::text(input)?;
    let (rest, acl) = jute::vector(rest, acl)?;
    let (rest, version) = jute::int(rest)?;
    let set = Write::SetAcl { path, acl, version };
    Ok((rest, set))
}

fn acl(input: &[u8]) -> Parsed<'_, Acl<'_>> {
    let (rest, permissions) = jute::int(input)?;
    let (rest, scheme) = jute::maybe_text(rest)?;
    // kazoo sends no text for an empty one, and `auth` has no id to look at.
    let (rest, id) = match (scheme, jute::maybe_text(rest)?) {
        (Some("auth"), (rest, None)) => (rest, ""),
        _ => jute::text(rest)?,
    };
    let acl = Acl {
        permissions,
        scheme,
        id,
    };
    Ok((rest, acl))
}

/// A read; none for other kinds.
fn read(kind: i32, body: &[u8]) -> Option<Parsed<'_, Read<'_>>> {
    let children = |with_stat| {
        to(move |(path, watch)| Read::GetChildren {
            path,
            watch,
            with_stat,
        })
    };
    Some(match kind {
        kind::EXISTS => path_and_watch(body).map(to(|(path, watch)| Read::Exists { path, watch })),
        kind::GET_DATA => {
            path_and_watch(body).map(to(|(path, watch)| Read::GetData { path, watch }))
        }
        kind::GET_CHILDREN => path_and_watch(body).map(children(false)),
        kind::GET_CHILDREN_2 => path_and_watch(body).map(children(true)),
        kind::GET_ACL => jute::text(body).map(to(|path| Read::GetAcl { path })),
        kind::GET_EPHEMERALS => {
            jute::maybe_text(body).map(to(|prefix| Read::GetEphemerals { prefix }))
        }
        _ => return None,
    })
}

/// A read that may be part of a multi-read, where none leaves a watch; none for other kinds.
fn multi_read(kind: i32, body: &[u8]) -> Option<Parsed<'_, Read<'_>>> {
    let watch = false;
    match kind {
        kind::GET_DATA => {
            Some(path_and_watch(body).map(to(|(path, _)| Read::GetData { path, watch })))
        }
        kind::GET_CHILDREN => Some(path_and_watch(body).map(to(|(path, _)| Read::GetChildren {
            path,
            watch,
            with_stat: false,
        }))),
        _ => None,
    }
}

fn path_and_watch(input: &[u8]) -> Parsed<'_, (&str, bool)> {
    let (rest, path) = jute::text(input)?;
    let (rest, watch) = jute::boolean(rest)?;
    Ok((rest, (path, watch)))
}

fn path_and_int(input: &[u8]) -> Parsed<'_, (&str, i32)> {
    let (rest, path) = jute::text(input)?;
    let (rest, number) = jute::int(rest)?;
    Ok((rest, (path, number)))
}

/// Parts with a header each, up to one that says it is done.
fn multi<'a, T>(
    input: &'a [u8],
    part: impl Fn(i32, &'a [u8]) -> Option<Parsed<'a, T>>,
) -> Parsed<'a, Vec<T>> {
    let mut parts = Vec::new();
    let mut rest = input;
    loop {
        let (after, kind) = jute::int(rest)?;
        let (after, done) = jute::boolean(after)?;
        let (after, _error) = jute::int(after)?;
        if done {
            return Ok((after, parts));
        }
        let (after, next) = part(kind, after).ok_or_else(|| jute::malformed(rest))??;
        parts.push(next);
        rest = after;
    }
}

fn set_watches(input: &[u8], second: bool) -> Parsed<'_, SetWatches<'_>> {
    let (rest, zxid) = jute::long(input)?;
    let (rest, data) = jute::vector(rest, jute::text)?;
    let (rest, exist) = jute::vector(rest, jute::text)?;
    let (rest, child) = jute::vector(rest, jute::text)?;
    let mut watches = SetWatches {
        zxid,
        data,
        exist,
        child,
        ..SetWatches::default()
    };
    if !second {
        return Ok((rest, watches));
    }
    let (rest, persistent) = jute::vector(rest, jute::text)?;
    let (rest, recursive) = jute::vector(rest, jute::text)?;
    watches.persistent = persistent;
    watches.recursive = recursive;
    Ok((rest, watches))
}

fn reconfig(input: &[u8]) -> Parsed<'_, Reconfig<'_>> {
    let (rest, joining) = jute::maybe_text(input)?;
    let (rest, leaving) = jute::maybe_text(rest)?;
    let (rest, members) = jute::maybe_text(rest)?;
    let (rest, from) = jute::long(rest)?;
    let reconfig = Reconfig {
        joining,
        leaving,
        members,
        from,
    };
    Ok((rest, reconfig))
}

fn auth(input: &[u8]) -> Parsed<'_, Request<'_>> {
    let (rest, _kind) = jute::int(input)?;
    let (rest, scheme) = jute::text(rest)?;
    let (rest, token) = jute::buffer(rest)?;
    let token = token.unwrap_or_default();
    Ok((rest, Request::Auth { scheme, token }))
}
