//! The socket under a [`Wire`]: connects, and turns reads into events and events into writes.
//!
//! Everything that one read brings is handed over before anything is written, so that a batch of
//! answers costs one read and its follow-up requests one write, as a pipelining client's do.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::protocol::Wire;

/// Room for one read of the socket.
const READ_BYTES: usize = 256 * 1024;
/// How long a server may take to accept a connection and to greet.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// How long a single call outside the measurement may take: counting a million keys is one.
const CALL_MS_MAX: u64 = 60_000;
/// How long a server may take to end a connection after a farewell.
const PART_MS_MAX: u64 = 5_000;

/// What a [`Session`] wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for the server, but no longer than until this instant.
    WaitUntil(Instant),
    /// The session is over; the connection stays usable.
    Done,
}

/// What a connection is driven by. `now` is one instant for all that a read brought.
pub trait Session<W: Wire> {
    /// Takes one event.
    fn on_event(&mut self, wire: &mut W, event: W::Event, now: Instant) -> anyhow::Result<()>;
    /// Called at the start, after each read and when the awaited instant has come: sends what is
    /// due and says how to go on.
    fn turn(&mut self, wire: &mut W, now: Instant) -> anyhow::Result<Next>;
}

/// A connection to one endpoint.
pub struct Connection<W> {
    socket: TcpStream,
    wire: W,
}

impl<W: Wire> Connection<W> {
    /// Connects to `endpoint` (`host:port`) and awaits that the server greets.
    pub async fn open(
        endpoint: &str,
        wire: W,
        greeting: &mut impl Session<W>,
    ) -> anyhow::Result<Self> {
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        let connecting = async {
            let socket = TcpStream::connect(endpoint).await?;
            socket.set_nodelay(true)?;
            let mut connection = Self { socket, wire };
            connection.drive(greeting).await?;
            anyhow::Ok(connection)
        };
        tokio::time::timeout(limit, connecting)
            .await
            .with_context(|| format!("no server of this protocol answered at {endpoint}"))?
            .with_context(|| format!("connecting to {endpoint}"))
    }

    /// What was learned from the server's greeting, and what the next request is put into.
    pub fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Drives `session` until it is done.
    pub async fn drive(&mut self, session: &mut impl Session<W>) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            while let Some(event) = self.wire.next_event()? {
                session.on_event(&mut self.wire, event, now)?;
            }
            let next = session.turn(&mut self.wire, now)?;
            match next {
                Next::Done => return self.flush().await,
                Next::WaitUntil(instant) => {
                    let keep_at = self.wire.keep(now);
                    let limit = keep_at.map_or(instant, |keep_at| keep_at.min(instant));
                    match tokio::time::timeout_at(limit.into(), self.exchange()).await {
                        Ok(read) => ensure!(read? > 0, "the server closed the connection"),
                        Err(_elapsed) => {}
                    }
                }
            }
        }
    }

    /// Awaits the events until `find` finds in one of them what was asked for, outside the
    /// measurement.
    pub async fn find<T>(
        &mut self,
        find: impl FnMut(W::Event) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let mut search = Search {
            find,
            found: None,
            give_up_at: Instant::now() + Duration::from_millis(CALL_MS_MAX),
        };
        self.drive(&mut search).await?;
        search.found.context("nothing was found")
    }

    /// Keeps the connection while nothing drives it. What the server says meanwhile waits for the
    /// next session.
    pub async fn keep(&mut self) -> anyhow::Result<()> {
        self.wire.keep(Instant::now());
        self.flush().await
    }

    /// Ends the connection in the protocol's way.
    pub async fn part(mut self) -> anyhow::Result<()> {
        let ends = self.wire.part();
        self.flush().await?;
        if ends {
            let limit = Duration::from_millis(PART_MS_MAX);
            let ended = async {
                while self.exchange().await? > 0 {}
                io::Result::Ok(())
            };
            tokio::time::timeout(limit, ended)
                .await
                .context("the server does not end the connection")??;
        }
        Ok(())
    }

    /// Ends the connection without a word, and without leaving its port in use for a while.
    pub fn abandon(self) -> anyhow::Result<()> {
        self.socket.set_zero_linger()?;
        Ok(())
    }

    /// Writes what is to be written while waiting for bytes to read; returns how many came.
    async fn exchange(&mut self) -> io::Result<usize> {
        let Self { socket, wire } = self;
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = poll_flush(socket, wire.outbound_mut(), cx) {
                return Poll::Ready(Err(error));
            }
            wire.inbound_mut().reserve(READ_BYTES);
            poll_read_buf(Pin::new(socket), cx, wire.inbound_mut())
        })
        .await
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let Self { socket, wire } = self;
        poll_fn(|cx| poll_flush(socket, wire.outbound_mut(), cx)).await?;
        Ok(())
    }
}

/// Looks for something in events.
struct Search<F, T> {
    find: F,
    found: Option<T>,
    give_up_at: Instant,
}

impl<W, F, T> Session<W> for Search<F, T>
where
    W: Wire,
    F: FnMut(W::Event) -> anyhow::Result<Option<T>>,
{
    fn on_event(&mut self, _: &mut W, event: W::Event, _: Instant) -> anyhow::Result<()> {
        if let Some(found) = (self.find)(event)? {
            self.found = Some(found);
        }
        Ok(())
    }

    fn turn(&mut self, _: &mut W, now: Instant) -> anyhow::Result<Next> {
        if self.found.is_some() {
            return Ok(Next::Done);
        }
        ensure!(now < self.give_up_at, "no answer within {CALL_MS_MAX} ms");
        Ok(Next::WaitUntil(self.give_up_at))
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
