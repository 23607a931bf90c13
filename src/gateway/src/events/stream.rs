//! What one who waits is told, read in one place.

use super::Waiting;
use super::table::Place;
use bytes::Bytes;
use keyspace::node::Event;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// Events that wait for one stream (etcd's figure). One that does not take them ends.
pub const EVENTS_MAX: usize = 100;

/// An event on its way to all who wait for it.
#[derive(Debug)]
pub struct News {
    /// The event.
    pub event: Event,
    encoded: OnceLock<Bytes>,
}

impl News {
    pub(super) fn of(event: Event) -> News {
        News {
            event,
            encoded: OnceLock::new(),
        }
    }

    /// The event as it travels: whoever needs it first encodes it, for all.
    pub fn encoded(&self, encode: impl FnOnce(&Event) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(&self.event)).clone()
    }
}

/// What waits for one stream.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Arc<News>>,
    /// No more will come.
    ended: bool,
    waker: Option<Waker>,
}

impl Inbox {
    /// Adds an event, maybe the last; answers whether there is room for more, and whom to wake.
    pub fn put(&self, news: Arc<News>, last: bool) -> (bool, Option<Waker>) {
        let mut state = self.state.lock();
        if state.events.len() < EVENTS_MAX {
            state.events.push_back(news);
            state.ended |= last;
        } else {
            state.ended = true;
        }
        (!state.ended, state.waker.take())
    }

    /// No more will come; answers whom to wake.
    pub fn end(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        state.ended = true;
        state.waker.take()
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Arc<News>>> {
        let mut state = self.state.lock();
        match state.events.pop_front() {
            Some(news) => Poll::Ready(Some(news)),
            None if state.ended => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Events, from the past first and then as they come. Dropping it ends the waiting.
pub struct EventStream {
    index: u64,
    past: VecDeque<Event>,
    live: Option<Live>,
}

/// A place among those who wait.
struct Live {
    inbox: Arc<Inbox>,
    place: Place,
    waiting: Waiting,
}

impl EventStream {
    /// Nothing but what has happened.
    pub(super) fn of_past(index: u64, past: Vec<Event>) -> EventStream {
        EventStream {
            index,
            past: past.into(),
            live: None,
        }
    }

    /// What has happened, then what comes into the inbox.
    pub(super) fn live(
        index: u64,
        past: Vec<Event>,
        inbox: Arc<Inbox>,
        place: Place,
        waiting: Waiting,
    ) -> EventStream {
        EventStream {
            index,
            past: past.into(),
            live: Some(Live {
                inbox,
                place,
                waiting,
            }),
        }
    }

    /// The newest event when the waiting began.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next event; none at the end. A stream ends after its one event, or when its events were
    /// not taken or cannot be told any more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<News>>> {
        if let Some(event) = self.past.pop_front() {
            return Poll::Ready(Some(Arc::new(News::of(event))));
        }
        match &self.live {
            Some(live) => live.inbox.poll_next(cx),
            None => Poll::Ready(None),
        }
    }

    /// The same, awaited.
    pub async fn next(&mut self) -> Option<Arc<News>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.waiting.0.shared.table.lock().remove(&self.place);
    }
}
