//! The side that connects: one task for each peer.

use super::{
    CHUNK_BYTES, FRAME_BYTES_MAX, PING_INTERVAL, Peers, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX,
    REMOVED,
};
use crate::Member;
use crate::core::{Outgoing, snapshot_message};
use crate::machine::to_store;
use crate::shell::Shared;
use crate::shell::inbox::Order;
use crate::shell::raft_thread::{ApplyJob, Copy};
use crate::stats::PeerStats;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::peer::peer_client::PeerClient;
use proto::peer::{Envelope, MembersCall, PingCall, Record, SnapshotChunk, SnapshotHeader};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Waits between attempts to connect.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Envelopes and chunks between a task and its connection.
const STREAM_MESSAGES_MAX: usize = 4;
/// A snapshot that nobody takes in is given up.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// One peer.
pub struct Client {
    member: u64,
    queue: mpsc::Sender<Outgoing>,
    queue_bytes: AtomicUsize,
    urls: watch::Sender<Vec<String>>,
    stats: Arc<PeerStats>,
    link: Mutex<Option<Link>>,
    /// One snapshot at a time.
    sending_snapshot: AtomicBool,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

struct Link {
    since: Instant,
    channel: Channel,
}

/// A client for a channel.
fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

/// A client for a member that is connected now.
pub fn call(peers: &Peers, member: u64) -> Option<PeerClient<Channel>> {
    peers.channel(member).map(client)
}

async fn connect(url: &str, timeout: Duration) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| e.to_string())?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .connect_timeout(timeout)
        .initial_stream_window_size(16 << 20)
        .initial_connection_window_size(32 << 20);
    endpoint.connect().await.map_err(|e| error_chain(&e))
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Asks whoever listens at `url` who belongs to its cluster.
pub async fn fetch_members(url: &str, timeout: Duration) -> Result<(u64, Vec<Member>), String> {
    let asked = async {
        let channel = connect(url, timeout).await?;
        let answer = client(channel).members(MembersCall {}).await;
        answer.map_err(|status| status.message().to_owned())
    };
    let answer = tokio::time::timeout(timeout, asked).await;
    let answer = answer.map_err(|_| "timed out".to_owned())??.into_inner();
    let members = answer.members.into_iter().map(|member| Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        learner: member.learner,
        ..Member::default()
    });
    Ok((answer.cluster, members.collect()))
}

impl Client {
    pub fn start(member: &Member, stats: Arc<PeerStats>, shared: &Arc<Shared>) -> Arc<Client> {
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let client = Arc::new(Client {
            member: member.id,
            queue,
            queue_bytes: AtomicUsize::new(0),
            urls: watch::Sender::new(member.peer_urls.clone()),
            stats,
            link: Mutex::new(None),
            sending_snapshot: AtomicBool::new(false),
            task: Mutex::new(None),
        });
        let task = Arc::clone(&client).run(messages, Arc::downgrade(shared));
        let task = shared.runtime.spawn(task);
        *client.task.lock() = Some(task.abort_handle());
        client
    }

    pub fn close(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        self.unlink();
    }

    pub fn move_to(&self, urls: &[String]) {
        self.urls.send_if_modified(|current| {
            let moved = current != urls;
            if moved {
                *current = urls.to_vec();
            }
            moved
        });
    }

    pub fn active_since(&self) -> Option<Instant> {
        self.link.lock().as_ref().map(|link| link.since)
    }

    pub fn channel(&self) -> Option<Channel> {
        self.link.lock().as_ref().map(|link| link.channel.clone())
    }

    fn unlink(&self) {
        *self.link.lock() = None;
        self.stats.active.set(0);
    }

    /// Queues; whether there was a connection and room.
    pub fn send(&self, message: Outgoing) -> bool {
        if self.link.lock().is_none() {
            return false;
        }
        let len_bytes = message.bytes.len();
        let before = self.queue_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        let fits = before == 0 || before + len_bytes <= QUEUE_BYTES_MAX;
        let queued = fits && self.queue.try_send(message).is_ok();
        if !queued {
            self.queue_bytes.fetch_sub(len_bytes, Ordering::Relaxed);
        }
        queued
    }

