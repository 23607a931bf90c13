//! Who watches which node. Driven by calls under the hub's lock.

use super::watcher::{Gone, Inbox, Mode, NodeEvent, Once, What, Which};
use foldhash::quality::RandomState;
use keyspace::node::{Happening, Step, parent};
use keyspace::{AccessList, LeaseId, Revision};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

type Map<K, V> = HashMap<K, V, RandomState>;
/// A node's path, shared by all who watch it.
type Path = Arc<[u8]>;

/// In place of the revision that a watcher was left at, where there is no watcher.
const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Default)]
pub struct Table {
    connections: Map<u64, Connection>,
    /// Whom a node's watchers belong to: each connection once.
    paths: Map<Path, Vec<u64>>,
    sessions: Map<LeaseId, Vec<u64>>,
    next_connection: u64,
    watches: u64,
    /// Of these, recursive ones: only for their sake the nodes above are looked at.
    recursive: u64,
    /// Counts what happened, so that one connection is told of it once.
    happening: u64,
    /// What is watched as if it were a node, and changes when the members do.
    members_at: Option<Path>,
}

struct Connection {
    session: LeaseId,
    attachment: u64,
    inbox: Arc<Inbox>,
    watches: Map<Path, Watch>,
    /// The last happening it was told of.
    told: u64,
}

/// What one connection watches of one node.
#[derive(Clone, Copy)]
struct Watch {
    data: Side,
    children: Side,
    /// Of the node and all beneath it, after this revision.
    recursive: u64,
}

/// Of its value and existence, or of its children.
#[derive(Clone, Copy)]
struct Side {
    /// Told once, of what comes after this revision.
    once: u64,
    /// The same, left earlier. Readers may be ahead of what is published; who reads and watches
    /// again may have one watcher that is still to be told of what the other one's reply shows.
    earlier: u64,
    /// Told always, of what comes after this revision.
    always: u64,
}

/// Which side of a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Data,
    Children,
    /// Of nodes above the one it happened to, only the recursive watches.
    Beneath,
}

/// Something that happened, made into one event that all share as soon as someone wants it.
struct News<'a> {
    revision: Revision,
    what: What,
    path: &'a [u8],
    acl: Option<&'a AccessList>,
    event: Option<Arc<NodeEvent>>,
}

impl Side {
    const NONE: Side = Side {
        once: NEVER,
        earlier: NEVER,
        always: NEVER,
    };

    fn arm(&mut self, since: u64) {
        self.earlier = self.earlier.min(self.once);
        self.once = since;
    }

    /// Whether this is told of what happens at `at`; those that are told once are gone then.
    fn fires(&mut self, at: u64) -> bool {
        let (once, earlier) = (at > self.once, at > self.earlier);
        if once {
            self.once = NEVER;
        }
        if once || earlier {
            self.earlier = NEVER;
        }
        once || earlier || at > self.always
    }

    /// Forgets those that are told once.
    fn disarm(&mut self) {
        self.once = NEVER;
        self.earlier = NEVER;
    }

    fn is_armed(&self) -> bool {
        self.once != NEVER || self.earlier != NEVER
    }

    fn is_none(&self) -> bool {
        !self.is_armed() && self.always == NEVER
    }
}

impl Watch {
    const NONE: Watch = Watch {
        data: Side::NONE,
        children: Side::NONE,
        recursive: NEVER,
    };

    fn fires(&mut self, of: Of, at: u64) -> bool {
        match of {
            Of::Data => self.data.fires(at) | (at > self.recursive),
            Of::Children => self.children.fires(at),
            Of::Beneath => at > self.recursive,
        }
    }

    fn has(&self, which: Which) -> bool {
        match which {
            Which::Data => self.data.is_armed(),
            Which::Children => self.children.is_armed(),
            Which::Any => self.count() > 0,
            Which::Persistent => self.data.always != NEVER || self.children.always != NEVER,
            Which::Recursive => self.recursive != NEVER,
        }
    }

    fn remove(&mut self, which: Which) {
        match which {
            Which::Data => self.data.disarm(),
            Which::Children => self.children.disarm(),
            Which::Any => *self = Watch::NONE,
            Which::Persistent => {
                self.data.always = NEVER;
                self.children.always = NEVER;
            }
            Which::Recursive => self.recursive = NEVER,
        }
    }

    /// Whether more than the node's children are watched.
    fn watches_data(&self) -> bool {
        !self.data.is_none() || self.recursive != NEVER
    }

