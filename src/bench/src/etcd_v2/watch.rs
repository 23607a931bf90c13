//! One client that waits for the changes of one key, one request after the other, each for what
//! comes after the change before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

use super::call::{KEYS, QUORUM};
use super::http1::{Answer, Http1, Request};
use super::requests::position;
use crate::connection::{CONNECT_MS_MAX, Next, Session};
use crate::fan_out::{Events, FanOut};
use crate::load::Slice;
use crate::protocol::{Sliced, Wire as _};

/// The refusal to tell of events that are no longer kept.
const CLEARED: u32 = 401;

/// A client that waits.
pub struct Watch {
    key: Bytes,
    at: Option<At>,
    /// Until when the server may say where it stands.
    give_up_at: Option<Instant>,
    events: Events,
    shared: Arc<FanOut>,
}

/// Indexes of the store. Nothing but what is waited for moves them.
#[derive(Debug, Clone, Copy)]
struct At {
    /// Before the first write.
    first: u64,
    /// As far as the client has been told.
    seen: u64,
}

impl Watch {
    /// A client that waits for changes of `key`. Its first slice only begins to.
    pub fn new(key: Bytes, shared: Arc<FanOut>, slice: Slice) -> Self {
        Self {
            key,
            at: None,
            give_up_at: None,
            events: Events::new(slice),
            shared,
        }
    }

    fn get(&self, http1: &mut Http1, query: &str) {
        http1.ask(Request {
            method: "GET",
            path: &[KEYS, &self.key],
            query,
            form: None,
        });
    }

    /// The index that the client has been told of with this answer to a wait.
    fn take(&mut self, at: At, answer: &Answer, now: Instant) -> Result<u64> {
        if !answer.succeeded() {
            // The writers are so far ahead that what comes next is forgotten.
            let cleared = answer.refusal().is_some_and(|it| it.code == CLEARED);
            ensure!(cleared, "waiting: {}", answer.failure());
            self.events.take(None, now);
            return answer.index();
        }
        let index = modified_index(&answer.body).context("an event without an index")?;
        ensure!(index > at.seen, "event {index} came after {}", at.seen);
        let number = index - at.first - 1;
        self.events.take(Some(self.shared.asked_at_ns(number)), now);
        Ok(index)
    }
}

/// The index of the event that `body` tells of: that of its node, which comes first.
fn modified_index(body: &[u8]) -> Option<u64> {
    let rest = &body[position(body, br#""modifiedIndex":"#)?..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

impl Sliced for Watch {
    fn begin(&mut self, slice: Slice) {
        self.events.begin(slice);
    }
}

impl Session<Http1> for Watch {
    fn on_event(&mut self, _: &mut Http1, answer: Answer, now: Instant) -> Result<()> {
        self.at = Some(match self.at {
            None => {
                let first = answer.index()?;
                At { first, seen: first }
            }
            Some(at) => At {
                seen: self.take(at, &answer, now)?,
                ..at
            },
        });
        Ok(())
    }

    fn turn(&mut self, http1: &mut Http1, now: Instant) -> Result<Next> {
        let Some(At { first, seen }) = self.at else {
            if http1.takes_requests() {
                self.get(http1, QUORUM);
            }
            let limit = Duration::from_millis(CONNECT_MS_MAX);
            let give_up_at = *self.give_up_at.get_or_insert(now + limit);
            if now >= give_up_at {
                bail!("no answer within {limit:?}");
            }
            return Ok(Next::WaitUntil(give_up_at));
        };
        if http1.takes_requests() {
            self.get(http1, &format!("?wait=true&waitIndex={}", seen + 1));
        }
        let look_at = self.events.await_all(seen - first, 1, &self.shared, now)?;
        Ok(look_at.map_or(Next::Done, Next::WaitUntil))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_index_of_its_node() {
        let event = br#"{"action":"set","node":{"key":"/a","value":"x","modifiedIndex":41,"createdIndex":41},"prevNode":{"key":"/a","value":"w","modifiedIndex":40,"createdIndex":40}}"#;
        assert_eq!(modified_index(event), Some(41));
        assert_eq!(modified_index(br#"{"modifiedIndex":"#), None);
        assert_eq!(modified_index(b""), None);
    }
}
