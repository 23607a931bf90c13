//! The socket under [`Http2`]: connects, and turns reads into events and events into writes.
//!
//! Everything that one read brings is handed over before anything is written, so that a batch of
//! answers costs one read and its follow-up requests one write, as a pipelining client's do.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf, BytesMut};
use prost::Message;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::headers::RequestHeaders;
use crate::http2::{Calling, Event, Http2};

/// Room for one read of the socket.
const READ_BYTES: usize = 256 * 1024;
/// How long a server may take to accept a connection and to send its settings.
const CONNECT_MS_MAX: u64 = 5_000;
/// How long a single call outside the measurement may take: counting a million keys is one.
const CALL_MS_MAX: u64 = 60_000;

/// What a [`Session`] wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for the server, but no longer than until this instant.
    WaitUntil(Instant),
    /// The session is over; the connection stays usable.
    Done,
}

/// What a connection is driven by. `now` is one instant for all that a read brought.
pub trait Session {
    /// Takes one event.
    fn on_event(&mut self, http2: &mut Http2, event: Event, now: Instant) -> anyhow::Result<()>;
    /// Called at the start, after each read and when the awaited instant has come: sends what is
    /// due and says how to go on.
    fn turn(&mut self, http2: &mut Http2, now: Instant) -> anyhow::Result<Next>;
}

/// A connection to one endpoint.
pub struct Connection {
    socket: TcpStream,
    http2: Http2,
}

impl Connection {
    /// Connects to `endpoint` (`host:port`) and awaits the server's settings. `token` is sent
    /// with each call.
    pub async fn open(endpoint: &str, token: Option<String>) -> anyhow::Result<Self> {
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        let connecting = async {
            let socket = TcpStream::connect(endpoint).await?;
            socket.set_nodelay(true)?;
            let http2 = Http2::new(RequestHeaders::new(endpoint, token));
            let mut connection = Self { socket, http2 };
            connection.drive(&mut Greeting).await?;
            anyhow::Ok(connection)
        };
        tokio::time::timeout(limit, connecting)
            .await
            .with_context(|| format!("no HTTP/2 server answered at {endpoint}"))?
            .with_context(|| format!("connecting to {endpoint}"))
    }

    /// One unary call.
    pub async fn call<A: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> anyhow::Result<A> {
        let mut call = Call::default();
        self.http2.open(0, path, request, Calling::Unary)?;
        self.drive(&mut call)
            .await
            .with_context(|| path.to_owned())?;
        A::decode(call.answer).with_context(|| format!("answer of {path}"))
    }

    /// Drives `session` until it is done.
    pub async fn drive(&mut self, session: &mut impl Session) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            while let Some(event) = self.http2.next_event()? {
                session.on_event(&mut self.http2, event, now)?;
            }
            let next = session.turn(&mut self.http2, now)?;
            match next {
                Next::Done => return self.flush().await,
                Next::WaitUntil(instant) => {
                    let limit = instant.into();
                    match tokio::time::timeout_at(limit, self.exchange()).await {
                        Ok(read) => ensure!(read? > 0, "the server closed the connection"),
                        Err(_elapsed) => {}
                    }
                }
            }
        }
    }

    /// Writes what is to be written while waiting for bytes to read; returns how many came.
    async fn exchange(&mut self) -> io::Result<usize> {
        let Self { socket, http2 } = self;
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = poll_flush(socket, http2.outbound_mut(), cx) {
                return Poll::Ready(Err(error));
            }
            http2.inbound_mut().reserve(READ_BYTES);
            poll_read_buf(Pin::new(socket), cx, http2.inbound_mut())
        })
        .await
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let Self { socket, http2 } = self;
        poll_fn(|cx| poll_flush(socket, http2.outbound_mut(), cx)).await?;
        Ok(())
    }
}

fn poll_flush(
    socket: &mut TcpStream,
    outbound: &mut BytesMut,
    cx: &mut std::task::Context<'_>,
) -> Poll<io::Result<()>> {
    while !outbound.is_empty() {
        match Pin::new(&mut *socket).poll_write(cx, outbound) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => outbound.advance(written),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}

/// Waits for the server's settings.
struct Greeting;

impl Session for Greeting {
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
    answer: bytes::Bytes,
    ended: bool,
    give_up_at: Option<Instant>,
}

impl Session for Call {
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
