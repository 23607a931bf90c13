//! How a replica comes to life: new, joining, or from what is on its disk.

use super::applier::Applier;
use super::checkpointer::{self, Job};
use super::raft_thread::{ApplyJob, Backlog, Copy, RaftThread};
use super::recover::{self, Replayed};
use super::{Shared, wall_ms};
use crate::config::{Config, StartError};
use crate::core::{Core, CoreConfig};
use crate::expiry::Expiry;
use crate::handle::Handle;
use crate::identity::{cluster_id, member_id};
use crate::machine::{Machine, Meta, Owner, Place, to_store};
use crate::proposals::newest_run;
use crate::roster::{Description, Roster};
use crate::transport::fetch_members;
use crate::{ChangeSink, Failure, Member, MemberError, Status};
use keyspace::WallMs;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;
use store::mem::{MemCheckpoints, MemDisk, MemLog};
use store::{CheckpointStore, LogStore, Mark};
use tokio::sync::watch;

/// Threads of a replica.
pub const THREADS: usize = 3;
/// Where a cluster begins: whatever the first members know lies before the first entry, so that
/// who joins later gets it as a snapshot.
const FIRST: Place = Place { index: 1, term: 1 };

/// What a member is and what it knows, before it runs.
struct Beginning {
    owner: Owner,
    machine: Machine,
    /// Whom to speak to: the roster's members, or, while that is still to come, those of the
    /// cluster to join.
    peers: Roster,
    /// What of the log is in the machine and in no checkpoint.
    replayed: Replayed,
}

/// The newest checkpoint.
struct Stored {
    place: Place,
    meta: Meta,
}

/// Starts a replica whose disk is in memory, for tests and for trying things out: what it holds is
/// gone with it. See [`start`].
pub async fn start_in_memory(
    config: Config,
    sink: Box<dyn ChangeSink>,
) -> Result<Handle, StartError> {
    let disk = MemDisk::new();
    let log = Box::new(MemLog::open(&disk));
    let checkpoints = Box::new(MemCheckpoints::open(&disk));
    start(config, log, checkpoints, sink).await
}

/// Starts a replica: over what is on the disk, or, when that is empty, as one of the first members
/// or as one that joins. Threads and tasks run until [`Handle::stop`], [`Handle::halt`] or
/// [`Handle::failed`]. Peers must be able to reach [`Handle::peer_service`].
pub async fn start(
    config: Config,
    log: Box<dyn LogStore>,
    checkpoints: Box<dyn CheckpointStore>,
    sink: Box<dyn ChangeSink>,
) -> Result<Handle, StartError> {
    let (mut log, mut checkpoints, loaded) = blocking(move || load(log, checkpoints)).await?;
    let (mut beginning, stored) = match loaded {
        // It was stopped before the leader could tell it anything.
        Some((beginning, stored)) if beginning.machine.place() == Place::default() => {
            (join(&config).await?, Some(stored))
        }
        Some((beginning, stored)) => (beginning, Some(stored)),
        None if config.join => (join(&config).await?, None),
        None => (bootstrap(&config)?, None),
    };
    let force = config.force_new_cluster;
    let (log, checkpoints, beginning) = blocking(move || {
        let (owner, machine) = (&mut beginning.owner, &beginning.machine);
        let logged = newest_run(&*log, owner.member, machine.place().index)?;
        owner.incarnation = machine.next_incarnation(owner, logged, WallMs(wall_ms()));
        match stored {
            None => write_image(&mut *checkpoints, &beginning)?,
            Some(_) if force => stand_alone(&mut *log, &mut *checkpoints, &mut beginning)?,
            Some(stored) => write_owner(&mut *checkpoints, stored, &beginning)?,
        }
        Ok((log, checkpoints, beginning))
    })
    .await?;
    let core_config = CoreConfig {
        member: beginning.owner.member,
        election_ticks: config.election_ticks(),
        heartbeat_ticks: 1,
        seed: config.seed,
        pre_vote: config.pre_vote,
    };
    let advance_first = config.advance_first_election;
    let (core, beginning) = blocking(move || {
        let place = beginning.machine.place();
        let roster = beginning.machine.roster();
        let mut core = Core::new(&core_config, log, place, roster)?;
        if roster.voters() == [beginning.owner.member] {
            core.campaign();
        } else if advance_first {
            core.advance_election(core_config.election_ticks - 1);
        }
        Ok((core, beginning))
    })
    .await?;
    run(config, core, beginning, checkpoints, sink)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(StartError::Damaged(panic.to_string())),
    }
}

type Opened = (
    Box<dyn LogStore>,
    Box<dyn CheckpointStore>,
    Option<(Beginning, Stored)>,
);

