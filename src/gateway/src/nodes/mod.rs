//! Who is told of what happens to nodes.
//!
//! Unlike keys' watchers, these are told once, or from now on, and never of the past: what happens is
//! put into the inbox of each connection that watches. The applying thread publishes each command's
//! steps under one lock, under which readers leave their watchers too. So a reader that leaves one
//! sees everything up to some revision, and the watcher is told of everything after it: nothing is
//! lost between the two, and nothing told twice.
//!
//! Start with [`NodeHub`]'s `publish` (the writing side), then [`NodeWatcher`] (the reading side).

mod table;
#[cfg(test)]
mod tests;
mod watcher;

pub use watcher::{Gone, Mode, NodeEvent, NodeWatcher, Once, WATCHES_BYTES_MAX, What, Which};

use keyspace::{Applied, Command, LeaseId, Reader, Revision};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::Waker;
use table::Table;
use tokio::sync::Notify;

/// Where steps arrive and node watchers wait; clone it freely.
#[derive(Clone, Default)]
pub struct NodeHub {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// Connections. While there is none, publishing takes no lock.
    connections: AtomicU64,
    /// Everything up to this revision is in the inboxes of those who watch it.
    published: AtomicU64,
    /// Who waits for that to move on.
    waiting: AtomicU64,
    moved: Notify,
}

/// How many there are of what, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFigures {
    /// Connections that may watch.
    pub connections: u64,
    /// What they watch: one for each connection, node, and value or children.
    pub watches: u64,
    /// Nodes that are watched.
    pub paths: u64,
}

impl NodeHub {
    /// Takes over from a keyspace that has a past.
    pub fn begin(&self, reader: &Reader) {
        let revision = reader.revision().0;
        self.shared.published.fetch_max(revision, Ordering::AcqRel);
    }

    /// The watchers of one connection, which holds that session; adapters ask the gate for them.
    pub fn watcher(&self, reader: Reader, session: LeaseId, attachment: u64) -> NodeWatcher {
        NodeWatcher::new(self.clone(), reader, session, attachment)
    }

    /// How many there are of what.
    pub fn figures(&self) -> NodeFigures {
        let table = self.shared.table.lock();
        NodeFigures {
            connections: self.shared.connections.load(Ordering::Relaxed),
            watches: table.watches(),
            paths: table.paths(),
        }
    }

    /// Which session watches which nodes, and not only their children: one pair for each connection and
    /// node.
    pub fn watches(&self) -> Vec<(LeaseId, Arc<[u8]>)> {
        let mut watches = self.shared.table.lock().pairs();
        // This takes its time, and whoever publishes must not wait for it.
        watches.sort_unstable();
        watches
    }

    /// What happened up to this revision is in the inboxes.
    pub fn published(&self) -> Revision {
        Revision(self.shared.published.load(Ordering::Acquire))
    }

    /// Returns once what happened up to `revision`, which readers see, is in the inboxes: nearly
    /// always at once.
    pub async fn settled(&self, revision: Revision) {
        if self.published() >= revision {
            return;
        }
        let _waiting = Waiting::begin(&self.shared.waiting);
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            // Whoever publishes either sees that someone waits, or what it published is seen here.
            fence(Ordering::SeqCst);
            if self.published() >= revision {
                return;
            }
            moved.await;
        }
    }

    /// Called on the applying thread, once readers see what the command did.
    pub(crate) fn publish(&self, command: &Command, applied: &Applied, wakers: &mut Vec<Waker>) {
        let shared = &*self.shared;
        // A connection that is not seen here came after readers saw the command's work, and so sees
        // it in whatever it reads.
        fence(Ordering::SeqCst);
        if shared.connections.load(Ordering::Relaxed) > 0 {
            self.tell(command, applied, wakers);
        }
        self.move_on(applied.revision);
    }

    fn tell(&self, command: &Command, applied: &Applied, wakers: &mut Vec<Waker>) {
        let lock = || self.shared.table.lock();
        if !applied.steps.is_empty() {
            let mut table = lock();
            for step in &applied.steps {
                table.happened(step, wakers);
            }
        }
        if applied.outcome.is_err() {
            return;
        }
        match command {
            Command::Revoke(lease, _) => lock().end(*lease, None, wakers),
            Command::Close(turn) => lock().end(turn.lease, None, wakers),
            Command::Expire(leases) => {
                let mut table = lock();
                for expired in leases {
                    table.end(expired.lease, expired.attachment, wakers);
                }
            }
            Command::Attach(attach) => lock().move_to(attach.lease, attach.attachment, wakers),
            Command::Txn(_)
            | Command::Compact(_)
            | Command::Grant(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Nodes(_)
            | Command::Auth(_) => {}
        }
    }

    /// Who watches this path, which is no node of the keyspace but watched as if it were one, is told
    /// when the members change.
    pub fn show_members_at(&self, path: &[u8]) {
        self.shared.table.lock().show_members_at(path);
    }

    /// Called on the applying thread. The event counts as later than all that can be read by now: who
    /// has just read, and left a watcher, is told after the answer.
    pub(crate) fn members_changed(&self, wakers: &mut Vec<Waker>) {
        let later = Revision(self.published().0 + 1);
        self.shared.table.lock().members_changed(later, wakers);
    }

    /// A snapshot took the state's place: what happened up to this revision went by unseen.
    pub(crate) fn restored(&self, revision: Revision, wakers: &mut Vec<Waker>) {
        self.shared.table.lock().dismiss_all(wakers);
        self.move_on(revision);
    }

    fn move_on(&self, revision: Revision) {
        let shared = &*self.shared;
        if shared.published.fetch_max(revision.0, Ordering::AcqRel) >= revision.0 {
            return;
        }
        fence(Ordering::SeqCst);
        if shared.waiting.load(Ordering::Relaxed) > 0 {
            shared.moved.notify_waiters();
        }
    }
}

/// Counts itself while it lives.
struct Waiting<'a>(&'a AtomicU64);

impl Waiting<'_> {
    fn begin(count: &AtomicU64) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
