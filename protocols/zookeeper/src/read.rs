//! Reads: what a node looks like to a client, and the watches that reads leave.

use crate::acl;
use crate::config::Options;
use crate::ensemble::Ensemble;
use crate::errors::Code;
use crate::jute::Write as _;
use crate::mount::Mount;
use crate::ops::{self, ROOT};
use crate::path;
use crate::record::{Read, result};
use crate::stat::{self, Stat};
use crate::system::{self, SystemNode};
use bytes::Bytes;
use gateway::keyspace::access::{AccessEntry, Identity, Permissions, allows};
use gateway::keyspace::{LeaseId, Moment, NodeView, Reader, Revision};
use gateway::limits::AT_ONCE_MAX;
use gateway::nodes::Once;
use gateway::{Gate, NodeWatcher, Principal};
use std::borrow::Cow;

/// The longest answer to a multi-read. A request of the longest size could ask for 50,000 nodes of
/// that size each.
const MULTI_READ_BYTES_MAX: usize = 16 << 20;
/// What is answered of such length has taken its time.
const SLICE_BYTES: usize = 64 << 10;

/// Lets others on this thread have their turn after an answer of so many bytes: at once if it was
/// long, and else after some of them.
pub async fn take_turns(answered_bytes: usize) {
    match answered_bytes > SLICE_BYTES {
        true => tokio::task::yield_now().await,
        false => tokio::task::consume_budget().await,
    }
}

/// What reads look at, and for whom.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The state.
    pub reader: &'a Reader,
    /// Where it begins for clients.
    pub mount: &'a Mount,
    /// The connection's watches.
    pub watcher: &'a NodeWatcher,
    /// The client's session.
    pub session: LeaseId,
    /// Who the client has shown to be; none may do everything.
    pub by: Option<&'a [Identity]>,
    /// On whose behalf it asks.
    pub principal: &'a Principal,
    /// The way to the members.
    pub gate: &'a Gate,
    /// The settings. Data above the largest frame is not sent: it would cut off a client that expects
    /// no more, again and again.
    pub options: &'a Options,
}

/// A node, whichever realm it is of.
pub enum Found {
    /// The root, which is there from the beginning.
    Root(Box<NodeView>, Stat),
    /// One of the keyspace.
    Shared(Box<NodeView>, Stat),
    /// One of ZooKeeper's own that is kept, with its data.
    Quota(Box<NodeView>, Stat, Option<Vec<u8>>),
    /// One of ZooKeeper's own that is not.
    System(SystemNode),
}

impl Found {
    fn acl(&self) -> Option<&[AccessEntry]> {
        match self {
            Found::Root(node, _) | Found::Shared(node, _) | Found::Quota(node, ..) => {
                node.acl.as_deref()
            }
            Found::System(node) => node.acl.as_ref().map(|acl| &acl[..]),
        }
    }

    fn data(&self) -> Option<&[u8]> {
        match self {
            Found::Shared(node, _) => stat::data(node),
            Found::Root(node, _) if node.entry.is_some() => stat::data(node),
            // ZooKeeper makes the root and its own nodes with empty data.
            Found::Root(_, _) => Some(&[]),
            Found::Quota(_, _, data) => data.as_deref(),
            Found::System(node) => Some(node.data.as_bytes()),
        }
    }

    fn stat(&self) -> &Stat {
        match self {
            Found::Root(_, stat) | Found::Shared(_, stat) | Found::Quota(_, stat, _) => stat,
            Found::System(node) => &node.stat,
        }
    }
}

/// What a read found.
pub enum Seen {
    /// A node's stat.
    Stat(Found),
    /// A node's data and stat.
    Data(Found),
    /// The names of its children.
    Children {
        /// The names.
        names: Vec<Bytes>,
        /// The node, if its stat is wanted.
        node: Option<Found>,
    },
    /// Its access list and stat.
    Acl {
        /// The node.
        node: Found,
        /// Without what a password could be guessed from.
        redact: bool,
    },
    /// Paths.
    Paths(Vec<Bytes>),
}

impl Seen {
    /// Appends it as its request's answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Seen::Stat(node) => node.stat().encode(out),
            Seen::Data(node) => {
                out.buffer(node.data());
                node.stat().encode(out);
            }
            Seen::Children { names, node } => {
                encode_names(out, names);
                if let Some(node) = node {
                    node.stat().encode(out);
                }
            }
            Seen::Acl { node, redact } => {
                acl::encode(out, node.acl(), *redact);
                node.stat().encode(out);
            }
            Seen::Paths(paths) => encode_names(out, paths),
        }
    }
}

