//! The content of an answer that comes event by event.

use crate::auth::login::Visitor;
use crate::{Shared, node};
use axum::body::Body;
use bytes::Bytes;
use gateway::EventStream;
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A line for each event, until the stream ends, or the client may not read them any more.
pub fn content(events: EventStream, shared: Arc<Shared>, visitor: Visitor) -> Body {
    Body::new(Content {
        events,
        shared,
        visitor,
    })
}

struct Content {
    events: EventStream,
    shared: Arc<Shared>,
    visitor: Visitor,
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Content {
            events,
            shared,
            visitor,
        } = self.get_mut();
        let news = ready!(events.poll_next(cx));
        let news = news.filter(|_| visitor.is_permitted(shared));
        let line = |event: &_| node::event(event, &shared.options.root).into();
        Poll::Ready(news.map(|news| Ok(Frame::data(news.encoded(line)))))
    }
}
