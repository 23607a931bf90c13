//! Several members over loopback: the whole shell and transport, with disks in memory.

mod common;

use common::{Node, cluster, eventually, grant, leader, newcomer, put, range_count};
use keyspace::LeaseId;
use replica::roster::Description;
use replica::{Failure, HEALTHY_AFTER, MemberError, MemberRefusal, NewMember, Unavailable};
use std::time::Duration;

async fn put_all(node: &Node, prefix: &str, count: usize) -> anyhow::Result<()> {
    for n in 0..count {
        node.handle()
            .propose(put(&format!("{prefix}{n}"), "v"))
            .await?;
    }
    Ok(())
}

fn new(peer_urls: Vec<String>, learner: bool) -> NewMember {
    NewMember {
        peer_urls,
        learner,
        ..NewMember::default()
    }
}

/// Every member applied the same, and the digests say so.
async fn agree(nodes: &[&Node]) -> anyhow::Result<()> {
    let newest = nodes
        .iter()
        .map(|node| node.handle().status().applied)
        .max()
        .unwrap_or(0);
    eventually(|| {
        nodes
            .iter()
            .all(|node| node.handle().status().applied >= newest)
    })
    .await;
    let mut digests = Vec::new();
    for node in nodes {
        digests.push(node.handle().digest().await?);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    Ok(())
}

/// The second promise: a write acknowledged by any member is seen by a linearizable read at any
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_at_one_member_is_read_at_the_others() -> anyhow::Result<()> {
    let nodes = cluster(3, |_| {}).await?;
    leader(&nodes).await;
    for round in 0..9 {
        let (writer, reader) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
        writer
            .handle()
            .propose(put(&format!("k{round}"), "v"))
            .await?;
        reader.handle().read_index().await?;
        assert_eq!(range_count(reader.handle()), round as u64 + 1);
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await
}

/// kill -9 of the leader loses nothing that was acknowledged, and the cluster goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_leader_loses_no_acknowledged_write() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    for round in 0..3 {
        let lost = leader(&nodes).await;
        put_all(&nodes[lost], &format!("{round}-"), 20).await?;
        nodes[lost].kill().await;
        let next = leader(&nodes).await;
        put_all(&nodes[next], &format!("{round}+"), 5).await?;
        nodes[lost].start().await?;
        let restarted = nodes[lost].handle();
        restarted.read_index().await?;
        assert_eq!(range_count(restarted), (round + 1) * 25);
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await
}

/// All members at once, the power too: what was acknowledged is on a quorum of disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_of_all_members_loses_no_acknowledged_write() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    leader(&nodes).await;
    put_all(&nodes[0], "a", 30).await?;
    for node in &mut nodes {
        node.kill().await;
    }
    for node in &mut nodes {
        node.start().await?;
    }
    nodes[2].handle().read_index().await?;
    assert_eq!(range_count(nodes[2].handle()), 30);
    agree(&nodes.iter().collect::<Vec<_>>()).await
}

/// Without a quorum nothing is acknowledged and no linearizable read is answered; what a member
/// has can still be read locally.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    put_all(&nodes[leads], "a", 3).await?;
    agree(&nodes.iter().collect::<Vec<_>>()).await?;
    for gone in (0..3).filter(|n| *n != leads) {
        nodes[gone].kill().await;
    }
    let left = nodes[leads].handle();
    let (write, read) = tokio::join!(left.propose(put("b", "v")), left.read_index());
    assert!(matches!(
        write.err(),
        Some(Unavailable::TimedOut | Unavailable::TimedOutDisconnected)
    ));
    assert_eq!(read.err(), Some(Unavailable::TimedOut));
    assert_eq!(range_count(left), 3);
    Ok(())
}

