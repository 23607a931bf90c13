//! One member on its own: the whole shell with real threads and a disk in memory.

mod common;

use common::{Recorder, config, eventually, open, put, range_count};
use keyspace::change::Cause;
use keyspace::command::Nodes;
use keyspace::node::{Action, Deadline};
use keyspace::{Command, LeaseId, NodeOp, Outcome, Principal, Refusal, Revision, WallMs};
use replica::proposals::PROPOSAL_BYTES_MAX;
use replica::{Failure, StartError, Unavailable};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::mem::{Faults, MemCheckpoints, MemDisk, MemLog};
use store::{CheckpointStore, Fault, ImageSink, Loaded, Mark, Record};
use tokio::sync::Mutex;

/// The first promise: acknowledged is durable, and comes back after a kill without any goodbye.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() -> anyhow::Result<()> {
    let disk = MemDisk::new();
    let first = open(config(), &disk).await?;
    for n in 0..100 {
        let applied = first.propose(put(&format!("k{n:03}"), "v")).await?;
        assert_eq!(applied.revision, Revision(2 + n));
    }
    disk.crash(|_| 0);
    drop(first);

    let second = open(config(), &disk).await?;
    second.read_index().await?;
    assert_eq!(second.reader().revision(), Revision(101));
    assert_eq!(range_count(&second), 100);
    let applied = second.propose(put("after", "v")).await?;
    assert_eq!(applied.revision, Revision(102));
    second.stop().await;
    Ok(())
}

/// Checkpoints cut the log, so a restart must find the same state from image, increments and log.
#[tokio::test]
async fn a_restart_over_checkpoints_finds_the_same_state() -> anyhow::Result<()> {
    let disk = MemDisk::new();
    let small = || replica::Config {
        checkpoint_entries: 10,
        catchup_entries: 5,
        ..config()
    };
    let mut digest = 0;
    for run in 0..4 {
        let replica = open(small(), &disk).await?;
        replica.read_index().await?;
        if run > 0 {
            assert_eq!(replica.digest().await?.0, digest, "run {run}");
        }
        for n in 0..57 {
            replica
                .propose(put(&format!("k{}", n % 20), &format!("{run}.{n}")))
                .await?;
        }
        digest = replica.digest().await?.0;
        replica.halt().await;
        disk.kill();
    }
    Ok(())
}

/// What is applied while a checkpoint is written is not left to be replayed by the next start, even
/// if nothing is written any more.
#[tokio::test]
async fn a_checkpoint_that_took_long_is_followed_by_another() -> anyhow::Result<()> {
    let disk = MemDisk::new();
    let images = Arc::new(Mutex::new(0));
    let checkpoints = CountedImages {
        store: MemCheckpoints::open(&disk),
        images: Arc::clone(&images),
    };
    let config = replica::Config {
        checkpoint_entries: 10,
        ..config()
    };
    let log = Box::new(MemLog::open(&disk));
    let sink = Box::new(Recorder::default());
    let replica = replica::start(config, log, Box::new(checkpoints), sink).await?;
    replica.read_index().await?;
    let held = images.lock().await;
    let before = *held;
    for n in 0..100 {
        replica.propose(put(&format!("k{n}"), "v")).await?;
    }
    drop(held);
    eventually(|| images.try_lock().is_ok_and(|images| *images == before + 2)).await;
    replica.stop().await;
    Ok(())
}

/// Counts the images that are begun; none begins while the count is held.
struct CountedImages {
    store: MemCheckpoints,
    images: Arc<Mutex<u32>>,
}

impl CheckpointStore for CountedImages {
    fn load(&mut self) -> Result<Option<Loaded>, Fault> {
        self.store.load()
    }

    fn begin_image(&mut self, mark: Mark) -> Result<Box<dyn ImageSink>, Fault> {
        *self.images.blocking_lock() += 1;
        self.store.begin_image(mark)
    }

    fn newest(&self) -> Option<Mark> {
        self.store.newest()
    }

