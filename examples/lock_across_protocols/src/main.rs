//! One lock, two protocols: programs that speak etcd v3 and programs that speak ZooKeeper take
//! turns, each through its own unmodified client, and none of them knows of the others' protocol.
//!
//! The lock is the key `/locks/printer`, which whoever holds it creates. To etcd's clients it is a
//! key under a lease, created in a transaction that finds none; to ZooKeeper's clients it is an
//! ephemeral node. Whoever comes too late watches it and tries again when it is gone, be it that the
//! holder lets go or that the holder is gone and its lease, or its session, expires.
//!
//! ```text
//! triglot &                                              # or three members
//! cargo run --manifest-path examples/lock_across_protocols/Cargo.toml
//! ```
//!
//! `ENDPOINTS` and `ZOOKEEPER` say where the servers are if not here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Compare, CompareOp, EventType, PutOptions, Txn, TxnOp, WatchOptions};
use zookeeper_client::{Acls, CreateMode, Error, SessionState};

const LOCK: &str = "/locks/printer";
/// How many of each protocol want the lock.
const CONTENDERS: u32 = 3;
/// How long a holder prints.
const PRINTING: Duration = Duration::from_millis(100);
/// How long the lock of a holder that is gone outlives it.
const LEASE_S: i64 = 2;

#[tokio::main]
async fn main() -> Result<()> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let endpoints = setting("ENDPOINTS", "http://127.0.0.1:2379");
    let endpoints: Vec<_> = endpoints.split(',').map(str::to_owned).collect();
    let servers = setting("ZOOKEEPER", "127.0.0.1:2181");

    let zookeeper = zookeeper_client::Client::connect(&servers).await?;
    let directory = CreateMode::Persistent.with_acls(Acls::anyone_all());
    zookeeper.mkdir("/locks", &directory).await?;

    // One takes the lock and is never heard of again.
    let etcd = etcd_client::Client::connect(&endpoints, None).await?;
    let lost = etcd_locks(etcd.clone(), "one that will be gone").await?;
    println!("one that speaks etcd holds the lock, and is gone");

    let printer = Arc::new(Printer::default());
    let mut contenders = Vec::new();
    for number in 1..=CONTENDERS {
        let (printer, etcd) = (printer.clone(), etcd.clone());
        contenders.push(tokio::spawn(async move {
            let name = format!("etcd's {number}");
            let lease = etcd_locks(etcd.clone(), &name).await?;
            ensure!(lease != lost, "the lease of one that is gone");
            printer.print(&name).await?;
            etcd_unlocks(etcd, lease).await
        }));
    }
    for number in 1..=CONTENDERS {
        let (printer, servers) = (printer.clone(), servers.clone());
        contenders.push(tokio::spawn(async move {
            let name = format!("ZooKeeper's {number}");
            let session = zookeeper_client::Client::connect(&servers).await?;
            zookeeper_locks(&session, &name).await?;
            printer.print(&name).await?;
            Ok(session.delete(LOCK, None).await?)
        }));
    }
    for contender in contenders {
        contender.await??;
    }
    let printed = printer.printed.load(Ordering::SeqCst);
    ensure!(printed == 2 * CONTENDERS, "{printed} have printed");
    println!("all {printed} have printed, one at a time");
    Ok(())
}

/// What only one may use at a time.
#[derive(Default)]
struct Printer {
    users: AtomicU32,
    printed: AtomicU32,
}

impl Printer {
    async fn print(&self, name: &str) -> Result<()> {
        ensure!(
            self.users.fetch_add(1, Ordering::SeqCst) == 0,
            "{name} is not alone"
        );
        println!("{name} prints");
        tokio::time::sleep(PRINTING).await;
        self.users.fetch_sub(1, Ordering::SeqCst);
        self.printed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Takes the lock through etcd's protocol; answers the lease it is held under.
async fn etcd_locks(mut etcd: etcd_client::Client, name: &str) -> Result<i64> {
    loop {
        let lease = etcd.lease_grant(LEASE_S, None).await?.id();
        let held = TxnOp::put(LOCK, name, Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new()
            .when([Compare::create_revision(LOCK, CompareOp::Equal, 0)])
            .and_then([held]);
        let answer = etcd.txn(txn).await?;
        if answer.succeeded() {
            return Ok(lease);
        }
        etcd.lease_revoke(lease).await?;
        // From the next revision on: what happened since is not missed.
        let seen = answer
            .header()
            .context("an answer has a header")?
            .revision();
        let options = WatchOptions::new().with_start_revision(seen + 1);
        let mut changes = etcd.watch(LOCK, Some(options)).await?;
        while let Some(message) = changes.message().await? {
            if message
                .events()
                .iter()
                .any(|event| event.event_type() == EventType::Delete)
            {
                break;
            }
        }
    }
}

async fn etcd_unlocks(mut etcd: etcd_client::Client, lease: i64) -> Result<()> {
    etcd.lease_revoke(lease).await?;
    Ok(())
}

/// Takes the lock through ZooKeeper's protocol, for as long as the session lasts.
async fn zookeeper_locks(session: &zookeeper_client::Client, name: &str) -> Result<()> {
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    loop {
        match session.create(LOCK, name.as_bytes(), &ephemeral).await {
            Ok(_) => return Ok(()),
            Err(Error::NodeExists) => {}
            Err(error) => return Err(error.into()),
        }
        let (holder, change) = session.check_and_watch_stat(LOCK).await?;
        if holder.is_some() {
            let change = change.changed().await;
            let connected = change.session_state == SessionState::SyncConnected;
            ensure!(connected, "the session is {:?}", change.session_state);
        }
    }
}