/// A disk that hangs stops its own member only, and nothing that it had taken in is lost or
/// acknowledged too early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_does_not_stop_the_others() -> anyhow::Result<()> {
    let nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    put_all(&nodes[leads], "a", 3).await?;
    nodes[leads].gate.close();
    let stuck = tokio::spawn({
        let handle = nodes[leads].handle().clone();
        async move { handle.propose(put("stuck", "v")).await }
    });
    let others: Vec<&Node> = (0..3).filter(|n| *n != leads).map(|n| &nodes[n]).collect();
    eventually(|| others.iter().any(|node| node.leads())).await;
    let next = others.iter().position(|node| node.leads());
    put_all(others[next.expect("it was awaited")], "b", 3).await?;
    nodes[leads].gate.open();
    // Whether it was lost or not is for the new leader to say.
    let _ = stuck.await?;
    eventually(|| !nodes[leads].leads()).await;
    agree(&nodes.iter().collect::<Vec<_>>()).await
}

/// One that stood still and was deposed meanwhile once renewed leases that the new leader ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_renews_no_lease() -> anyhow::Result<()> {
    let nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let old = nodes[leads].handle().clone();
    old.propose(grant(7, 500)).await?;
    nodes[leads].gate.close();
    // Something to write, for the disk to hang on.
    let stuck = tokio::spawn({
        let old = old.clone();
        async move { old.propose(put("stuck", "v")).await }
    });
    let others: Vec<&Node> = (0..3).filter(|n| *n != leads).map(|n| &nodes[n]).collect();
    eventually(|| others.iter().any(|node| node.leads())).await;
    let renewal = tokio::spawn(async move { old.lease_keep_alive(LeaseId(7)).await });
    let ended = |node: &&Node| node.handle().reader().lease(LeaseId(7)).is_none();
    eventually(|| others.iter().all(ended)).await;
    nodes[leads].gate.open();
    let renewed = renewal.await?;
    assert!(!matches!(renewed, Ok(Some(_))), "{renewed:?}");
    let _ = stuck.await?;
    Ok(())
}

/// A member that was away longer than the log reaches back gets the state instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_behind_the_log_gets_a_snapshot() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |config| {
        config.checkpoint_entries = 10;
        config.catchup_entries = 5;
    })
    .await?;
    let leads = leader(&nodes).await;
    put_all(&nodes[leads], "a", 5).await?;
    let away = (leads + 1) % 3;
    nodes[away].kill().await;
    let leads = leader(&nodes).await;
    put_all(&nodes[leads], "b", 100).await?;
    nodes[away].start().await?;
    // Held before the snapshot: adapters and watchers hold readers for long.
    let reader = nodes[away].handle().reader().clone();
    nodes[away].handle().read_index().await?;
    assert_eq!(range_count(nodes[away].handle()), 105);
    assert_eq!(reader.revision(), nodes[leads].handle().reader().revision());
    agree(&nodes.iter().collect::<Vec<_>>()).await?;
    // And what it installed is durable.
    nodes[away].kill().await;
    nodes[away].start().await?;
    nodes[away].handle().read_index().await?;
    assert_eq!(range_count(nodes[away].handle()), 105);
    agree(&nodes.iter().collect::<Vec<_>>()).await
}

/// A cluster of one, which has made its name known.
async fn alone() -> anyhow::Result<Vec<Node>> {
    let nodes = cluster(1, |_| {}).await?;
    leader(&nodes).await;
    published(&nodes[0]).await?;
    Ok(nodes)
}

async fn published(node: &Node) -> anyhow::Result<()> {
    let mut published = node.handle().published();
    published.wait_for(|published| *published).await?;
    Ok(())
}

