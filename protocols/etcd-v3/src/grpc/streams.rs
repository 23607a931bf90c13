//! The streams: polled in the task that writes their replies, so that no reply changes tasks.

use super::BoxFuture;
use crate::calls::{Calls, Method};
use crate::errors::{self, Code, Error};
use crate::ops::Ops;
use crate::ops::watch::Session;
use crate::reply::Watched;
use proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchRequest};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// A stream that is counted when it ends, and that loses patience with a cluster without leader.
pub struct Streamed<S> {
    replies: Pin<Box<S>>,
    leaderless: Option<BoxFuture<()>>,
    calls: Arc<Calls>,
    method: Method,
    ended: bool,
}

impl<S> Streamed<S> {
    pub fn new(
        replies: S,
        leaderless: Option<BoxFuture<()>>,
        calls: Arc<Calls>,
        method: Method,
    ) -> Streamed<S> {
        Streamed {
            replies: Box::pin(replies),
            leaderless,
            calls,
            method,
            ended: false,
        }
    }

    fn end(&mut self, code: usize) {
        if !std::mem::replace(&mut self.ended, true) {
            self.calls.handle(self.method, code);
        }
    }
}

impl<S: Stream<Item = Result<R, Error>>, R> Stream for Streamed<S> {
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let lost = self.leaderless.as_mut().map(|it| it.as_mut().poll(cx));
        let next = match lost {
            Some(Poll::Ready(())) => Some(Err(errors::NO_LEADER)),
            Some(Poll::Pending) | None => ready!(self.replies.as_mut().poll_next(cx)),
        };
        match &next {
            Some(Ok(_)) => {}
            Some(Err(error)) => self.end(error.code.number() as usize),
            None => self.end(0),
        }
        Poll::Ready(next.map(|reply| reply.map_err(Status::from)))
    }
}

impl<S> Drop for Streamed<S> {
    /// A stream that is dropped before its end was left by its client.
    fn drop(&mut self) {
        self.end(Code::Cancelled.number() as usize);
    }
}

/// A client's requests.
struct Requests<M> {
    stream: Streaming<M>,
    /// A client may end its side and go on listening.
    over: bool,
}

impl<M> Requests<M> {
    fn new(stream: Streaming<M>) -> Requests<M> {
        Requests {
            stream,
            over: false,
        }
    }

    /// The next request; `Ready(None)` from when the client has no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(Pin::new(&mut self.stream).poll_next(cx));
        self.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next.map(|request| {
            request.map_err(|status| Error {
                code: Code::of(status.code() as i32),
                message: status.message().to_owned().into(),
            })
        }))
    }
}

/// A watch stream.
pub struct Watching {
    session: Session,
    requests: Requests<WatchRequest>,
}

impl Watching {
    pub fn new(session: Session, requests: Streaming<WatchRequest>) -> Watching {
        Watching {
            session,
            requests: Requests::new(requests),
        }
    }
}

impl Stream for Watching {
    type Item = Result<Watched, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // A request is taken only when nothing is due, so a client that does not read its replies
        // is not read either; and before more events are looked for, so that it can always cancel.
        while !self.session.has_reply() {
            match self.requests.poll(cx) {
                Poll::Ready(Some(Ok(request))) => self.session.request(request),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        self.session.poll_reply(cx).map(|reply| Some(Ok(reply)))
    }
}

/// A stream of keep-alives: answered one after the other, as etcd does.
pub struct KeepAlives {
    ops: Ops,
    requests: Requests<LeaseKeepAliveRequest>,
    answer: Option<BoxFuture<Result<LeaseKeepAliveResponse, Error>>>,
}

impl KeepAlives {
    pub fn new(ops: Ops, requests: Streaming<LeaseKeepAliveRequest>) -> KeepAlives {
        KeepAlives {
            ops,
            requests: Requests::new(requests),
            answer: None,
        }
    }
}

impl Stream for KeepAlives {
    type Item = Result<LeaseKeepAliveResponse, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(answer) = &mut self.answer {
                let answer = ready!(answer.as_mut().poll(cx));
                self.answer = None;
                return Poll::Ready(Some(answer));
            }
            match ready!(self.requests.poll(cx)) {
                Some(Ok(request)) => {
                    let ops = self.ops.clone();
                    let answer = async move { ops.lease_keep_alive(request).await };
                    self.answer = Some(Box::pin(answer));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}
