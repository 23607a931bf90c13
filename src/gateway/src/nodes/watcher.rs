//! One connection's node watchers, and what there is to tell it.

use super::NodeHub;
use keyspace::{AccessList, LeaseId, Moment, NodeView, Reader, Revision};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

/// Events that wait for one connection. One that does not take them is dismissed. One command, whose
/// events come at once, may have many: a delete of all that etcd's clients keep under a prefix.
pub const EVENTS_MAX: usize = 131_072;

/// What one connection's watches may take, in bytes: half a million of usual length. They last for as
/// long as the connection does, and a client may name any path.
pub const WATCHES_BYTES_MAX: usize = 128 << 20;

/// What a watched path takes beside its own length.
const WATCH_BYTES: usize = 192;

/// What happened to a node that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// When.
    pub revision: Revision,
    /// What.
    pub what: What,
    /// To which node.
    pub path: Arc<[u8]>,
    /// Who may read that node and so learn of the event; none is everyone.
    pub acl: Option<AccessList>,
}

/// What can happen to a node that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It came to be.
    Created,
    /// It is gone.
    Deleted,
    /// Its value was written, or went.
    Changed,
    /// It has a child more or less.
    ChildrenChanged,
}

/// What a watcher that is told once waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// That the node comes, changes or goes.
    Data,
    /// That its children change, or that it goes.
    Children,
}

/// Watchers that are told always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Of everything at one node.
    Persistent,
    /// Of everything at a node and at all beneath it, but that children changed.
    Recursive,
}

/// Some of the watchers that a connection may have at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those told once of the node's children.
    Children,
    /// Those told once of the node itself.
    Data,
    /// All.
    Any,
    /// The persistent one.
    Persistent,
    /// The recursive one.
    Recursive,
}

/// Why a connection has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its session is over.
    Ended,
    /// Its session goes on through another connection.
    Moved,
    /// A snapshot took the state's place: what it missed is not known.
    Replaced,
    /// It did not take its events.
    Overflown,
}

/// What waits for one connection.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    /// What the connection's watches take, in bytes.
    watches: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// In order of their revisions.
    events: VecDeque<Arc<NodeEvent>>,
    gone: Option<Gone>,
    waker: Option<Waker>,
}

impl Inbox {
    /// Adds an event; answers whom to wake.
    pub fn put(&self, event: Arc<NodeEvent>) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.gone.is_some() {
            return None;
        }
        if state.events.len() == EVENTS_MAX {
            state.events = VecDeque::new();
            state.gone = Some(Gone::Overflown);
        } else {
            let earlier = |known: &Arc<NodeEvent>| known.revision <= event.revision;
            let place = state
                .events
                .iter()
                .rposition(earlier)
                .map_or(0, |at| at + 1);
            state.events.insert(place, event);
        }
        state.waker.take()
    }

    /// Notes that one more path is watched, ...
    pub fn hold(&self, path: &[u8]) {
        self.watches
            .fetch_add(WATCH_BYTES + path.len(), Ordering::Relaxed);
    }

    /// ... or one less.
    pub fn release(&self, path: &[u8]) {
        self.watches
            .fetch_sub(WATCH_BYTES + path.len(), Ordering::Relaxed);
    }

    /// Tells the connection to go; answers whom to wake.
    pub fn dismiss(&self, gone: Gone) -> Option<Waker> {
        let mut state = self.state.lock();
        state.gone.get_or_insert(gone);
        state.waker.take()
    }
}

/// A connection's watchers. Dropping it ends them all.
pub struct NodeWatcher {
    hub: NodeHub,
    reader: Reader,
    inbox: Arc<Inbox>,
    name: u64,
}

impl NodeWatcher {
    pub(super) fn new(
        hub: NodeHub,
        reader: Reader,
        session: LeaseId,
        attachment: u64,
    ) -> NodeWatcher {
        let inbox = Arc::<Inbox>::default();
        let name = {
            let mut table = hub.shared.table.lock();
            table.connect(session, attachment, Arc::clone(&inbox))
        };
        hub.shared.connections.fetch_add(1, Ordering::Relaxed);
        // Whoever publishes either sees this connection, or what it published is seen here.
        fence(Ordering::SeqCst);
        let lease = reader.lease(session);
        if session == LeaseId::NONE {
            // It holds none, and so loses none.
        } else if lease.is_none() {
            inbox.dismiss(Gone::Ended);
        } else if lease.and_then(|lease| lease.attachment) != Some(attachment) {
            inbox.dismiss(Gone::Moved);
        }
        NodeWatcher {
            hub,
            reader,
            inbox,
            name,
        }
    }

