//! Kills members and cuts them apart while sessions of ZooKeeper's protocol work, and judges what
//! they saw: no session is lost that could have been resumed, no ephemeral node stays behind or
//! goes early, writes are linearizable, and each session keeps its order and reads its own writes.
//! The original must pass as well.
//!
//! Start with [`rounds`]. `session.rs` is a client and checks what each session is promised, over what
//! `wire.rs` sends, `work.rs` is what clients do, `judge.rs` holds together what they saw.

mod judge;
mod quorum;
mod session;
pub(in crate::rounds) mod wire;
mod work;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::Rng as _;
use tokio::task::JoinSet;

use super::{MEMBERS, PROGRESS_DEADLINE, SERVE_DEADLINE, progress, tally_of};
use crate::oracle::{Cluster, Kind, Member, Protocol};
use crate::run::Tally;
use judge::Seen;
pub use quorum::quorum_loss;
use session::Session;
pub(in crate::rounds) use session::TELLING;
use work::{COUNTERS, Life, REGISTERS, Shared, State, names_below, prepare, read, work};

/// Sessions that work at the same time.
const SESSIONS: usize = 50;
/// Steps that must be answered between two faults while all members serve.
const STEPS_BETWEEN: u64 = 200;
/// As many while a member is down or cut off.
const STEPS_WITHOUT: u64 = 100;
/// How long the end of a silent session may take beyond its timeout, once nothing breaks any more: a
/// new leader gives every session its full time.
pub(in crate::rounds) const ENDING: Duration = Duration::from_secs(30);
/// How often the servers are asked whether all sessions have ended.
const POLL: Duration = Duration::from_millis(10);

/// Kills a random member `count` times while sessions work, or, where members are `apart`, cuts it
/// off from the others as often as it kills it; then judges.
///
/// # Errors
/// When the servers cannot be started; a broken promise is a failed tally.
pub async fn rounds(kind: Kind, count: usize, apart: bool) -> Result<Tally> {
    let mut cluster = if apart {
        Cluster::start_apart(kind, MEMBERS, &flags()).await?
    } else {
        Cluster::start(kind, MEMBERS, &flags()).await?
    };
    let started = Instant::now();
    let outcome = run(&mut cluster, count, apart).await;
    let outcome = outcome.map(|(seen, cuts)| {
        let Seen {
            operations,
            unknown,
            sessions,
            resumptions,
            expiries,
            events,
            ..
        } = seen;
        println!(
            "{}: {} kills and {cuts} cuts, {sessions} sessions resumed {resumptions} times, \
             {expiries} expired, {} sets and synced reads ({} of unknown outcome), {events} events, \
             {:.0} s",
            kind.name(),
            count - cuts,
            operations.len(),
            unknown.len(),
            started.elapsed().as_secs_f64(),
        );
    });
    Ok(tally_of("ZooKeeper rounds", &mut cluster, outcome))
}

async fn run(cluster: &mut Cluster, count: usize, apart: bool) -> Result<(Seen, usize)> {
    let addresses = addresses(cluster);
    prepare(&mut open(&addresses).await?, SESSIONS).await?;
    let shared = Arc::new(Shared::new(addresses));
    let mut workers = JoinSet::new();
    for slot in 0..SESSIONS {
        let shared = shared.clone();
        workers.spawn(async move {
            let seen = work(&shared, slot).await;
            seen.with_context(|| format!("client {slot}"))
        });
    }
    let mut cuts = 0;
    for round in 1..=count {
        let (victim, cut) = {
            let mut rng = rand::rng();
            (rng.random_range(0..MEMBERS), apart && rng.random())
        };
        cuts += usize::from(cut);
        let what = if cut { "cutting off" } else { "killing" };
        // A broken promise ends the run at once.
        let fault = strike(cluster, &shared, victim, cut);
        tokio::select! {
            biased;
            Some(ended) = workers.join_next() => {
                ended??;
                anyhow::bail!("a client ended by itself");
            }
            fault = fault => fault,
        }
        .with_context(|| format!("round {round}, {what} m{}", victim + 1))?;
    }
    shared.stop();
    let mut seen = Seen::default();
    while let Some(ended) = workers.join_next().await {
        seen.add(ended??);
    }
    judge(&shared, &seen, cluster.kind == Kind::Triglot).await?;
    Ok((seen, cuts))
}

/// What the members are started with: short ticks, and as many connections as we like.
pub(in crate::rounds) fn flags() -> Vec<String> {
    let flags = Protocol::Zookeeper.shared_flags().iter();
    flags.map(|flag| (*flag).to_owned()).collect()
}

/// Where the members' clients connect.
pub(in crate::rounds) fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    let members = cluster.members.iter();
    members.map(Member::zookeeper_address).collect()
}

async fn open(addresses: &[SocketAddr]) -> Result<Session> {
    Session::open(addresses, 0, Instant::now() + SERVE_DEADLINE).await
}