fn encode_names(out: &mut Vec<u8>, names: &[Bytes]) {
    out.count(names.len());
    for name in names {
        out.buffer(Some(name));
    }
}

/// The revision that was read, and what was found or not.
type Answer = (Revision, Result<Seen, Code>);

impl Desk<'_> {
    /// Reads. Whether the client's roles permit it is asked before a watch is left, and again once it
    /// was read.
    pub async fn read(&self, read: Read<'_>) -> Answer {
        let permitted = || read.path().is_none_or(|path| self.is_readable(path));
        if !permitted() {
            return self.refuse(Code::NoAuth);
        }
        let answer = self.look(read).await;
        match permitted() {
            true => answer,
            false => self.refuse(Code::NoAuth),
        }
    }

    async fn look(&self, read: Read<'_>) -> Answer {
        match read {
            Read::Exists { path, watch }
            | Read::GetData { path, watch }
            | Read::GetChildren { path, watch, .. }
                if watch && !self.watcher.has_room(&self.key(path)) =>
            {
                self.refuse(Code::Throttled)
            }
            Read::Exists { path, .. } if path.contains('\0') => self.refuse(Code::BadArguments),
            Read::Exists { path, watch } => {
                let (at, node) = self.node(path, watch.then_some(Wanted::Always));
                (at, self.readable(node).map(Seen::Stat))
            }
            Read::GetData { path, watch } => {
                let (at, node) = self.node(path, watch.then_some(Wanted::Readable));
                (at, self.readable(node).and_then(|node| self.sendable(node)))
            }
            Read::GetChildren {
                path,
                watch,
                with_stat,
            } => self.children(path, watch, with_stat).await,
            Read::GetAcl { path } => {
                let (at, node) = self.node(path, None);
                (at, node.ok_or(Code::NoNode).and_then(|node| self.acl(node)))
            }
            Read::GetEphemerals { prefix } => {
                let at = self.reader.revision();
                (at, Ok(Seen::Paths(self.ephemerals(prefix))))
            }
        }
    }

    /// Reads several nodes; each has an answer of its own.
    pub async fn read_all(&self, reads: &[Read<'_>]) -> Result<(Revision, Vec<u8>), Code> {
        let mut body = Vec::new();
        let mut newest = self.reader.revision();
        for read in reads {
            let before = body.len();
            let (at, seen) = self.read(*read).await;
            newest = newest.max(at);
            match seen {
                Ok(seen) => {
                    let kind = match &seen {
                        Seen::Data(_) => result::GET_DATA,
                        Seen::Children { .. } => result::GET_CHILDREN,
                        Seen::Stat(_) | Seen::Acl { .. } | Seen::Paths(_) => {
                            unreachable!("a multi-read reads data and children")
                        }
                    };
                    ops::part(&mut body, kind);
                    seen.encode(&mut body);
                }
                Err(code) => ops::error_part(&mut body, code.number()),
            }
            if body.len() > MULTI_READ_BYTES_MAX {
                return Err(Code::SystemError);
            }
            take_turns(body.len() - before).await;
        }
        ops::end(&mut body);
        Ok((newest, body))
    }

    fn refuse(&self, code: Code) -> Answer {
        (self.reader.revision(), Err(code))
    }

    /// Whether an access list, if it binds the client, permits this to it.
    pub(crate) fn permits(&self, acl: Option<&[AccessEntry]>, wanted: Permissions) -> bool {
        self.by.is_none_or(|callers| allows(acl, callers, wanted))
    }

    /// Whether the client's roles permit to read a node. ZooKeeper's own are nobody's to permit.
    pub(crate) fn is_readable(&self, path: &str) -> bool {
        let path = if path.is_empty() { ROOT } else { path };
        let checked = || {
            let key = self.key(path);
            self.reader
                .check_roles(self.principal, &key, Permissions::READ)
        };
        checked().is_ok() || system::node(path).is_some()
    }

    /// A node, if the client may read it.
    fn readable(&self, node: Option<Found>) -> Result<Found, Code> {
        let node = node.ok_or(Code::NoNode)?;
        match self.permits(node.acl(), Permissions::READ) {
            true => Ok(node),
            false => Err(Code::NoAuth),
        }
    }

    /// Whether the client may read a node.
    pub fn check_readable(&self, path: &str) -> Result<(), Code> {
        if !self.is_readable(path) {
            return Err(Code::NoAuth);
        }
        let (_, node) = self.node(path, None);
        self.readable(node).map(drop)
    }

    fn sendable(&self, node: Found) -> Result<Seen, Code> {
        let bytes = node.data().map_or(0, <[u8]>::len);
        match bytes <= self.options.frame_bytes_max {
            true => Ok(Seen::Data(node)),
            false => Err(Code::SystemError),
        }
    }

    fn acl(&self, node: Found) -> Result<Seen, Code> {
        if !self.permits(node.acl(), Permissions::READ | Permissions::ADMIN) {
            return Err(Code::NoAuth);
        }
        let redact = !self.permits(node.acl(), Permissions::ADMIN);
        Ok(Seen::Acl { node, redact })
    }

    /// A node, and a watch of its data if there is to be one.
    fn node(&self, path: &str, watch: Option<Wanted>) -> (Revision, Option<Found>) {
        let path = if path.is_empty() { ROOT } else { path };
        let system = system::node(path);
        let readable = |view: &NodeView| self.permits(view.acl.as_deref(), Permissions::READ);
        let wants = |view: Option<&NodeView>| match watch {
            None => false,
            Some(Wanted::Always) => view.is_none_or(readable),
            Some(Wanted::Readable) => system.is_some() || view.is_some_and(readable),
        };
        let key = self.key(path);
        let (at, view) = match watch {
            None => self.reader.node(&key),
            Some(_) => self.watcher.node(&key, Once::Data, wants),
        };
        // Only now that a watch is left: who belongs may change in between.
        let system = match path {
            system::CONFIG => Some(self.config()),
            _ => system,
        };
        (at, self.found(path, system, view))
    }

    /// The members.
    pub fn ensemble(&self) -> Ensemble {
        let (version, members) = self.gate.roster();
        Ensemble {
            version,
            members,
            standalone_enabled: self.options.standalone,
        }
    }

    /// The node that tells of them.
    pub fn config(&self) -> SystemNode {
        let ensemble = self.ensemble();
        let node = system::node(system::CONFIG).expect("it is always there");
        SystemNode {
            data: ensemble.config(),
            stat: ensemble.stat(),
            ..node
        }
    }

    /// Whether the client may change the members.
    pub fn may_reconfigure(&self) -> bool {
        self.reader.check_root(self.principal).is_ok()
            && self.permits(Found::System(self.config()).acl(), Permissions::WRITE)
    }

    /// Where a path lies in the keyspace.
    pub(crate) fn key<'p>(&self, path: &'p str) -> Cow<'p, [u8]> {
        self.mount.key(path.as_bytes())
    }

    /// What a path shows to clients.
    fn found(
        &self,
        path: &str,
        system: Option<SystemNode>,
        view: Option<NodeView>,
    ) -> Option<Found> {
        if system::is_quota(path) {
            let view = view?;
            let data = system::data(view.aside.as_deref());
            let stat = Stat {
                data_length: stat::length_of(data.as_deref()),
                ..Stat::of(&view)
            };
            return Some(Found::Quota(Box::new(view), stat, data));
        }
        if system::is_system(path) {
            return system.map(Found::System);
        }
        let view = view.filter(|_| path::is_valid(path))?;
        let mut stat = Stat::of(&view);
        let view = Box::new(view);
        if path != ROOT {
            return Some(Found::Shared(view, stat));
        }
        self.show_root(&mut stat);
        Some(Found::Root(view, stat))
    }

    /// Makes of a node's stat that of the root, which was there from the beginning, wherever it lies.
    /// ZooKeeper's own node, which was never created, is a child of it, unless it stands in the place
    /// of something of the keyspace.
    pub fn show_root(&self, root: &mut Stat) {
        let made = root.czxid;
        if root.mzxid == made {
            (root.mzxid, root.mtime) = (0, 0);
        }
        if root.pzxid == made {
            root.pzxid = 0;
        }
        (root.czxid, root.ctime) = (0, 0);
        let hidden = self.mount.shared_key(system::TOP.as_bytes());
        if self.reader.node(&hidden).1.is_none() {
            root.num_children += 1;
            root.cversion = root.cversion.wrapping_sub(1);
        }
    }

    async fn children(&self, path: &str, watch: bool, with_stat: bool) -> Answer {
        let path = if path.is_empty() { ROOT } else { path };
        let system = system::node(path);
        let readable = |view: &NodeView| self.permits(view.acl.as_deref(), Permissions::READ);
        let key = self.key(path);
        loop {
            let (moment, view) = if watch {
                let wanted =
                    |view: Option<&NodeView>| system.is_some() || view.is_some_and(readable);
                self.watcher.children(&key, wanted)
            } else {
                let moment = self.reader.moment();
                let view = moment.node(&key);
                (moment, view)
            };
            let at = moment.revision();
            let named = match (&system, &view) {
                (Some(system), _) => Ok(Some(
                    system.children.iter().copied().map(own_name).collect(),
                )),
                (None, Some(view)) if readable(view) => {
                    self.list(moment, view.children, path, &key).await
                }
                // Without names to show, it is not found, or not readable.
                (None, _) => Ok(Some(Vec::new())),
            };
            let names = match named {
                Ok(Some(names)) => names,
                // A compaction overtook it.
                Ok(None) => continue,
                Err(code) => return (at, Err(code)),
            };
            let node = self.readable(self.found(path, system, view));
            let node = node.map(|node| Seen::Children {
                names,
                node: with_stat.then_some(node),
            });
            return (at, node);
        }
    }

    /// The names of a node's children that clients are shown: of many, listed beside the connection's
    /// thread. None if the moment has passed.
    async fn list(
        &self,
        moment: Moment,
        children: u32,
        path: &str,
        key: &[u8],
    ) -> Result<Option<Vec<Bytes>>, Code> {
        let list = |moment: &Moment, path: &str, key: &[u8]| {
            let names = visible(path, moment.children(key));
            moment.is_whole().then_some(names)
        };
        if u64::from(children) <= AT_ONCE_MAX {
            return Ok(list(&moment, path, key));
        }
        let (path, key) = (path.to_owned(), key.to_vec());
        let listed = self.gate.read_aside(move || list(&moment, &path, &key));
        listed.await.map_err(|_| Code::Throttled)
    }

    fn ephemerals(&self, prefix: Option<&str>) -> Vec<Bytes> {
        let keys = self.reader.lease_keys(self.session).unwrap_or_default();
        let prefix = prefix.filter(|prefix| !matches!(prefix.trim(), "" | ROOT));
        let paths = keys.iter().filter_map(|key| {
            let path = self.mount.shown(key)?;
            let wanted = path.starts_with(prefix.unwrap_or_default());
            wanted.then(|| Bytes::copy_from_slice(path.as_bytes()))
        });
        paths.collect()
    }
}

