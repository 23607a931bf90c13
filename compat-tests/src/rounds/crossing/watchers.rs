//! Those who watch all keys from the first change to the last: watchers of etcd v3 and waiters of
//! etcd v2, who resume behind what they were told last. (ZooKeeper's sessions watch beside their work.)

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use checker::kv::Entry;
use checker::watch::{Event, Message, Watch};
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;

use super::etcd_v2;
use super::history::{Clocks, EtcdWatch, WaitEvent, parse};
use super::shared::{PARENT, Shared, key_at, keys};
use crate::rounds::{BACKOFF, CALL_DEADLINE};
use crate::script::http;

/// How many of each kind there are.
const WATCHERS: usize = 3;
/// A watcher of etcd v3 that was told so many messages ends its stream and resumes.
const MESSAGES_MAX: usize = 200;
/// How long a stream may be silent until its client looks elsewhere.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a watcher may take to be told of the last change.
const LAST_DEADLINE: Duration = Duration::from_secs(60);

/// Watchers that run.
pub struct Watchers {
    watches: Vec<JoinHandle<Result<EtcdWatch>>>,
    waits: Vec<JoinHandle<Result<Vec<WaitEvent>>>>,
    /// Where they end; far away until that is known.
    last: watch::Sender<Clocks>,
}

impl Watchers {
    /// Starts them, at the changes after `first`.
    pub fn start(shared: &Arc<Shared>, first: Clocks) -> Self {
        let (last, end) = watch::channel(Clocks {
            revision: u64::MAX,
            index: u64::MAX,
        });
        let watch = |id| tokio::spawn(watch_all(shared.clone(), id, first, end.clone()));
        let wait = |id| tokio::spawn(wait_for_all(shared.clone(), id, first, end.clone()));
        Self {
            watches: (0..WATCHERS).map(watch).collect(),
            waits: (0..WATCHERS).map(wait).collect(),
            last,
        }
    }

    /// Awaits that all were told of the last change, and hands over what they were told.
    ///
    /// # Errors
    /// When one is not, in time, or was told nonsense.
    pub async fn finish(self, last: Clocks) -> Result<(Vec<EtcdWatch>, Vec<Vec<WaitEvent>>)> {
        self.last.send_replace(last);
        let (mut watches, mut waits) = (Vec::new(), Vec::new());
        for (id, task) in self.watches.into_iter().enumerate() {
            let told = tokio::time::timeout(LAST_DEADLINE, task).await;
            let told = told.context("it is not told of the last change");
            watches.push(told.with_context(|| format!("etcd v3's watcher {id}"))???);
        }
        for (id, task) in self.waits.into_iter().enumerate() {
            let told = tokio::time::timeout(LAST_DEADLINE, task).await;
            let told = told.context("it is not told of the last event");
            waits.push(told.with_context(|| format!("etcd v2's waiter {id}"))???);
        }
        Ok((watches, waits))
    }
}

/// One of etcd v3's watchers.
async fn watch_all(
    shared: Arc<Shared>,
    id: usize,
    first: Clocks,
    end: watch::Receiver<Clocks>,
) -> Result<EtcdWatch> {
    let from = first.revision + 1;
    let mut told = EtcdWatch {
        watch: Watch {
            span: 0..u32::try_from(keys().len())?,
            from,
            want_previous: true,
            messages: Vec::new(),
            compacted: None,
            complete_to: None,
        },
        came_us: Vec::new(),
    };
    let mut member = id;
    loop {
        let from = newest(&told).map_or(from, |newest| newest + 1);
        let last = end.borrow().revision;
        if from > last {
            told.watch.complete_to = Some(last);
            return Ok(told);
        }
        let create = WatchCreateRequest {
            key: format!("{PARENT}/").into(),
            range_end: format!("{PARENT}0").into(),
            start_revision: from.cast_signed(),
            prev_kv: true,
            ..Default::default()
        };
        let channel = shared.members[member % shared.members.len()]
            .channel
            .clone();
        // That a stream breaks is why this client resumes.
        if let Ok(mut replies) = open(WatchClient::new(channel), create).await {
            follow(&shared, &mut replies, &mut told, &end).await?;
        }
        member += 1;
        tokio::time::sleep(BACKOFF).await;
    }
}

type Replies = tonic::Streaming<WatchResponse>;