/// The newest checkpoint and what was committed after it, as far as this member knows. Raft is told
/// of the rest of the log only.
fn load(
    log: Box<dyn LogStore>,
    mut checkpoints: Box<dyn CheckpointStore>,
) -> Result<Opened, StartError> {
    let began = Instant::now();
    let Some((meta, mut machine)) = recover::load(&mut *checkpoints)? else {
        return Ok((log, checkpoints, None));
    };
    let place = machine.place();
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(index = place.index, took_ms, "loaded the checkpoint");
    let began = Instant::now();
    let replayed = recover::replay(&*log.reader(), log.vote().commit, &mut machine)?;
    let (entries, bytes) = (replayed.entries, replayed.bytes);
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(entries, bytes, took_ms, "replayed the log");
    let beginning = Beginning {
        owner: meta.owner,
        peers: machine.roster().clone(),
        machine,
        replayed,
    };
    Ok((log, checkpoints, Some((beginning, Stored { place, meta }))))
}

/// Makes this member the only one. All of its log counts: what was acknowledged is in it, and the
/// members that could say more are gone. The result replaces log and checkpoint, so that changes
/// of members in the log do not bring the others back.
fn stand_alone(
    log: &mut dyn LogStore,
    checkpoints: &mut dyn CheckpointStore,
    beginning: &mut Beginning,
) -> Result<(), StartError> {
    recover::replay(&*log.reader(), log.last_index(), &mut beginning.machine)?;
    beginning.machine.reduce_to(beginning.owner.member);
    beginning.peers = beginning.machine.roster().clone();
    write_image(checkpoints, beginning)?;
    let place = beginning.machine.place();
    let vote = log.vote();
    log.reset(place.index, place.term)?;
    Ok(log.append(&[], vote)?)
}

/// The initial cluster's members with the ids that etcd gives them.
fn initial_members(config: &Config) -> Vec<Member> {
    let members = config
        .initial_cluster
        .iter()
        .map(|(name, peer_urls)| Member {
            id: member_id(peer_urls, &config.cluster_token, None),
            name: name.clone(),
            peer_urls: peer_urls.clone(),
            ..Member::default()
        });
    members.collect()
}

/// Checks that the initial cluster and this member's own flags say the same of it.
fn own_urls(config: &Config) -> Result<(), StartError> {
    let own = config
        .initial_cluster
        .iter()
        .find(|(name, _)| *name == config.name);
    let Some((_, listed)) = own else {
        return Err(StartError::NotInInitialCluster(config.name.clone()));
    };
    let as_set = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
    if as_set(listed) != as_set(&config.peer_urls) {
        return Err(StartError::PeerUrlsDiffer {
            name: config.name.clone(),
            listed: listed.clone(),
            advertised: config.peer_urls.clone(),
        });
    }
    Ok(())
}

fn bootstrap(config: &Config) -> Result<Beginning, StartError> {
    own_urls(config)?;
    let mut members = initial_members(config);
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let own = members.iter().find(|member| member.name == config.name);
    let member = own.map_or(0, |own| own.id);
    // Names come with publication: a member without one has not started yet.
    members.iter_mut().for_each(|member| member.name.clear());
    let roster = Roster::new(members);
    Ok(Beginning {
        owner: Owner {
            member,
            cluster: cluster_id(&ids),
            incarnation: 0,
        },
        peers: roster.clone(),
        machine: Machine::new(roster, FIRST),
        replayed: Replayed::default(),
    })
}

/// Asks the cluster who this member is. It knows nothing until the leader sends a snapshot.
async fn join(config: &Config) -> Result<Beginning, StartError> {
    own_urls(config)?;
    let (cluster, members) = if config.await_membership {
        await_membership(config).await
    } else {
        let (cluster, members) = ask_cluster(config).await?;
        check_listed(config, &members)?;
        (cluster, members)
    };
    let found = own_among(config, &members);
    let found = found.ok_or_else(|| StartError::NotInInitialCluster(config.name.clone()))?;
    Ok(Beginning {
        owner: Owner {
            member: found.id,
            cluster,
            incarnation: 0,
        },
        machine: Machine::new(Roster::default(), Place::default()),
        peers: Roster::new(members),
        replayed: Replayed::default(),
    })
}

/// Checks that the initial cluster names exactly the members that there are.
fn check_listed(config: &Config, members: &[Member]) -> Result<(), StartError> {
    let mut listed: Vec<BTreeSet<&String>> = members
        .iter()
        .map(|member| member.peer_urls.iter().collect())
        .collect();
    let mut wanted: Vec<BTreeSet<&String>> = config
        .initial_cluster
        .iter()
        .map(|(_, urls)| urls.iter().collect())
        .collect();
    listed.sort();
    wanted.sort();
    if listed.len() != wanted.len() {
        return Err(StartError::OtherCluster(
            "member count is unequal".to_owned(),
        ));
    }
    if listed != wanted {
        let reason = "unmatched member while checking PeerURLs";
        return Err(StartError::OtherCluster(reason.to_owned()));
    }
    Ok(())
}

