//! One client's watchers, read in one place.

use super::ring::bytes_of;
use super::{Hub, Inbox, Subscription, Unread};
use keyspace::{Change, Reader, Refusal, Revision, Span};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// How much history one delivery may hold, in changes (etcd's figure, in revisions) ...
const CHANGES_MAX: usize = 1000;
/// ... and in bytes, above which it ends with the revision it is in.
const BYTES_MAX: usize = 1 << 20;
/// So many reads without anything to deliver, and other tasks get their turn.
const EMPTY_READS_MAX: usize = 16;

/// What happened to one watcher.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Changes within its span, of whole revisions, in order.
    Changes {
        /// Which watcher.
        tag: i64,
        /// It has now seen everything up to here.
        through: Revision,
        /// Never empty.
        changes: Vec<Change>,
    },
    /// What it wanted to read next is compacted. It is gone.
    Compacted {
        /// Which watcher.
        tag: i64,
        /// The oldest revision that can still be watched.
        compacted: Revision,
    },
}

/// A client's watchers and what there is to read for them. Dropping it ends them all.
pub struct WatchStream {
    hub: Hub,
    reader: Reader,
    inbox: Arc<Inbox>,
    cursors: HashMap<u64, Cursor>,
    serials: HashMap<i64, u64>,
    next_serial: u64,
    /// When watchers begin, and which: those that had not begun when somebody last asked. Clients
    /// ask for progress as often as they like, with as many watchers as they like.
    beginning: BTreeSet<(u64, u64)>,
}

/// Where a watcher stands.
struct Cursor {
    tag: i64,
    span: Span,
    /// Before this revision there is no progress to speak of: it is asked for, or known to have
    /// happened when the watcher came.
    begins: u64,
    /// The next revision to look at.
    next: u64,
    /// It was not known to the hub at this revision: what it wants up to here is in history only.
    since: u64,
    slow: bool,
}

impl WatchStream {
    pub(super) fn new(hub: Hub, reader: Reader) -> WatchStream {
        hub.shared.streams.fetch_add(1, Ordering::Relaxed);
        WatchStream {
            hub,
            reader,
            inbox: Arc::default(),
            cursors: HashMap::new(),
            serials: HashMap::new(),
            next_serial: 0,
            beginning: BTreeSet::new(),
        }
    }

    /// Whether there is a watcher of this tag.
    pub fn contains(&self, tag: i64) -> bool {
        self.serials.contains_key(&tag)
    }

    /// Adds a watcher from revision `start` on; without it, from the next change on. Answers the
    /// keyspace's revision at this moment. The tag must be free.
    pub fn add(&mut self, tag: i64, span: Span, start: Option<Revision>) -> Revision {
        let serial = self.next_serial;
        self.next_serial += 1;
        let subscription = Arc::new(Subscription {
            serial,
            inbox: self.inbox.clone(),
            noted: AtomicU64::new(0),
        });
        let now = {
            let mut index = self.hub.shared.index.write();
            index.add(&span, subscription);
            // Readers may be one command ahead of what is published. What they can see already is
            // not news to whoever comes now.
            let published = self.hub.shared.published.load(Ordering::Acquire);
            self.reader.revision().0.max(published)
        };
        let begins = start.map_or(now, |start| start.0.max(now));
        let start = start.map_or(now + 1, |start| start.0);
        if start <= now {
            // The caller polls next, so there is nobody to wake.
            self.inbox.note(serial, start, now);
        }
        let cursor = Cursor {
            tag,
            span,
            begins,
            next: start,
            since: now,
            slow: false,
        };
        self.cursors.insert(serial, cursor);
        self.beginning.insert((begins, serial));
        let taken = self.serials.insert(tag, serial);
        assert!(taken.is_none(), "two watchers with one tag");
        self.hub.shared.watchers.fetch_add(1, Ordering::Relaxed);
        Revision(now)
    }

    /// Ends a watcher. Answers whether there was one.
    pub fn remove(&mut self, tag: i64) -> bool {
        match self.serials.get(&tag) {
            Some(&serial) => {
                self.end(serial);
                true
            }
            None => false,
        }
    }

    /// The revision up to which every watcher has seen everything, if all have and have begun.
    pub fn progress(&mut self) -> Option<Revision> {
        let now = self.hub.shared.published.load(Ordering::Acquire);
        let idle = self.inbox.notes.lock().unread.is_empty();
        let begun = |&(begins, _): &(u64, u64)| begins <= now;
        while self.beginning.first().is_some_and(begun) {
            self.beginning.pop_first();
        }
        (idle && self.beginning.is_empty()).then_some(Revision(now))
    }

    /// The same for one watcher.
    pub fn progress_of(&self, tag: i64) -> Option<Revision> {
        let serial = self.serials.get(&tag)?;
        let now = self.hub.shared.published.load(Ordering::Acquire);
        let idle = !self.inbox.notes.lock().unread.contains_key(serial);
        (idle && self.cursors[serial].begins <= now).then_some(Revision(now))
    }

