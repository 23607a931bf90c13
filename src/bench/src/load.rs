//! Clients that ask one thing at a time: unary calls, and keep-alives on standing streams.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use proto::etcdserverpb::LeaseKeepAliveRequest;

use crate::connection::{Next, Session};
use crate::http2::{Calling, Event, Http2};
use crate::pace::Pace;
use crate::requests::{Expected, Requests, path};
use crate::tally::Tally;
use crate::watch::FanOut;

/// How long a server may take for the answers that are still due when a slice ends.
pub const DRAIN_MS_MAX: u64 = 30_000;

/// One slice of load as one connection sees it.
#[derive(Debug, Clone)]
pub struct Slice {
    /// When it begins.
    pub start: Instant,
    /// From when on nothing new is asked.
    pub end: Instant,
    /// Where the connections of a thread count.
    pub tally: Rc<RefCell<Tally>>,
}

impl Slice {
    /// Until when answers are awaited.
    pub fn give_up_at(&self) -> Instant {
        self.end + Duration::from_millis(DRAIN_MS_MAX)
    }
}

/// What the clients of a connection exchange with the server.
#[derive(Debug)]
pub enum Exchange {
    /// A call per operation.
    Unary(Requests),
    /// A message per operation, each client on the stream of its own lease.
    KeepAlive {
        /// The lease of each client.
        leases: Vec<i64>,
        /// The stream of each client, once it is open.
        streams: Vec<Option<u32>>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    intended: Instant,
    expected: Expected,
    met: bool,
}

/// The clients of one connection.
pub struct Load {
    exchange: Exchange,
    per_second: Option<f64>,
    /// What each client waits for.
    clients: Vec<Option<Pending>>,
    free: Vec<u32>,
    exhausted: bool,
    slice: Slice,
    pace: Pace,
    last_answer: Instant,
    /// Whom to tell of each write.
    watched: Option<Arc<FanOut>>,
}

impl Load {
    /// `clients` requests in flight, at `per_second` if given. `watched` hears of every success.
    pub fn new(
        exchange: Exchange,
        clients: usize,
        per_second: Option<f64>,
        watched: Option<Arc<FanOut>>,
        slice: Slice,
    ) -> Self {
        let count = u32::try_from(clients).expect("clients are checked to be few");
        Self {
            exchange,
            per_second,
            clients: vec![None; clients],
            free: (0..count).rev().collect(),
            exhausted: false,
            pace: Pace::Closed,
            last_answer: slice.start,
            slice,
            watched,
        }
    }

    /// Begins a slice; the one before must be done.
    pub fn begin(&mut self, slice: Slice) {
        self.pace = Pace::new(self.per_second, slice.start);
        self.last_answer = slice.start;
        self.slice = slice;
    }

    fn ask(&mut self, http2: &mut Http2, intended: Instant, now: Instant) -> anyhow::Result<()> {
        let client = self.free.pop().expect("the caller saw a free client");
        let expected = match &mut self.exchange {
            Exchange::Unary(requests) => requests.issue(http2, client, now)?,
            Exchange::KeepAlive { leases, streams } => {
                let at = client as usize;
                let request = LeaseKeepAliveRequest { id: leases[at] };
                if let Some(stream) = streams[at] {
                    http2.send(stream, &request);
                } else {
                    let path = path::LEASE_KEEP_ALIVE;
                    streams[at] = Some(http2.open(client, path, &request, Calling::Streaming)?);
                }
                Some(Expected::Alive)
            }
        };
        let Some(expected) = expected else {
            self.exhausted = true;
            self.free.push(client);
            return Ok(());
        };
        self.clients[client as usize] = Some(Pending {
            intended,
            expected,
            met: false,
        });
        Ok(())
    }

    fn finish(&mut self, client: u32, outcome: Result<(), String>, now: Instant) {
        let Some(pending) = self.clients[client as usize].take() else {
            return;
        };
        self.free.push(client);
        self.last_answer = now;
        let mut tally = self.slice.tally.borrow_mut();
        if let Err(reason) = outcome {
            tally.failed(reason);
            return;
        }
        tally.succeeded(pending.intended, now);
        if !pending.met {
            tally.misses += 1;
        }
        if pending.expected.is_write() {
            tally.writes += 1;
            if let Some(watched) = &self.watched {
                watched.wrote();
            }
        }
    }
}

impl Session for Load {
    fn on_event(&mut self, _: &mut Http2, event: Event, now: Instant) -> anyhow::Result<()> {
        let standing = matches!(self.exchange, Exchange::KeepAlive { .. });
        match event {
            Event::Message { tag, payload } => {
                if let Some(pending) = &mut self.clients[tag as usize] {
                    pending.met = pending.expected.is_met_by(&payload);
                }
                if standing {
                    self.finish(tag, Ok(()), now);
                }
            }
            Event::End { outcome, .. } if standing => {
                bail!("the server ended a keep-alive stream: {outcome:?}")
            }
            Event::End { tag, outcome } => self.finish(tag, outcome, now),
        }
        Ok(())
    }

    fn turn(&mut self, http2: &mut Http2, now: Instant) -> anyhow::Result<Next> {
        while !self.free.is_empty() && !self.exhausted && http2.may_open() {
            match self.pace.take(now, self.slice.end) {
                Some(intended) => self.ask(http2, intended, now)?,
                None => break,
            }
        }
        if self.free.is_empty() {
            self.pace.starve();
        }
        let idle = self.free.len() == self.clients.len();
        let give_up_at = self.slice.give_up_at();
        if idle && (now >= self.slice.end || self.exhausted) {
            let mut tally = self.slice.tally.borrow_mut();
            tally.unsent += self.pace.unsent(self.slice.end);
            let elapsed = self.last_answer - self.slice.start;
            tally.elapsed = tally.elapsed.max(elapsed);
            if let Some(watched) = &self.watched {
                watched.writer_rests();
            }
            return Ok(Next::Done);
        }
        let waiting = self.clients.len() - self.free.len();
        ensure!(
            now < give_up_at,
            "{waiting} requests are unanswered {DRAIN_MS_MAX} ms after the end of the slice"
        );
        let wake_at = if now >= self.slice.end || self.free.is_empty() {
            give_up_at
        } else {
            self.pace
                .wake_at()
                .unwrap_or(give_up_at)
                .min(self.slice.end)
        };
        Ok(Next::WaitUntil(wake_at))
    }
}
