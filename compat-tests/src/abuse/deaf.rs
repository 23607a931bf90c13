//! Clients that ask and do not read what they are answered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    CompactionRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio_stream::StreamExt as _;
use tonic::Streaming;

use super::frames::{self, END_HEADERS, END_STREAM, Raw, Sent, WINDOW_MAX, frame, kind};
use super::{MIB, Scene, until};

/// What a watcher does not look at: so many bytes in one put.
const VALUE_BYTES: usize = 4 << 10;
/// Puts that a watcher is told of later.
const PUTS: usize = 6_000;
/// Puts that are compacted away before.
const PUTS_COMPACTED: usize = 12_000;
/// Watchers on one connection.
const STREAMS: u32 = 1_000;
/// A window for hardly more than one reply without events.
const CREATED_WINDOW: u32 = 64;
/// Clients that put at the same time, each on a connection of its own.
const WRITERS: usize = 8;
/// Puts of one writer between two compactions.
const COMPACTED_EVERY: usize = 200;
/// Keys that make up an answer, and their size: four megabytes in all.
const ANSWER_KEYS: usize = 64;
const ANSWER_VALUE_BYTES: usize = 64 << 10;
/// Answers asked for at once, and requests in one write.
const ANSWERS: u32 = 100_000;
const REQUESTS: u32 = 1_000;
/// A server that works for less than a quarter of this time, so many times, rests.
const RESTING: Duration = Duration::from_millis(300);
const RESTED: usize = 3;
/// The trial ends before the machine does.
const MEMORY_MIB_MAX: u64 = 2048;

/// It stops while others write, and when it reads again it is told everything, once and in order.
pub async fn watcher_that_returns(scene: &Scene) -> Result<String> {
    let mut watcher = watch(scene).await?;
    write(scene, PUTS, false).await?;
    let (mut seen, mut last) = (0, 0);
    while seen < PUTS {
        for event in next(&mut watcher).await?.events {
            let revision = event.kv.context("an event has a key")?.mod_revision;
            ensure!(revision > last, "revision {revision} came after {last}");
            last = revision;
            seen += 1;
        }
    }
    Ok(format!("{} MiB", (PUTS * VALUE_BYTES) >> 20))
}

/// It stops, and what it has not read is compacted: it is told so, and nothing is kept for it.
pub async fn watcher_compacted(scene: &Scene) -> Result<String> {
    let mut watcher = watch(scene).await?;
    write(scene, PUTS_COMPACTED, true).await?;
    loop {
        let reply = next(&mut watcher).await?;
        if reply.canceled {
            ensure!(reply.compact_revision > 0, "{}", reply.cancel_reason);
            return Ok(format!("{} MiB", (PUTS_COMPACTED * VALUE_BYTES) >> 20));
        }
    }
}

/// Streams on one connection, each with a watcher of everything that was written, whose windows let
/// out that it was created and nothing more.
pub async fn watch_streams(scene: &Scene) -> Result<String> {
    write(scene, PUTS / 2, false).await?;
    let mut raw = Raw::http2(scene.client_port(), CREATED_WINDOW).await?;
    raw.read_and_forget();
    let block = frames::call("/etcdserverpb.Watch/Watch", &[]);
    let message = frames::message(&create(1).encode_to_vec());
    for stream in 0..STREAMS {
        let id = 2 * stream + 1;
        let mut request = frame(kind::HEADERS, END_HEADERS, id, &block);
        request.extend(frame(kind::DATA, 0, id, &message));
        let sent = raw.send(&request).await;
        ensure!(sent == Sent::All, "stream {stream}: {sent:?}");
    }
    rest(scene).await?;
    Ok(format!("{STREAMS} streams"))
}

/// Asks for everything that [`write`] writes, from a revision on or (0) from now on.
fn create(start_revision: i64) -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: "flow/".into(),
            range_end: "flow0".into(),
            start_revision,
            ..Default::default()
        })),
    }
}

