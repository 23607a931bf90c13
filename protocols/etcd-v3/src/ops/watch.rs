//! One client's watch stream: its requests in, its replies out, in the order in which they must be
//! seen. It does no waiting of its own: whoever owns it polls.

use super::{Ops, convert};
use crate::errors::{self, Error};
use crate::reply::Watched;
use bytes::Bytes;
use gateway::keyspace::{Change, End, Entry, Permissions, Revision, Span};
use gateway::{Delivery, WatchStream};
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCancelRequest, WatchCreateRequest, WatchRequest};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The id in replies that are about no one watcher.
const NO_ID: i64 = -1;
/// A client may go beyond its request limit by so much (etcd's allowance for the envelope), and
/// fragments are cut accordingly.
pub const OVERHEAD_BYTES: usize = 512 * 1024;
/// More often than this nobody is told that nothing happened.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// One client's watchers.
pub struct Session {
    ops: Ops,
    stream: WatchStream,
    watchers: HashMap<i64, Watcher>,
    next_id: i64,
    /// Replies that are due before anything else. One request adds one at most, one tick one for
    /// each watcher, one delivery its fragments; and it is empty before more is asked for.
    outbox: VecDeque<Watched>,
    progress: Pin<Box<Sleep>>,
    progress_interval: Duration,
}

/// What a client asked of a watcher.
#[derive(Clone, Copy, Debug, Default)]
struct Watcher {
    no_puts: bool,
    no_deletes: bool,
    with_previous: bool,
    fragment: bool,
    progress_notify: bool,
    /// It was sent something since the last tick, so the next progress reply is left out.
    busy: bool,
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        match change.entry.is_tombstone() {
            true => !self.no_deletes,
            false => !self.no_puts,
        }
    }
}

impl Ops {
    /// Opens a watch stream. Within a tokio runtime.
    pub fn watch(&self) -> Session {
        let interval = self.options.watch_progress_interval;
        let interval = interval.max(PROGRESS_INTERVAL_MIN);
        let interval = interval.mul_f64(1.0 + rand::random_range(0.0..0.1));
        Session {
            stream: self.gate.watch(),
            ops: self.clone(),
            watchers: HashMap::new(),
            next_id: 0,
            outbox: VecDeque::new(),
            progress: Box::pin(tokio::time::sleep(interval)),
            progress_interval: interval,
        }
    }
}

impl Ops {
    /// Refuses to show what the client may not read, be it for its roles or because ZooKeeper's access
    /// lists protect it: nobody who speaks etcd's protocol is named there.
    fn check_readable(&self, span: &Span) -> Result<(), Error> {
        let reader = self.gate.reader();
        Ok(reader.check(&self.by, span, Permissions::READ)?)
    }

    /// Refuses to show what an access list protected when it was written, though it may be gone.
    fn check_past<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) -> Result<(), Error> {
        Ok(self.gate.reader().check_past(&self.by, entries)?)
    }

    /// Refuses to tell of changes of which the client may not read one.
    fn check_tellable(&self, changes: &[Change]) -> Result<(), Error> {
        self.check_past(changes.iter().map(|change| &change.entry))?;
        if self.gate.reader().is_open() {
            return Ok(());
        }
        let keys = changes
            .iter()
            .map(|change| Bytes::copy_from_slice(change.entry.key()));
        keys.map(Span::single)
            .try_for_each(|key| self.check_readable(&key))
    }

    /// Leaves out what was there before changes where the client may not see that, as if it had been
    /// compacted: the changes themselves may be open to everyone.
    fn leave_out_closed(&self, changes: &mut [Change]) {
        for change in changes {
            if self.check_past(&change.previous).is_err() {
                change.previous = None;
            }
        }
    }
}

