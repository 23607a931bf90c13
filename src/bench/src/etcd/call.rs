//! Connections of etcd's clients, and single calls outside the measurement.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use prost::Message;

use super::headers::RequestHeaders;
use super::http2::{Calling, Event, Http2};
use crate::connection::{CALL_MS_MAX, CONNECT_MS_MAX, Connection, Next, Session};

/// Connects to `endpoint` (`host:port`) and awaits the server's settings. `token` is sent with each
/// call.
pub async fn open(endpoint: &str, token: Option<String>) -> anyhow::Result<Connection<Http2>> {
    let http2 = Http2::new(RequestHeaders::new(endpoint, token));
    Connection::open(endpoint, http2, &mut Greeting).await
}

impl Connection<Http2> {
    /// One unary call.
    pub async fn call<A: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> anyhow::Result<A> {
        let mut call = Call::default();
        self.wire().open(0, path, request, Calling::Unary)?;
        self.drive(&mut call)
            .await
            .with_context(|| path.to_owned())?;
        A::decode(call.answer).with_context(|| format!("answer of {path}"))
    }
}

/// Waits for the server's settings.
struct Greeting;

impl Session<Http2> for Greeting {
    fn on_event(&mut self, _: &mut Http2, event: Event, _: Instant) -> anyhow::Result<()> {
        bail!("an answer before any request: {event:?}")
    }

    fn turn(&mut self, http2: &mut Http2, now: Instant) -> anyhow::Result<Next> {
        if http2.greeted() {
            return Ok(Next::Done);
        }
        Ok(Next::WaitUntil(now + Duration::from_millis(CONNECT_MS_MAX)))
    }
}

/// Waits for the end of one unary call.
#[derive(Default)]
struct Call {
    answer: Bytes,
    ended: bool,
    give_up_at: Option<Instant>,
}

impl Session<Http2> for Call {
    fn on_event(&mut self, _: &mut Http2, event: Event, _: Instant) -> anyhow::Result<()> {
        match event {
            Event::Message { payload, .. } => self.answer = payload,
            Event::End { outcome, .. } => {
                outcome.map_err(anyhow::Error::msg)?;
                self.ended = true;
            }
        }
        Ok(())
    }

    fn turn(&mut self, _: &mut Http2, now: Instant) -> anyhow::Result<Next> {
        if self.ended {
            return Ok(Next::Done);
        }
        let limit = Duration::from_millis(CALL_MS_MAX);
        let give_up_at = *self.give_up_at.get_or_insert(now + limit);
        ensure!(now < give_up_at, "no answer within {limit:?}");
        Ok(Next::WaitUntil(give_up_at))
    }
}
