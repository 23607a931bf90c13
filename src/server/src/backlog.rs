//! What was answered on a connection and has not left yet.
//!
//! A client may ask for far more than it reads. HTTP/2 bounds what is sent to it, not what is made
//! for it: each answer would be held in full until its turn comes. So every byte of an answer is
//! counted from when it is made until it is on the wire. While a connection holds too many, its
//! calls wait where they are, which costs little, and the other connections are served.
//!
//! [`Turn`] is where a call waits, [`Counted`] counts a body, and [`Chunk`] is a part of a body that
//! counts until it is dropped.

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;

/// A connection that holds this much gets its next answer when some of it has left: enough for
/// dozens of large answers under way.
const HELD_BYTES_MAX: usize = 64 << 20;
/// While all connections together hold this much, whoever holds anything waits, and whoever reads
/// what it asked for is served.
const ALL_HELD_BYTES_MAX: usize = 512 << 20;
/// What a part of an answer costs beside its bytes: a frame, and its place in the queues.
const CHUNK_BYTES: usize = 512;
/// How often a connection that waits for the others looks whether they hold less.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What one connection holds. Cheap to clone.
#[derive(Clone, Default)]
pub struct Backlog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    held_bytes: AtomicUsize,
    all_held_bytes: Arc<AtomicUsize>,
    room: Arc<Notify>,
}

impl Backlog {
    /// That of another connection to the same server.
    pub fn of_another(&self) -> Backlog {
        Backlog {
            shared: Arc::new(Shared {
                all_held_bytes: self.shared.all_held_bytes.clone(),
                ..Shared::default()
            }),
        }
    }

    fn is_full(&self) -> bool {
        let held = self.shared.held_bytes.load(Relaxed);
        let crowded = || self.shared.all_held_bytes.load(Relaxed) >= ALL_HELD_BYTES_MAX;
        held >= HELD_BYTES_MAX || (held > 0 && crowded())
    }

    fn hold(&self, data: Bytes) -> Chunk {
        let bytes = data.len() + CHUNK_BYTES;
        self.shared.held_bytes.fetch_add(bytes, Relaxed);
        self.shared.all_held_bytes.fetch_add(bytes, Relaxed);
        let held = Held {
            backlog: self.clone(),
            bytes,
        };
        Chunk { data, _held: held }
    }
}

/// Counts while it lives.
struct Held {
    backlog: Backlog,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let shared = &self.backlog.shared;
        shared.held_bytes.fetch_sub(self.bytes, Relaxed);
        shared.all_held_bytes.fetch_sub(self.bytes, Relaxed);
        if !self.backlog.is_full() {
            shared.room.notify_one();
        }
    }
}

/// A place in the queue of those that wait for a backlog to go down.
#[derive(Default)]
pub struct Turn {
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Turn {
    /// Ready when the next answer may be made: in the same poll, since the tasks of a connection
    /// share a thread, and then no other makes one in between.
    pub fn poll(&mut self, backlog: &Backlog, cx: &mut Context<'_>) -> Poll<()> {
        while backlog.is_full() {
            let room = self.room.get_or_insert_with(|| {
                let room = backlog.shared.room.clone().notified_owned();
                Box::pin(async move {
                    // Both ends mean the same: look.
                    let _ = tokio::time::timeout(LOOK_AGAIN, room).await;
                })
            });
            ready!(room.as_mut().poll(cx));
            self.room = None;
        }
        // Who leaves the queue passes on the word that there is room.
        self.room = None;
        Poll::Ready(())
    }
}

pin_project! {
    /// A body whose parts are counted. Those of a stream wait for their turn one by one; the whole
    /// of any other answer waited before it was made.
    pub struct Counted<B> {
        #[pin]
        body: B,
        backlog: Backlog,
        turn: Option<Turn>,
    }
}

impl<B> Counted<B> {
    /// Counts an answer that has had its turn.
    pub fn whole(body: B, backlog: Backlog) -> Counted<B> {
        Counted {
            body,
            backlog,
            turn: None,
        }
    }

    /// Counts a stream.
    pub fn stream(body: B, backlog: Backlog) -> Counted<B> {
        Counted {
            body,
            backlog,
            turn: Some(Turn::default()),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for Counted<B> {
    type Data = Chunk;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, B::Error>>> {
        let this = self.project();
        if let Some(turn) = this.turn {
            ready!(turn.poll(this.backlog, cx));
        }
        let frame = ready!(this.body.poll_frame(cx));
        let counted = |frame: Frame<Bytes>| frame.map_data(|data| this.backlog.hold(data));
        Poll::Ready(frame.map(|frame| frame.map(counted)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of an answer.
pub struct Chunk {
    data: Bytes,
    _held: Held,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(to)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.data.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn poll(turn: &mut Turn, backlog: &Backlog) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        turn.poll(backlog, &mut cx).is_ready()
    }

    #[tokio::test]
    async fn a_connection_that_holds_too_much_waits_until_it_holds_less() {
        let backlog = Backlog::default();
        let mut turns = [Turn::default(), Turn::default()];
        let first = backlog.hold(vec![0; HELD_BYTES_MAX / 2].into());
        assert!(poll(&mut turns[0], &backlog));
        let second = backlog.hold(vec![0; HELD_BYTES_MAX / 2].into());
        assert!(turns.iter_mut().all(|turn| !poll(turn, &backlog)));
        let other = backlog.of_another();
        assert!(poll(&mut Turn::default(), &other), "others are served");
        drop(first);
        assert!(turns.iter_mut().all(|turn| poll(turn, &backlog)));
        drop(second);
        assert_eq!(backlog.shared.all_held_bytes.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_hold_too_much_only_those_that_hold_nothing_are_served() {
        let holder = Backlog::default();
        let reader = holder.of_another();
        let much = holder.hold(vec![0; ALL_HELD_BYTES_MAX].into());
        assert!(poll(&mut Turn::default(), &reader));
        let little = reader.hold(Bytes::from_static(b"x"));
        let mut turn = Turn::default();
        let waits = std::future::poll_fn(|cx| turn.poll(&reader, cx));
        let freed = async {
            tokio::task::yield_now().await;
            drop(much);
        };
        // The one that holds little still holds it.
        tokio::join!(waits, freed);
        drop(little);
    }

    #[tokio::test]
    async fn room_is_told_to_one_after_the_other() {
        let backlog = Backlog::default();
        let held = backlog.hold(vec![0; HELD_BYTES_MAX].into());
        let calls = (0..3).map(|_| {
            let backlog = backlog.clone();
            tokio::spawn(async move {
                let mut turn = Turn::default();
                std::future::poll_fn(|cx| turn.poll(&backlog, cx)).await;
            })
        });
        let calls: Vec<_> = calls.collect();
        tokio::task::yield_now().await;
        assert!(calls.iter().all(|call| !call.is_finished()));
        drop(held);
        for call in calls {
            call.await.expect("no panic");
        }
    }
}