    fn increment(&mut self, since: u64, mark: Mark, records: Vec<Record>) -> Result<bool, Fault> {
        self.store.increment(since, mark, records)
    }

    fn log_needed_from(&self) -> u64 {
        self.store.log_needed_from()
    }
}

/// An entry that no segment of the log could hold would stop every member that takes it.
#[tokio::test]
async fn what_does_not_fit_in_the_log_is_refused_and_the_log_goes_on() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    let value = "x".repeat(PROPOSAL_BYTES_MAX);
    let refused = replica.propose(put("large", &value)).await;
    assert_eq!(refused.map(|_| ()), Err(Unavailable::TooMany));
    let half = &value[..PROPOSAL_BYTES_MAX / 2];
    let refused = replica.propose_all(vec![put("a", half), put("b", half)]);
    assert_eq!(refused.await.map(|_| ()), Err(Unavailable::TooMany));
    let applied = replica.propose(put("small", "v")).await?;
    assert_eq!(applied.revision, Revision(2));
    replica.stop().await;
    Ok(())
}

/// Watchers are told before whoever asked: a client that saw its write's answer sees its event.
#[tokio::test]
async fn changes_are_published_before_the_answer() -> anyhow::Result<()> {
    let recorder = Recorder::default();
    let replica = common::open_with(config(), &MemDisk::new(), recorder.clone()).await?;
    for n in 0..20_u64 {
        replica.propose(put("k", &n.to_string())).await?;
        assert_eq!(recorder.revisions().last(), Some(&Revision(2 + n)));
    }
    replica.stop().await;
    Ok(())
}

/// Concurrent proposals share entries; each gets its own outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_proposals_get_their_own_outcomes() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    let mut tasks = Vec::new();
    for n in 0..200_i64 {
        let replica = replica.clone();
        tasks.push(tokio::spawn(async move {
            let granted = replica.propose(common::grant(n + 1, 60_000)).await?;
            assert!(granted.outcome.is_ok());
            let again = replica.propose(common::grant(n + 1, 60_000)).await?;
            assert_eq!(
                again.outcome.err(),
                Some(Refusal::LeaseExists(LeaseId(n + 1)))
            );
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let entries = replica.status().applied;
    assert!(entries < 300, "400 proposals in {entries} entries");
    replica.stop().await;
    Ok(())
}

/// A group arrives as one, in order.
#[tokio::test]
async fn a_group_is_applied_together_and_in_order() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    let group = vec![put("a", "1"), put("a", "2"), put("b", "3")];
    let applied = replica.propose_all(group).await?;
    let revisions: Vec<u64> = applied.iter().map(|applied| applied.revision.0).collect();
    assert_eq!(revisions, [2, 3, 4]);
    replica.stop().await;
    Ok(())
}

/// A member whose disk fails stops, and nothing is acknowledged after that.
#[tokio::test]
async fn a_failed_sync_ends_the_member() -> anyhow::Result<()> {
    let disk = MemDisk::new();
    let replica = open(config(), &disk).await?;
    replica.propose(put("a", "1")).await?;
    disk.set_faults(Faults {
        sync_fails: true,
        ..Faults::default()
    });
    assert!(replica.propose(put("b", "2")).await.is_err());
    let failure = replica.failed().await;
    assert!(matches!(*failure, Failure::Fault(_)), "{failure}");
    assert!(replica.propose(put("c", "3")).await.is_err());
    Ok(())
}

/// etcd says that it is ready only when its name and client URLs are replicated.
#[tokio::test]
async fn a_member_publishes_itself() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    replica.published().wait_for(|published| *published).await?;
    let members = replica.members();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name, "default");
    assert_eq!(members[0].client_urls, ["http://localhost:2379"]);
    assert_eq!(format!("{:x}", members[0].id), "8e9e05c52164694d");
    assert_eq!(
        format!("{:x}", replica.status().cluster),
        "cdf818194e3a8c32"
    );
    replica.stop().await;
    Ok(())
}

