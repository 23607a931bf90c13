//! Kills members while clients of all three protocols write, compare and swap, expire and watch the
//! same few keys, and judges the one history of all that they saw: it is linearizable, every answer
//! belongs where its revision, zxid or index says, each protocol's watchers were told what they are
//! promised, and nothing ended early or stayed behind.
//!
//! Start with [`rounds`]. `etcd_v3.rs`, `etcd_v2.rs`, `zookeeper.rs` and `watchers.rs` are the clients
//! and know the wire; what they note is in `history.rs`, in words of no protocol. The judgement is
//! pure and begins in `judge.rs`.

mod ends;
mod etcd_v2;
mod etcd_v3;
mod history;
mod judge;
mod one_key;
mod order;
mod sessions;
mod shared;
mod truth;
mod watchers;
mod zookeeper;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::kv_client::KvClient;
use rand::Rng as _;
use tokio::task::JoinSet;

use super::zookeeper::wire::{self, Request};
use super::zookeeper::{ENDING, flags};
use super::{equal_hashes, progress, tally_of};
use crate::oracle::{Cluster, Kind, Member};
use crate::run::Tally;
use history::{Clocks, History, Key};
use shared::{Notes, PARENT, Shared, keys};
use watchers::Watchers;

/// Clients of each protocol.
const CLIENTS: u32 = 4;
/// Steps of each protocol that must be answered between two kills while all members serve, by turns. A
/// new leader lets what is bound to a lease or a session live its full time again: some take longer than
/// that, and some less.
const STEPS_BETWEEN: [u64; 3] = [500, 1500, 100];
/// As many while a member is down.
const STEPS_WITHOUT: u64 = 50;
/// The longest time that anything is bound to.
const TTL_MAX: Duration = Duration::from_secs(4);
/// How often the servers are asked whether everything has ended that time ends.
const POLL: Duration = Duration::from_millis(100);

/// Kills a random one of `members` members `count` times while clients of all three protocols work,
/// and judges the history.
///
/// # Errors
/// When the servers cannot be started; a broken promise is a failed tally.
pub async fn rounds(kind: Kind, members: usize, count: usize) -> Result<Tally> {
    let started = Instant::now();
    let mut cluster = Cluster::start(kind, members, &flags()).await?;
    let outcome = run(&mut cluster, count).await;
    let outcome = outcome.map(|history| {
        let unknown = history.operations.iter().filter(|op| op.answered.is_none());
        println!(
            "{}, members: {members}: {count} kills, {} operations ({} of unknown outcome), {} \
             revisions, {} leases and sessions, {} expiries, {:.0} s",
            kind.name(),
            history.operations.len(),
            unknown.count(),
            history.last.revision - history.first.revision,
            history.lives.len(),
            history.expiries(),
            started.elapsed().as_secs_f64(),
        );
    });
    Ok(tally_of("rounds of all protocols", &mut cluster, outcome))
}

async fn run(cluster: &mut Cluster, count: usize) -> Result<History> {
    make_parent(cluster).await?;
    let first = clocks(&cluster.members[0]).await?;
    let shared = Arc::new(Shared::new(cluster));
    let watchers = Watchers::start(&shared, first);
    let mut clients: JoinSet<Result<Notes>> = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(etcd_v3::work(shared.clone(), 3 * number));
        clients.spawn(etcd_v2::work(shared.clone(), 3 * number + 1));
        clients.spawn(zookeeper::work(shared.clone(), 3 * number + 2));
    }
    for round in 1..=count {
        let victim = rand::rng().random_range(0..cluster.members.len());
        let steps = STEPS_BETWEEN[round % STEPS_BETWEEN.len()];
        // A broken promise ends the run at once.
        tokio::select! {
            biased;
            Some(ended) = clients.join_next() => {
                ended??;
                bail!("a client ended by itself");
            }
            killed = kill_once(cluster, &shared, victim, steps) => killed,
        }
        .with_context(|| format!("round {round}, killing m{}", victim + 1))?;
    }
    shared.stop();
    let mut history = History {
        first,
        ..History::default()
    };
    while let Some(ended) = clients.join_next().await {
        let notes = ended??;
        history.operations.extend(notes.operations);
        history.lives.extend(notes.lives);
        history.sessions.extend(notes.sessions);
    }
    await_ends(&cluster.members[0]).await?;
    history.last = clocks(&cluster.members[0]).await?;
    (history.watches, history.waits) = watchers.finish(history.last).await?;
    for member in &cluster.members {
        history.held.push(held(member).await?.1);
    }
    history.check(&keys())?;
    equal_hashes(cluster, history.last.revision.cast_signed()).await?;
    Ok(history)
}

/// Makes the node that all keys are below, so that it stays whatever becomes of them.
async fn make_parent(cluster: &Cluster) -> Result<()> {
    let address = cluster.members[0].zookeeper_address();
    let key = wire::Key::fresh(1_000);
    let shaken = wire::shake_hands(address, &key, 0).await?;
    let (_, mut socket) = shaken.context("a new session is over at once")?;
    let reply = wire::ask(&mut socket, &Request::create(PARENT, "", 0), 1).await?;
    ensure!(reply.error == 0, "making {PARENT}: {reply:?}");
    Ok(())
}

async fn kill_once(
    cluster: &mut Cluster,
    shared: &Shared,
    victim: usize,
    steps_before: u64,
) -> Result<()> {
    progress(&shared.done, steps_before)
        .await
        .context("before the kill")?;
    cluster.kill(victim);
    if cluster.members.len() > 1 {
        progress(&shared.done, STEPS_WITHOUT)
            .await
            .context("without the member")?;
    }
    cluster.restart(victim)?;
    cluster.await_ready().await.context("after the restart")
}

/// Awaits that nothing is bound to a lease, a session or a time, or as long as that may take: nobody
/// keeps anything alive any more.
async fn await_ends(member: &Member) -> Result<()> {
    let deadline = Instant::now() + TTL_MAX + ENDING;
    while Instant::now() < deadline {
        let leased = held(member)
            .await?
            .1
            .iter()
            .any(|(_, entry)| entry.lease != 0);
        let (_, timed) = etcd_v2::survey(member.client_port).await?;
        if !leased && !timed {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn clocks(member: &Member) -> Result<Clocks> {
    let (revision, _) = held(member).await?;
    let (index, _) = etcd_v2::survey(member.client_port).await?;
    Ok(Clocks { revision, index })
}

/// The revision, and what the keys hold.
async fn held(member: &Member) -> Result<(u64, Vec<(Key, checker::kv::Entry)>)> {
    let all = RangeRequest {
        key: format!("{PARENT}/").into(),
        range_end: format!("{PARENT}0").into(),
        ..Default::default()
    };
    let reply = KvClient::new(member.channel.clone()).range(all).await?;
    let reply = reply.into_inner();
    let revision = reply.header.context("no header")?.revision;
    let pairs = reply.kvs.iter().map(|pair| {
        let key = shared::key_at(str::from_utf8(&pair.key)?)?;
        anyhow::Ok((key, watchers::entry(pair)?))
    });
    Ok((revision.cast_unsigned(), pairs.collect::<Result<_>>()?))
}