/// This member, as the cluster knows it.
fn own_among<'m>(config: &Config, members: &'m [Member]) -> Option<&'m Member> {
    let as_set = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
    let own = as_set(&config.peer_urls);
    members
        .iter()
        .find(|member| as_set(&member.peer_urls) == own)
}

/// The cluster's id and its members, once this one is among them. Who the others are is theirs to
/// say: more may have come and gone since this member was told whom to ask.
async fn await_membership(config: &Config) -> (u64, Vec<Member>) {
    let mut told = String::new();
    loop {
        let why = match ask_cluster(config).await {
            Ok((cluster, members)) if own_among(config, &members).is_some() => {
                return (cluster, members);
            }
            Ok(_) => "no member has these URLs".to_owned(),
            Err(error) => error.to_string(),
        };
        if why != told {
            tracing::info!(peer_urls = ?config.peer_urls, why, "waiting to be a member");
            told = why;
        }
        tokio::time::sleep(config.heartbeat).await;
    }
}

async fn ask_cluster(config: &Config) -> Result<(u64, Vec<Member>), StartError> {
    let others = config
        .initial_cluster
        .iter()
        .filter(|(name, _)| *name != config.name);
    let mut errors = Vec::new();
    for url in others.flat_map(|(_, urls)| urls) {
        match fetch_members(url, config.election).await {
            Ok(answer) => return Ok(answer),
            Err(error) => errors.push(format!("{url}: {error}")),
        }
    }
    Err(StartError::NobodyAnswers(errors.join("; ")))
}

/// Writes the state down: who this member is, and where it stands.
fn write_image(
    checkpoints: &mut dyn CheckpointStore,
    beginning: &Beginning,
) -> Result<(), StartError> {
    let (mark, cut) = beginning
        .machine
        .cut(beginning.owner, None)
        .expect("a whole cut is always possible");
    let mut image = checkpoints.begin_image(mark)?;
    for record in cut {
        image.push(to_store(record))?;
    }
    Ok(image.finish()?)
}

/// Writes down which run this is: an increment without records, or, where the store has nothing
/// to lay it over, an image.
fn write_owner(
    checkpoints: &mut dyn CheckpointStore,
    stored: Stored,
    beginning: &Beginning,
) -> Result<(), StartError> {
    let since = stored.place.index;
    let mark = Mark {
        index: since,
        term: stored.place.term,
        meta: stored.meta.moved_to(beginning.owner).encode(),
    };
    if checkpoints.increment(since, mark, Vec::new())? {
        return Ok(());
    }
    write_image(checkpoints, beginning)
}

fn run(
    config: Config,
    core: Core,
    beginning: Beginning,
    checkpoints: Box<dyn CheckpointStore>,
    sink: Box<dyn ChangeSink>,
) -> Result<Handle, StartError> {
    let (apply_jobs, apply_queue) = mpsc::channel();
    let (checkpoint_jobs, checkpoint_queue) = mpsc::channel();
    let place = beginning.machine.place();
    let roster = Arc::new(beginning.machine.roster().clone());
    let owner = beginning.owner;
    let shared = Arc::new(Shared {
        member: owner.member,
        cluster: owner.cluster,
        incarnation: owner.incarnation,
        runtime: tokio::runtime::Handle::current(),
        inbox: super::inbox::Inbox::default(),
        stats: crate::stats::Stats::default(),
        peers: crate::transport::Peers::default(),
        reader: beginning.machine.reader(),
        roster: RwLock::new(Arc::clone(&roster)),
        roster_changed: watch::Sender::new(()),
        status: watch::Sender::new(Status {
            member: owner.member,
            cluster: owner.cluster,
            ..Status::default()
        }),
        failed: watch::Sender::new(None),
        ended: watch::Sender::new(0),
        published: watch::Sender::new(false),
        alone: false.into(),
        applied: place.index.into(),
        committed: place.index.into(),
        leader_since: Mutex::new(None),
        clocks: Mutex::new(Expiry::default()),
        lease_ended: tokio::sync::Notify::new(),
        touches: super::touches::Touches::default(),
        reads: Mutex::new(Vec::new()),
        in_flight: Arc::default(),
        apply_jobs,
        checkpoint_jobs,
        started: Instant::now(),
        config,
    });
    shared.peers.update(&beginning.peers, &shared);
    shared.tell_learner();
    let mut applier = Applier::new(beginning.machine, Arc::clone(&shared), sink);
    applier.count(beginning.replayed.entries, beginning.replayed.bytes);
    let applier = Arc::new(Mutex::new(applier));
    let backlog = Arc::new(Backlog::default());
    let raft = RaftThread::new(
        core,
        Arc::clone(&shared),
        Arc::clone(&applier),
        Arc::clone(&backlog),
    );
    spawn("raft", &shared, move |_| raft.run())?;
    spawn("apply", &shared, move |shared| {
        apply(&apply_queue, &applier, &backlog, shared);
    })?;
    spawn("checkpoint", &shared, move |shared| {
        checkpointer::run(checkpoints, &checkpoint_queue, shared);
    })?;
    let handle = Handle::new(shared);
    tokio::spawn(publish(handle.clone()));
    tokio::spawn(super::touches::forward(handle.clone()));
    Ok(handle)
}

