//! The hub over a real keyspace, without replication.

use super::{Delivery, WatchStream, ring};
use crate::testing::{World, put, txn};
use keyspace::command::{Delete, Nodes, Op};
use keyspace::node::{Action, Deadline};
use keyspace::{Cause, Change, Command, End, NodeOp, Revision, Span};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

fn stream(world: &World) -> WatchStream {
    world.hub.stream(world.keyspace.reader())
}

fn delete(key: &str) -> Op {
    Op::Delete(Delete {
        span: Span::single(key.to_owned()),
        want_previous: false,
    })
}

fn between(start: &str, end: &str) -> Span {
    Span {
        start: start.to_owned().into(),
        end: End::Before(end.to_owned().into()),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicU64);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(stream: &mut WatchStream, bell: &Arc<Bell>) -> Option<Delivery> {
    let waker = Waker::from(bell.clone());
    match stream.poll_next(&mut Context::from_waker(&waker)) {
        Poll::Ready(delivery) => Some(delivery),
        Poll::Pending => None,
    }
}

/// Everything there is to deliver, as `tag: key@revision ..`.
fn drain(stream: &mut WatchStream) -> Vec<String> {
    let bell = Arc::new(Bell::default());
    let mut seen = Vec::new();
    loop {
        let woken = bell.0.load(Ordering::Relaxed);
        match poll(stream, &bell) {
            Some(Delivery::Changes { tag, changes, .. }) => {
                let changes: Vec<String> = changes.iter().map(show).collect();
                seen.push(format!("{tag}: {}", changes.join(" ")));
            }
            Some(Delivery::Compacted { tag, compacted }) => {
                seen.push(format!("{tag}: compacted {compacted}"));
            }
            // A stream that only gave way to others has woken itself.
            None if bell.0.load(Ordering::Relaxed) > woken => {}
            None => return seen,
        }
    }
}

fn show(change: &Change) -> String {
    let key = String::from_utf8_lossy(change.entry.key()).into_owned();
    let mark = if change.entry.is_tombstone() { "-" } else { "" };
    format!("{mark}{key}@{}", change.entry.modified())
}

#[test]
fn only_streams_that_watch_the_key_are_woken() {
    let mut world = World::new();
    let (mut exact, mut range, mut other) = (stream(&world), stream(&world), stream(&world));
    exact.add(0, Span::single("a1"), None);
    range.add(0, between("a", "b"), None);
    other.add(0, between("b", "c"), None);
    let bells: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
    for (stream, bell) in [&mut exact, &mut range, &mut other].into_iter().zip(&bells) {
        assert!(poll(stream, bell).is_none());
    }
    world.put("a1");
    world.put("a2");
    let rings: Vec<u64> = bells
        .iter()
        .map(|it| it.0.load(Ordering::Relaxed))
        .collect();
    assert_eq!(rings, [1, 1, 0], "once until the stream is polled again");
    assert_eq!(drain(&mut exact), ["0: a1@2"]);
    assert_eq!(drain(&mut range), ["0: a1@2 a2@3"]);
    assert!(drain(&mut other).is_empty());
}

#[test]
fn a_revision_is_delivered_whole_and_in_order() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(7, Span::all(), None);
    world.run(&txn(vec![put("b"), put("a"), put("c")]));
    world.run(&txn(vec![delete("a"), put("b")]));
    assert_eq!(drain(&mut stream), ["7: b@2 a@2 c@2 -a@3 b@3"]);
}

#[test]
fn the_past_is_read_from_history_and_the_present_follows_without_a_gap() {
    let mut world = World::new();
    world.put("a");
    world.put("b");
    let mut stream = stream(&world);
    assert_eq!(stream.add(1, Span::all(), Some(Revision(2))), Revision(3));
    world.put("c");
    assert_eq!(drain(&mut stream).join(" "), "1: a@2 b@3 c@4");
    world.put("d");
    assert_eq!(drain(&mut stream), ["1: d@5"]);
}

