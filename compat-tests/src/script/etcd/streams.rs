//! Watch streams (`watch cancel progress recv events quiet close`, each naming its stream) and
//! the lease keep-alive stream.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::super::args::Args;
use super::{Session, error, print};

/// How long a message that must come may take.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(15);
/// How long a stream must stay silent to count as quiet: there is nothing to await.
const QUIET: Duration = Duration::from_millis(250);
/// How often progress is asked for: a request is dropped while a watcher is behind.
const PROGRESS_RETRY: Duration = Duration::from_millis(100);
/// Messages under way between a script and its stream.
const STREAM_QUEUE: usize = 1024;

/// A script's end of a watch stream.
pub type WatchStream = Stream<WatchRequest, WatchResponse>;
/// A script's end of a keep-alive stream.
pub type KeepAliveStream = Stream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;

/// A bidirectional stream, read by a task of its own: some servers answer the opening of a
/// stream only with their first message.
pub struct Stream<Q, R> {
    requests: mpsc::Sender<Q>,
    replies: mpsc::Receiver<Result<R, Status>>,
}

impl<Q: Send + 'static, R: Send + 'static> Stream<Q, R> {
    fn open<F>(call: impl FnOnce(ReceiverStream<Q>) -> F) -> Self
    where
        F: Future<Output = Result<Response<Streaming<R>>, Status>> + Send + 'static,
    {
        let (requests, queue) = mpsc::channel(STREAM_QUEUE);
        let (forward, replies) = mpsc::channel(STREAM_QUEUE);
        let opening = call(ReceiverStream::new(queue));
        tokio::spawn(async move {
            let mut stream = match opening.await {
                Ok(stream) => stream.into_inner(),
                Err(status) => {
                    let _ = forward.send(Err(status)).await;
                    return;
                }
            };
            while let Some(message) = stream.message().await.transpose() {
                let last = message.is_err();
                if forward.send(message).await.is_err() || last {
                    return;
                }
            }
        });
        Self { requests, replies }
    }

    async fn send(&self, message: Q) -> Result<()> {
        self.requests
            .send(message)
            .await
            .ok()
            .context("the stream has ended")
    }

    /// The next message, or what came instead of it.
    async fn next(&mut self, within: Duration) -> Result<R, String> {
        match tokio::time::timeout(within, self.replies.recv()).await {
            Ok(Some(Ok(message))) => Ok(message),
            Ok(Some(Err(status))) => Err(error(&status)),
            Ok(None) => Err("end of stream".to_owned()),
            Err(_) => Err("nothing".to_owned()),
        }
    }
}

