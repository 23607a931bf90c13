//! One session's watcher of one node.
//!
//! An event carries no data, but the session sees the writes in order: it belongs to the first
//! write behind what the session had seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::BufMut as _;

use super::Path;
use super::frames::{Event, Frames, Put as _, STAT_BYTES, opcode};
use crate::connection::{CONNECT_MS_MAX, Next, Session};
use crate::fan_out::{Events, FanOut};
use crate::load::Slice;
use crate::protocol::Sliced;

/// The type of an event: the node's data changed.
const CHANGED: i32 = 3;
/// The mode of a watch that stays.
const PERSISTENT: i32 = 0;
/// Where in a Stat the version is.
const STAT_VERSION_AT: usize = 32;

/// A watcher.
pub struct Watch {
    path: Path,
    one_shot: bool,
    state: State,
    /// How many writes the session has seen, of all slices.
    seen: u64,
    /// The node's version before the first of them, once it is known.
    first_version: Option<i32>,
    events: Events,
    shared: Arc<FanOut>,
}

/// Whether the watch is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is not asked for yet, or has fired.
    Unset,
    /// The answer is awaited, until this instant at the longest.
    Asked(Instant),
    Set,
}

impl Watch {
    /// A watcher of `path`. Its first slice only sets it.
    pub fn new(path: Path, one_shot: bool, shared: Arc<FanOut>, slice: Slice) -> Self {
        Self {
            path,
            one_shot,
            state: State::Unset,
            seen: 0,
            first_version: None,
            events: Events::new(slice),
            shared,
        }
    }

    fn set(&mut self, frames: &mut Frames, now: Instant) {
        if self.one_shot {
            frames.ask(opcode::GET_DATA, |out| {
                out.string(&self.path);
                out.boolean(true);
            });
        } else {
            frames.ask(opcode::ADD_WATCH, |out| {
                out.string(&self.path);
                out.put_i32(PERSISTENT);
            });
        }
        self.state = State::Asked(now + Duration::from_millis(CONNECT_MS_MAX));
    }

    /// What a read that sets the watch again shows.
    fn see(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let at = data.len().checked_sub(STAT_BYTES).context("no Stat")? + STAT_VERSION_AT;
        let version = data[at..].first_chunk().context("no version")?;
        let version = i32::from_be_bytes(*version);
        let first = *self.first_version.get_or_insert(version);
        self.seen = u64::from(version.wrapping_sub(first).cast_unsigned());
        Ok(())
    }
}

impl Sliced for Watch {
    fn begin(&mut self, slice: Slice) {
        self.events.begin(slice);
    }
}

impl Session<Frames> for Watch {
    fn on_event(&mut self, frames: &mut Frames, event: Event, now: Instant) -> anyhow::Result<()> {
        match event {
            Event::Reply(reply) => {
                reply.check()?;
                if self.one_shot {
                    self.see(&reply.body)?;
                }
                self.state = State::Set;
            }
            Event::Fired(CHANGED) => {
                ensure!(self.state == State::Set, "an event without a watch");
                self.events
                    .take(Some(self.shared.asked_at_ns(self.seen)), now);
                if self.one_shot {
                    self.set(frames, now);
                } else {
                    self.seen += 1;
                }
            }
            Event::Fired(kind) => bail!("an event of type {kind}"),
        }
        Ok(())
    }

    fn turn(&mut self, frames: &mut Frames, now: Instant) -> anyhow::Result<Next> {
        match self.state {
            State::Unset => self.set(frames, now),
            State::Asked(give_up_at) => {
                ensure!(now < give_up_at, "no answer within {CONNECT_MS_MAX} ms");
            }
            State::Set => {
                let look_at = self.events.await_all(self.seen, 1, &self.shared, now)?;
                return Ok(look_at.map_or(Next::Done, Next::WaitUntil));
            }
        }
        Ok(Next::WaitUntil(now + Duration::from_millis(CONNECT_MS_MAX)))
    }
}
