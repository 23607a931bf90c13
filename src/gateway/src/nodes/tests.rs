//! The hub over a real keyspace, without replication.

use super::watcher::EVENTS_MAX;
use super::{Gone, Mode, NodeEvent, NodeFigures, NodeWatcher, Once, What, Which};
use crate::testing::{World, put, txn};
use keyspace::command::{Attach, Delete, Expired, Grant, Nodes, Op, Put, Session};
use keyspace::node::{Action, NodeWrite};
use keyspace::{
    AccessEntry, AccessList, Cause, Change, Command, Identity, LeaseId, NodeOp, Permissions,
    Revision, Span,
};
use proptest::prelude::*;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

const SESSION: LeaseId = LeaseId(7);

impl World {
    /// One where a session is held through connection 1.
    fn with_session() -> World {
        let mut world = World::new();
        world.grant(SESSION);
        world
    }

    fn grant(&mut self, lease: LeaseId) {
        let session = Some(Session {
            password: "secret".into(),
            attachment: 1,
        });
        self.run(&Command::Grant(Grant {
            lease,
            ttl_ms: 1_000,
            session,
        }));
    }

    fn attach(&mut self, attachment: u64) {
        self.run(&Command::Attach(Attach {
            lease: SESSION,
            password: "secret".into(),
            attachment,
            ttl_ms: 1_000,
        }));
    }

    fn watcher(&self) -> NodeWatcher {
        self.watcher_of(SESSION, 1)
    }

    fn watcher_of(&self, session: LeaseId, attachment: u64) -> NodeWatcher {
        let nodes = self.hub.nodes();
        nodes.watcher(self.keyspace.reader(), session, attachment)
    }

    fn delete(&mut self, key: &str) -> Revision {
        self.run(&txn(vec![delete(key)]))
    }
}

fn delete(key: &str) -> Op {
    Op::Delete(Delete {
        span: Span::single(key.to_owned()),
        want_previous: false,
    })
}

fn nodes(ops: Vec<NodeOp>) -> Command {
    Command::Nodes(Nodes {
        ops,
        ..Nodes::default()
    })
}

fn op(path: &str, action: Action) -> NodeOp {
    NodeOp {
        path: path.to_owned().into(),
        tests: Vec::new(),
        action,
        cause: Cause::Set,
    }
}

fn write(path: &str, acl: Option<AccessList>) -> NodeOp {
    let write = NodeWrite {
        acl,
        ..NodeWrite::new("v")
    };
    op(path, Action::Write(write))
}

fn remove(path: &str) -> NodeOp {
    op(path, Action::Remove { recursive: false })
}

fn show(event: &NodeEvent) -> String {
    let path = event.path.escape_ascii();
    format!("{:?} {path}@{}", event.what, event.revision)
}

/// These sessions end, if they are held so.
fn expire(sessions: &[(i64, u64)]) -> Command {
    let expired = sessions.iter().map(|(lease, attachment)| Expired {
        lease: LeaseId(*lease),
        attachment: Some(*attachment),
    });
    Command::Expire(expired.collect())
}

fn is_ready(future: impl Future) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut cx).is_ready()
}

/// Everything that waits, as `What path@revision`.
fn drain(watcher: &NodeWatcher) -> Vec<String> {
    let events = watcher.take_events(None);
    events.iter().map(|event| show(event)).collect()
}

#[test]
fn watchers_are_told_once() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    // As exists does: it may wait for a node to come.
    assert!(watcher.node(b"/a", Once::Data, |_| true).1.is_none());
    watcher.children(b"/", |_| true);
    world.put("/a");
    assert_eq!(drain(&watcher), ["Created /a@2", "ChildrenChanged /@2"]);
    world.put("/a");
    assert!(drain(&watcher).is_empty());

    let (revision, node) = watcher.node(b"/a", Once::Data, |_| true);
    assert_eq!(revision, Revision(3));
    assert_eq!(node.expect("it is there").modified, Revision(3));
    world.put("/b");
    world.put("/a");
    world.put("/a");
    assert_eq!(drain(&watcher), ["Changed /a@5"]);
}