    /// The next thing that happened to a watcher of this stream.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Delivery> {
        for _ in 0..EMPTY_READS_MAX {
            let Some((serial, unread)) = self.next_unread(cx) else {
                return Poll::Pending;
            };
            if let Some(delivery) = self.read(serial, unread) {
                return Poll::Ready(delivery);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn next_unread(&self, cx: &Context<'_>) -> Option<(u64, Unread)> {
        let notes = &mut *self.inbox.notes.lock();
        while let Some(serial) = notes.order.pop_front() {
            // A watcher that ended leaves its place in the order behind.
            if let Some(unread) = notes.unread.remove(&serial) {
                return Some((serial, unread));
            }
        }
        notes.waker = Some(cx.waker().clone());
        None
    }

    fn read(&mut self, serial: u64, unread: Unread) -> Option<Delivery> {
        let cursor = self.cursors.get_mut(&serial)?;
        let from = unread.from.max(cursor.next);
        if from > unread.through {
            return None;
        }
        let found = match read_ring(&self.hub, cursor, from, unread.through) {
            Some(found) => found,
            None => match read_history(&self.reader, &cursor.span, from, unread.through) {
                Ok(found) => found,
                Err(compacted) => {
                    let tag = cursor.tag;
                    self.end(serial);
                    return Some(Delivery::Compacted { tag, compacted });
                }
            },
        };
        cursor.next = found.through + 1;
        let behind = found.through < unread.through;
        if behind {
            self.inbox.note(serial, cursor.next, unread.through);
        }
        if cursor.slow != behind {
            cursor.slow = behind;
            let slow = &self.hub.shared.slow;
            match behind {
                true => slow.fetch_add(1, Ordering::Relaxed),
                false => slow.fetch_sub(1, Ordering::Relaxed),
            };
        }
        let delivery = Delivery::Changes {
            tag: cursor.tag,
            through: Revision(found.through),
            changes: found.changes,
        };
        match &delivery {
            Delivery::Changes { changes, .. } if changes.is_empty() => None,
            Delivery::Changes { .. } | Delivery::Compacted { .. } => Some(delivery),
        }
    }

    fn end(&mut self, serial: u64) {
        let Some(cursor) = self.cursors.remove(&serial) else {
            return;
        };
        self.serials.remove(&cursor.tag);
        self.beginning.remove(&(cursor.begins, serial));
        let mut index = self.hub.shared.index.write();
        index.remove(&cursor.span, &self.inbox, serial);
        drop(index);
        self.inbox.notes.lock().unread.remove(&serial);
        self.hub.shared.watchers.fetch_sub(1, Ordering::Relaxed);
        if cursor.slow {
            self.hub.shared.slow.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let serials: Vec<u64> = self.cursors.keys().copied().collect();
        for serial in serials {
            self.end(serial);
        }
        self.hub.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a read of some revisions found.
struct Found {
    changes: Vec<Change>,
    /// The last revision looked at.
    through: u64,
}

/// Reads what the ring has; none when it does not reach back far enough.
fn read_ring(hub: &Hub, cursor: &Cursor, from: u64, through: u64) -> Option<Found> {
    if from <= cursor.since {
        return None;
    }
    let steps = hub.shared.ring.read().range(from, through, CHANGES_MAX)?;
    let through = match steps.last() {
        Some(last) if steps.len() == CHANGES_MAX => last.revision,
        Some(_) | None => through,
    };
    let changes = steps.iter().flat_map(|step| step.changes.iter());
    Some(gather(changes, &cursor.span, through))
}

fn read_history(reader: &Reader, span: &Span, from: u64, through: u64) -> Result<Found, Revision> {
    match reader.history(Revision(from), CHANGES_MAX) {
        Ok(changes) => {
            let last = changes.last().map_or(through, |it| it.entry.modified().0);
            let through = if changes.len() < CHANGES_MAX {
                last.max(through)
            } else {
                last
            };
            Ok(gather(changes.iter(), span, through))
        }
        Err(Refusal::Compacted { compacted }) => Err(compacted),
        Err(
            Refusal::Future { .. }
            | Refusal::KeyNotFound
            | Refusal::LeaseNotFound(_)
            | Refusal::LeaseExists(_)
            | Refusal::Moved
            | Refusal::OutOfTurn
            | Refusal::Denied
            | Refusal::Unnamed
            | Refusal::Outdated
            | Refusal::Auth(_)
            | Refusal::Alarmed(_)
            | Refusal::Node { .. },
        ) => Ok(Found {
            changes: Vec::new(),
            through,
        }),
    }
}

/// Keeps what lies in `span`, up to about [`BYTES_MAX`], but never splits a revision.
fn gather<'a>(changes: impl Iterator<Item = &'a Change>, span: &Span, through: u64) -> Found {
    let mut found = Found {
        changes: Vec::new(),
        through,
    };
    let mut bytes = 0;
    for change in changes.filter(|change| span.contains(change.entry.key())) {
        if let Some(last) = found.changes.last()
            && bytes > BYTES_MAX
            && change.entry.modified() != last.entry.modified()
        {
            found.through = change.entry.modified().0 - 1;
            break;
        }
        bytes += bytes_of(change);
        found.changes.push(change.clone());
    }
    found
}
