//! Clients of etcd v2 in numbers, and far behind.

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use serde_json::Value;

use super::{Scene, until};
use crate::script::http::{Answer, request};

/// Clients that wait for the same key.
const WAITING: usize = 5_000;
/// Keys of one directory, and how many listings of it are asked for at once.
const KEYS: usize = 100_000;
const LISTINGS: usize = 4;
/// Events that a client has not read, and the size of each one's value.
const EVENTS: usize = 10_000;
const EVENT_VALUE_BYTES: usize = 4 << 10;
/// Keys whose time ends within one second, and how long after they are made.
const EXPIRING: u64 = 1_000;
const TTL_S: u64 = 3;
/// Writes of one transaction.
const PUTS: usize = 100;

/// Every one of them is told of the one change.
pub async fn waiting(scene: &Scene) -> Result<String> {
    let before = scene.process.memory_bytes()?;
    let mut clients = Vec::with_capacity(WAITING);
    for _ in 0..WAITING {
        clients.push(get(scene, "/v2/keys/awaited?wait=true").await?);
    }
    let each = (scene.process.memory_bytes()?.saturating_sub(before)) / WAITING as u64;
    let set = request("PUT", "/v2/keys/awaited?value=come", "localhost", &[], b"");
    let mut set = Answer::to(scene.client_port(), &set).await?;
    let set: Value = serde_json::from_slice(&set.body().await?)?;
    for mut client in clients {
        let told: Value = serde_json::from_slice(&client.body().await?)?;
        ensure!(told == set, "told {told}, not {set}");
    }
    Ok(format!("{WAITING} clients, {each} bytes each"))
}

/// Clients list a large directory at the same time, each to the end.
pub async fn listings(scene: &Scene) -> Result<String> {
    put(scene, "/many", KEYS, 1).await?;
    let mut listings = Vec::new();
    for _ in 0..LISTINGS {
        let asked = request("GET", "/v2/keys/many?sorted=true", "localhost", &[], b"");
        let port = scene.client_port();
        listings.push(tokio::spawn(async move {
            let mut answer = Answer::to(port, &asked).await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.piece().await? {
                body.extend(piece);
            }
            anyhow::Ok(body)
        }));
    }
    let mut bytes = 0;
    for listing in listings {
        let body = listing.await??;
        let listed: Value = serde_json::from_slice(&body)?;
        let nodes = listed["node"]["nodes"].as_array().context("no nodes")?;
        ensure!(nodes.len() == KEYS, "{} nodes", nodes.len());
        let in_order = nodes.is_sorted_by_key(|node| node["key"].as_str());
        ensure!(in_order, "keys are not sorted");
        bytes = body.len();
    }
    Ok(format!("{LISTINGS} listings of {bytes} bytes"))
}

/// A stream that nobody reads ends once too much waits for its client, who has then seen the first
/// events in order and no other; a wait for what is so long past is refused.
pub async fn backlog(scene: &Scene) -> Result<String> {
    let mut stream = get(scene, "/v2/keys/flow?wait=true&stream=true&recursive=true").await?;
    put(scene, "/flow", EVENTS, EVENT_VALUE_BYTES).await?;
    let mut body = Vec::new();
    while let Some(piece) = stream.piece().await? {
        body.extend(piece);
    }
    // The last may have been cut short.
    let events: Vec<Value> = serde_json::Deserializer::from_slice(&body)
        .into_iter()
        .map_while(Result::ok)
        .collect();
    ensure!(
        !events.is_empty() && events.len() < EVENTS,
        "{} events",
        events.len()
    );
    for (n, event) in events.iter().enumerate() {
        let key = event["node"]["key"].as_str();
        ensure!(key == Some(&name("/flow", n)), "event {n} is {event}");
    }
    let first = events[0]["node"]["modifiedIndex"]
        .as_u64()
        .context("no index")?;
    let path = format!("/v2/keys/flow?wait=true&recursive=true&waitIndex={first}");
    let refused: Value = serde_json::from_slice(&get(scene, &path).await?.body().await?)?;
    ensure!(
        refused["errorCode"] == 401,
        "a wait for the past got {refused}"
    );
    Ok(format!("{} of {EVENTS} events were sent", events.len()))
}

/// Keys that end at the same time, each by its own deadline.
pub async fn expiring(scene: &Scene) -> Result<String> {
    for n in 0..EXPIRING {
        let set = format!("/v2/keys/ending/{n}?value=x&ttl={TTL_S}");
        let set = request("PUT", &set, "localhost", &[], b"");
        let answer = Answer::to(scene.client_port(), &set).await?;
        ensure!(
            answer.status.starts_with("201"),
            "key {n}: {}",
            answer.status
        );
    }
    until("the end of every key", async || {
        let stats = get(scene, "/v2/stats/store").await?.body().await?;
        let stats: Value = serde_json::from_slice(&stats)?;
        Ok(stats["expireCount"] == EXPIRING)
    })
    .await?;
    Ok(format!("{EXPIRING} keys"))
}

async fn get(scene: &Scene, path: &str) -> Result<Answer> {
    let asked = request("GET", path, "localhost", &[], b"");
    Answer::to(scene.client_port(), &asked).await
}

/// The `n`th key of a directory.
fn name(directory: &str, n: usize) -> String {
    format!("{directory}/{n:06}")
}

/// Makes `count` keys in a directory, through etcd v3, which takes many at once.
async fn put(scene: &Scene, directory: &str, count: usize, value_bytes: usize) -> Result<()> {
    let mut kv = KvClient::new(scene.channel().await?);
    for first in (0..count).step_by(PUTS) {
        let puts = (first..first + PUTS).map(|n| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: name(directory, n).into(),
                value: vec![b'x'; value_bytes].into(),
                ..Default::default()
            })),
        });
        let txn = TxnRequest {
            success: puts.collect(),
            ..Default::default()
        };
        kv.txn(txn).await?;
    }
    Ok(())
}