impl Session {
    /// Takes a request. Its reply, if it has one, comes out of [`Session::poll_reply`].
    pub fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let reply = self.create(create);
                self.outbox.push_back(reply);
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(&cancel),
            Some(RequestUnion::ProgressRequest(_)) => self.progress_of_all(),
            // etcd overlooks what it does not know rather than end the stream.
            None => {}
        }
    }

    /// The next reply.
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Watched> {
        loop {
            if let Some(reply) = self.outbox.pop_front() {
                return Poll::Ready(reply);
            }
            if let Poll::Ready(delivery) = self.stream.poll_next(cx) {
                self.deliver(delivery);
                continue;
            }
            if self.progress.as_mut().poll(cx).is_ready() {
                self.tick();
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Whether a reply is due that poll_reply would give at once.
    pub fn has_reply(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn create(&mut self, request: WatchCreateRequest) -> Watched {
        match self.try_create(request) {
            Ok((watch_id, now)) => Watched {
                header: self.ops.header(now),
                watch_id,
                created: true,
                ..Watched::default()
            },
            Err(cancel_reason) => Watched {
                header: self.ops.header_now(),
                watch_id: NO_ID,
                created: true,
                canceled: true,
                cancel_reason,
                ..Watched::default()
            },
        }
    }

    fn try_create(
        &mut self,
        request: WatchCreateRequest,
    ) -> Result<(i64, Revision), Cow<'static, str>> {
        let start = match request.start_revision {
            0 => None,
            start => match u64::try_from(start) {
                Ok(start) => Some(Revision(start)),
                Err(_) => return Err(errors::COMPACTED.message),
            },
        };
        let span =
            watched(&request.key, &request.range_end).ok_or("mvcc: watcher range is empty")?;
        let readable = self.ops.check_readable(&span);
        readable.map_err(|error| error.as_cancel_reason())?;
        let id = self.free_id(request.watch_id)?;
        let filters = |kind: FilterType| request.filters().any(|it| it == kind);
        let watcher = Watcher {
            no_puts: filters(FilterType::Noput),
            no_deletes: filters(FilterType::Nodelete),
            with_previous: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            busy: false,
        };
        let now = self.stream.add(id, span, start);
        self.watchers.insert(id, watcher);
        Ok((id, now))
    }

    /// Ids that clients do not choose count up from 0.
    fn free_id(&mut self, asked: i64) -> Result<i64, Cow<'static, str>> {
        if asked != 0 {
            return match self.watchers.contains_key(&asked) {
                true => Err("mvcc: duplicate watch ID provided on the WatchStream".into()),
                false => Ok(asked),
            };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Ok(id)
    }

    fn cancel(&mut self, request: &WatchCancelRequest) {
        if self.watchers.remove(&request.watch_id).is_none() {
            return;
        }
        self.stream.remove(request.watch_id);
        self.outbox.push_back(Watched {
            header: self.ops.header_now(),
            watch_id: request.watch_id,
            canceled: true,
            ..Watched::default()
        });
    }

    /// Says up to where all watchers have seen everything, unless one has not: clients ask again.
    fn progress_of_all(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        if let Some(revision) = self.stream.progress() {
            self.outbox.push_back(Watched {
                header: self.ops.header(revision),
                watch_id: NO_ID,
                ..Watched::default()
            });
        }
    }

    /// Tells the watchers that asked for it, and that were told nothing since the last time, up to
    /// where they have seen everything.
    fn tick(&mut self) {
        let next = Instant::now() + self.progress_interval;
        self.progress.as_mut().reset(next);
        for (&watch_id, watcher) in &mut self.watchers {
            if !watcher.progress_notify {
                continue;
            }
            if std::mem::take(&mut watcher.busy) {
                continue;
            }
            if let Some(revision) = self.stream.progress_of(watch_id) {
                self.outbox.push_back(Watched {
                    header: self.ops.header(revision),
                    watch_id,
                    ..Watched::default()
                });
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Changes {
                tag,
                through,
                mut changes,
            } => {
                let Some(watcher) = self.watchers.get_mut(&tag) else {
                    return;
                };
                if let Err(error) = self.ops.check_tellable(&changes) {
                    self.deny(tag, &error);
                    return;
                }
                changes.retain(|change| watcher.wants(change));
                if changes.is_empty() {
                    return;
                }
                watcher.busy = true;
                let watcher = *watcher;
                if watcher.with_previous {
                    self.ops.leave_out_closed(&mut changes);
                }
                let events = &self.ops.served.events;
                events.fetch_add(changes.len() as u64, Relaxed);
                let reply = Watched {
                    header: self.ops.header(through),
                    watch_id: tag,
                    changes,
                    with_previous: watcher.with_previous,
                    ..Watched::default()
                };
                match watcher.fragment {
                    true => self.outbox.extend(reply.split(self.fragment_bytes_max())),
                    false => self.outbox.push_back(reply),
                }
            }
            Delivery::Compacted { tag, compacted } => {
                self.watchers.remove(&tag);
                self.outbox.push_back(Watched {
                    // etcd leaves the revision out of this header.
                    header: self.ops.header(Revision(0)),
                    watch_id: tag,
                    canceled: true,
                    compact_revision: compacted.0,
                    ..Watched::default()
                });
            }
        }
    }

    /// Ends a watcher that would have to be told of what its client may not read now.
    fn deny(&mut self, watch_id: i64, error: &Error) {
        self.watchers.remove(&watch_id);
        self.stream.remove(watch_id);
        self.outbox.push_back(Watched {
            header: self.ops.header_now(),
            watch_id,
            canceled: true,
            cancel_reason: error.as_cancel_reason(),
            ..Watched::default()
        });
    }

    fn fragment_bytes_max(&self) -> usize {
        self.ops.gate.limits().request_bytes_max + OVERHEAD_BYTES
    }
}

/// The watched keys, if there can be any. No key at all means the least one.
fn watched(key: &Bytes, range_end: &Bytes) -> Option<Span> {
    let key = match key.is_empty() {
        true => Bytes::from_static(b"\0"),
        false => key.clone(),
    };
    let span = convert::span(&key, range_end);
    match &span.end {
        End::Before(end) if *end <= key => None,
        End::Single | End::Before(_) | End::Unbounded => Some(span),
    }
}