#[test]
fn a_start_in_the_future_holds_everything_earlier_back() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(1, Span::all(), Some(Revision(4)));
    world.put("a");
    world.put("b");
    assert!(drain(&mut stream).is_empty());
    assert_eq!(stream.progress(), None, "it has not begun");
    world.put("c");
    assert_eq!(drain(&mut stream), ["1: c@4"]);
    assert_eq!(stream.progress(), Some(Revision(4)));
}

#[test]
fn a_watcher_that_misses_the_ring_catches_up_from_history() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(1, Span::single("wanted"), None);
    let mut wanted = Vec::new();
    for n in 0..5 * ring::CHANGES_MAX {
        if n % 7 == 0 {
            wanted.push(format!("wanted@{}", world.put("wanted")));
        } else {
            world.put("other");
        }
    }
    assert_eq!(
        drain(&mut stream).join(" "),
        format!("1: {}", wanted.join(" "))
    );
    assert_eq!(stream.progress(), Some(world.keyspace.reader().revision()));
}

#[test]
fn a_watcher_below_the_compaction_is_over() {
    let mut world = World::new();
    for _ in 0..4 {
        world.put("a");
    }
    let mut stream = stream(&world);
    stream.add(1, Span::all(), Some(Revision(2)));
    stream.add(2, Span::all(), Some(Revision(4)));
    world.run(&Command::Compact(Revision(4)));
    assert_eq!(drain(&mut stream), ["1: compacted 4", "2: a@4 a@5"]);
    assert!(!stream.contains(1));
    assert!(stream.contains(2));
    assert_eq!(world.hub.figures().watchers, 1);
}

#[test]
fn progress_never_overtakes_events() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(1, Span::single("a"), None);
    stream.add(2, Span::single("b"), None);
    assert_eq!(stream.progress(), Some(Revision(1)));
    world.put("a");
    assert_eq!(stream.progress(), None);
    assert_eq!(stream.progress_of(1), None);
    assert_eq!(stream.progress_of(2), Some(Revision(2)));
    drain(&mut stream);
    assert_eq!(stream.progress(), Some(Revision(2)));

    let command = txn(vec![put("a")]);
    let applied = world.apply(&command);
    assert_eq!(stream.progress(), Some(Revision(2)));
    world.sink.publish(&command, &applied);
    assert_eq!(stream.progress(), None);
}

#[test]
fn what_readers_see_before_it_is_published_is_no_news_to_a_new_watcher() {
    let mut world = World::new();
    let command = txn(vec![put("a")]);
    let applied = world.apply(&command);
    let mut stream = stream(&world);
    assert_eq!(stream.add(1, Span::all(), None), applied.revision);
    world.sink.publish(&command, &applied);
    assert!(drain(&mut stream).is_empty());
    world.put("a");
    assert_eq!(drain(&mut stream), ["1: a@3"]);
}

/// As when a follower installs a snapshot.
#[test]
fn revisions_that_never_came_by_are_looked_up() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(1, Span::single("a"), None);
    world.put("a");
    world.apply(&txn(vec![put("a")]));
    let applied = world.apply(&txn(vec![put("b")]));
    world.sink.restored(applied.revision);
    world.put("a");
    assert_eq!(drain(&mut stream).join(" "), "1: a@2 a@3 a@5");
    let applied = world.apply(&txn(vec![put("a")]));
    world.sink.restored(applied.revision);
    assert_eq!(drain(&mut stream), ["1: a@6"]);
    assert_eq!(stream.progress(), Some(Revision(6)));
}

/// As by the making of a directory.
#[test]
fn revisions_that_change_no_key_are_progress() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(1, Span::single("a"), None);
    let make = NodeOp {
        path: "/d".into(),
        tests: Vec::new(),
        action: Action::MakeDirectory {
            deadline: Deadline::Clear,
            sequence: None,
        },
        cause: Cause::Create,
    };
    let nodes = Nodes {
        ops: vec![make],
        ..Nodes::default()
    };
    assert_eq!(world.run(&Command::Nodes(nodes)), Revision(2));
    assert_eq!(stream.progress(), Some(Revision(2)));
    world.put("a");
    assert_eq!(drain(&mut stream), ["1: a@3"]);
}