/// A lease ends when its time is over, and its keys go with it.
#[tokio::test]
async fn a_lease_that_is_not_kept_alive_ends() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    replica.propose(common::grant(7, 300)).await?;
    replica.propose(common::put_with_lease("k", 7)).await?;
    assert_eq!(replica.lease_keep_alive(LeaseId(7)).await?, Some(300));
    assert!(
        replica
            .lease_remaining(LeaseId(7))
            .await?
            .is_some_and(|ms| ms <= 300)
    );
    common::eventually(|| replica.reader().lease(LeaseId(7)).is_none()).await;
    assert_eq!(range_count(&replica), 0);
    assert_eq!(replica.lease_keep_alive(LeaseId(7)).await?, None);
    assert_eq!(replica.lease_remaining(LeaseId(7)).await?, None);
    replica.stop().await;
    Ok(())
}

/// A keep-alive of a lease whose time is over waits for its end, and then says that it is gone.
#[tokio::test]
async fn a_lease_kept_alive_in_time_stays() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    replica.propose(common::grant(7, 400)).await?;
    let began = std::time::Instant::now();
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while began.elapsed() < Duration::from_millis(1200) {
        every.tick().await;
        assert_eq!(replica.lease_keep_alive(LeaseId(7)).await?, Some(400));
    }
    let ended = replica
        .propose(Command::Revoke(LeaseId(7), Principal::System))
        .await?;
    assert!(matches!(ended.outcome, Ok(Outcome::Ended(0))));
    replica.stop().await;
    Ok(())
}

/// After the end every call says so at once, rather than after a timeout.
#[tokio::test]
async fn a_stopped_member_answers_that_it_is_stopped() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    replica.propose(put("a", "1")).await?;
    replica.stop().await;
    let refused = replica.propose(put("b", "1")).await;
    assert_eq!(refused.err(), Some(replica::Unavailable::Stopped));
    assert_eq!(
        replica.digest().await.err(),
        Some(replica::Unavailable::Stopped)
    );
    Ok(())
}

/// The same words as etcd, so that an operator finds the same answer on the web.
#[tokio::test]
async fn an_initial_cluster_without_this_member_is_refused() {
    let other = replica::Config {
        name: "other".to_owned(),
        ..config()
    };
    let error = open(other, &MemDisk::new())
        .await
        .err()
        .expect("it is refused");
    assert!(matches!(error, StartError::NotInInitialCluster(_)));
    let says = "couldn't find local name \"other\" in the initial cluster configuration";
    assert_eq!(error.to_string(), says);
}

fn directory(path: String, deadline: WallMs) -> Command {
    Command::Nodes(Nodes {
        ops: vec![NodeOp {
            path: path.into(),
            tests: Vec::new(),
            action: Action::MakeDirectory {
                deadline: Deadline::At(deadline),
                sequence: None,
            },
            cause: Cause::Set,
        }],
        ..Nodes::default()
    })
}

fn now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallMs(since.map_or(0, |since| since.as_millis() as u64))
}

/// Nobody but the leader says when a node's own time has come.
#[tokio::test]
async fn a_node_ends_at_its_own_deadline() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    let deadline = WallMs(now().0 + 300);
    replica
        .propose(directory("/d".to_owned(), deadline))
        .await?;
    let is_there = || replica.reader().node(b"/d").1.is_some();
    assert!(is_there() || now() >= deadline);
    eventually(|| !is_there()).await;
    assert!(now() >= deadline);
    replica.stop().await;
    Ok(())
}

/// More than one command ends: the rest go with the next, without waiting for a retry each.
#[tokio::test]
async fn nodes_that_are_due_together_all_end() -> anyhow::Result<()> {
    let replica = open(config(), &MemDisk::new()).await?;
    let due = (0..2_500).map(|n| directory(format!("/d{n}"), WallMs(1)));
    replica.propose_all(due.collect()).await?;
    let children = || replica.reader().node(b"/").1.map(|root| root.children);
    eventually(|| children() == Some(0)).await;
    replica.stop().await;
    Ok(())
}