    /// Sides watched: what ZooKeeper counts as watches.
    fn count(&self) -> u64 {
        u64::from(self.watches_data()) + u64::from(!self.children.is_none())
    }
}

impl News<'_> {
    fn event(&mut self) -> Arc<NodeEvent> {
        let event = self.event.get_or_insert_with(|| {
            Arc::new(NodeEvent {
                revision: self.revision,
                what: self.what,
                path: self.path.into(),
                acl: self.acl.cloned(),
            })
        });
        Arc::clone(event)
    }
}

impl Table {
    /// Lets a connection in; answers its name.
    pub fn connect(&mut self, session: LeaseId, attachment: u64, inbox: Arc<Inbox>) -> u64 {
        let name = self.next_connection;
        self.next_connection += 1;
        self.sessions.entry(session).or_default().push(name);
        let connection = Connection {
            session,
            attachment,
            inbox,
            watches: Map::default(),
            told: 0,
        };
        self.connections.insert(name, connection);
        name
    }

    /// A connection leaves, with its watches.
    pub fn leave(&mut self, name: u64) {
        let Some(connection) = self.connections.remove(&name) else {
            return;
        };
        for (path, watch) in connection.watches {
            self.account(watch, Watch::NONE);
            forget(&mut self.paths, &path, name);
        }
        forget(&mut self.sessions, &connection.session, name);
    }

    /// Watches once, for what comes after `since`.
    pub fn arm(&mut self, name: u64, path: &[u8], once: Once, since: Revision) {
        self.change(name, path, |watch| match once {
            Once::Data => watch.data.arm(since.0),
            Once::Children => watch.children.arm(since.0),
        });
    }

    /// Watches from now on, for what comes after `since`.
    pub fn add(&mut self, name: u64, path: &[u8], mode: Mode, since: Revision) {
        let earliest = |known: &mut u64| *known = since.0.min(*known);
        self.change(name, path, |watch| match mode {
            Mode::Persistent => {
                earliest(&mut watch.data.always);
                earliest(&mut watch.children.always);
            }
            Mode::Recursive => earliest(&mut watch.recursive),
        });
    }

    /// Whether a connection watches this.
    pub fn has(&self, name: u64, path: &[u8], which: Which) -> bool {
        let connection = self.connections.get(&name);
        let watch = connection.and_then(|connection| connection.watches.get(path));
        watch.is_some_and(|watch| watch.has(which))
    }

    /// Watches no more; answers whether it did.
    pub fn remove(&mut self, name: u64, path: &[u8], which: Which) -> bool {
        let had = self.has(name, path, which);
        if had {
            self.change(name, path, |watch| watch.remove(which));
        }
        had
    }

    fn change(&mut self, name: u64, path: &[u8], change: impl FnOnce(&mut Watch)) {
        let Some(connection) = self.connections.get_mut(&name) else {
            return;
        };
        let known = connection.watches.get_mut(path);
        let before = known.as_deref().copied().unwrap_or(Watch::NONE);
        let mut after = before;
        change(&mut after);
        match known {
            Some(known) if after.count() > 0 => *known = after,
            Some(_) => {
                connection.watches.remove(path);
                connection.inbox.release(path);
                forget(&mut self.paths, path, name);
            }
            None if after.count() > 0 => {
                let shared = self.paths.get_key_value(path);
                let path = shared.map_or_else(|| path.into(), |(path, _)| Path::clone(path));
                connection.inbox.hold(&path);
                connection.watches.insert(Path::clone(&path), after);
                self.paths.entry(path).or_default().push(name);
            }
            None => {}
        }
        self.account(before, after);
    }

    fn account(&mut self, before: Watch, after: Watch) {
        let recursive = |watch: Watch| u64::from(watch.recursive != NEVER);
        self.watches = self.watches + after.count() - before.count();
        self.recursive = self.recursive + recursive(after) - recursive(before);
    }

    /// Tells all who watch what happened to a node.
    pub fn happened(&mut self, step: &Step, wakers: &mut Vec<Waker>) {
        if self.paths.is_empty() {
            return;
        }
        let path = step.name.as_bytes();
        let what = match step.what {
            Happening::Created => What::Created,
            Happening::Written | Happening::Emptied => What::Changed,
            Happening::Deleted => What::Deleted,
        };
        let mut news = News {
            revision: step.revision,
            what,
            path,
            acl: step.acl.as_ref(),
            event: None,
        };
        self.happening += 1;
        self.tell(path, Of::Data, &mut news, wakers);
        if self.recursive > 0 {
            for above in std::iter::successors(parent(path), |path| parent(path)) {
                self.tell(above, Of::Beneath, &mut news, wakers);
            }
        }
        if what == What::Deleted {
            self.tell(path, Of::Children, &mut news, wakers);
        }
        let counts = matches!(what, What::Created | What::Deleted);
        if let Some(parent) = parent(path).filter(|_| counts) {
            let mut news = News {
                revision: step.revision,
                what: What::ChildrenChanged,
                path: parent,
                acl: step.parent_acl.as_ref(),
                event: None,
            };
            self.happening += 1;
            self.tell(parent, Of::Children, &mut news, wakers);
        }
    }