/// kubeadm's way to grow: add as a learner, start, promote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_catches_up_and_is_promoted() -> anyhow::Result<()> {
    let mut nodes = alone().await?;
    put_all(&nodes[0], "a", 20).await?;
    let mut joining = newcomer("late", &nodes)?;
    let urls = joining.config.peer_urls.clone();
    let (added, _) = nodes[0]
        .handle()
        .member_add(new(urls.clone(), true), HEALTHY_AFTER)
        .await?;
    assert_eq!(added.number, 2);
    let (version, members) = nodes[0].handle().roster();
    assert!(version.number > nodes[0].handle().reader().revision().0);
    assert_eq!(members.len(), 2);
    let shared = [urls, vec!["http://127.0.0.1:1".to_owned()]].concat();
    let again = nodes[0]
        .handle()
        .member_add(new(shared, false), HEALTHY_AFTER)
        .await;
    assert_eq!(again, Err(MemberRefusal::PeerUrlExists.into()));
    let early = nodes[0].handle().member_promote(added.id, None).await;
    assert_eq!(early, Err(MemberRefusal::LearnerNotReady.into()));
    let second = newcomer("second", &nodes)?;
    let many = nodes[0]
        .handle()
        .member_add(new(second.config.peer_urls, true), HEALTHY_AFTER)
        .await;
    assert_eq!(many, Err(MemberRefusal::TooManyLearners.into()));

    joining.start().await?;
    assert_eq!(joining.id(), added.id);
    published(&joining).await?;
    assert!(joining.handle().status().learner);
    assert_eq!(range_count(joining.handle()), 20);
    // Asked at the learner, answered by the leader, once it knows how far the learner is.
    loop {
        match joining.handle().member_promote(added.id, None).await {
            Err(MemberError::Refused(MemberRefusal::LearnerNotReady)) => {
                tokio::task::yield_now().await;
            }
            promoted => {
                promoted?;
                break;
            }
        }
    }
    eventually(|| !joining.handle().status().learner).await;
    let again = nodes[0].handle().member_promote(added.id, None).await;
    assert_eq!(again, Err(MemberRefusal::NotLearner.into()));
    nodes.push(joining);
    put_all(&nodes[1], "b", 5).await?;
    agree(&nodes.iter().collect::<Vec<_>>()).await
}

/// The other order: started first, added then. Who else is one is not its to know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_wait_until_it_is_added() -> anyhow::Result<()> {
    let nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let mut waiting = newcomer("late", &nodes[..1])?;
    assert!(waiting.start().await.is_err(), "it is no member");
    waiting.config.await_membership = true;
    let urls = waiting.config.peer_urls.clone();
    let election = waiting.config.election;
    {
        let started = waiting.start();
        tokio::pin!(started);
        let early = tokio::time::timeout(election, &mut started).await;
        assert!(early.is_err(), "it is no member yet");
        let handle = nodes[leads].handle();
        // The others may have been connected for a moment only.
        handle.member_add(new(urls, false), Duration::ZERO).await?;
        started.await?;
    }
    published(&waiting).await?;
    put_all(&waiting, "a", 3).await?;
    let id = waiting.id();
    nodes[leads]
        .handle()
        .member_remove(id, None, Duration::ZERO)
        .await?;
    let failure = waiting.handle().failed().await;
    assert!(matches!(*failure, Failure::Removed), "{failure}");
    Ok(())
}

/// Killed while it waits it waits again, and added by URLs that are not its own it waits until they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_waits_until_it_is_added_by_its_own_urls() -> anyhow::Result<()> {
    let nodes = alone().await?;
    let mut waiting = newcomer("late", &nodes)?;
    waiting.config.await_membership = true;
    let urls = waiting.config.peer_urls.clone();
    let election = waiting.config.election;
    let early = tokio::time::timeout(election, waiting.start()).await;
    assert!(early.is_err(), "it is no member yet");
    waiting.kill().await;
    let others = vec!["http://127.0.0.1:1".to_owned()];
    let handle = nodes[0].handle();
    let (added, _) = handle.member_add(new(others, true), HEALTHY_AFTER).await?;
    {
        let started = waiting.start();
        tokio::pin!(started);
        let early = tokio::time::timeout(election, &mut started).await;
        assert!(early.is_err(), "another is meant");
        let moved = Description {
            id: added.id,
            peer_urls: Some(urls),
            ..Description::default()
        };
        handle.describe(moved).await?;
        started.await?;
    }
    assert_eq!(waiting.id(), added.id);
    published(&waiting).await?;
    agree(&[&nodes[0], &waiting]).await
}