#[test]
fn a_stream_that_is_dropped_leaves_nothing_behind() {
    let mut world = World::new();
    let mut stream = stream(&world);
    stream.add(1, Span::single("a"), None);
    stream.add(2, Span::all(), None);
    world.put("a");
    assert!(stream.remove(1));
    assert!(!stream.remove(1));
    assert_eq!(drain(&mut stream), ["2: a@2"]);
    drop(stream);
    assert_eq!(world.hub.figures(), super::Figures::default());
    let mut left = 0;
    world.hub.shared.index.read().each(|_| left += 1);
    assert_eq!(left, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, bool)>),
    Watch {
        from: u8,
        to: Option<u8>,
        start: Option<u8>,
    },
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..8u8, any::<bool>());
    prop_oneof![
        6 => prop::collection::btree_map(0..8u8, any::<bool>(), 1..4)
            .prop_map(|writes| Step::Write(writes.into_iter().collect())),
        1 => (write, prop::option::of(1..9u8), prop::option::of(0..60u8)).prop_map(
            |((from, _), to, start)| Step::Watch { from, to, start }
        ),
        2 => any::<usize>().prop_map(Step::Read),
    ]
}

fn key(n: u8) -> String {
    format!("k{n}")
}

proptest! {
    /// Whatever is written, watched and read in whatever order: every watcher sees exactly its
    /// changes, in order, and no revision in two deliveries.
    #[test]
    fn every_watcher_sees_exactly_its_changes(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        let mut all: Vec<Change> = Vec::new();
        let mut streams: Vec<(WatchStream, Span, u64, Vec<Vec<Change>>)> = Vec::new();
        let bell = Arc::new(Bell::default());
        for step in steps {
            match step {
                Step::Write(writes) => {
                    let ops = writes.iter().map(|&(n, put_it)| {
                        if put_it { put(&key(n)) } else { delete(&key(n)) }
                    });
                    let command = txn(ops.collect());
                    let applied = world.apply(&command);
                    world.sink.publish(&command, &applied);
                    all.extend(applied.changes);
                }
                Step::Watch { from, to, start } => {
                    let end = to.map_or(End::Single, |to| match to {
                        8 => End::Unbounded,
                        to => End::Before(key(to).into()),
                    });
                    let span = Span { start: key(from).into(), end };
                    let mut stream = stream(&world);
                    let asked = start.map(|start| Revision(start.into()));
                    let now = stream.add(0, span.clone(), asked);
                    let start = asked.map_or(now.0 + 1, |it| it.0);
                    streams.push((stream, span, start, Vec::new()));
                }
                Step::Read(nth) if !streams.is_empty() => {
                    let nth = nth % streams.len();
                    let (stream, _, _, seen) = &mut streams[nth];
                    if let Some(Delivery::Changes { changes, .. }) = poll(stream, &bell) {
                        seen.push(changes);
                    }
                }
                Step::Read(_) => {}
            }
        }
        for (mut stream, span, start, mut seen) in streams {
            loop {
                let woken = bell.0.load(Ordering::Relaxed);
                match poll(&mut stream, &bell) {
                    Some(Delivery::Changes { changes, .. }) => seen.push(changes),
                    Some(Delivery::Compacted { .. }) => prop_assert!(false, "nothing is compacted"),
                    None if bell.0.load(Ordering::Relaxed) > woken => {}
                    None => break,
                }
            }
            let ends = seen.iter().map(|batch| batch.last().map(|it| it.entry.modified()));
            let starts = seen.iter().skip(1).map(|batch| batch.first().map(|it| it.entry.modified()));
            for (end, start) in ends.zip(starts) {
                prop_assert!(end < start, "a revision is split");
            }
            let seen: Vec<String> = seen.iter().flatten().map(show).collect();
            let expected: Vec<String> = all
                .iter()
                .filter(|it| it.entry.modified().0 >= start && span.contains(it.entry.key()))
                .map(show)
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
