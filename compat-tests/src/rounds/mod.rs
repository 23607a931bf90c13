//! Kills members with SIGKILL while clients write, read and watch, and judges what they saw:
//! no acknowledged write is lost, no linearizable read is stale, and watchers see every revision
//! once and in order. The originals must pass as well.
//!
//! Start with [`kill_rounds`]; the judgement is in `history.rs`. What is promised to sessions of
//! ZooKeeper's protocol is in `zookeeper/`, and what to clients of all three protocols that share
//! keys, in `crossing/`.

pub mod crossing;
mod history;
mod load;
pub mod zookeeper;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{HashKvRequest, PutRequest, RangeRequest};
use rand::Rng as _;
use tokio::sync::watch;
use tonic::Code;

use crate::oracle::{Cluster, Kind};
use crate::run::Tally;
use history::History;
use load::{KEY_PREFIX, Load};

/// The cluster whose members are killed one at a time.
const MEMBERS: usize = 3;
/// Writes that must be acknowledged, and reads answered, between two kills while all members serve.
const CALLS_BETWEEN: u64 = 50;
/// As many of each while a member is down.
const CALLS_WITHOUT: u64 = 25;
/// How long progress may take: an election is far shorter.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);
/// A call that takes longer has an unknown outcome.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long the cluster may take to serve a session of ZooKeeper's.
const SERVE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a reply to a session may take before its client tries another member.
const REPLY_DEADLINE: Duration = Duration::from_secs(3);
/// How long a member may take to accept a session's connection and to answer the handshake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How long a client that a member failed waits before it tries the next one.
const BACKOFF: Duration = Duration::from_millis(20);

/// Kills a random member `rounds` times under load, and judges the history.
///
/// # Errors
/// When the servers cannot be started; a broken promise is a failed tally.
pub async fn kill_rounds(kind: Kind, rounds: usize) -> Result<Tally> {
    let started = Instant::now();
    let mut cluster = Cluster::start(kind, MEMBERS, &[]).await?;
    let load = Load::start(&cluster);
    let outcome = async {
        for round in 1..=rounds {
            let victim = rand::rng().random_range(0..MEMBERS);
            kill_once(&mut cluster, &load, victim)
                .await
                .with_context(|| format!("round {round}, killing m{}", victim + 1))?;
        }
        let history = finish(&cluster, load).await?;
        history.check()?;
        equal_hashes(&cluster, history.last_revision).await?;
        anyhow::Ok(history)
    }
    .await;
    let outcome = outcome.map(|history| {
        println!(
            "{}: {rounds} kills, {} writes ({} of unknown outcome), {} reads, {} watchers, {:.0} s",
            kind.name(),
            history.writes.len(),
            history
                .writes
                .iter()
                .filter(|w| w.acknowledged.is_none())
                .count(),
            history.reads.len(),
            history.watches.len(),
            started.elapsed().as_secs_f64(),
        );
    });
    Ok(tally_of("kill rounds", &mut cluster, outcome))
}

/// One trial, passed or failed; of one that failed, the logs are kept.
fn tally_of(name: &str, cluster: &mut Cluster, outcome: Result<()>) -> Tally {
    let Err(error) = outcome else {
        return Tally {
            passed: 1,
            failed: 0,
        };
    };
    let logs = cluster.keep_logs();
    println!(
        "FAIL {name} on {}: {error:#}\nlogs are in {}",
        cluster.kind.name(),
        logs.display()
    );
    Tally {
        passed: 0,
        failed: 1,
    }
}

async fn kill_once(cluster: &mut Cluster, load: &Load, victim: usize) -> Result<()> {
    progress(load.progress(), CALLS_BETWEEN)
        .await
        .context("before the kill")?;
    cluster.kill(victim);
    progress(load.progress(), CALLS_WITHOUT)
        .await
        .context("without the member")?;
    cluster.restart(victim)?;
    cluster.await_ready().await.context("after the restart")
}

