//! Messages and requests beyond their limits: each has an error of its own.

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest};
use tokio_stream::StreamExt as _;

use super::Scene;
use super::frames::{self, END_HEADERS, END_STREAM, Raw, Sent, frame, kind};

/// Transactions within transactions: a stack that follows them down has an end.
const NESTED: usize = 100_000;
/// What stays within a frame.
const FRAME_BYTES: usize = 16 << 10;
/// Watchers on one stream ...
const WATCHERS: i64 = 10_000;
/// ... and requests for their progress.
const PROGRESS_REQUESTS: usize = 50_000;

/// Lengths that are lies, compression that nobody agreed to, transactions without a bottom. Each
/// ends its stream and nothing else.
pub async fn messages(scene: &Scene) -> Result<String> {
    let mut raw = Raw::http2(scene.client_port(), 1 << 16).await?;
    let mut ids = (1..).step_by(2);
    let put = frames::call("/etcdserverpb.KV/Put", &[]);
    let lengths: [&[u8]; 4] = [
        b"\0\xff\xff\xff\xff",
        b"\x01\xff\xff\xff\xff",
        b"\x01\0\0\0\x01x",
        b"\xff\0\0\0\x01x",
    ];
    for (id, length) in ids.by_ref().zip(lengths) {
        raw.send(&frame(kind::HEADERS, END_HEADERS, id, &put)).await;
        raw.send(&frame(kind::DATA, 0, id, length)).await;
        let answered = raw.answers(id).await;
        answered.with_context(|| format!("no answer to {length:?}"))?;
    }
    let txn = frames::call("/etcdserverpb.KV/Txn", &[]);
    let id = ids.next().context("ids do not end so soon")?;
    raw.send(&frame(kind::HEADERS, END_HEADERS, id, &txn)).await;
    for part in frames::message(&nested_transactions()).chunks(FRAME_BYTES) {
        let sent = raw.send(&frame(kind::DATA, 0, id, part)).await;
        ensure!(sent == Sent::All, "of nested transactions: {sent:?}");
    }
    raw.send(&frame(kind::DATA, END_STREAM, id, &[])).await;
    let answered = raw.answers(id).await;
    answered.context("no answer to nested transactions")?;
    Ok(String::new())
}

/// By hand, from the inside out: no encoder goes so deep either.
fn nested_transactions() -> Vec<u8> {
    let mut prefixes = Vec::new();
    let mut length = 0;
    for _ in 0..NESTED {
        // `RequestOp.request_txn` and `TxnRequest.success`.
        for tag in [0x22, 0x12] {
            let mut prefix = vec![tag];
            let mut rest = length;
            while rest >= 0x80 {
                prefix.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            prefix.push(rest as u8);
            length += prefix.len();
            prefixes.push(prefix);
        }
    }
    prefixes.into_iter().rev().flatten().collect()
}

/// Thousands of watchers on one stream, with ids from both ends, and a flood of requests whose
/// replies are never read.
pub async fn watches(scene: &Scene) -> Result<String> {
    let create = |id: i64| {
        RequestUnion::CreateRequest(WatchCreateRequest {
            key: "watched".into(),
            watch_id: id,
            ..Default::default()
        })
    };
    let ids = (0..WATCHERS / 2).flat_map(|n| [i64::MAX - n, i64::MIN + n]);
    let progress = || RequestUnion::ProgressRequest(WatchProgressRequest {});
    let requests = ids
        .map(create)
        .chain(std::iter::repeat_with(progress).take(PROGRESS_REQUESTS))
        .map(|request| WatchRequest {
            request_union: Some(request),
        });
    // Beyond its requests the stream stays open.
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let mut client = WatchClient::new(scene.channel().await?);
    let mut replies = client.watch(requests).await?.into_inner();
    for _ in 0..WATCHERS {
        let reply = replies.message().await?.context("the stream ended")?;
        ensure!(reply.created && !reply.canceled, "refused: {reply:?}");
    }
    Ok(String::new())
}