    /// Where the members are watched.
    pub fn show_members_at(&mut self, path: &[u8]) {
        self.members_at = Some(path.into());
    }

    /// Tells all who watch the members that they changed.
    pub fn members_changed(&mut self, revision: Revision, wakers: &mut Vec<Waker>) {
        let Some(path) = self.members_at.clone() else {
            return;
        };
        let path = &path[..];
        let mut news = News {
            revision,
            what: What::Changed,
            path,
            acl: None,
            event: None,
        };
        self.happening += 1;
        let any = NEVER - 1;
        self.tell_at(any, path, Of::Data, &mut news, wakers);
        for above in std::iter::successors(parent(path), |path| parent(path)) {
            self.tell_at(any, above, Of::Beneath, &mut news, wakers);
        }
    }

    /// Tells those who watch `path`.
    fn tell(&mut self, path: &[u8], of: Of, news: &mut News, wakers: &mut Vec<Waker>) {
        self.tell_at(news.revision.0, path, of, news, wakers);
    }

    /// The same of those who were left before `at`.
    fn tell_at(&mut self, at: u64, path: &[u8], of: Of, news: &mut News, wakers: &mut Vec<Waker>) {
        let Some(names) = self.paths.get_mut(path) else {
            return;
        };
        let mut gone = 0;
        names.retain(|name| {
            let connection = self.connections.get_mut(name);
            let connection = connection.expect("who left watches nothing");
            let watch = connection.watches.get_mut(path);
            let watch = watch.expect("the connection's own list says the same");
            let before = *watch;
            if watch.fires(of, at) && connection.told != self.happening {
                connection.told = self.happening;
                wakers.extend(connection.inbox.put(news.event()));
            }
            gone += before.count() - watch.count();
            let stays = watch.count() > 0;
            if !stays {
                connection.watches.remove(path);
                connection.inbox.release(path);
            }
            stays
        });
        self.watches -= gone;
        if names.is_empty() {
            self.paths.remove(path);
        }
    }

    /// A session is over, if this connection still holds it; without one, in any case.
    pub fn end(&mut self, session: LeaseId, attachment: Option<u64>, wakers: &mut Vec<Waker>) {
        for name in self.sessions.get(&session).into_iter().flatten() {
            let connection = &self.connections[name];
            if attachment.is_none_or(|attachment| attachment == connection.attachment) {
                wakers.extend(connection.inbox.dismiss(Gone::Ended));
            }
        }
    }

    /// A session goes on through another connection.
    pub fn move_to(&mut self, session: LeaseId, attachment: u64, wakers: &mut Vec<Waker>) {
        for name in self.sessions.get(&session).into_iter().flatten() {
            let connection = &self.connections[name];
            if connection.attachment != attachment {
                wakers.extend(connection.inbox.dismiss(Gone::Moved));
            }
        }
    }

    /// Nobody knows any more what the connections missed.
    pub fn dismiss_all(&mut self, wakers: &mut Vec<Waker>) {
        for connection in self.connections.values() {
            wakers.extend(connection.inbox.dismiss(Gone::Replaced));
        }
    }

    pub fn watches(&self) -> u64 {
        self.watches
    }

    pub fn pairs(&self) -> Vec<(LeaseId, Path)> {
        let pairs = self.connections.values().flat_map(|connection| {
            let watches = connection.watches.iter();
            let of_data = watches.filter(|(_, watch)| watch.watches_data());
            of_data.map(|(path, _)| (connection.session, Path::clone(path)))
        });
        pairs.collect()
    }

    pub fn paths(&self) -> u64 {
        self.paths.len() as u64
    }
}

/// Takes a connection off a list that it is on.
fn forget<K, Q>(lists: &mut Map<K, Vec<u64>>, key: &Q, name: u64)
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
{
    let Some(names) = lists.get_mut(key) else {
        return;
    };
    if let Some(place) = names.iter().position(|known| *known == name) {
        names.swap_remove(place);
    }
    if names.is_empty() {
        lists.remove(key);
    }
}
