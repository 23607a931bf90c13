//! The content of an answer that comes event by event.

use crate::node;
use crate::root::Root;
use axum::body::Body;
use bytes::Bytes;
use gateway::EventStream;
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A line for each event, until the stream ends.
pub fn content(events: EventStream, root: Root) -> Body {
    Body::new(Content { events, root })
}

struct Content {
    events: EventStream,
    root: Root,
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Content { events, root } = self.get_mut();
        let news = ready!(events.poll_next(cx));
        let line = |event: &_| node::event(event, root).into();
        Poll::Ready(news.map(|news| Ok(Frame::data(news.encoded(line)))))
    }
}
