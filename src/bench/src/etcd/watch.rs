//! Watchers of one key. The put's value says when it was asked for, so a latency runs from the
//! start of the put to the arrival of its event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest};

use super::http2::{Calling, Event, Http2};
use super::requests::{STAMP_BYTES, path};
use super::wire::{self, Value};
use crate::connection::{CONNECT_MS_MAX, Next, Session};
use crate::fan_out::{Events, FanOut, share_of};
use crate::load::Slice;
use crate::protocol::Sliced;

/// Field numbers in a watch response, its events and their key-value pairs.
const RESPONSE_CREATED: u32 = 3;
const RESPONSE_CANCELED: u32 = 4;
const RESPONSE_CANCEL_REASON: u32 = 6;
const RESPONSE_EVENTS: u32 = 11;
const EVENT_KV: u32 = 2;
const KV_VALUE: u32 = 5;

/// The watchers of one connection.
pub struct Watch {
    key: Bytes,
    prev_kv: bool,
    streams: usize,
    watchers: usize,
    opened: bool,
    created: usize,
    /// Until when the server may create them.
    give_up_at: Option<Instant>,
    /// Events of all slices.
    seen: u64,
    events: Events,
    shared: Arc<FanOut>,
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
            give_up_at: None,
            seen: 0,
            events: Events::new(slice),
            shared,
        }
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
        let stamp = wire::bytes_of(event, EVENT_KV)
            .and_then(|kv| wire::bytes_of(kv, KV_VALUE))
            .and_then(|value| value.first_chunk::<STAMP_BYTES>());
        let asked_ns = stamp.map(|stamp| u64::from_be_bytes(*stamp));
        self.seen += 1;
        self.events.take(asked_ns, now);
    }
}

impl Sliced for Watch {
    fn begin(&mut self, slice: Slice) {
        self.events.begin(slice);
    }
}

impl Session<Http2> for Watch {
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
        if self.created < self.watchers {
            let limit = Duration::from_millis(CONNECT_MS_MAX);
            let give_up_at = *self.give_up_at.get_or_insert(now + limit);
            ensure!(
                now < give_up_at,
                "{} of {} watchers are there after {limit:?}",
                self.created,
                self.watchers
            );
            return Ok(Next::WaitUntil(give_up_at));
        }
        let (seen, watchers) = (self.seen, self.watchers);
        let look_at = self.events.await_all(seen, watchers, &self.shared, now)?;
        Ok(look_at.map_or(Next::Done, Next::WaitUntil))
    }
}
