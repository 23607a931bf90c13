//! A connection must say something: who connects and never greets would hold its place for ever.

use pin_project_lite::pin_project;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a greeting may take (the figure of gRPC in Go). HTTP/1 has a bound of its own for the
/// rest of a request's head; HTTP/2 clients may then be silent for as long as they answer pings.
const GREETING_MAX: Duration = Duration::from_secs(120);
/// HTTP/2's preface. No request of HTTP/1.1 is shorter.
const GREETING_BYTES: usize = 24;

pin_project! {
    /// A stream that fails when no greeting comes.
    pub struct Greeted<S> {
        #[pin]
        stream: S,
        missing_bytes: usize,
        patience: Option<Pin<Box<Sleep>>>,
    }
}

impl<S> Greeted<S> {
    /// The time runs from now.
    pub fn new(stream: S) -> Greeted<S> {
        Greeted {
            stream,
            missing_bytes: GREETING_BYTES,
            patience: Some(Box::pin(tokio::time::sleep(GREETING_MAX))),
        }
    }
}

impl<S: AsyncRead> AsyncRead for Greeted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if let Some(patience) = this.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(this.stream.poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        *this.missing_bytes = this.missing_bytes.saturating_sub(read);
        if *this.missing_bytes == 0 {
            *this.patience = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite> AsyncWrite for Greeted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test(start_paused = true)]
    async fn half_a_greeting_is_waited_for_and_then_no_longer() {
        let (mut client, server) = duplex(100);
        let mut server = Greeted::new(server);
        client.write_all(b"PRI * HTTP/2.0").await.expect("room");
        let mut read = Vec::new();
        let ended = server.read_to_end(&mut read).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(read, b"PRI * HTTP/2.0");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_greeted_may_be_silent() {
        let (mut client, server) = duplex(100);
        let mut server = Greeted::new(server);
        client
            .write_all(&[b'x'; GREETING_BYTES])
            .await
            .expect("room");
        let mut read = vec![0; GREETING_BYTES];
        server.read_exact(&mut read).await.expect("all of it");
        let silence = tokio::time::timeout(GREETING_MAX * 10, server.read_u8()).await;
        assert!(silence.is_err(), "still open");
    }
}
