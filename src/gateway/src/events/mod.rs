//! Who waits for node events.
//!
//! Events are numbered, and the newest thousand at most are kept in the state. So whoever waits may
//! say from which number on; what has happened since is found there, and what comes is told by the
//! applying thread. It publishes under one lock, under which those who wait look at the past for the
//! last time and register: nothing is lost between the two, and nothing told twice.
//!
//! Who waits at a node hears of it, or of all beneath it as well. What lies beneath under a name that
//! begins with an underscore is passed over, unless one waits there or deeper. Who waits at a node
//! that ends together with a directory above it hears of that directory's end. Who may not be told of
//! an event that they wait for is told of nothing more.
//!
//! Start with [`EventHub`]'s `publish` (the writing side), then [`EventStream::poll_next`] (the
//! reading side).

mod stream;
mod table;
#[cfg(test)]
mod tests;

pub use stream::{EventStream, News};

use bytes::Bytes;
use keyspace::node::{Event, beyond};
use keyspace::{Applied, Cause, Command, End, Principal, Reader, Refusal, Span};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use stream::{Inbox, Live};
use table::{Ended, Table, Waiter};
use thiserror::Error;

/// How many may wait at a time, on all connections together.
const WAITING_MAX: u64 = 100_000;

/// Where events arrive and those wait who want them; clone it freely.
#[derive(Clone, Default)]
pub struct EventHub {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// How many wait. While there is none, publishing takes no lock.
    waiting: Arc<AtomicU64>,
    /// Everything up to this event was told to those who wait for it.
    published: AtomicU64,
    /// Of these, since the start, those of nodes whose time was over.
    expired: AtomicU64,
    reader: OnceLock<Reader>,
}

/// What one waits for.
#[derive(Clone, Debug)]
pub struct Interest {
    /// On whose behalf: what they may not read they are not told.
    pub by: Principal,
    /// At which node, be it there or not.
    pub path: Bytes,
    /// At all nodes beneath it, too.
    pub recursive: bool,
    /// From this event on; none for the next.
    pub since: Option<u64>,
    /// Only the first event that there is.
    pub once: bool,
}

/// Why one cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unwaited {
    /// Something of what is asked for may not be told.
    #[error("not all events that are asked for may be told")]
    Denied,
    /// The events that are asked for are not kept any more.
    #[error("event {asked} is gone; the oldest that is kept is {oldest}")]
    Cleared {
        /// From which on.
        asked: u64,
        /// The oldest that is kept.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// Too many wait already.
    #[error("too many wait for events")]
    TooMany,
}

impl Interest {
    /// Whether it is in an event of the past. Whether a node was there when a directory above it
    /// ended is forgotten then, so that one hears of it in any case.
    fn covers(&self, event: &Event) -> bool {
        let path = event.name.as_bytes();
        !event.silent
            && (self.is_in(path) || (ends_directory(event) && is_beneath(path, &self.path)))
    }

    /// Whether it is in what happens at a node.
    fn is_in(&self, path: &[u8]) -> bool {
        let beneath = || self.recursive && is_beneath(&self.path, path);
        *path == *self.path || (beneath() && !passes_over(&self.path, path))
    }

    /// Refuses those whom access lists bind to wait where there is one.
    fn check(&self, reader: &Reader) -> Result<(), Refusal> {
        let span = match self.recursive {
            false => Span::single(self.path.clone()),
            true => Span {
                start: self.path.clone(),
                end: End::Before(beyond(&self.path).into()),
            },
        };
        reader.check_lists(&self.by, &span, |path| self.is_in(path))
    }
}

impl EventHub {
    /// Takes over from a keyspace that has a past.
    pub(crate) fn begin(&self, reader: &Reader) {
        let shared = &self.shared;
        shared.reader.get_or_init(|| reader.clone());
        shared.published.fetch_max(reader.event(), Ordering::AcqRel);
    }