/// A thread that counts itself out when it ends, and whose panic is the member's end.
fn spawn(
    name: &'static str,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> Result<(), StartError> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let body = std::panic::AssertUnwindSafe(|| body(&shared));
            if let Err(panic) = std::panic::catch_unwind(body) {
                shared.fail(Failure::panicked(name, &panic));
            }
            if name == "raft" {
                // The others end when they have done what the raft thread gave them.
                shared.apply_jobs.send(ApplyJob::End).ok();
                shared.checkpoint_jobs.send(Job::End).ok();
            }
            shared.ended.send_modify(|ended| *ended += 1);
        })?;
    Ok(())
}

/// The apply thread.
fn apply(jobs: &Receiver<ApplyJob>, applier: &Mutex<Applier>, backlog: &Backlog, shared: &Shared) {
    let mut untidy = true;
    loop {
        let job = match jobs.try_recv() {
            Ok(job) => job,
            Err(_empty) if untidy => {
                untidy = applier.lock().tidy();
                continue;
            }
            Err(_empty) => match jobs.recv() {
                Ok(job) => job,
                Err(_) => return,
            },
        };
        untidy = true;
        match job {
            ApplyJob::Entries(entries) => {
                let bytes = entries.iter().map(|entry| entry.len_bytes).sum();
                applier.lock().apply(entries);
                backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
                backlog.jobs.fetch_sub(1, Ordering::AcqRel);
            }
            ApplyJob::Digest(reply) => {
                let applier = applier.lock();
                let machine = applier.machine();
                reply.send((machine.digest(), machine.place().index)).ok();
            }
            ApplyJob::Copy(reply) => {
                let applier = applier.lock();
                let machine = applier.machine();
                let (Mark { meta, .. }, cut) = machine
                    .cut(shared.owner(), None)
                    .expect("a whole cut is always possible");
                let copy = Copy {
                    place: machine.place(),
                    roster: machine.roster().clone(),
                    meta,
                    cut,
                };
                // Whoever asked may be gone.
                reply.send(copy).ok();
            }
            ApplyJob::Checkpointed { laid } => applier.lock().checkpointed(laid),
            ApplyJob::End => return,
        }
    }
}

/// Replicates this member's name and client URLs, as often as it takes.
async fn publish(handle: Handle) {
    let shared = Arc::clone(handle.shared());
    let mut failed = shared.failed.subscribe();
    loop {
        let config = &shared.config;
        let description = Description {
            id: shared.member,
            name: Some(config.name.clone()),
            client_urls: Some(config.client_urls.clone()),
            peer_urls: None,
            stream_urls: Some(config.stream_urls.clone()),
            second_port: None,
            after: None,
        };
        // A member that joins may get what it proposed within a snapshot, and no answer to it.
        let described = tokio::select! {
            biased;
            () = published(&shared) => Ok(()),
            described = handle.describe(description) => described.map(drop),
        };
        match described {
            Ok(()) => {
                shared.published.send_replace(true);
                return;
            }
            Err(MemberError::Unavailable(crate::Unavailable::Stopped)) => return,
            // A joining member cannot until it has the state in which it is a member.
            Err(error) => tracing::warn!(%error, "failed to publish local member to cluster"),
        }
        if failed.has_changed().unwrap_or(true) && failed.borrow_and_update().is_some() {
            return;
        }
        tokio::time::sleep(shared.config.heartbeat).await;
    }
}

/// Awaits that the roster says of this member what its configuration says.
async fn published(shared: &Shared) {
    let config = &shared.config;
    let is_published = |(): &()| {
        shared.roster.read().get(shared.member).is_some_and(|own| {
            own.name == config.name
                && own.client_urls == config.client_urls
                && own.stream_urls == config.stream_urls
        })
    };
    let mut changes = shared.roster_changed.subscribe();
    let changed = changes.wait_for(is_published).await;
    changed.expect("its sender is shared");
}
