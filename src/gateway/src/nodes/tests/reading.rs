//! Reading and watching beside the one that publishes.

use super::{drain, is_ready};
use crate::nodes::{Mode, NodeWatcher, Once, Which};
use crate::testing::{World, put, txn};
use keyspace::{Change, Revision};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Readers may be one command ahead of what is published.
#[test]
fn what_was_read_is_no_news() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    let command = txn(vec![put("/a")]);
    let applied = world.apply(&command);
    let (revision, node) = watcher.node(b"/a", Once::Data, |_| true);
    assert!(node.is_some());
    assert_eq!(revision, applied.revision);
    assert_eq!(watcher.add(b"/", Mode::Recursive), applied.revision);
    world.sink.publish(&command, &applied);
    assert!(drain(&watcher).is_empty());
    world.put("/a");
    assert_eq!(drain(&watcher), ["Changed /a@3"]);
}

/// A client that reads again has two watchers: the first is told of what the second reply shows,
/// and the second goes on waiting.
#[test]
fn reading_again_takes_no_event_away() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    watcher.node(b"/a", Once::Data, |_| true);
    let command = txn(vec![put("/a")]);
    let applied = world.apply(&command);
    watcher.node(b"/a", Once::Data, |_| true);
    world.sink.publish(&command, &applied);
    assert_eq!(drain(&watcher), ["Created /a@2"]);
    world.put("/a");
    assert_eq!(drain(&watcher), ["Changed /a@3"]);
    world.put("/a");
    assert!(drain(&watcher).is_empty());
    assert!(!watcher.has(b"/a", Which::Any));
}

#[tokio::test]
async fn settled_means_that_the_events_are_there() {
    let mut world = World::with_session();
    let watcher = Arc::new(world.watcher());
    watcher.add(b"/a", Mode::Persistent);
    let command = txn(vec![put("/a")]);
    let applied = world.apply(&command);
    assert!(!is_ready(watcher.settled(applied.revision)));
    let waiting = tokio::spawn({
        let watcher = Arc::clone(&watcher);
        async move {
            watcher.settled(Revision(2)).await;
            drain(&watcher)
        }
    });
    tokio::task::yield_now().await;
    world.sink.publish(&command, &applied);
    let events = waiting.await.expect("it ends");
    assert_eq!(events, ["Created /a@2"]);
    watcher.settled(applied.revision).await;
}

/// Readers in other threads read and watch beside the one that publishes. Whoever read a node at
/// some revision is told of its next change after that revision, and of no other.
#[test]
fn nothing_is_lost_or_doubled_between_reading_and_watching() {
    const WRITES: u64 = 20_000;
    let mut world = World::with_session();
    let reader = world.keyspace.reader();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (watcher, over) = (world.watcher(), &over);
                scope.spawn(move || read_and_watch(&watcher, over))
            })
            .collect();
        for n in 0..WRITES {
            let (command, path) = (n % 3, ["/a", "/b"][(n % 2) as usize]);
            match command {
                0 => world.delete(path),
                _ => world.put(path),
            };
        }
        over.store(true, Ordering::Release);
        let changes = reader.history(Revision(1), usize::MAX).expect("it is kept");
        for reader in readers {
            let seen = reader.join().expect("it ends");
            assert!(!seen.is_empty());
            for (since, told) in seen {
                let next = |change: &&Change| {
                    change.entry.key() == b"/a" && change.entry.modified() > since
                };
                let next = changes
                    .iter()
                    .find(next)
                    .map(|change| change.entry.modified());
                assert_eq!(told, next, "since {since}");
            }
        }
    });
}

/// Reads and watches one node again and again: at which revisions, and when it was told.
fn read_and_watch(watcher: &NodeWatcher, over: &AtomicBool) -> Vec<(Revision, Option<Revision>)> {
    let mut seen = Vec::new();
    loop {
        let last = over.load(Ordering::Acquire);
        let (since, _) = watcher.node(b"/a", Once::Data, |_| true);
        let told = loop {
            let done = last || over.load(Ordering::Acquire);
            let events = watcher.take_events(None);
            assert!(events.len() < 2, "{events:?}");
            match events.first() {
                Some(event) => break Some(event.revision),
                None if done => break None,
                None => std::thread::yield_now(),
            }
        };
        seen.push((since, told));
        if told.is_none() {
            return seen;
        }
    }
}
