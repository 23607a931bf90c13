//! Sessions of ZooKeeper's clients, and single requests outside the measurement.

use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::BytesMut;

use super::frames::{Event, Frames, Reply, Welcome};
use crate::connection::{CONNECT_MS_MAX, Connection, Next, Session};

/// Opens a session at `endpoint` (`host:port`).
pub async fn open(endpoint: &str) -> anyhow::Result<Connection<Frames>> {
    Connection::open(endpoint, Frames::new(None), &mut Greeting).await
}

/// Goes on with a session.
pub async fn resume(endpoint: &str, welcome: &Welcome) -> anyhow::Result<Connection<Frames>> {
    Connection::open(endpoint, Frames::new(Some(welcome)), &mut Greeting).await
}

impl Connection<Frames> {
    /// One request and its reply.
    pub async fn call(
        &mut self,
        opcode: i32,
        body: impl FnOnce(&mut BytesMut),
    ) -> anyhow::Result<Reply> {
        self.wire().ask(opcode, body);
        let reply = self.find(|event| match event {
            Event::Reply(reply) => Ok(Some(reply)),
            Event::Fired(_) => Ok(None),
        });
        reply.await
    }
}

/// Waits for the session.
struct Greeting;

impl Session<Frames> for Greeting {
    fn on_event(&mut self, _: &mut Frames, event: Event, _: Instant) -> anyhow::Result<()> {
        bail!("an answer before any request: {event:?}")
    }

    fn turn(&mut self, frames: &mut Frames, now: Instant) -> anyhow::Result<Next> {
        if frames.welcome().is_some() {
            return Ok(Next::Done);
        }
        Ok(Next::WaitUntil(now + Duration::from_millis(CONNECT_MS_MAX)))
    }
}
