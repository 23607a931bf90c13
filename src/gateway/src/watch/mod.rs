//! Who is told of what changed.
//!
//! The applying thread gives every change to the [`Hub`], which finds the watchers that want it
//! (exact keys in a hash, ranges in an interval tree), notes for each of them *that* there is
//! something to read up to this revision, and wakes the streams concerned. What there is to read
//! waits in a ring of recent revisions that all share. A watcher is a cursor (the next revision it
//! wants), never a queue: one that cannot keep up, or that starts in the past, reads the keyspace's
//! history in batches instead and costs the others nothing.
//!
//! Start with [`Hub`]'s `publish` (the writing side), then [`WatchStream::poll_next`] (the reading side).

mod interval;
mod ring;
mod stream;
#[cfg(test)]
mod tests;

pub use stream::{Delivery, WatchStream};

use crate::events::EventHub;
use crate::nodes::NodeHub;
use bytes::Bytes;
use interval::{Intervals, Limit};
use keyspace::{Applied, Change, Command, End, Reader, Revision, Span};
use parking_lot::{Mutex, RwLock};
use replica::ChangeSink;
use ring::Ring;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

/// Where changes arrive and watchers wait; clone it freely.
#[derive(Clone, Default)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Held for reading while a command's changes are published, so that whoever holds it for
    /// writing stands between two commands.
    index: RwLock<Index>,
    ring: RwLock<Ring>,
    /// Everything up to this revision is noted with every watcher that wants it.
    published: AtomicU64,
    streams: AtomicU64,
    watchers: AtomicU64,
    slow: AtomicU64,
    nodes: NodeHub,
    events: EventHub,
}

/// How many there are of what, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Open streams.
    pub streams: u64,
    /// Watchers on them.
    pub watchers: u64,
    /// Watchers that read from history.
    pub slow: u64,
}

/// The watchers, by what they watch.
#[derive(Default)]
struct Index {
    keys: HashMap<Bytes, Vec<Arc<Subscription>>>,
    ranges: Intervals<Arc<Subscription>>,
}

/// One watcher as the hub knows it.
struct Subscription {
    /// Its name on its stream; never used twice there.
    serial: u64,
    inbox: Arc<Inbox>,
    /// The last revision that it was told of. Only who publishes looks at it.
    noted: AtomicU64,
}

impl Subscription {
    /// Whether this revision is news to it: of several changes only the first is.
    fn is_news(&self, revision: u64) -> bool {
        let is_news = self.noted.load(Ordering::Relaxed) != revision;
        if is_news {
            self.noted.store(revision, Ordering::Relaxed);
        }
        is_news
    }
}

/// What waits for one stream: bounded by the number of its watchers.
#[derive(Default)]
struct Inbox {
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// Who has something to read, longest waiting first.
    order: VecDeque<u64>,
    unread: HashMap<u64, Unread>,
    waker: Option<Waker>,
}

/// The revisions among which there is something for a watcher, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unread {
    from: u64,
    through: u64,
}

impl Inbox {
    /// Notes that there is something to read; answers whom to wake.
    fn note(&self, serial: u64, from: u64, through: u64) -> Option<Waker> {
        let notes = &mut *self.notes.lock();
        match notes.unread.entry(serial) {
            std::collections::hash_map::Entry::Occupied(mut old) => {
                let old = old.get_mut();
                old.from = old.from.min(from);
                old.through = old.through.max(through);
            }
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(Unread { from, through });
                notes.order.push_back(serial);
            }
        }
        notes.waker.take()
    }
}

impl Index {
    fn add(&mut self, span: &Span, subscription: Arc<Subscription>) {
        let start = span.start.clone();
        match limit_of(span) {
            None => self.keys.entry(start).or_default().push(subscription),
            Some(limit) => self.ranges.insert(start, limit, subscription),
        }
    }

    fn remove(&mut self, span: &Span, inbox: &Arc<Inbox>, serial: u64) {
        let is_it = |it: &Arc<Subscription>| it.serial == serial && Arc::ptr_eq(&it.inbox, inbox);
        match limit_of(span) {
            Some(limit) => self.ranges.remove(&span.start, &limit, is_it),
            None => {
                let Some(watchers) = self.keys.get_mut(&span.start) else {
                    return;
                };
                watchers.retain(|it| !is_it(it));
                if watchers.is_empty() {
                    self.keys.remove(&span.start);
                }
            }
        }
    }

    /// Every watcher of `key`.
    fn of(&self, key: &[u8], mut show: impl FnMut(&Arc<Subscription>)) {
        if let Some(watchers) = self.keys.get(key) {
            watchers.iter().for_each(&mut show);
        }
        self.ranges.stab(key, show);
    }

