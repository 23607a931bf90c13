//! Does with Rust's zookeeper-client what services do: configuration, discovery, a lock, an
//! election.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, Error, EventType, LockOptions, LockPrefix,
    MultiReadResult, MultiWriteError,
};

const DEADLINE: Duration = Duration::from_secs(30);
const CONTENDERS: u32 = 4;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let (mut passed, mut failed) = (0, 0);
    macro_rules! job {
        ($job:ident) => {
            match tokio::time::timeout(DEADLINE, async { $job(connect().await?).await }).await {
                Ok(Ok(())) => passed += 1,
                Ok(Err(error)) => {
                    println!("FAIL {}: {error:#}", stringify!($job));
                    failed += 1;
                }
                Err(_) => {
                    println!("FAIL {}: no end in time", stringify!($job));
                    failed += 1;
                }
            }
        };
    }
    job!(configuration);
    job!(transaction);
    job!(discovery);
    job!(access);
    job!(subtree);
    job!(lock);
    job!(election);
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn connect() -> Result<Client> {
    Ok(Client::connect(&std::env::var("ZOOKEEPER")?).await?)
}

async fn directory(client: &Client, path: &str) -> Result<()> {
    client
        .mkdir(path, &CreateMode::Persistent.with_acls(Acls::anyone_all()))
        .await?;
    Ok(())
}

async fn configuration(client: Client) -> Result<()> {
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    directory(&client, "/rust/config").await?;
    let (created, _) = client.create("/rust/config/level", b"info", &open).await?;
    let (data, read, watcher) = client.get_and_watch_data("/rust/config/level").await?;
    ensure!(data == b"info" && read == created, "read {data:?} {read:?}");
    let stat = client
        .set_data("/rust/config/level", b"warn", Some(read.version))
        .await?;
    let event = watcher.changed().await;
    ensure!(
        event.event_type == EventType::NodeDataChanged,
        "saw {event:?}"
    );
    let stale = client
        .set_data("/rust/config/level", b"error", Some(read.version))
        .await;
    ensure!(
        stale == Err(Error::BadVersion),
        "a stale write answered {stale:?}"
    );
    let (_, gone) = client.check_and_watch_stat("/rust/config/level").await?;
    client
        .delete("/rust/config/level", Some(stat.version))
        .await?;
    let event = gone.changed().await;
    ensure!(event.event_type == EventType::NodeDeleted, "saw {event:?}");
    Ok(())
}

async fn transaction(client: Client) -> Result<()> {
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    directory(&client, "/rust/counter").await?;
    let mut swap = client.new_multi_writer();
    swap.add_check_version("/rust/counter", 0)?;
    swap.add_set_data("/rust/counter", b"2", None)?;
    swap.add_create("/rust/counter/log", b"0 -> 2", &open)?;
    let written = swap.commit().await?;
    ensure!(written.len() == 3, "answered {written:?}");
    let mut stale = client.new_multi_writer();
    stale.add_delete("/rust/counter/log", None)?;
    stale.add_check_version("/rust/counter", 0)?;
    let refused = stale.commit().await;
    let second = MultiWriteError::OperationFailed {
        index: 1,
        source: Error::BadVersion,
    };
    ensure!(refused.as_ref() == Err(&second), "answered {refused:?}");
    let mut read = client.new_multi_reader();
    read.add_get_data("/rust/counter")?;
    read.add_get_children("/rust/counter")?;
    read.add_get_data("/rust/nowhere")?;
    let [
        MultiReadResult::Data { data, .. },
        MultiReadResult::Children { children },
        MultiReadResult::Error { err: Error::NoNode },
    ] = &read.commit().await?[..]
    else {
        anyhow::bail!("another answer to a read of three");
    };
    ensure!(
        data == b"2" && children == &["log"],
        "read {data:?} {children:?}"
    );
    Ok(())
}