    /// Reads a node, and the revision of this view, and leaves a watcher that is told once, of the
    /// first that happens after that revision; but only where what was read makes it `wanted`,
    /// which is asked under the hub's lock.
    pub fn node(
        &self,
        path: &[u8],
        once: Once,
        wanted: impl FnOnce(Option<&NodeView>) -> bool,
    ) -> (Revision, Option<NodeView>) {
        let mut table = self.hub.shared.table.lock();
        let (revision, node) = self.reader.node(path);
        if wanted(node.as_ref()) {
            table.arm(self.name, path, once, revision);
        }
        (revision, node)
    }

    /// Reads a node whose children are to be listed, and leaves a watcher of them as
    /// [`NodeWatcher::node`] does. They are listed out of the moment that is returned, since that takes
    /// its time, and whoever publishes must not wait for it. If it is not whole then, this is to be
    /// done again.
    pub fn children(
        &self,
        path: &[u8],
        wanted: impl FnOnce(Option<&NodeView>) -> bool,
    ) -> (Moment, Option<NodeView>) {
        let mut table = self.hub.shared.table.lock();
        let moment = self.reader.moment();
        let node = moment.node(path);
        if wanted(node.as_ref()) {
            table.arm(self.name, path, Once::Children, moment.revision());
        }
        (moment, node)
    }

    /// Adds a watcher that is told always, of what happens after the revision that is returned.
    pub fn add(&self, path: &[u8], mode: Mode) -> Revision {
        let mut table = self.hub.shared.table.lock();
        let revision = self.reader.revision();
        table.add(self.name, path, mode, revision);
        revision
    }

    /// Whether the connection may watch this path as well. Whoever leaves watchers asks first.
    pub fn has_room(&self, path: &[u8]) -> bool {
        let held = self.inbox.watches.load(Ordering::Relaxed);
        held + WATCH_BYTES + path.len() <= WATCHES_BYTES_MAX
    }

    /// Whether there are such watchers.
    pub fn has(&self, path: &[u8], which: Which) -> bool {
        self.hub.shared.table.lock().has(self.name, path, which)
    }

    /// Ends such watchers; answers whether there were any.
    pub fn remove(&self, path: &[u8], which: Which) -> bool {
        self.hub.shared.table.lock().remove(self.name, path, which)
    }

    /// Takes the events up to a revision, or all, in order.
    pub fn take_events(&self, through: Option<Revision>) -> Vec<Arc<NodeEvent>> {
        let mut state = self.inbox.state.lock();
        let within = |event: &Arc<NodeEvent>| through.is_none_or(|end| event.revision <= end);
        let end = state.events.partition_point(within);
        state.events.drain(..end).collect()
    }

    /// Whether there are events.
    pub fn has_events(&self) -> bool {
        !self.inbox.state.lock().events.is_empty()
    }

    /// Whether the connection has to go, and why.
    pub fn gone(&self) -> Option<Gone> {
        self.inbox.state.lock().gone
    }

    /// Ready when there are events or the connection has to go.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.inbox.state.lock();
        if !state.events.is_empty() || state.gone.is_some() {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns when there are events or the connection has to go.
    pub async fn ready(&self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Returns when the connection has to go.
    pub async fn dismissed(&self) -> Gone {
        poll_fn(|cx| {
            let mut state = self.inbox.state.lock();
            match state.gone {
                Some(gone) => Poll::Ready(gone),
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// See [`NodeHub::settled`].
    pub async fn settled(&self, revision: Revision) {
        self.hub.settled(revision).await;
    }
}

impl Drop for NodeWatcher {
    fn drop(&mut self) {
        self.hub.shared.table.lock().leave(self.name);
        self.hub.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
