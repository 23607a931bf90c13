//! Watches: left, looked for, taken away, and left again by a client that comes back.

use crate::errors::Code;
use crate::read::Desk;
use crate::record::SetWatches;
use crate::reply::Replies;
use crate::system;
use gateway::keyspace::access::{AccessEntry, Permissions};
use gateway::keyspace::{NodeView, Revision};
use gateway::nodes::{Mode, Once, What, Which};

impl Desk<'_> {
    /// Watches again what a client had watched on another connection. It is told at once of what
    /// happened since; the rest is watched on.
    pub fn set_watches(&self, asked: &SetWatches<'_>, replies: &mut Replies) -> Revision {
        let seen = Revision(u64::try_from(asked.zxid).unwrap_or(0));
        for path in &asked.data {
            let news = |node: Option<&NodeView>| match node {
                None => Some(What::Deleted),
                Some(node) => (node.modified > seen).then_some(What::Changed),
            };
            self.rearm(path, Once::Data, news, replies);
            if *path == system::CONFIG && self.config().stat.mzxid > asked.zxid {
                self.watcher.remove(&self.key(path), Which::Data);
                replies.catch_up(self.reader.revision(), What::Changed, path);
            }
        }
        for path in &asked.exist {
            let news = |node: Option<&NodeView>| node.map(|_| What::Created);
            self.rearm(path, Once::Data, news, replies);
        }
        for path in &asked.child {
            let news = |node: Option<&NodeView>| match node {
                None => Some(What::Deleted),
                Some(node) => (node.children_changed > seen).then_some(What::ChildrenChanged),
            };
            self.rearm(path, Once::Children, news, replies);
        }
        for path in &asked.persistent {
            self.watcher.add(&self.key(path), Mode::Persistent);
        }
        for path in &asked.recursive {
            self.watcher.add(&self.key(path), Mode::Recursive);
        }
        self.reader.revision()
    }

    fn rearm(
        &self,
        path: &str,
        once: Once,
        news: impl Fn(Option<&NodeView>) -> Option<What>,
        replies: &mut Replies,
    ) {
        if !self.is_readable(path) {
            return;
        }
        // ZooKeeper's own nodes are always there.
        let is_own = system::node(path).is_some();
        let quiet = |node: Option<&NodeView>| is_own || news(node).is_none();
        let (at, node) = self.watcher.node(&self.key(path), once, quiet);
        if !quiet(node.as_ref())
            && let Some(what) = news(node.as_ref())
        {
            replies.catch_up(at, what, path);
        }
    }

    /// Watches until told otherwise.
    pub fn add_watch(&self, path: &str, mode: i32) -> Result<Revision, Code> {
        let mode = match mode {
            0 => Mode::Persistent,
            1 => Mode::Recursive,
            _ => return Err(Code::MarshallingError),
        };
        match self.watcher.has_room(&self.key(path)) {
            true => Ok(self.watcher.add(&self.key(path), mode)),
            false => Err(Code::Throttled),
        }
    }

    /// Whether there is a watch of this kind.
    pub fn check_watches(&self, path: &str, kind: i32) -> Result<(), Code> {
        match self.watcher.has(&self.key(path), which(kind)?) {
            true => Ok(()),
            false => Err(Code::NoWatcher),
        }
    }

    /// Ends watches of this kind.
    pub fn remove_watches(&self, path: &str, kind: i32) -> Result<(), Code> {
        match self.watcher.remove(&self.key(path), which(kind)?) {
            true => Ok(()),
            false => Err(Code::NoWatcher),
        }
    }

    /// Whether the client may be told of what happened to a node of this access list.
    pub fn may_hear(&self, path: &str, acl: Option<&[AccessEntry]>) -> bool {
        self.permits(acl, Permissions::READ) && self.is_readable(path)
    }
}

/// ZooKeeper's kinds of watches.
fn which(kind: i32) -> Result<Which, Code> {
    match kind {
        1 => Ok(Which::Children),
        2 => Ok(Which::Data),
        3 => Ok(Which::Any),
        4 => Ok(Which::Persistent),
        5 => Ok(Which::Recursive),
        _ => Err(Code::MarshallingError),
    }
}
