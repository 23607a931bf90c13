//! What one connection may hold, and what becomes of it.

use super::{SESSION, drain, expire, is_ready};
use crate::nodes::watcher::EVENTS_MAX;
use crate::nodes::{Gone, Mode, NodeFigures, Once, Which};
use crate::testing::{World, put, txn};
use keyspace::{Command, LeaseId, Principal, Revision};

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
    world.run(&Command::Revoke(LeaseId(8), Principal::System));
    assert_eq!(other.gone(), Some(Gone::Ended));
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
