//! Who is told of what.

use super::{drain, expire, nodes, remove, write};
use crate::nodes::{Mode, Once, What, Which};
use crate::testing::{World, txn};
use keyspace::command::{Op, Put};
use keyspace::{AccessEntry, AccessList, Identity, LeaseId, Permissions, Revision};

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
    let (moment, node) = watcher.children(b"/a", |_| true);
    let node = node.expect("it is there");
    assert_eq!((moment.revision(), node.children), (Revision(3), 2));
    world.put("/a/x");
    world.put("/a/z");
    assert_eq!(moment.children(b"/a"), ["x", "y"]);
    assert_eq!(drain(&watcher), ["ChildrenChanged /a@5"]);
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