    /// How many wait. Who was told all that it waited for does so no more.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn await_events(
        &self,
        reader: &Reader,
        interest: Interest,
    ) -> Result<EventStream, Unwaited> {
        let waiting = Waiting::begin(self)?;
        interest.check(reader).map_err(|_| Unwaited::Denied)?;
        let first = find_first(reader, &interest, interest.since)?;
        if interest.once && first.event.is_some() {
            return EventStream::begin(reader, interest, first, None);
        }
        // Most of the past was looked at without the lock; what came meanwhile is little.
        let mut table = self.shared.table.lock();
        let since = interest.since.map(|since| since.max(first.newest + 1));
        let rest = find_first(reader, &interest, since)?;
        let first = First {
            event: first.event.or(rest.event),
            newest: rest.newest,
        };
        if interest.once && first.event.is_some() {
            return EventStream::begin(reader, interest, first, None);
        }
        let inbox = Arc::<Inbox>::default();
        let waiter = Waiter {
            since: interest.since.unwrap_or(0).max(first.newest + 1),
            recursive: interest.recursive,
            once: interest.once,
            inbox: Arc::clone(&inbox),
            _waiting: waiting,
        };
        let place = table.add(&interest.path, waiter);
        drop(table);
        let live = Live::new(inbox, place, self.clone());
        EventStream::begin(reader, interest, first, Some(live))
    }

    /// How many events there were, since the start, of nodes whose time was over.
    pub fn expired(&self) -> u64 {
        self.shared.expired.load(Ordering::Relaxed)
    }

    /// Called on the applying thread, once readers see what the command did.
    pub(crate) fn publish(&self, command: &Command, applied: &Applied, wakers: &mut Vec<Waker>) {
        if matches!(command, Command::Expire(_)) {
            let before = self.shared.published.load(Ordering::Acquire);
            let expired = applied.event.saturating_sub(before);
            self.shared.expired.fetch_add(expired, Ordering::Relaxed);
        }
        self.publish_through(applied.event, &Ended::with(&applied.steps), wakers);
    }

    /// A snapshot took the state's place, in which the newest events are kept.
    pub(crate) fn restored(&self, wakers: &mut Vec<Waker>) {
        if let Some(reader) = self.shared.reader.get() {
            self.publish_through(reader.event(), &Ended::Unknown, wakers);
        }
    }

    fn publish_through(&self, event: u64, ended: &Ended, wakers: &mut Vec<Waker>) {
        let shared = &*self.shared;
        let before = shared.published.fetch_max(event, Ordering::AcqRel);
        if event <= before {
            return;
        }
        // Who is not seen here came after readers saw these events, and so finds them in the past.
        fence(Ordering::SeqCst);
        if shared.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(reader) = shared.reader.get() else {
            return;
        };
        let mut table = shared.table.lock();
        let (oldest, events) = reader.events(before + 1);
        if oldest > before + 1 {
            // More at once than are kept. Those who come back will hear that they missed some.
            table.dismiss_all(wakers);
        }
        for event in events.iter().filter(|event| !event.silent) {
            table.tell(event, ended, wakers);
        }
    }
}

/// The first event of the past that somebody waits for, if there is one.
struct First {
    event: Option<Event>,
    /// The newest that has happened.
    newest: u64,
}

/// Looks for it among those from one on. Of the past nothing is wanted unless it is asked for.
fn find_first(reader: &Reader, interest: &Interest, since: Option<u64>) -> Result<First, Unwaited> {
    let since = since.unwrap_or(u64::MAX);
    let mut found = reader.find_events(since, 1, |event| interest.covers(event));
    let (oldest, newest) = (found.oldest, found.newest);
    if since < oldest {
        return Err(Unwaited::Cleared {
            asked: since,
            oldest,
            newest,
        });
    }
    let event = found.events.pop();
    Ok(First { event, newest })
}

/// Counts itself while it lives.
struct Waiting(Arc<AtomicU64>);

impl Waiting {
    fn begin(hub: &EventHub) -> Result<Waiting, Unwaited> {
        let waiting = Waiting(Arc::clone(&hub.shared.waiting));
        let before = waiting.0.fetch_add(1, Ordering::Relaxed);
        // Whoever publishes either sees this one, or what it published is seen here.
        fence(Ordering::SeqCst);
        if before < WAITING_MAX {
            Ok(waiting)
        } else {
            Err(Unwaited::TooMany)
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a node ended that may have had others beneath it.
fn ends_directory(event: &Event) -> bool {
    let ended = match event.cause {
        Cause::Delete | Cause::CompareAndDelete | Cause::Expire => true,
        Cause::Set | Cause::Create | Cause::Update | Cause::CompareAndSwap => false,
    };
    ended && event.previous.as_ref().is_some_and(|node| node.directory)
}

/// Whether `path` lies beneath `above`.
fn is_beneath(above: &[u8], path: &[u8]) -> bool {
    path.len() > 1
        && (above == b"/"
            || path
                .strip_prefix(above)
                .is_some_and(|it| it.starts_with(b"/")))
}

/// Whether one that waits at `above` does not hear of `path` beneath it: some name on the way begins
/// with an underscore.
fn passes_over(above: &[u8], path: &[u8]) -> bool {
    let rest = if above == b"/" {
        path
    } else {
        &path[above.len()..]
    };
    rest.windows(2).any(|pair| pair == b"/_")
}
