//! Does with Rust's etcd-client what services do: configuration, discovery, a lock, an election.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchFilterType, WatchOptions, WatchStream,
};

const DEADLINE: Duration = Duration::from_secs(30);
const CONTENDERS: u32 = 4;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let endpoints = std::env::var("ENDPOINTS")?;
    let endpoints: Vec<_> = endpoints.split(',').collect();
    let client = Client::connect(endpoints, None).await?;
    let (mut passed, mut failed) = (0, 0);
    macro_rules! job {
        ($job:ident) => {
            match tokio::time::timeout(DEADLINE, $job(client.clone())).await {
                Ok(Ok(())) => passed += 1,
                other => {
                    println!("FAIL {}: {other:?}", stringify!($job));
                    failed += 1;
                }
            }
        };
    }
    job!(configuration);
    job!(transaction);
    job!(discovery);
    job!(lock);
    job!(election);
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kind and value of the next event.
async fn next(stream: &mut WatchStream) -> Result<(EventType, String)> {
    loop {
        let message = stream.message().await?.context("the watch ended")?;
        if let Some(event) = message.events().first() {
            let value = event.kv().context("an event without a pair")?.value_str()?;
            return Ok((event.event_type(), value.to_owned()));
        }
    }
}

async fn configuration(mut client: Client) -> Result<()> {
    client.put("rust/config/level", "info", None).await?;
    let read = client.get("rust/config/level", None).await?;
    ensure!(read.kvs()[0].value() == b"info", "read {read:?}");
    let revision = read.header().context("no header")?.revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
    let mut changes = client.watch("rust/config/", Some(options)).await?;
    client.put("rust/config/level", "warn", None).await?;
    ensure!(next(&mut changes).await? == (EventType::Put, "warn".to_owned()));
    client.delete("rust/config/level", None).await?;
    ensure!(next(&mut changes).await?.0 == EventType::Delete);
    Ok(())
}

async fn transaction(mut client: Client) -> Result<()> {
    client.put("rust/counter", "1", None).await?;
    let swap = |before: &str, after: &str| {
        Txn::new()
            .when([Compare::value("rust/counter", CompareOp::Equal, before)])
            .and_then([TxnOp::put("rust/counter", after, None)])
            .or_else([TxnOp::get("rust/counter", None)])
    };
    ensure!(client.txn(swap("1", "2")).await?.succeeded(), "the first swap failed");
    let stale = client.txn(swap("1", "3")).await?;
    ensure!(!stale.succeeded(), "the stale swap succeeded");
    let Some(TxnOpResponse::Get(instead)) = stale.op_responses().into_iter().next() else {
        bail!("no reply in {stale:?}");
    };
    ensure!(instead.kvs()[0].value() == b"2", "read {instead:?}");
    Ok(())
}

async fn discovery(mut client: Client) -> Result<()> {
    let lease = client.lease_grant(5, None).await?.id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("rust/services/web/1", "10.0.0.1:80", Some(leased)).await?;
    let (mut keeper, mut beats) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    let beat = beats.message().await?.context("no beat")?;
    ensure!(beat.ttl() == 5, "beat {beat:?}");
    let prefix = || Some(GetOptions::new().with_prefix());
    ensure!(client.get("rust/services/web/", prefix()).await?.count() == 1, "not found");
    client.lease_revoke(lease).await?;
    ensure!(client.get("rust/services/web/", prefix()).await?.count() == 0, "still found");
    Ok(())
}

/// Creates the key under the lease unless another has it.
async fn claim(client: &mut Client, key: &str, lease: i64) -> Result<bool> {
    let leased = PutOptions::new().with_lease(lease);
    let txn = Txn::new()
        .when([Compare::create_revision(key, CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key, lease.to_string(), Some(leased))]);
    Ok(client.txn(txn).await?.succeeded())
}

async fn lock(client: Client) -> Result<()> {
    let inside = Arc::new(AtomicU32::new(0));
    let contenders = (0..CONTENDERS)
        .map(|_| tokio::spawn(contend(client.clone(), inside.clone())))
        .collect::<Vec<_>>();
    for contender in contenders {
        contender.await??;
    }
    Ok(())
}

async fn contend(mut client: Client, inside: Arc<AtomicU32>) -> Result<()> {
    let lease = client.lease_grant(10, None).await?.id();
    let deletions = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
    let mut released = client.watch("rust/lock", Some(deletions)).await?;
    while !claim(&mut client, "rust/lock", lease).await? {
        next(&mut released).await?;
    }
    ensure!(inside.fetch_add(1, Ordering::SeqCst) == 0, "two in the lock");
    tokio::task::yield_now().await;
    inside.fetch_sub(1, Ordering::SeqCst);
    client.lease_revoke(lease).await?;
    Ok(())
}

async fn election(mut client: Client) -> Result<()> {
    let one = client.lease_grant(10, None).await?.id();
    let two = client.lease_grant(10, None).await?.id();
    ensure!(claim(&mut client, "rust/leader", one).await?, "nobody is leader");
    ensure!(!claim(&mut client, "rust/leader", two).await?, "two leaders");
    let mut changes = client.watch("rust/leader", None).await?;
    client.lease_revoke(one).await?;
    ensure!(next(&mut changes).await?.0 == EventType::Delete, "no resignation");
    ensure!(claim(&mut client, "rust/leader", two).await?, "the second is not leader");
    client.lease_revoke(two).await?;
    Ok(())
}