    /// Connects, speaks until the connection breaks, and again.
    async fn run(self: Arc<Client>, mut messages: mpsc::Receiver<Outgoing>, shared: Weak<Shared>) {
        let mut attempt = 0_usize;
        let mut backoff = BACKOFF;
        while let Some(alive) = shared.upgrade() {
            let timeout = alive.config.election;
            let ping = PingCall {
                cluster: alive.cluster,
                from: alive.member,
                to: self.member,
            };
            drop(alive);
            let urls = self.urls.borrow().clone();
            let url = urls
                .get(attempt % urls.len().max(1))
                .cloned()
                .unwrap_or_default();
            let began = Instant::now();
            let ended = match connect(&url, timeout).await {
                Ok(channel) => self.speak(channel, &ping, &mut messages, timeout).await,
                Err(error) => Err(Status::unavailable(error)),
            };
            let was_active = self.active_since().is_some();
            self.unlink();
            self.drop_queued(&mut messages);
            let Some(alive) = shared.upgrade() else {
                return;
            };
            if let Err(status) = ended {
                report(
                    &alive,
                    self.member,
                    &url,
                    &status,
                    was_active || attempt == 0,
                );
            }
            alive.inbox.order(Order::Unreachable(self.member));
            drop(alive);
            attempt = attempt.wrapping_add(1);
            if began.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn drop_queued(&self, messages: &mut mpsc::Receiver<Outgoing>) {
        while let Ok(message) = messages.try_recv() {
            self.queue_bytes
                .fetch_sub(message.bytes.len(), Ordering::Relaxed);
        }
    }

    /// One connection's life.
    async fn speak(
        &self,
        channel: Channel,
        ping: &PingCall,
        messages: &mut mpsc::Receiver<Outgoing>,
        timeout: Duration,
    ) -> Result<(), Status> {
        let mut calls = client(channel.clone());
        self.ping(&mut calls, ping, timeout).await?;
        let (envelopes, stream) = mpsc::channel(STREAM_MESSAGES_MAX);
        let mut streaming = client(channel.clone());
        let streamed = streaming.messages(ReceiverStream::new(stream));
        *self.link.lock() = Some(Link {
            since: Instant::now(),
            channel,
        });
        self.stats.active.set(1);
        tracing::info!(
            peer = format_args!("{:x}", self.member),
            "peer became active"
        );
        let mut urls = self.urls.subscribe();
        tokio::select! {
            ended = streamed => ended.map(drop),
            () = self.pump(messages, &envelopes, ping) => Ok(()),
            failed = self.keep_pinging(&mut calls, ping, timeout) => failed,
            _ = urls.changed() => Ok(()),
        }
    }

    async fn ping(
        &self,
        calls: &mut PeerClient<Channel>,
        ping: &PingCall,
        timeout: Duration,
    ) -> Result<(), Status> {
        let began = Instant::now();
        let answer = tokio::time::timeout(timeout, calls.ping(*ping)).await;
        answer.map_err(|_| Status::deadline_exceeded("no answer to a ping"))??;
        let took = began.elapsed();
        self.stats.round_trips.observe(took);
        self.stats.round_trip.observe(took);
        Ok(())
    }

    async fn keep_pinging(
        &self,
        calls: &mut PeerClient<Channel>,
        ping: &PingCall,
        timeout: Duration,
    ) -> Result<(), Status> {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            self.ping(calls, ping, timeout).await?;
        }
    }

    /// Puts queued messages into envelopes.
    async fn pump(
        &self,
        messages: &mut mpsc::Receiver<Outgoing>,
        envelopes: &mpsc::Sender<Envelope>,
        ping: &PingCall,
    ) {
        while let Some(first) = messages.recv().await {
            let mut len_bytes = first.bytes.len();
            let mut together = vec![first.bytes];
            while len_bytes < CHUNK_BYTES
                && let Ok(next) = messages.try_recv()
            {
                len_bytes += next.bytes.len();
                together.push(next.bytes);
            }
            let count = together.len() as u64;
            let envelope = Envelope {
                cluster: ping.cluster,
                from: ping.from,
                to: ping.to,
                messages: together,
            };
            if envelopes.send(envelope).await.is_err() {
                return;
            }
            self.queue_bytes.fetch_sub(len_bytes, Ordering::Relaxed);
            self.stats.sent_bytes.add(len_bytes as u64);
            self.stats.sent_messages.add(count);
        }
    }

    /// Sends the state as it is now, and tells Raft what became of it.
    pub fn send_snapshot(self: &Arc<Client>, message: Outgoing, shared: Arc<Shared>) {
        let client = Arc::clone(self);
        let runtime = shared.runtime.clone();
        runtime.spawn(async move {
            let arrived = if client.sending_snapshot.swap(true, Ordering::AcqRel) {
                false
            } else {
                let sent = client.stream_snapshot(&message.bytes, &shared);
                let sent = tokio::time::timeout(SNAPSHOT_TIMEOUT, sent).await;
                client.sending_snapshot.store(false, Ordering::Release);
                matches!(sent, Ok(Ok(())))
            };
            let count = match arrived {
                true => &client.stats.snapshots_sent,
                false => &client.stats.snapshots_failed,
            };
            count.add(1);
            let to = client.member;
            shared.inbox.order(Order::SnapshotSent { to, arrived });
        });
    }

    async fn stream_snapshot(&self, message: &Bytes, shared: &Shared) -> Result<(), Status> {
        let channel = self
            .channel()
            .ok_or_else(|| Status::unavailable("not connected"))?;
        let (reply, copied) = oneshot::channel();
        let stopped = |_| Status::unavailable("stopped");
        shared
            .apply_jobs
            .send(ApplyJob::Copy(reply))
            .map_err(|_| stopped(()))?;
        let copy = copied.await.map_err(|_| stopped(()))?;
        let message = snapshot_message(message, copy.place, &copy.roster)
            .map_err(|refused| Status::internal(refused.to_string()))?;
        let header = SnapshotHeader {
            cluster: shared.cluster,
            from: shared.member,
            to: self.member,
            message,
            meta: copy.meta.clone(),
        };
        let (chunks, stream) = mpsc::channel(STREAM_MESSAGES_MAX);
        let sending = client(channel);
        let stats = Arc::clone(&self.stats);
        // Walking the copy takes time; it is not for an async thread.
        let reading =
            tokio::task::spawn_blocking(move || send_chunks(header, copy, &chunks, &stats));
        let result = { sending }.snapshot(ReceiverStream::new(stream)).await?;
        reading
            .await
            .map_err(|_| Status::internal("reading the state failed"))?;
        match result.into_inner().taken {
            true => Ok(()),
            false => Err(Status::failed_precondition("the snapshot was not wanted")),
        }
    }
}

/// Stops early when the receiver is gone.
fn send_chunks(
    header: SnapshotHeader,
    copy: Copy,
    chunks: &mpsc::Sender<SnapshotChunk>,
    stats: &PeerStats,
) {
    let first = SnapshotChunk {
        header: Some(header),
        ..SnapshotChunk::default()
    };
    if chunks.blocking_send(first).is_err() {
        return;
    }
    let mut chunk = SnapshotChunk::default();
    let mut len_bytes = 0;
    for record in copy.cut {
        let record = to_store(record);
        len_bytes += record.key.len() + record.value.len();
        chunk.records.push(Record {
            key: record.key,
            value: record.value,
        });
        if len_bytes >= CHUNK_BYTES {
            stats.sent_bytes.add(len_bytes as u64);
            len_bytes = 0;
            if chunks.blocking_send(std::mem::take(&mut chunk)).is_err() {
                return;
            }
        }
    }
    chunk.complete = true;
    stats.sent_bytes.add(len_bytes as u64);
    // Whoever is gone has no use for it.
    chunks.blocking_send(chunk).ok();
}

/// Says why a connection ended, once for each time that it was there; a member that was removed
/// must stop.
fn report(shared: &Shared, peer: u64, url: &str, status: &Status, loud: bool) {
    if status.code() == Code::FailedPrecondition && status.message() == REMOVED {
        shared.inbox.order(Order::Removed);
        return;
    }
    if loud {
        let reason = status.message();
        let peer = format_args!("{peer:x}");
        tracing::warn!(peer, url, reason, "peer became inactive");
    }
}