/// A member that is removed stops and says why; its id never comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stops() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |config| config.strict_reconfig = false).await?;
    let leads = leader(&nodes).await;
    let follower = (leads + 1) % 3;
    let removed = nodes[follower].id();
    nodes[leads]
        .handle()
        .member_remove(removed, None, HEALTHY_AFTER)
        .await?;
    let failure = nodes[follower].handle().failed().await;
    assert!(matches!(*failure, Failure::Removed), "{failure}");
    let again = nodes[leads]
        .handle()
        .member_remove(removed, None, HEALTHY_AFTER)
        .await;
    assert_eq!(again, Err(MemberError::Refused(MemberRefusal::NotFound)));
    nodes[follower].kill().await;

    // The leader itself: the last one left takes over.
    let removed = nodes[leads].id();
    nodes[leads]
        .handle()
        .member_remove(removed, None, HEALTHY_AFTER)
        .await?;
    let failure = nodes[leads].handle().failed().await;
    assert!(matches!(*failure, Failure::Removed), "{failure}");
    nodes[leads].kill().await;
    let last = leader(&nodes).await;
    put_all(&nodes[last], "a", 1).await?;
    assert_eq!(nodes[last].handle().members().len(), 1);
    Ok(())
}

/// A member that was away when it was removed learns it from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_while_away_stops_when_it_comes_back() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |config| config.strict_reconfig = false).await?;
    let leads = leader(&nodes).await;
    let away = (leads + 1) % 3;
    let removed = nodes[away].id();
    nodes[away].kill().await;
    nodes[leads]
        .handle()
        .member_remove(removed, None, HEALTHY_AFTER)
        .await?;
    nodes[away].start().await?;
    let failure = nodes[away].handle().failed().await;
    assert!(matches!(*failure, Failure::Removed), "{failure}");
    Ok(())
}

/// etcd's strict-reconfig-check in its commonest case: members that did not start yet count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_cost_the_quorum_is_refused() -> anyhow::Result<()> {
    let nodes = alone().await?;
    let url = |n: u16| vec![format!("http://127.0.0.1:{n}")];
    nodes[0]
        .handle()
        .member_add(new(url(1), false), HEALTHY_AFTER)
        .await?;
    let third = nodes[0]
        .handle()
        .member_add(new(url(2), false), HEALTHY_AFTER)
        .await;
    assert_eq!(third, Err(MemberRefusal::NotEnoughStarted.into()));
    Ok(())
}

/// etcd's other check: who is to stay must have been connected for a while, and one that is down
/// may go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_member_is_down_only_that_one_may_be_removed() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let named = || {
        let members = nodes[leads].handle().members();
        members.iter().all(|member| !member.name.is_empty())
    };
    eventually(named).await;
    let (down, up) = ((leads + 1) % 3, (leads + 2) % 3);
    let (down_id, up_id) = (nodes[down].id(), nodes[up].id());
    nodes[down].kill().await;
    let handle = nodes[leads].handle();
    let added = handle.member_add(
        new(vec!["http://127.0.0.1:1".to_owned()], false),
        HEALTHY_AFTER,
    );
    assert_eq!(added.await, Err(MemberRefusal::Unhealthy.into()));
    let removed = handle.member_remove(up_id, None, HEALTHY_AFTER).await;
    assert_eq!(removed, Err(MemberRefusal::Unhealthy.into()));
    // It is down once its connection is known to be lost.
    while let Err(refused) = handle.member_remove(down_id, None, HEALTHY_AFTER).await {
        assert_eq!(refused, MemberRefusal::Unhealthy.into());
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.members().len(), 2);
    Ok(())
}

/// An orderly stop of the leader leaves no gap: another leads when it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_first() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    put_all(&nodes[leads], "a", 3).await?;
    let before = nodes[leads].id();
    let others: Vec<_> = (0..3).filter(|n| *n != leads).collect();
    nodes[leads].stop().await;
    let known: Vec<u64> = others
        .iter()
        .map(|n| nodes[*n].handle().status().leader)
        .collect();
    assert!(
        known.iter().any(|leader| *leader != before && *leader != 0),
        "{known:?}"
    );
    put_all(&nodes[others[0]], "b", 3).await
}