#[test]
fn one_end_is_one_event_for_one_connection() {
    let mut world = World::with_session();
    world.put("/a");
    let (one, two) = (world.watcher(), world.watcher());
    one.node(b"/a", Once::Data, |_| true);
    one.node(b"/a", Once::Children, |_| true);
    one.add(b"/", Mode::Recursive);
    two.children(b"/a", |_| true);
    two.children(b"/", |_| true);
    world.delete("/a");
    assert_eq!(drain(&one), ["Deleted /a@3"]);
    assert_eq!(drain(&two), ["Deleted /a@3", "ChildrenChanged /@3"]);
    let figures = world.hub.nodes().figures();
    assert_eq!((figures.watches, figures.paths), (1, 1));
}

/// As in ZooKeeper, a recursive watcher gets the path of what changed and never hears of children.
#[test]
fn lasting_watchers_stay() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    world.put("/a");
    assert_eq!(watcher.add(b"/a", Mode::Persistent), Revision(2));
    watcher.add(b"/r", Mode::Recursive);
    world.put("/a");
    world.put("/a/b");
    world.put("/a/b");
    world.put("/r/x/y");
    world.delete("/r/x/y");
    let expected = [
        "Changed /a@3",
        "ChildrenChanged /a@4",
        "Created /r@6",
        "Created /r/x@6",
        "Created /r/x/y@6",
        "Deleted /r/x/y@7",
        "Deleted /r/x@7",
        "Deleted /r@7",
    ];
    assert_eq!(drain(&watcher), expected);
}

/// Each step of a command is told, where keys' watchers see what it came to.
#[test]
fn every_step_is_told() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    watcher.add(b"/a", Mode::Persistent);
    let steps = vec![write("/a", None), write("/a", None), remove("/a")];
    world.run(&nodes(steps));
    assert_eq!(
        drain(&watcher),
        ["Created /a@2", "Changed /a@2", "Deleted /a@2"]
    );
}

#[test]
fn what_was_read_decides_whether_to_watch() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    watcher.node(b"/a", Once::Data, |node| node.is_some());
    watcher.children(b"/a", |node| node.is_some());
    assert!(!watcher.has(b"/a", Which::Any));
    world.put("/a");
    assert!(drain(&watcher).is_empty());
    assert_eq!(world.hub.nodes().figures().watches, 0);
}

#[test]
fn children_are_listed_as_of_the_revision_that_is_watched_from() {
    let mut world = World::with_session();
    world.put("/a/x");
    world.put("/a/y");
    let watcher = world.watcher();
    let (revision, found) = watcher.children(b"/a", |_| true);
    let (node, names) = found.expect("it is there");
    assert_eq!((revision, node.children), (Revision(3), 2));
    assert_eq!(names, ["x", "y"]);
    world.put("/a/x");
    world.put("/a/z");
    assert_eq!(drain(&watcher), ["ChildrenChanged /a@5"]);
}

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

#[test]
fn events_are_taken_up_to_a_revision() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    watcher.add(b"/a", Mode::Persistent);
    for _ in 0..3 {
        world.put("/a");
    }
    let taken = |through| watcher.take_events(through).len();
    assert_eq!(taken(Some(Revision(1))), 0);
    assert_eq!(taken(Some(Revision(3))), 2);
    assert_eq!(taken(None), 1);
}

