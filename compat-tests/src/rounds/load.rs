//! Clients under load: writers, readers and watchers that move to another member when theirs
//! fails, and note everything they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use super::history::{Event, Read, Write};
use super::{BACKOFF, CALL_DEADLINE, text};
use crate::oracle::Cluster;

/// All keys of the load.
pub const KEY_PREFIX: &str = "load/";
const KEYS: u32 = 8;
const WRITERS: usize = 6;
const READERS: usize = 3;
const WATCHERS: usize = 3;
/// How long a watcher may take to see the last revision.
const WATCH_DEADLINE: Duration = Duration::from_secs(60);

/// The end of the range of `KEY_PREFIX`.
pub fn prefix_end() -> &'static str {
    "load0"
}

/// How many writes were acknowledged, and how many reads answered.
pub type Progress = [u64; 2];

/// What all clients share.
struct Shared {
    members: Vec<Channel>,
    start: Instant,
    stop: AtomicBool,
    progress: watch::Sender<Progress>,
    /// Watchers end when they have seen this revision; far away until the load has stopped.
    last_revision: AtomicI64,
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).expect("a run is shorter than an age")
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn member(&self, index: usize) -> Channel {
        self.members[index % self.members.len()].clone()
    }
}

/// Running clients.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Vec<Write>>>,
    readers: Vec<JoinHandle<Vec<Read>>>,
    watchers: Watchers,
}

/// Watchers that still run.
pub struct Watchers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Result<Vec<Event>>>>,
}

impl Load {
    /// Starts the clients, spread over the members.
    pub fn start(cluster: &Cluster) -> Self {
        let shared = Arc::new(Shared {
            members: cluster.members.iter().map(|m| m.channel.clone()).collect(),
            start: Instant::now(),
            stop: AtomicBool::new(false),
            progress: watch::Sender::default(),
            last_revision: AtomicI64::new(i64::MAX),
        });
        let writer = |id| tokio::spawn(write(shared.clone(), id));
        let reader = |id| tokio::spawn(read(shared.clone(), id));
        let watcher = |id| tokio::spawn(watch(shared.clone(), id));
        Self {
            writers: (0..WRITERS).map(writer).collect(),
            readers: (0..READERS).map(reader).collect(),
            watchers: Watchers {
                tasks: (0..WATCHERS).map(watcher).collect(),
                shared: shared.clone(),
            },
            shared,
        }
    }

    /// What has been done, and is being done.
    pub fn progress(&self) -> &watch::Sender<Progress> {
        &self.shared.progress
    }

    /// Ends writers and readers, and hands over what they noted; the watchers go on.
    pub async fn stop(self) -> Result<(Vec<Write>, Vec<Read>, Watchers)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for writer in self.writers {
            writes.extend(writer.await?);
        }
        for reader in self.readers {
            reads.extend(reader.await?);
        }
        Ok((writes, reads, self.watchers))
    }
}

impl Watchers {
    /// Awaits that every watcher has seen `last_revision`, and hands over what they saw.
    pub async fn finish(self, last_revision: i64) -> Result<Vec<Vec<Event>>> {
        self.shared
            .last_revision
            .store(last_revision, Ordering::Relaxed);
        let mut seen = Vec::new();
        for task in self.tasks {
            let events = tokio::time::timeout(WATCH_DEADLINE, task).await;
            seen.push(events.context("a watcher does not see the last revision")???);
        }
        Ok(seen)
    }
}

/// Puts values of its own to random keys, one after the other.
async fn write(shared: Arc<Shared>, id: usize) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut member = id;
    while !shared.stopped() {
        let key = random_key();
        let value = format!("{id}-{}", writes.len());
        let began_us = shared.now_us();
        let put = PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..Default::default()
        };
        let mut client = KvClient::new(shared.member(member));
        let reply = tokio::time::timeout(CALL_DEADLINE, client.put(put)).await;
        let revision = match reply {
            Ok(Ok(reply)) => reply.into_inner().header.map(|header| header.revision),
            Ok(Err(_)) | Err(_) => None,
        };
        let acknowledged = revision.map(|revision| (shared.now_us(), revision));
        writes.push(Write {
            key,
            value,
            began_us,
            acknowledged,
        });
        if acknowledged.is_some() {
            shared.progress.send_modify(|[writes, _]| *writes += 1);
        } else {
            member += 1;
            tokio::time::sleep(BACKOFF).await;
        }
    }
    writes
}

/// Reads random keys, linearizably, one after the other.
async fn read(shared: Arc<Shared>, id: usize) -> Vec<Read> {
    let mut reads = Vec::new();
    let mut member = id;
    while !shared.stopped() {
        let key = random_key();
        let began_us = shared.now_us();
        let range = RangeRequest {
            key: key.clone().into(),
            ..Default::default()
        };
        let mut client = KvClient::new(shared.member(member));
        let Ok(Ok(reply)) = tokio::time::timeout(CALL_DEADLINE, client.range(range)).await else {
            member += 1;
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        let ended_us = shared.now_us();
        let reply = reply.into_inner();
        let found = reply
            .kvs
            .first()
            .map(|kv| (text(&kv.value), kv.mod_revision));
        reads.push(Read {
            key,
            began_us,
            ended_us,
            revision: reply.header.map_or(0, |header| header.revision),
            found,
        });
        shared.progress.send_modify(|[_, reads]| *reads += 1);
        // Another member each time: a stale one must not hide behind a fresh one.
        member += 1;
    }
    reads
}

/// Watches all keys from the first revision, resuming at another member when the stream breaks.
async fn watch(shared: Arc<Shared>, id: usize) -> Result<Vec<Event>> {
    let mut seen: Vec<Event> = Vec::new();
    let mut member = id;
    loop {
        let from = seen.last().map_or(2, |event| event.revision + 1);
        if from > shared.last_revision.load(Ordering::Relaxed) {
            return Ok(seen);
        }
        // A broken stream is why this client resumes; what it missed would show in the check.
        let _ = follow(&shared, member, from, &mut seen).await;
        member += 1;
        tokio::time::sleep(BACKOFF).await;
    }
}

/// One stream, until it breaks or the last revision is seen.
async fn follow(shared: &Shared, member: usize, from: i64, seen: &mut Vec<Event>) -> Result<()> {
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: KEY_PREFIX.into(),
            range_end: prefix_end().into(),
            start_revision: from,
            ..Default::default()
        })),
    };
    // The stream of requests stays open as long as the replies are read.
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let mut client = WatchClient::new(shared.member(member));
    let mut replies = tokio::time::timeout(CALL_DEADLINE, client.watch(requests))
        .await??
        .into_inner();
    loop {
        let message = match tokio::time::timeout(CALL_DEADLINE, replies.message()).await {
            Ok(message) => message?.context("the stream ended")?,
            // Silence is right while nothing is written; a dead member's stream breaks.
            Err(_) => return Ok(()),
        };
        ensure!(
            !message.canceled,
            "the watch was cancelled: {}",
            message.cancel_reason
        );
        for event in message.events {
            let pair = event.kv.context("an event without a pair")?;
            seen.push(Event {
                revision: pair.mod_revision,
                key: text(&pair.key),
                value: text(&pair.value),
            });
        }
        let newest = seen.last().map_or(0, |event| event.revision);
        if newest >= shared.last_revision.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

fn random_key() -> String {
    format!("{KEY_PREFIX}{}", rand::rng().random_range(0..KEYS))
}