/// Where a watch is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// Even where nothing is, but not where something is that the client may not read.
    Always,
    /// Where something is that the client may read.
    Readable,
}

fn own_name(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

/// Of the names of a node's children, those that clients are shown.
fn shown(path: &[u8], mut names: Vec<Bytes>) -> Vec<Bytes> {
    names.retain(|name| std::str::from_utf8(name).is_ok_and(path::is_valid_name));
    if path == ROOT.as_bytes() {
        names.retain(|name| name != system::NAME.as_bytes());
    }
    names
}

/// The same with the root's child that is none of the keyspace's.
fn visible(path: &str, names: Vec<Bytes>) -> Vec<Bytes> {
    let mut names = shown(path.as_bytes(), names);
    if path == ROOT {
        names.push(own_name(system::NAME));
    }
    names
}

/// How many nodes lie beneath a path, all the way down, and as of which revision. Others write
/// meanwhile, as in ZooKeeper: of each node those children count that it has when its turn comes.
pub fn count(reader: &Reader, mount: &Mount, path: &str) -> (Revision, usize) {
    let children = |path: &[u8]| {
        loop {
            let moment = reader.moment();
            let names = shown(path, moment.children(&mount.key(path)));
            if moment.is_whole() {
                return names;
            }
        }
    };
    let mut count = system::count_beneath(path);
    let roots = system::roots(path).map(|path| Bytes::copy_from_slice(path.as_bytes()));
    let mut open: Vec<Bytes> = roots.collect();
    while let Some(next) = open.pop() {
        let names = children(&next);
        count += names.len();
        open.extend(names.iter().map(|name| path::join(&next, name)));
    }
    (reader.revision(), count)
}
