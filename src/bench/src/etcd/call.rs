//! Connections of etcd's clients, and single calls outside the measurement.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message;

use super::headers::RequestHeaders;
use super::http2::{Calling, Event, Http2};
use crate::connection::{CONNECT_MS_MAX, Connection, Next, Session};

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
        self.wire().open(0, path, request, Calling::Unary)?;
        let mut answer = Bytes::new();
        let ended = self.find(|event| match event {
            Event::Message { payload, .. } => {
                answer = payload;
                Ok(None)
            }
            Event::End { outcome, .. } => outcome.map(Some).map_err(anyhow::Error::msg),
        });
        ended.await.with_context(|| path.to_owned())?;
        A::decode(answer).with_context(|| format!("answer of {path}"))
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