/// Where the others are too few to elect one of them, nobody waits for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whom_nobody_can_follow_stops_at_once() -> anyhow::Result<()> {
    let mut nodes = cluster(4, |_| {}).await?;
    let leads = leader(&nodes).await;
    for gone in (0..4).filter(|n| *n != leads).take(2) {
        nodes[gone].kill().await;
    }
    let handle = nodes[leads].handle().clone();
    let connected = || {
        let peers = handle.peer_stats();
        peers
            .values()
            .filter(|stats| stats.active.get() > 0)
            .count()
    };
    eventually(|| connected() == 1).await;
    let stopped = tokio::time::timeout(Duration::from_secs(4), nodes[leads].stop()).await;
    assert!(stopped.is_ok(), "it waits as long as for a request");
    Ok(())
}

/// MoveLeader, and who may get it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_whom_the_operator_names() -> anyhow::Result<()> {
    let nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let to = nodes[(leads + 1) % 3].id();
    let elsewhere = nodes[(leads + 1) % 3].handle().transfer_leader(to).await;
    assert_eq!(elsewhere, Err(Unavailable::NotLeader.into()));
    let stranger = nodes[leads].handle().transfer_leader(12345).await;
    assert_eq!(stranger, Err(MemberRefusal::BadTransferee.into()));
    nodes[leads].handle().transfer_leader(to).await?;
    assert_eq!(nodes[leads].handle().status().leader, to);
    put_all(&nodes[leads], "a", 3).await
}

/// Leases can be kept alive at any member, and a new leader neither ends nor forgets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_live_through_a_change_of_leader_and_then_end() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    let leads = leader(&nodes).await;
    let follower = (leads + 1) % 3;
    nodes[follower].handle().propose(grant(7, 1_500)).await?;
    nodes[follower]
        .handle()
        .propose(common::put_with_lease("k", 7))
        .await?;
    assert_eq!(
        nodes[follower]
            .handle()
            .lease_keep_alive(LeaseId(7))
            .await?,
        Some(1_500)
    );
    assert_eq!(
        nodes[follower]
            .handle()
            .lease_keep_alive(LeaseId(8))
            .await?,
        None
    );
    nodes[leads].kill().await;
    leader(&nodes).await;
    let follower = nodes[follower].handle();
    assert_eq!(follower.lease_keep_alive(LeaseId(7)).await?, Some(1_500));
    assert!(
        follower
            .lease_remaining(LeaseId(7))
            .await?
            .is_some_and(|ms| ms > 0)
    );
    eventually(|| follower.reader().lease(LeaseId(7)).is_none()).await;
    assert_eq!(range_count(follower), 0);
    assert_eq!(follower.lease_keep_alive(LeaseId(7)).await?, None);
    Ok(())
}

/// What is left of a cluster that lost its majority becomes a cluster of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_is_rebuilt_from_one_member() -> anyhow::Result<()> {
    let mut nodes = cluster(3, |_| {}).await?;
    leader(&nodes).await;
    put_all(&nodes[0], "a", 10).await?;
    agree(&nodes.iter().collect::<Vec<_>>()).await?;
    for node in &mut nodes {
        node.kill().await;
    }
    nodes[1].config.force_new_cluster = true;
    nodes[1].start().await?;
    put_all(&nodes[1], "b", 1).await?;
    assert_eq!(nodes[1].handle().members().len(), 1);
    nodes[1].kill().await;
    // Once is enough.
    nodes[1].config.force_new_cluster = false;
    nodes[1].start().await?;
    put_all(&nodes[1], "c", 1).await?;
    assert_eq!(nodes[1].handle().members().len(), 1);
    assert_eq!(range_count(nodes[1].handle()), 12);
    Ok(())
}