    fn each(&self, mut show: impl FnMut(&Arc<Subscription>)) {
        self.keys.values().flatten().for_each(&mut show);
        self.ranges.each(show);
    }
}

fn limit_of(span: &Span) -> Option<Limit> {
    match &span.end {
        End::Single => None,
        End::Before(end) => Some(Limit::Before(end.clone())),
        End::Unbounded => Some(Limit::Unbounded),
    }
}

impl Hub {
    /// A hub that nobody publishes to yet.
    pub fn new() -> Hub {
        Hub::default()
    }

    /// What a replica is given to publish to.
    pub fn sink(&self) -> Box<dyn ChangeSink> {
        Box::new(Sink {
            hub: self.clone(),
            wanted: Vec::new(),
            wakers: Vec::new(),
        })
    }

    /// Takes over from a keyspace that has a past. Nobody watches yet, and who does from now on
    /// will only be told of what is newer.
    pub(crate) fn begin(&self, reader: &Reader) {
        let _between_commands = self.shared.index.write();
        self.shared
            .published
            .fetch_max(reader.revision().0, Ordering::AcqRel);
        self.shared.nodes.begin(reader);
        self.shared.events.begin(reader);
    }

    pub(crate) fn stream(&self, reader: Reader) -> WatchStream {
        WatchStream::new(self.clone(), reader)
    }

    /// The hub of those who watch nodes.
    pub fn nodes(&self) -> &NodeHub {
        &self.shared.nodes
    }

    /// The hub of those who wait for node events.
    pub fn events(&self) -> &EventHub {
        &self.shared.events
    }

    /// How many there are of what.
    pub fn figures(&self) -> Figures {
        Figures {
            streams: self.shared.streams.load(Ordering::Relaxed),
            watchers: self.shared.watchers.load(Ordering::Relaxed),
            slow: self.shared.slow.load(Ordering::Relaxed),
        }
    }
}

/// The writing side. The two lists are kept for their memory.
struct Sink {
    hub: Hub,
    wanted: Vec<Arc<Subscription>>,
    wakers: Vec<Waker>,
}

impl ChangeSink for Sink {
    fn publish(&mut self, command: &Command, applied: &Applied) {
        self.publish_changes(applied);
        let nodes = &self.hub.shared.nodes;
        nodes.publish(command, applied, &mut self.wakers);
        let events = &self.hub.shared.events;
        events.publish(command, applied, &mut self.wakers);
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn restored(&mut self, revision: Revision) {
        self.skip_to(revision.0);
        let nodes = &self.hub.shared.nodes;
        nodes.restored(revision, &mut self.wakers);
        self.hub.shared.events.restored(&mut self.wakers);
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn members_changed(&mut self) {
        let nodes = &self.hub.shared.nodes;
        nodes.members_changed(&mut self.wakers);
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Sink {
    fn publish_changes(&mut self, applied: &Applied) {
        let shared = &*self.hub.shared;
        let published = shared.published.load(Ordering::Acquire);
        if applied.revision.0 <= published {
            return;
        }
        let index = shared.index.read();
        // A command may change several revisions: each expired lease ends at its own. Some change
        // no key.
        let told = |change: &Change| change.entry.modified().0 <= published;
        let news = &applied.changes[applied.changes.partition_point(told)..];
        for step in news.chunk_by(|a, b| a.entry.modified() == b.entry.modified()) {
            let at = step[0].entry.modified().0;
            for change in step {
                index.of(change.entry.key(), |it| {
                    if it.is_news(at) {
                        self.wanted.push(it.clone());
                    }
                });
            }
            // What nobody watches is not kept: who comes later reads it from history.
            if !self.wanted.is_empty() {
                shared.ring.write().push(at, step);
            }
            for watcher in self.wanted.drain(..) {
                self.wakers
                    .extend(watcher.inbox.note(watcher.serial, at, at));
            }
        }
        shared
            .published
            .store(applied.revision.0, Ordering::Release);
    }

    /// Revisions pass without their changes coming by: every watcher has to look for itself, in
    /// history.
    fn skip_to(&mut self, through: u64) {
        let shared = &*self.hub.shared;
        let index = shared.index.read();
        let from = shared.published.load(Ordering::Acquire) + 1;
        if through >= from {
            shared.ring.write().restart(through + 1);
            index.each(|watcher| {
                self.wakers
                    .extend(watcher.inbox.note(watcher.serial, from, through));
            });
            shared.published.store(through, Ordering::Release);
        }
    }
}