async fn watch(scene: &Scene) -> Result<Streaming<WatchResponse>> {
    let requests = tokio_stream::once(create(0)).chain(tokio_stream::pending());
    let mut client = WatchClient::new(scene.channel().await?).max_decoding_message_size(usize::MAX);
    let mut replies = client.watch(requests).await?.into_inner();
    ensure!(next(&mut replies).await?.created, "no watcher");
    Ok(replies)
}

async fn next(replies: &mut Streaming<WatchResponse>) -> Result<WatchResponse> {
    let reply = tokio::time::timeout(super::PATIENCE, replies.message()).await;
    reply.context("no reply")??.context("the stream ended")
}

/// Writes `puts` large values under a few keys, with many clients at once.
async fn write(scene: &Scene, puts: usize, compacting: bool) -> Result<()> {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut kv = KvClient::new(scene.channel().await?);
        let put = PutRequest {
            key: format!("flow/{writer}").into(),
            value: vec![b'x'; VALUE_BYTES].into(),
            ..Default::default()
        };
        writers.push(tokio::spawn(async move {
            for n in 0..puts / WRITERS {
                let header = kv.put(put.clone()).await?.into_inner().header;
                let revision = header.context("no header")?.revision;
                if compacting && n % COMPACTED_EVERY == 0 {
                    let compact = CompactionRequest {
                        revision,
                        physical: true,
                    };
                    // Another writer may have gone further.
                    let _ = kv.compact(compact).await;
                }
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

/// Answers of four megabytes, asked for by a client that takes them off the wire but grants no
/// window for them.
pub async fn answers_without_window(scene: &Scene) -> Result<String> {
    fill(scene).await?;
    let mut raw = Raw::http2(scene.client_port(), 0).await?;
    raw.read_and_forget();
    ask(scene, &mut raw).await
}

/// The same, by one that grants every window and takes nothing off the wire: it is cut off.
pub async fn answers_on_a_full_wire(scene: &Scene) -> Result<String> {
    fill(scene).await?;
    let mut raw = Raw::http2(scene.client_port(), WINDOW_MAX).await?;
    let told = ask(scene, &mut raw).await?;
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    until("the end of the connection", async || {
        Ok(raw.send(&ping).await == Sent::Closed)
    })
    .await?;
    Ok(told)
}

/// What the answers consist of.
async fn fill(scene: &Scene) -> Result<()> {
    let mut kv = KvClient::new(scene.channel().await?);
    for key in 0..ANSWER_KEYS {
        let put = PutRequest {
            key: format!("answer/{key}").into(),
            value: vec![b'x'; ANSWER_VALUE_BYTES].into(),
            ..Default::default()
        };
        kv.put(put).await?;
    }
    Ok(())
}

/// Asks for everything, again and again, as fast as the server takes it.
async fn ask(scene: &Scene, raw: &mut Raw) -> Result<String> {
    let range = RangeRequest {
        key: "answer/".into(),
        range_end: "answer0".into(),
        ..Default::default()
    };
    let block = frames::call("/etcdserverpb.KV/Range", &[]);
    let message = frames::message(&range.encode_to_vec());
    let mut asked = 0;
    let mut sent = Sent::All;
    while asked < ANSWERS && sent == Sent::All {
        let mut requests = Vec::new();
        for n in asked..asked + REQUESTS {
            let id = 2 * n + 1;
            requests.extend(frame(kind::HEADERS, END_HEADERS, id, &block));
            requests.extend(frame(kind::DATA, END_STREAM, id, &message));
        }
        sent = raw.send(&requests).await;
        asked += REQUESTS;
    }
    rest(scene).await?;
    Ok(format!("{asked} requests: {sent:?}"))
}

/// Awaits that the server has done what it means to do about the requests.
async fn rest(scene: &Scene) -> Result<()> {
    let mut rested = 0;
    while rested < RESTED {
        let began = scene.process.cpu()?;
        tokio::time::sleep(RESTING).await;
        let used = scene.process.cpu()?.saturating_sub(began);
        let memory_mib = scene.process.memory_bytes()? / MIB;
        ensure!(memory_mib < MEMORY_MIB_MAX, "{memory_mib} MiB are held");
        rested = match used < RESTING / 4 {
            true => rested + 1,
            false => 0,
        };
    }
    Ok(())
}