async fn open(
    mut client: WatchClient<tonic::transport::Channel>,
    create: WatchCreateRequest,
) -> Result<Replies> {
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    // The stream of requests stays open as long as the replies are read.
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let replies = tokio::time::timeout(CALL_DEADLINE, client.watch(requests)).await??;
    Ok(replies.into_inner())
}

/// One stream, until it breaks, has told much, or the end.
async fn follow(
    shared: &Shared,
    replies: &mut Replies,
    told: &mut EtcdWatch,
    end: &watch::Receiver<Clocks>,
) -> Result<()> {
    for _ in 0..MESSAGES_MAX {
        let message = tokio::time::timeout(SILENCE, replies.message()).await;
        let Ok(Ok(Some(message))) = message else {
            return Ok(());
        };
        ensure!(
            !message.canceled,
            "a watch was cancelled: {}",
            message.cancel_reason
        );
        if message.created {
            continue;
        }
        let came_us = shared.now_us();
        told.watch.messages.push(read(&message)?);
        told.came_us.push(came_us);
        if newest(told).is_some_and(|newest| newest >= end.borrow().revision) {
            return Ok(());
        }
    }
    Ok(())
}

fn newest(told: &EtcdWatch) -> Option<u64> {
    let message = told.watch.messages.last()?;
    message.events.last().map(|event| event.revision)
}

fn read(message: &WatchResponse) -> Result<Message> {
    let header = message.header.as_ref().context("no header")?;
    let events = message.events.iter().map(|event| {
        let pair = event.kv.as_ref().context("an event without a pair")?;
        let now = match event.r#type() {
            EventType::Put => Some(entry(pair)?),
            EventType::Delete => None,
        };
        anyhow::Ok(Event {
            revision: pair.mod_revision.cast_unsigned(),
            key: key_at(str::from_utf8(&pair.key)?)?,
            now,
            previous: event.prev_kv.as_ref().map(entry).transpose()?,
        })
    });
    Ok(Message {
        revision: header.revision.cast_unsigned(),
        compacted: 0,
        events: events.collect::<Result<_>>()?,
    })
}

/// A pair as etcd v3 shows it.
///
/// # Errors
/// When nobody can have written it.
pub fn entry(pair: &KeyValue) -> Result<Entry> {
    Ok(Entry {
        value: parse(&pair.value)?,
        created: pair.create_revision.cast_unsigned(),
        modified: pair.mod_revision.cast_unsigned(),
        version: pair.version.cast_unsigned(),
        lease: pair.lease,
    })
}

/// One of etcd v2's waiters. The first takes a stream of events, the others wait for each anew.
async fn wait_for_all(
    shared: Arc<Shared>,
    id: usize,
    first: Clocks,
    end: watch::Receiver<Clocks>,
) -> Result<Vec<WaitEvent>> {
    let mut told: Vec<WaitEvent> = Vec::new();
    let mut member = id;
    loop {
        let from = told.last().map_or(first.index, |event| event.index) + 1;
        if from > end.borrow().index {
            return Ok(told);
        }
        let port = shared.members[member % shared.members.len()].port;
        if !wait(port, from, id == 0, &mut told, &end).await? {
            member += 1;
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

/// One answer, until it ends, is silent for long, or breaks: false if nobody answers at all.
async fn wait(
    port: u16,
    from: u64,
    is_stream: bool,
    told: &mut Vec<WaitEvent>,
    end: &watch::Receiver<Clocks>,
) -> Result<bool> {
    let stream = if is_stream { "&stream=true" } else { "" };
    let path = format!("/v2/keys{PARENT}?wait=true&recursive=true&waitIndex={from}{stream}");
    let request = http::request("GET", &path, &format!("127.0.0.1:{port}"), &[], b"");
    let answer = tokio::time::timeout(CALL_DEADLINE, http::Answer::to(port, &request)).await;
    let Ok(Ok(mut answer)) = answer else {
        return Ok(false);
    };
    if !answer.status.starts_with("200") {
        let body = answer.body().await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        ensure!(
            !body.contains("\"errorCode\":401"),
            "the load is too fast for who waits: {body}"
        );
        return Ok(false);
    }
    let mut line = Vec::new();
    loop {
        let piece = tokio::time::timeout(SILENCE, answer.piece()).await;
        let Ok(Ok(Some(piece))) = piece else {
            return Ok(!told.is_empty() && line.is_empty());
        };
        for byte in piece {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            told.push(etcd_v2::event(&line)?);
            line.clear();
        }
        if told
            .last()
            .is_some_and(|event| event.index >= end.borrow().index)
        {
            return Ok(true);
        }
    }
}
