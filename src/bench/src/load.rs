//! Clients that ask one thing at a time, several of them on one connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::connection::{Next, Session};
use crate::fan_out::FanOut;
use crate::generator::MemberSpec;
use crate::pace::Pace;
use crate::protocol::{Sliced, Wire};
use crate::tally::Tally;

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
    /// A slice of `duration` from now on.
    pub fn begin(duration: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            end: start + duration,
            tally: Rc::new(RefCell::new(Tally::new())),
        }
    }

    /// A slice without load, before the first one.
    pub fn rest() -> Self {
        Self::begin(Duration::ZERO)
    }

    /// Until when answers are awaited.
    pub fn give_up_at(&self) -> Instant {
        self.end + Duration::from_millis(DRAIN_MS_MAX)
    }
}

/// An answer to one of the clients.
#[derive(Debug)]
pub struct Answer {
    /// The client.
    pub client: u32,
    /// What it is told; in failure, what to count that under.
    pub outcome: Result<Success, String>,
}

/// A request that succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Success {
    /// Whether the answer says what it must.
    pub as_expected: bool,
    /// Whether the server's revision moved by one.
    pub wrote: bool,
}

/// What the clients of a connection and the server say to each other.
pub trait Exchange {
    /// How it travels.
    type Wire: Wire;

    /// Sends `client`'s next request; false when there is nothing left to ask for.
    fn ask(&mut self, wire: &mut Self::Wire, client: u32, now: Instant) -> anyhow::Result<bool>;
    /// The answer that `event` completes, if it does.
    fn answered(&mut self, event: <Self::Wire as Wire>::Event) -> anyhow::Result<Option<Answer>>;
}

/// The clients of one connection.
pub struct Load<E> {
    exchange: E,
    per_second: Option<f64>,
    /// From when on each client waits.
    clients: Vec<Option<Instant>>,
    free: Vec<u32>,
    exhausted: bool,
    slice: Slice,
    pace: Pace,
    last_answer: Instant,
    /// Whom to tell of each write.
    watched: Option<Arc<FanOut>>,
}

impl<E> Load<E> {
    /// The clients that `spec` describes. If they write for watchers, `shared` hears of every
    /// request and of every success.
    pub fn new<R>(exchange: E, spec: &MemberSpec<R>, shared: &Arc<FanOut>, slice: Slice) -> Self {
        let count = u32::try_from(spec.clients).expect("clients are checked to be few");
        Self {
            exchange,
            per_second: spec.per_second,
            clients: vec![None; spec.clients],
            free: (0..count).rev().collect(),
            exhausted: false,
            pace: Pace::Closed,
            last_answer: slice.start,
            slice,
            watched: spec.writes_for_watchers.then(|| shared.clone()),
        }
    }

    fn finish(&mut self, answer: Answer, now: Instant) {
        let Some(intended) = self.clients[answer.client as usize].take() else {
            return;
        };
        self.free.push(answer.client);
        self.last_answer = now;
        let mut tally = self.slice.tally.borrow_mut();
        let success = match answer.outcome {
            Ok(success) => success,
            Err(reason) => {
                tally.failed(reason);
                return;
            }
        };
        tally.succeeded(intended, now);
        if !success.as_expected {
            tally.misses += 1;
        }
        if success.wrote {
            tally.writes += 1;
            if let Some(watched) = &self.watched {
                watched.wrote();
            }
        }
    }
}

impl<E: Exchange> Load<E> {
    fn ask(&mut self, wire: &mut E::Wire, intended: Instant, now: Instant) -> anyhow::Result<()> {
        let client = self.free.pop().expect("the caller saw a free client");
        if let Some(watched) = &self.watched {
            watched.asks(now);
        }
        if self.exchange.ask(wire, client, now)? {
            self.clients[client as usize] = Some(intended);
        } else {
            self.exhausted = true;
            self.free.push(client);
        }
        Ok(())
    }
}

impl<E> Sliced for Load<E> {
    fn begin(&mut self, slice: Slice) {
        self.pace = Pace::new(self.per_second, slice.start);
        self.last_answer = slice.start;
        self.slice = slice;
    }
}

impl<E: Exchange> Session<E::Wire> for Load<E> {
    fn on_event(
        &mut self,
        _: &mut E::Wire,
        event: <E::Wire as Wire>::Event,
        now: Instant,
    ) -> anyhow::Result<()> {
        if let Some(answer) = self.exchange.answered(event)? {
            self.finish(answer, now);
        }
        Ok(())
    }

    fn turn(&mut self, wire: &mut E::Wire, now: Instant) -> anyhow::Result<Next> {
        while !self.free.is_empty() && !self.exhausted && wire.takes_requests() {
            match self.pace.take(now, self.slice.end) {
                Some(intended) => self.ask(wire, intended, now)?,
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