async fn strike(cluster: &mut Cluster, shared: &Shared, victim: usize, cut: bool) -> Result<()> {
    progress(&shared.done, STEPS_BETWEEN)
        .await
        .context("before it")?;
    if cut {
        cluster.set_cut(victim, true)?;
        let progressed = progress(&shared.done, STEPS_WITHOUT).await;
        cluster.set_cut(victim, false)?;
        progressed.context("without the member")?;
    } else {
        cluster.kill(victim);
        progress(&shared.done, STEPS_WITHOUT)
            .await
            .context("without the member")?;
        cluster.restart(victim)?;
    }
    cluster.await_ready().await.context("after it")?;
    let whole_since = Instant::now();
    // A session of its own each time: nobody speaks for it between the rounds, which may outlast it.
    let mut observer = open(&shared.members).await?;
    survey(shared, &mut observer, whole_since).await
}

/// Looks at the ephemeral nodes: those of sessions that live are there, and those of sessions that
/// are over are not. Nothing has broken since `whole_since`.
async fn survey(shared: &Shared, observer: &mut Session, whole_since: Instant) -> Result<()> {
    let before = shared.lives.borrow().clone();
    let asked_at = Instant::now();
    let names = names_below(observer, "/eph").await?;
    let answered_at = Instant::now();
    for (id, life) in &before {
        let there = names.iter().filter(|name| owner(name) == Some(*id));
        match life.state {
            State::Lives => {}
            State::Closed => {
                let left: Vec<_> = there.collect();
                ensure!(
                    left.is_empty(),
                    "session {id:#x} was closed, and {left:?} are there"
                );
            }
            State::Vanished | State::Abandoned => {
                let over_at = life.alive_at + life.timeout;
                let left: Vec<_> = there.collect();
                let ends_at = life.alive_at.max(whole_since) + life.timeout + ENDING;
                ensure!(
                    left.is_empty() || asked_at < ends_at,
                    "session {id:#x} has been silent for {:?}, and {left:?} are there",
                    life.alive_at.elapsed()
                );
                if life.state == State::Vanished && answered_at + TELLING < over_at {
                    missing(*id, life, &names)?;
                }
            }
        }
    }
    await_signs_of_life(shared, &before, answered_at).await?;
    let after = shared.lives.borrow().clone();
    for (id, life) in &before {
        let later = &after[id];
        // One that was answered later has lived all the time.
        if life.state == State::Lives && later.alive_at > answered_at {
            let kept = Life {
                ephemerals: &life.ephemerals & &later.ephemerals,
                ..life.clone()
            };
            missing(*id, &kept, &names)?;
        }
    }
    Ok(())
}

fn missing(id: i64, life: &Life, names: &[String]) -> Result<()> {
    let missing: Vec<_> = life
        .ephemerals
        .iter()
        .filter(|name| !names.contains(name))
        .collect();
    ensure!(
        missing.is_empty(),
        "session {id:#x} lives, but {missing:?} are gone"
    );
    Ok(())
}

/// The session that a node's name says it belongs to.
fn owner(name: &str) -> Option<i64> {
    let (id, _) = name.strip_prefix('s')?.split_once('-')?;
    u64::from_str_radix(id, 16).ok().map(u64::cast_signed)
}

/// Awaits that each session is answered after `instant`, or ends.
async fn await_signs_of_life(
    shared: &Shared,
    before: &BTreeMap<i64, Life>,
    instant: Instant,
) -> Result<()> {
    let mut lives = shared.lives.subscribe();
    let deadline = Instant::now() + PROGRESS_DEADLINE;
    for (id, _) in before.iter().filter(|(_, life)| life.state == State::Lives) {
        let sign = lives.wait_for(|lives| {
            let life = &lives[id];
            life.state != State::Lives || life.alive_at > instant
        });
        let in_time = tokio::time::timeout_at(deadline.into(), sign).await.is_ok();
        ensure!(
            in_time,
            "session {id:#x} is not served for {PROGRESS_DEADLINE:?}"
        );
    }
    Ok(())
}

/// Awaits the end of what must end, and holds everything that was seen together.
///
/// ZooKeeper's sync asks no quorum, and while members die a read behind it may show what is no longer
/// so; `fresh` reads do not.
async fn judge(shared: &Shared, seen: &Seen, fresh: bool) -> Result<()> {
    let whole_since = Instant::now();
    let mut observer = open(&shared.members).await?;
    let deadline = whole_since + ENDING + PROGRESS_DEADLINE;
    loop {
        let names = names_below(&mut observer, "/eph").await?;
        if names.is_empty() {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "all sessions are over, and {names:?} are there"
        );
        survey(shared, &mut observer, whole_since).await?;
        tokio::time::sleep(POLL).await;
    }
    let mut last = BTreeMap::new();
    for (kind, count) in [("reg", REGISTERS), ("cnt", COUNTERS)] {
        for number in 0..count {
            let node = format!("/{kind}/{number}");
            let held = read(&mut observer, &node).await?;
            last.insert(node, held);
        }
    }
    let in_sequence = names_below(&mut observer, "/seq").await?;
    seen.check(&last, &in_sequence, fresh)
}