impl Session<'_> {
    pub(super) async fn watching(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let stream = args.word()?;
        match name {
            "watch" => return self.watch(&stream, args).await,
            "close" => {
                self.watches.remove(&stream).context("no such stream")?;
                return Ok(String::new());
            }
            "events" => {
                let brief = args.flag("brief");
                let count = args.word()?.parse()?;
                return self.events(&stream, count, brief).await;
            }
            _ => {}
        }
        // A cancel or a progress request may be the first message of a stream.
        self.open_watch(&stream)?;
        let open = self.watches.get_mut(&stream).context("no such stream")?;
        let mask = &self.mask;
        let show = |reply| match reply {
            Ok(message) => print::watch(mask, &message),
            Err(instead) => instead,
        };
        match name {
            "cancel" => {
                let watch_id = args.word()?.parse()?;
                let cancel = RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
                open.send(watch_request(cancel)).await?;
                Ok(String::new())
            }
            "progress" => {
                let patient = args.flag("retry");
                loop {
                    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    open.send(watch_request(progress)).await?;
                    if !patient {
                        return Ok(String::new());
                    }
                    let reply = open.next(PROGRESS_RETRY).await;
                    if reply.as_ref().is_err_and(|instead| instead == "nothing") {
                        continue;
                    }
                    return Ok(show(reply));
                }
            }
            "recv" => {
                let count = args.optional_word().map_or(Ok(1), |word| word.parse())?;
                let sorted = args.flag("sorted");
                let mut messages = Vec::new();
                for _ in 0..count {
                    messages.push(show(open.next(MESSAGE_DEADLINE).await));
                }
                if sorted {
                    messages.sort();
                }
                Ok(messages.join("\n"))
            }
            "quiet" => Ok(match open.next(QUIET).await {
                Err(instead) if instead == "nothing" => "quiet".to_owned(),
                other => show(other),
            }),
            _ => bail!("no such command: {name}"),
        }
    }

    fn open_watch(&mut self, stream: &str) -> Result<()> {
        if self.watches.contains_key(stream) {
            return Ok(());
        }
        let mut client = WatchClient::new(self.channel()).max_decoding_message_size(usize::MAX);
        let request = self.request(())?;
        let open = Stream::open(move |requests| async move {
            let (metadata, extensions, ()) = request.into_parts();
            client
                .watch(tonic::Request::from_parts(metadata, extensions, requests))
                .await
        });
        self.watches.insert(stream.to_owned(), open);
        Ok(())
    }

    /// Creates a watcher and prints the next message, which is the answer unless others watch.
    async fn watch(&mut self, stream: &str, args: &mut Args) -> Result<String> {
        self.open_watch(stream)?;
        let mut filters = Vec::new();
        for filter in args.values("filter") {
            filters.push(match filter.as_str() {
                "noput" => 0,
                "nodelete" => 1,
                number => number.parse()?,
            });
        }
        let silent = args.flag("silent");
        let mut create = WatchCreateRequest {
            start_revision: self.mask.revision_of(args, "rev")?,
            watch_id: args.number("id")?,
            progress_notify: args.flag("progress_notify"),
            filters,
            prev_kv: args.flag("prev_kv"),
            fragment: args.flag("fragment"),
            ..Default::default()
        };
        let key = args.bytes()?;
        create.range_end = args.range_end(&key)?.into();
        create.key = key.into();
        let open = self.watches.get_mut(stream).context("no such stream")?;
        open.send(watch_request(RequestUnion::CreateRequest(create)))
            .await?;
        if silent {
            return Ok(String::new());
        }
        Ok(match open.next(MESSAGE_DEADLINE).await {
            Ok(message) => print::watch(&self.mask, &message),
            Err(instead) => instead,
        })
    }

    /// Gathers `count` events however the server cut them into messages, and prints them by
    /// watcher, or only the first and the last (`brief`); one revision's events must never be
    /// spread over messages.
    async fn events(&mut self, stream: &str, count: usize, brief: bool) -> Result<String> {
        let open = self.watches.get_mut(stream).context("no such stream")?;
        let mut events: Vec<(i64, String)> = Vec::new();
        let mut last = std::collections::BTreeMap::new();
        let mut text = String::new();
        while events.len() < count {
            let message = match open.next(MESSAGE_DEADLINE).await {
                Ok(message) => message,
                Err(instead) => {
                    text = format!("instead of more events: {instead}\n");
                    break;
                }
            };
            let revisions = message
                .events
                .iter()
                .filter_map(|e| Some(e.kv.as_ref()?.mod_revision));
            let (first, newest) = (revisions.clone().min(), revisions.max());
            if first.is_some() && last.get(&message.watch_id) >= Some(&first) {
                let _ = writeln!(text, "a revision is split or out of order");
            }
            last.insert(message.watch_id, newest);
            if message.events.is_empty() {
                let _ = writeln!(text, "{}", print::watch(&self.mask, &message));
            }
            for event in &message.events {
                events.push((message.watch_id, print::event(&self.mask, event)));
            }
        }
        events.sort_by_key(|(watch, _)| *watch);
        if brief && events.len() > 2 {
            let _ = writeln!(text, "{} events", events.len());
            events.drain(1..events.len() - 1);
        }
        for (watch, event) in events {
            let _ = writeln!(text, "watch {watch} {event}");
        }
        text.truncate(text.trim_end().len());
        Ok(text)
    }

    /// `keepalive ID [stream=]`: one message there, one back.
    pub(super) async fn keep_alive(&mut self, args: &mut Args) -> Result<String> {
        let stream = args.value("stream").unwrap_or_default();
        let id = self.mask.parse_lease(&args.word()?)?;
        if !self.keep_alives.contains_key(&stream) {
            let mut client = LeaseClient::new(self.channel());
            let request = self.request(())?;
            let open = Stream::open(move |requests| async move {
                let (metadata, extensions, ()) = request.into_parts();
                client
                    .lease_keep_alive(tonic::Request::from_parts(metadata, extensions, requests))
                    .await
            });
            self.keep_alives.insert(stream.clone(), open);
        }
        let open = self.keep_alives.get_mut(&stream).context("just inserted")?;
        open.send(LeaseKeepAliveRequest { id }).await?;
        let text = match open.next(MESSAGE_DEADLINE).await {
            Ok(message) => print::keep_alive(&self.mask, &message),
            Err(instead) => instead,
        };
        if stream.is_empty() {
            self.keep_alives.remove("");
        }
        Ok(text)
    }
}

fn watch_request(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}