/// Awaits that `count` more are done of each that is counted.
async fn progress<const N: usize>(done: &watch::Sender<[u64; N]>, count: u64) -> Result<()> {
    let mut done = done.subscribe();
    let before = *done.borrow();
    let more =
        |now: &[u64; N]| -> [u64; N] { std::array::from_fn(|what| now[what] - before[what]) };
    let enough = done.wait_for(|now| more(now).iter().all(|more| *more >= count));
    let in_time = tokio::time::timeout(PROGRESS_DEADLINE, enough)
        .await
        .is_ok();
    let more = more(&done.borrow());
    ensure!(
        in_time,
        "within {PROGRESS_DEADLINE:?} only {more:?} were done, not {count} of each"
    );
    Ok(())
}

/// Ends the load, and completes the history with what the store holds.
async fn finish(cluster: &Cluster, load: Load) -> Result<History> {
    let (writes, reads, watchers) = load.stop().await?;
    let everything = RangeRequest {
        key: KEY_PREFIX.into(),
        range_end: load::prefix_end().into(),
        ..Default::default()
    };
    let mut client = KvClient::new(cluster.members[0].channel.clone());
    let last = client.range(everything).await?.into_inner();
    let last_revision = last.header.context("no header")?.revision;
    let mut last_state = BTreeMap::new();
    for pair in last.kvs {
        let (key, value) = (text(&pair.key), text(&pair.value));
        last_state.insert(key, (value, pair.mod_revision));
    }
    let watches = watchers.finish(last_revision).await?;
    Ok(History {
        writes,
        reads,
        watches,
        last_revision,
        last_state,
    })
}

/// Every member holds the same bytes.
async fn equal_hashes(cluster: &Cluster, revision: i64) -> Result<()> {
    let mut hashes = Vec::new();
    for member in &cluster.members {
        // A member hashes what it has: let it catch up first.
        let mut kv = KvClient::new(member.channel.clone());
        let read = RangeRequest {
            key: KEY_PREFIX.into(),
            ..Default::default()
        };
        kv.range(read).await?;
        let mut client = MaintenanceClient::new(member.channel.clone());
        hashes.push(
            client
                .hash_kv(HashKvRequest { revision })
                .await?
                .into_inner()
                .hash,
        );
    }
    ensure!(
        hashes.iter().all(|hash| *hash == hashes[0]),
        "members differ: {hashes:?}"
    );
    Ok(())
}

/// Five members, three killed: writes are refused with etcd's error, serializable reads go on, and
/// one returning member makes the cluster whole.
///
/// # Errors
/// When the servers cannot be started; a broken promise is a failed tally.
pub async fn quorum_loss(kind: Kind) -> Result<Tally> {
    let mut cluster = Cluster::start(kind, 5, &[]).await?;
    let outcome = lose_quorum(&mut cluster).await;
    Ok(tally_of("quorum loss", &mut cluster, outcome))
}

async fn lose_quorum(cluster: &mut Cluster) -> Result<()> {
    let mut client = KvClient::new(cluster.members[0].channel.clone());
    let put = |value: &str| PutRequest {
        key: "quorum".into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    client.put(put("before")).await?;
    (2..5).for_each(|index| cluster.kill(index));
    let refused = client
        .put(put("refused"))
        .await
        .err()
        .context("a minority took a write")?;
    ensure!(
        refused.code() == Code::Unavailable && refused.message().starts_with("etcdserver: "),
        "the write was refused with {refused:?}"
    );
    println!(
        "{}: without a quorum: {}",
        cluster.kind.name(),
        refused.message()
    );
    let local = RangeRequest {
        key: "quorum".into(),
        serializable: true,
        ..Default::default()
    };
    let read = client.range(local.clone()).await?.into_inner();
    ensure!(
        read.kvs.len() == 1 && text(&read.kvs[0].value) == "before",
        "read {read:?}"
    );
    cluster.restart(2)?;
    cluster.await_ready().await?;
    client.put(put("after")).await?;
    let read = client.range(local).await?.into_inner();
    ensure!(text(&read.kvs[0].value) == "after", "read {read:?}");
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
