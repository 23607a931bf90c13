//! Watchers of one key, and what they share with its writers.
//!
//! Every put must reach every watcher; a slice is over when it has. The put's value says when it
//! was asked for, so a latency runs from the start of the put to the arrival of its event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest};

use crate::connection::{Next, Session};
use crate::http2::{Calling, Event, Http2};
use crate::load::{DRAIN_MS_MAX, Slice};
use crate::requests::{STAMP_BYTES, path, stamp_ns};
use crate::wire::{self, Value};

/// How often watchers that wait for their last events look whether the writers rest.
const LOOK_MS: u64 = 2;
/// Field numbers in a watch response, its events and their key-value pairs.
const RESPONSE_CREATED: u32 = 3;
const RESPONSE_CANCELED: u32 = 4;
const RESPONSE_CANCEL_REASON: u32 = 6;
const RESPONSE_EVENTS: u32 = 11;
const EVENT_KV: u32 = 2;
const KV_VALUE: u32 = 5;

/// What writers and watchers know of each other, across connections and threads.
#[derive(Debug, Default)]
pub struct FanOut {
    written: AtomicU64,
    writers_busy: AtomicUsize,
}

impl FanOut {
    /// A slice begins with so many writing connections.
    pub fn begin(&self, writers: usize) {
        self.writers_busy.store(writers, Ordering::SeqCst);
    }

    /// A put was acknowledged.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// A writing connection has had its last answer of the slice.
    pub fn writer_rests(&self) {
        self.writers_busy.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many puts there were in all, once the writers rest.
    fn total(&self) -> Option<u64> {
        let busy = self.writers_busy.load(Ordering::SeqCst) > 0;
        (!busy).then(|| self.written.load(Ordering::SeqCst))
    }
}

/// The watchers of one connection.
pub struct Watch {
    key: Bytes,
    prev_kv: bool,
    streams: usize,
    watchers: usize,
    opened: bool,
    created: usize,
    /// Events of all slices.
    events: u64,
    shared: Arc<FanOut>,
    slice: Slice,
    last_event: Instant,
}

impl Watch {
    /// `watchers` watchers of `key`, spread over `streams` streams. Its first slice only creates
    /// them.
    pub fn new(
        key: Bytes,
        prev_kv: bool,
        streams: usize,
        watchers: usize,
        shared: Arc<FanOut>,
        slice: Slice,
    ) -> Self {
        Self {
            key,
            prev_kv,
            streams,
            watchers,
            opened: false,
            created: 0,
            events: 0,
            shared,
            last_event: slice.start,
            slice,
        }
    }

    /// Begins a slice; the one before must be done.
    pub fn begin(&mut self, slice: Slice) {
        self.last_event = slice.start;
        self.slice = slice;
    }

    fn open(&mut self, http2: &mut Http2) -> anyhow::Result<()> {
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: self.key.clone(),
                prev_kv: self.prev_kv,
                ..Default::default()
            })),
        };
        for number in 0..self.streams {
            let share = share_of(self.watchers, self.streams, number);
            if share == 0 {
                break;
            }
            ensure!(http2.may_open(), "the server allows no more watch streams");
            let tag = u32::try_from(number)?;
            let stream = http2.open(tag, path::WATCH, &create, Calling::Streaming)?;
            for _ in 1..share {
                http2.send(stream, &create);
            }
        }
        self.opened = true;
        Ok(())
    }

    fn on_response(&mut self, response: &[u8], now: Instant) -> anyhow::Result<()> {
        for (field, value) in wire::fields(response) {
            match (field, value) {
                (RESPONSE_CREATED, Value::Varint(1)) => self.created += 1,
                (RESPONSE_CANCELED, Value::Varint(1)) => {
                    let reason = wire::bytes_of(response, RESPONSE_CANCEL_REASON);
                    let reason = String::from_utf8_lossy(reason.unwrap_or_default());
                    bail!("the server canceled a watcher: {reason}");
                }
                (RESPONSE_EVENTS, Value::Bytes(event)) => self.on_watch_event(event, now),
                _ => {}
            }
        }
        Ok(())
    }

    fn on_watch_event(&mut self, event: &[u8], now: Instant) {
        self.events += 1;
        self.last_event = now;
        let mut tally = self.slice.tally.borrow_mut();
        let stamp = wire::bytes_of(event, EVENT_KV)
            .and_then(|kv| wire::bytes_of(kv, KV_VALUE))
            .and_then(|value| value.first_chunk::<STAMP_BYTES>());
        let Some(stamp) = stamp else {
            tally.misses += 1;
            return;
        };
        let age_ns = stamp_ns(now).saturating_sub(u64::from_be_bytes(*stamp));
        let asked = now.checked_sub(Duration::from_nanos(age_ns)).unwrap_or(now);
        tally.succeeded(asked, now);
    }
}

impl Session for Watch {
    fn on_event(&mut self, _: &mut Http2, event: Event, now: Instant) -> anyhow::Result<()> {
        match event {
            Event::Message { payload, .. } => self.on_response(&payload, now),
            Event::End { outcome, .. } => bail!("the server ended a watch stream: {outcome:?}"),
        }
    }

    fn turn(&mut self, http2: &mut Http2, now: Instant) -> anyhow::Result<Next> {
        if !self.opened {
            self.open(http2)?;
        }
        let give_up_at = self.slice.give_up_at();
        let expected = self.shared.total().map(|puts| puts * self.watchers as u64);
        if self.created == self.watchers && expected.is_some_and(|events| self.events >= events) {
            let mut tally = self.slice.tally.borrow_mut();
            tally.elapsed = tally.elapsed.max(self.last_event - self.slice.start);
            return Ok(Next::Done);
        }
        ensure!(
            now < give_up_at,
            "{DRAIN_MS_MAX} ms after the end of the slice {} of {} watchers are there and have \
             {} events of {expected:?}",
            self.created,
            self.watchers,
            self.events,
        );
        let look_at = now + Duration::from_millis(LOOK_MS);
        Ok(Next::WaitUntil(look_at.max(self.slice.end)))
    }
}

/// How much of `total` falls to part `number` of `parts`, as evenly as it goes.
pub fn share_of(total: usize, parts: usize, number: usize) -> usize {
    total / parts + usize::from(number < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_complete() {
        for (total, parts) in [(10, 3), (2, 5), (8, 8), (0, 4)] {
            let shares: Vec<_> = (0..parts).map(|n| share_of(total, parts, n)).collect();
            assert_eq!(shares.iter().sum::<usize>(), total);
            let spread = shares.iter().max().expect("some") - shares.iter().min().expect("some");
            assert!(spread <= 1, "{shares:?}");
        }
    }
}