async fn discovery(client: Client) -> Result<()> {
    directory(&client, "/rust/services").await?;
    let (_, _, found) = client.get_and_watch_children("/rust/services").await?;
    let service = connect().await?;
    let session = service.session_id();
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    service
        .create("/rust/services/web", b"10.0.0.1:80", &ephemeral)
        .await?;
    ensure!(service.list_ephemerals("/rust").await? == ["/rust/services/web"]);
    let event = found.changed().await;
    ensure!(
        event.event_type == EventType::NodeChildrenChanged,
        "saw {event:?}"
    );
    let (address, stat, lost) = client.get_and_watch_data("/rust/services/web").await?;
    ensure!(
        address == b"10.0.0.1:80" && stat.ephemeral_owner == session.0,
        "read {stat:?}"
    );
    drop(service);
    let event = lost.changed().await;
    ensure!(event.event_type == EventType::NodeDeleted, "saw {event:?}");
    Ok(())
}

async fn access(client: Client) -> Result<()> {
    client.auth("digest", b"owner:secret").await?;
    let own = CreateMode::Persistent.with_acls(Acls::creator_all());
    directory(&client, "/rust").await?;
    client.create("/rust/secret", b"x", &own).await?;
    let stranger = connect().await?;
    stranger.sync("/rust/secret").await?;
    let read = stranger.get_data("/rust/secret").await;
    ensure!(read == Err(Error::NoAuth), "a stranger reads {read:?}");
    stranger.auth("digest", b"owner:secret").await?;
    ensure!(stranger.get_data("/rust/secret").await?.0 == b"x");
    let users = stranger.list_auth_users().await?;
    ensure!(
        users.iter().any(|user| user.user() == "owner"),
        "is {users:?}"
    );
    Ok(())
}

/// What caches do: one recursive watch instead of one for each node.
async fn subtree(client: Client) -> Result<()> {
    directory(&client, "/rust/tree").await?;
    let mut changes = client
        .watch("/rust/tree", AddWatchMode::PersistentRecursive)
        .await?;
    directory(&client, "/rust/tree/a/b").await?;
    client.set_data("/rust/tree/a/b", b"1", None).await?;
    client.delete("/rust/tree/a/b", None).await?;
    for expected in [
        (EventType::NodeCreated, "/rust/tree/a"),
        (EventType::NodeCreated, "/rust/tree/a/b"),
        (EventType::NodeDataChanged, "/rust/tree/a/b"),
        (EventType::NodeDeleted, "/rust/tree/a/b"),
    ] {
        let event = changes.changed().await;
        ensure!(
            (event.event_type, event.path.as_str()) == expected,
            "saw {event:?}"
        );
    }
    ensure!(client.count_descendants_number("/rust/tree").await? == 1);
    Ok(())
}

async fn lock(client: Client) -> Result<()> {
    directory(&client, "/rust/lock").await?;
    let (inside, entries) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let contenders = (0..CONTENDERS)
        .map(|_| tokio::spawn(contend(inside.clone(), entries.clone())))
        .collect::<Vec<_>>();
    for contender in contenders {
        contender.await??;
    }
    ensure!(entries.load(Ordering::SeqCst) == CONTENDERS);
    Ok(())
}

async fn contend(inside: Arc<AtomicU32>, entries: Arc<AtomicU32>) -> Result<()> {
    let client = connect().await?;
    let prefix = LockPrefix::new_curator("/rust/lock", "lock-")?;
    let lock = client
        .lock(prefix, b"", LockOptions::new(Acls::anyone_all()))
        .await?;
    ensure!(
        inside.fetch_add(1, Ordering::SeqCst) == 0,
        "two in the lock"
    );
    client.sync("/rust/lock").await?;
    inside.fetch_sub(1, Ordering::SeqCst);
    entries.fetch_add(1, Ordering::SeqCst);
    drop(lock);
    Ok(())
}

async fn election(client: Client) -> Result<()> {
    directory(&client, "/rust/election").await?;
    let other = connect().await?;
    let latch = || LockPrefix::new_curator("/rust/election", "latch-");
    let open = || LockOptions::new(Acls::anyone_all());
    let leader = client.lock(latch()?, b"one", open()).await?;
    let (_, resigned) = other.check_and_watch_stat(leader.lock_path()).await?;
    let second = other.lock(latch()?, b"two", open());
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
    ensure!(early.is_err(), "two leaders");
    drop(leader);
    let event = resigned.changed().await;
    ensure!(event.event_type == EventType::NodeDeleted, "saw {event:?}");
    let leader = second.await?;
    let (data, _) = other
        .get_data(leader.lock_path())
        .await
        .context("of the new leader")?;
    ensure!(data == b"two", "led by {data:?}");
    Ok(())
}