#[test]
fn events_say_who_may_know_of_them() {
    let mut world = World::with_session();
    let list = |id| -> AccessList {
        let entry = AccessEntry {
            permissions: Permissions::READ,
            who: Identity::new("digest", id),
        };
        [entry].into()
    };
    let watcher = world.watcher();
    watcher.add(b"/a", Mode::Persistent);
    watcher.add(b"/a/b", Mode::Persistent);
    world.run(&nodes(vec![write("/a", Some(list("ann")))]));
    world.run(&nodes(vec![write("/a/b", Some(list("bob")))]));
    world.delete("/a/b");
    let events = watcher.take_events(None);
    let told = events.iter().map(|event| {
        let acl = event.acl.as_ref().expect("all are restricted");
        (event.what, &*acl[0].who.id)
    });
    let expected = [
        (What::Created, "ann"),
        (What::Created, "bob"),
        (What::ChildrenChanged, "ann"),
        (What::Deleted, "bob"),
        (What::ChildrenChanged, "ann"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn watchers_are_removed_by_their_kind() {
    let world = World::with_session();
    let watcher = world.watcher();
    let all = [
        Which::Children,
        Which::Data,
        Which::Any,
        Which::Persistent,
        Which::Recursive,
    ];
    let held = || all.map(|which| watcher.has(b"/a", which));
    assert_eq!(held(), [false; 5]);
    watcher.node(b"/a", Once::Data, |_| true);
    assert_eq!(held(), [false, true, true, false, false]);
    assert!(!watcher.remove(b"/a", Which::Children));
    assert!(watcher.remove(b"/a", Which::Data));
    assert!(!watcher.remove(b"/a", Which::Data));
    watcher.add(b"/a", Mode::Persistent);
    assert_eq!(held(), [false, false, true, true, false]);
    assert!(!watcher.remove(b"/a", Which::Data));
    watcher.node(b"/a", Once::Children, |_| true);
    assert!(watcher.remove(b"/a", Which::Persistent));
    assert_eq!(held(), [true, false, true, false, false]);
    watcher.add(b"/a", Mode::Recursive);
    assert_eq!(held(), [true, false, true, false, true]);
    assert_eq!(world.hub.nodes().figures().watches, 2);
    assert!(watcher.remove(b"/a", Which::Recursive));
    assert!(watcher.remove(b"/a", Which::Any));
    assert_eq!(held(), [false; 5]);
    assert_eq!(world.hub.nodes().figures().paths, 0);
}

#[test]
fn who_takes_nothing_has_to_go() {
    let mut world = World::with_session();
    let (slow, other) = (world.watcher(), world.watcher());
    slow.add(b"/a", Mode::Persistent);
    other.node(b"/a", Once::Data, |_| true);
    for _ in 0..EVENTS_MAX {
        world.put("/a");
    }
    assert_eq!(slow.gone(), None);
    world.put("/a");
    assert_eq!(slow.gone(), Some(Gone::Overflown));
    world.put("/a");
    assert!(drain(&slow).is_empty());
    assert_eq!((drain(&other).len(), other.gone()), (1, None));
}

#[test]
fn connections_learn_what_became_of_their_session() {
    let mut world = World::with_session();
    world.grant(LeaseId(8));
    let (first, other) = (world.watcher(), world.watcher_of(LeaseId(8), 1));
    world.attach(2);
    let second = world.watcher_of(SESSION, 2);
    assert_eq!(first.gone(), Some(Gone::Moved));
    // One that comes late learns it as well.
    assert_eq!(world.watcher().gone(), Some(Gone::Moved));
    assert_eq!((second.gone(), other.gone()), (None, None));
    assert!(!is_ready(second.ready()));
    // Its time was over before it went on; then really.
    world.run(&expire(&[(SESSION.0, 1)]));
    assert_eq!(second.gone(), None);
    world.run(&expire(&[(SESSION.0, 2)]));
    assert_eq!((second.gone(), other.gone()), (Some(Gone::Ended), None));
    assert!(is_ready(second.ready()));
    assert_eq!(world.watcher_of(SESSION, 2).gone(), Some(Gone::Ended));
    world.run(&Command::Revoke(LeaseId(8)));
    assert_eq!(other.gone(), Some(Gone::Ended));
}

/// Sessions that end together end at revisions of their own.
#[test]
fn each_step_has_its_own_revision() {
    let mut world = World::with_session();
    world.grant(LeaseId(8));
    world.grant(LeaseId(9));
    let bound = |key: &str, lease| {
        Op::Put(Put {
            lease: Some(LeaseId(lease)),
            ..Put::new(key.to_owned(), "v")
        })
    };
    world.run(&txn(vec![bound("/a", 8), bound("/b", 9)]));
    let watcher = world.watcher();
    watcher.node(b"/a", Once::Data, |_| true);
    watcher.node(b"/b", Once::Data, |_| true);
    world.run(&expire(&[(8, 1), (9, 1)]));
    assert_eq!(drain(&watcher), ["Deleted /a@3", "Deleted /b@4"]);
}

#[test]
fn a_snapshot_dismisses_everyone() {
    let mut world = World::with_session();
    let watcher = world.watcher();
    let applied = world.apply(&txn(vec![put("/a")]));
    world.sink.restored(applied.revision);
    assert_eq!(watcher.gone(), Some(Gone::Replaced));
    assert_eq!(world.watcher().gone(), None);
    assert_eq!(world.hub.nodes().published(), Revision(2));
}

#[test]
fn who_leaves_leaves_nothing_behind() {
    let mut world = World::with_session();
    let (one, two) = (world.watcher(), world.watcher());
    for watcher in [&one, &two] {
        watcher.node(b"/a", Once::Data, |_| true);
        watcher.children(b"/", |_| true);
        watcher.add(b"/a", Mode::Persistent);
        watcher.add(b"/b", Mode::Recursive);
    }
    drop(one);
    world.put("/a");
    assert_eq!(drain(&two), ["Created /a@2", "ChildrenChanged /@2"]);
    drop(two);
    assert_eq!(world.hub.nodes().figures(), NodeFigures::default());
    world.put("/a");
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

/// One of the model's steps.
#[derive(Clone, Debug)]
enum Step {
    /// Puts or deletes these.
    Write(Vec<(usize, bool)>),
    /// Publishes what was written, if it was not.
    Publish,
    /// Reads and watches.
    Watch(usize, usize, Once),
    Add(usize, usize, Mode),
    Remove(usize, usize, Which),
    Take(usize),
}

const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"];

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let once = prop::sample::select(vec![Once::Data, Once::Children]);
    let mode = prop::sample::select(vec![Mode::Persistent, Mode::Recursive]);
    let which = prop::sample::select(vec![
        Which::Any,
        Which::Children,
        Which::Data,
        Which::Persistent,
        Which::Recursive,
    ]);
    prop_oneof![
        5 => prop::collection::btree_map(path(), any::<bool>(), 1..3)
            .prop_map(|writes| Step::Write(writes.into_iter().collect())),
        4 => Just(Step::Publish),
        6 => (0..2usize, path(), once).prop_map(|(who, path, once)| Step::Watch(who, path, once)),
        2 => (0..2usize, path(), mode).prop_map(|(who, path, mode)| Step::Add(who, path, mode)),
        1 => (0..2usize, path(), which).prop_map(|(who, path, which)| Step::Remove(who, path, which)),
        3 => (0..2usize).prop_map(Step::Take),
    ]
}

/// A watcher of the model, which keeps them all in one list.
struct Plain {
    path: usize,
    kind: PlainKind,
    since: Revision,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PlainKind {
    Once(Once),
    Lasting(Mode),
}

impl Plain {
    fn wants(&self, what: What, path: &str) -> bool {
        let own = PATHS[self.path];
        let beneath = own == "/"
            || path
                .strip_prefix(own)
                .is_some_and(|rest| rest.starts_with('/'));
        match self.kind {
            PlainKind::Once(Once::Data) => own == path && what != What::ChildrenChanged,
            PlainKind::Once(Once::Children) => {
                own == path && matches!(what, What::ChildrenChanged | What::Deleted)
            }
            PlainKind::Lasting(Mode::Persistent) => own == path,
            PlainKind::Lasting(Mode::Recursive) => {
                (own == path || beneath) && what != What::ChildrenChanged
            }
        }
    }
}

/// What a command's steps mean to one connection of the model.
fn tell(list: &mut Vec<Plain>, steps: &[keyspace::node::Step], events: &mut Vec<String>) {
    use keyspace::node::Happening;
    for step in steps {
        let path = String::from_utf8(step.name.as_bytes().to_vec()).expect("paths are text");
        let what = match step.what {
            Happening::Created => What::Created,
            Happening::Written | Happening::Emptied => What::Changed,
            Happening::Deleted => What::Deleted,
        };
        let mut news = vec![(what, path.clone())];
        if what != What::Changed
            && let Some((above, _)) = path.rsplit_once('/').filter(|_| path != "/")
        {
            let above = if above.is_empty() { "/" } else { above };
            news.push((What::ChildrenChanged, above.to_owned()));
        }
        for (what, path) in news {
            let mut told = false;
            list.retain(|watcher| {
                let fires = step.revision > watcher.since && watcher.wants(what, &path);
                told |= fires;
                !fires || matches!(watcher.kind, PlainKind::Lasting(_))
            });
            if told {
                events.push(format!("{what:?} {path}@{}", step.revision));
            }
        }
    }
}

proptest! {
    /// Whatever is written, published, watched and taken in whatever order: every connection is told
    /// exactly what a plain list of its watchers says.
    #[test]
    fn the_table_tells_what_a_list_tells(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::with_session();
        let watchers = [world.watcher(), world.watcher()];
        let mut lists = [Vec::<Plain>::new(), Vec::new()];
        let mut expected = [Vec::<String>::new(), Vec::new()];
        let mut unpublished = None;
        for step in steps {
            let is_write = matches!(step, Step::Write(_) | Step::Publish);
            if let Some((command, applied)) = unpublished.take_if(|_| is_write) {
                let applied: keyspace::Applied = applied;
                world.sink.publish(&command, &applied);
                for (list, events) in lists.iter_mut().zip(&mut expected) {
                    tell(list, &applied.steps, events);
                }
            }
            match step {
                Step::Write(writes) => {
                    let ops = writes.iter().map(|(path, put_it)| match put_it {
                        true => put(PATHS[*path]),
                        false => delete(PATHS[*path]),
                    });
                    let command = txn(ops.collect());
                    let applied = world.apply(&command);
                    unpublished = Some((command, applied));
                }
                Step::Publish => {}
                Step::Watch(who, path, once) => {
                    let (since, _) = watchers[who].node(PATHS[path].as_bytes(), once, |_| true);
                    let kind = PlainKind::Once(once);
                    // Those left at one revision are one.
                    lists[who].retain(|w| w.path != path || w.kind != kind || w.since != since);
                    lists[who].push(Plain { path, kind, since });
                }
                Step::Add(who, path, mode) => {
                    let since = watchers[who].add(PATHS[path].as_bytes(), mode);
                    let kind = PlainKind::Lasting(mode);
                    if !lists[who].iter().any(|w| w.path == path && w.kind == kind) {
                        lists[who].push(Plain { path, kind, since });
                    }
                }
                Step::Remove(who, path, which) => {
                    let had = watchers[who].remove(PATHS[path].as_bytes(), which);
                    let before = lists[who].len();
                    lists[who].retain(|w| {
                        let is_it = match which {
                            Which::Any => true,
                            Which::Children => w.kind == PlainKind::Once(Once::Children),
                            Which::Data => w.kind == PlainKind::Once(Once::Data),
                            Which::Persistent => w.kind == PlainKind::Lasting(Mode::Persistent),
                            Which::Recursive => w.kind == PlainKind::Lasting(Mode::Recursive),
                        };
                        w.path != path || !is_it
                    });
                    prop_assert_eq!(had, lists[who].len() < before);
                }
                Step::Take(who) => {
                    prop_assert_eq!(drain(&watchers[who]), std::mem::take(&mut expected[who]));
                }
            }
        }
        for (watcher, expected) in watchers.iter().zip(expected) {
            prop_assert_eq!(drain(watcher), expected);
        }
    }
}

#[test]
fn what_one_connection_watches_is_bounded() {
    let world = World::with_session();
    let (watcher, other) = (world.watcher(), world.watcher());
    let path = |n: usize| format!("/{n}{}", "x".repeat(1 << 20));
    let mut held = 0;
    while watcher.has_room(path(held).as_bytes()) {
        watcher.add(path(held).as_bytes(), Mode::Persistent);
        held += 1;
        assert!(held < 200, "there is no bound");
    }
    assert!(held > 100);
    assert!(other.has_room(path(held).as_bytes()));
    assert!(watcher.remove(path(0).as_bytes(), Which::Any));
    assert!(watcher.has_room(path(held).as_bytes()));
}
