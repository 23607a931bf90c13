//! Sessions of several members: whose client is alive, and whose turn it is.

mod common;

use common::{Node, attach, cluster, eventually, leader, open_session, write_in_turn};
use keyspace::{LeaseId, Refusal};
use replica::{Answered, Handle, Unavailable};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SESSION: LeaseId = LeaseId(7);

fn lives(node: &Node) -> bool {
    node.handle().reader().lease(SESSION).is_some()
}

/// Touches a session at one member for a while, which it has to outlive.
async fn touch_for(node: &Node, time: Duration) {
    let began = Instant::now();
    eventually(|| {
        node.handle().touch(SESSION);
        assert!(lives(node), "after {:?}", began.elapsed());
        began.elapsed() > time
    })
    .await;
}

/// Whichever member a client speaks to, and whoever leads, its session lives as long as the client
/// is heard of, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_while_its_client_is_heard_of() -> anyhow::Result<()> {
    const TTL: Duration = Duration::from_millis(1_500);
    let mut nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let (follower, other) = ((leads + 1) % 3, (leads + 2) % 3);
    let open = open_session(SESSION.0, TTL.as_millis() as u64);
    nodes[follower].handle().propose(open).await?;
    touch_for(&nodes[follower], TTL * 2).await;
    nodes[leads].handle().read_index().await?;
    touch_for(&nodes[leads], TTL * 2).await;
    nodes[leads].kill().await;
    leader(&nodes).await;
    touch_for(&nodes[other], TTL * 2).await;
    eventually(|| !lives(&nodes[follower])).await;
    Ok(())
}

/// The time to live that is agreed on when a session goes on elsewhere holds from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_a_session_starts_its_time_anew() -> anyhow::Result<()> {
    let nodes = cluster(1, |_| {}).await?;
    leader(&nodes).await;
    let handle = nodes[0].handle();
    handle.propose(open_session(SESSION.0, 3_600_000)).await?;
    let resumed = handle.propose(attach(SESSION.0, 2, 400)).await?;
    assert!(resumed.outcome.is_ok());
    let left = handle.lease_remaining(SESSION).await?;
    assert!(left.is_some_and(|ms| ms <= 400), "{left:?}");
    eventually(|| !lives(&nodes[0])).await;
    Ok(())
}

/// What is handed over in an order takes effect in it, whoever waits for it when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_take_effect_in_the_order_of_the_calls() -> anyhow::Result<()> {
    let nodes = cluster(3, |_| {}).await?;
    let follower = (leader(&nodes).await + 1) % 3;
    let handle = nodes[follower].handle();
    handle.propose(open_session(SESSION.0, 60_000)).await?;
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let turn = |n| write_in_turn(SESSION.0, 1, n, "/a");
            handle.propose_all(vec![turn(2 * n), turn(2 * n + 1)])
        })
        .collect();
    for call in calls.into_iter().rev() {
        for applied in call.await? {
            assert!(applied.outcome.is_ok(), "{:?}", applied.outcome);
        }
    }
    let (_, node) = handle.reader().node(b"/a");
    assert_eq!(node.and_then(|n| n.entry).map(|e| e.version()), Some(200));
    Ok(())
}

/// Writes `/0`, `/1` and so on in turn, always some of them under way; what came of each.
async fn write_until(
    handle: Handle,
    over: Arc<AtomicBool>,
) -> Vec<Result<Vec<Answered>, Unavailable>> {
    const UNDER_WAY: usize = 64;
    let (mut calls, mut answered) = (VecDeque::new(), Vec::new());
    for seq in 0.. {
        let write = write_in_turn(SESSION.0, 1, seq, &format!("/{seq}"));
        calls.push_back(handle.propose_all(vec![write]));
        if calls.len() == UNDER_WAY
            && let Some(oldest) = calls.pop_front()
        {
            answered.push(oldest.await);
        }
        if over.load(Ordering::Acquire) {
            break;
        }
    }
    for call in calls {
        answered.push(call.await);
    }
    answered
}

/// The third promise: a pipelined write never takes effect when an earlier one of the same
/// connection was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_leader_leaves_no_gap_among_a_sessions_writes() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let follower = (leads + 1) % 3;
    let handle = nodes[follower].handle().clone();
    handle.propose(open_session(SESSION.0, 60_000)).await?;
    let over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_until(handle.clone(), Arc::clone(&over)));
    eventually(|| handle.reader().node(b"/200").1.is_some()).await;
    nodes[leads].kill().await;
    leader(&nodes).await;
    over.store(true, Ordering::Release);
    let answered = writer.await?;
    let writes = answered.len() as u64;
    handle.read_index().await?;
    let exists = |seq: u64| {
        handle
            .reader()
            .node(format!("/{seq}").as_bytes())
            .1
            .is_some()
    };
    let done = (0..writes).take_while(|seq| exists(*seq)).count();
    assert!((done as u64..writes).all(|seq| !exists(seq)), "a gap");
    for (seq, answer) in answered.into_iter().enumerate() {
        match answer.map(|applied| applied[0].outcome.clone()) {
            Ok(Ok(_)) => assert!(seq < done, "{seq} was acknowledged and is lost"),
            Ok(Err(refusal)) => assert_eq!((refusal, seq >= done), (Refusal::OutOfTurn, true)),
            Err(Unavailable::Stopped | Unavailable::NotLeader | Unavailable::NoLeader) => {
                panic!("{seq} was not even tried")
            }
            Err(_unknown) => {}
        }
    }
    // A new connection begins anew, and the old one's writes are over.
    handle.propose(attach(SESSION.0, 2, 60_000)).await?;
    let late = write_in_turn(SESSION.0, 1, done as u64, "/late");
    let late = handle.propose(late).await?;
    assert_eq!(late.outcome.err(), Some(Refusal::Moved));
    let new = write_in_turn(SESSION.0, 2, 0, "/new");
    assert!(handle.propose(new).await?.outcome.is_ok());
    Ok(())
}
