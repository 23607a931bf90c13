//! What one who waits is told, read in one place.

use super::table::Place;
use super::{EventHub, First, Interest, Unwaited};
use bytes::Bytes;
use keyspace::Reader;
use keyspace::node::Event;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

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
///
/// What lies in the past is looked up as it is taken: a stream holds no more of it than the first.
pub struct EventStream {
    reader: Reader,
    interest: Interest,
    /// The newest event when the waiting began.
    index: u64,
    first: Option<Event>,
    /// What more of the past there may be something in.
    past: Range<u64>,
    live: Option<Live>,
}

/// What was to be told next is not kept any more.
struct Gone;

/// A place among those who wait.
pub struct Live {
    inbox: Arc<Inbox>,
    place: Place,
    hub: EventHub,
}

impl Live {
    /// The place whose events come into the inbox.
    pub(super) fn new(inbox: Arc<Inbox>, place: Place, hub: EventHub) -> Live {
        Live { inbox, place, hub }
    }
}

impl EventStream {
    /// The first of the past, if it is asked for and there is one; then what more there is of it and
    /// what comes, if anything is to come.
    pub(super) fn begin(
        reader: &Reader,
        interest: Interest,
        first: First,
        live: Option<Live>,
    ) -> Result<EventStream, Unwaited> {
        let past = match (&first.event, &live) {
            (Some(event), Some(_)) => event.index + 1..first.newest + 1,
            (None, _) | (_, None) => 0..0,
        };
        let stream = EventStream {
            reader: reader.clone(),
            interest,
            index: first.newest,
            first: first.event,
            past,
            live,
        };
        match &stream.first {
            Some(first) if !stream.may_tell(first) => Err(Unwaited::Denied),
            Some(_) | None => Ok(stream),
        }
    }

    fn may_tell(&self, event: &Event) -> bool {
        self.reader.check_event(&self.interest.by, event).is_ok()
    }

    /// The newest event when the waiting began.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next event; none at the end. A stream ends after its one event, and when the next was not
    /// taken in time, is not kept any more, or may not be told.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<News>>> {
        let news = match (self.next_of_past(), &self.live) {
            (Ok(Some(event)), _) => Some(Arc::new(News::of(event))),
            (Ok(None), Some(live)) => ready!(live.inbox.poll_next(cx)),
            (Ok(None), None) | (Err(Gone), _) => None,
        };
        let news = news.filter(|news| self.may_tell(&news.event));
        if news.is_none() {
            self.past = 0..0;
            self.live = None;
        }
        Poll::Ready(news.map(|news| self.without_closed(news)))
    }

    /// What is open is told without what an access list protected before it.
    fn without_closed(&self, news: Arc<News>) -> Arc<News> {
        let previous = news.event.previous.as_ref();
        let previous = previous.and_then(|node| node.entry.as_ref());
        match self.reader.check_past(&self.interest.by, previous) {
            Ok(()) => news,
            Err(_) => Arc::new(News::of(Event {
                previous: None,
                ..news.event.clone()
            })),
        }
    }

    fn next_of_past(&mut self) -> Result<Option<Event>, Gone> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.past.is_empty() {
            return Ok(None);
        }
        let wanted = |event: &Event| event.index < self.past.end && self.interest.covers(event);
        let mut found = self.reader.find_events(self.past.start, 1, wanted);
        if found.oldest > self.past.start {
            return Err(Gone);
        }
        let event = found.events.pop();
        let next = event.as_ref().map(|event| event.index + 1);
        self.past.start = next.unwrap_or(self.past.end);
        Ok(event)
    }

    /// The same, awaited.
    pub async fn next(&mut self) -> Option<Arc<News>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.hub.shared.table.lock().remove(&self.place);
    }
}
