//! The hub over a real keyspace, without replication.

use super::stream::EVENTS_MAX;
use super::{EventHub, EventStream, Interest, Unwaited, WAITING_MAX, is_beneath, passes_over};
use crate::testing::{World, put, txn};
use keyspace::auth::{AuthChange, AuthChanges, Permission};
use keyspace::command::{Delete, Nodes, Op};
use keyspace::node::{Action, Deadline, NodeWrite};
use keyspace::{
    AccessEntry, AccessList, Cause, Command, End, Identity, NodeOp, Permissions, Principal, Reader,
    Span,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

impl World {
    fn await_events(&self, interest: &Interest) -> Result<EventStream, Unwaited> {
        let reader = self.keyspace.reader();
        self.hub.events().await_events(&reader, interest.clone())
    }

    fn stream(&self, path: &str) -> EventStream {
        let waits = self.await_events(&at(path));
        waits.expect("nothing is in its way")
    }

    fn step(&mut self, path: &str, action: Action) {
        let op = NodeOp {
            path: path.to_owned().into(),
            tests: Vec::new(),
            action,
            cause: Cause::Set,
        };
        let nodes = Nodes {
            ops: vec![op],
            ..Nodes::default()
        };
        self.run(&Command::Nodes(nodes));
    }

    /// Lets only one read a node whom nobody is, or everybody again.
    fn restrict(&mut self, path: &str, restricted: bool) {
        let list: AccessList = [AccessEntry {
            permissions: Permissions::READ,
            who: Identity::new("digest", "bob"),
        }]
        .into();
        self.step(path, Action::SetAcl(restricted.then_some(list)));
    }

    fn change(&mut self, changes: Vec<AuthChange>) {
        let command = Command::Auth(AuthChanges {
            changes,
            ..AuthChanges::default()
        });
        let applied = self.apply(&command);
        applied.outcome.as_ref().expect("it is possible");
        self.sink.publish(&command, &applied);
    }

    /// From here on users are judged: root, and alice, who may read what begins with `/a/`.
    fn guard(&mut self) {
        let user = |user: &str| AuthChange::AddUser {
            user: user.into(),
            password: None,
        };
        let grant = |user: &str, role: &str| AuthChange::Grant {
            user: user.into(),
            role: role.into(),
            ahead: false,
        };
        let permission = Permission {
            span: Span {
                start: "/a/".into(),
                end: End::Before("/a0".into()),
            },
            may: Permissions::READ,
        };
        self.change(vec![
            user("root"),
            grant("root", "root"),
            user("alice"),
            AuthChange::AddRole("ra".into()),
            AuthChange::Permit {
                role: "ra".into(),
                permission,
            },
            grant("alice", "ra"),
            AuthChange::Enable,
        ]);
    }

    fn make_directory(&mut self, path: &str) {
        let action = Action::MakeDirectory {
            deadline: Deadline::Clear,
            sequence: None,
        };
        self.step(path, action);
    }

    fn remove(&mut self, path: &str) {
        let op = NodeOp {
            path: path.to_owned().into(),
            tests: Vec::new(),
            action: Action::Remove { recursive: true },
            cause: Cause::Delete,
        };
        let nodes = Nodes {
            ops: vec![op],
            ..Nodes::default()
        };
        self.run(&Command::Nodes(nodes));
    }
}

/// All events at a node, as they come.
fn at(path: &str) -> Interest {
    Interest {
        by: Principal::Anonymous,
        path: path.to_owned().into(),
        recursive: false,
        since: None,
        once: false,
    }
}

/// Those beneath it as well.
fn beneath(path: &str) -> Interest {
    Interest {
        recursive: true,
        ..at(path)
    }
}

/// What there is to read: `index path`, and `end`.
fn drain(stream: &mut EventStream) -> Vec<String> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut found = Vec::new();
    loop {
        match stream.poll_next(&mut cx) {
            Poll::Pending => return found,
            Poll::Ready(Some(news)) => {
                found.push(format!("{} {:?}", news.event.index, news.event.name));
            }
            Poll::Ready(None) => {
                found.push("end".to_owned());
                return found;
            }
        }
    }
}

#[test]
fn one_event_ends_who_waits_for_one() {
    let mut world = World::new();
    let once = Interest {
        once: true,
        ..at("/a")
    };
    let mut stream = world.await_events(&once).expect("it may wait");
    assert_eq!(stream.index(), 1);
    world.put("/b");
    assert_eq!(drain(&mut stream), [""; 0]);
    assert_eq!(world.hub.events().waiting(), 1);
    world.put("/a");
    assert_eq!(world.hub.events().waiting(), 0, "before it is read");
    world.put("/a");
    assert_eq!(drain(&mut stream), ["3 /a", "end"]);
}

#[test]
fn streams_go_on_from_the_past() {
    let mut world = World::new();
    for key in ["/a/x", "/b", "/a/y"] {
        world.put(key);
    }
    let since = |since| Interest {
        since: Some(since),
        ..beneath("/a")
    };
    let mut stream = world.await_events(&since(2)).expect("all is kept");
    let mut future = world.await_events(&since(6)).expect("it may wait");
    assert_eq!(stream.index(), 4);
    world.put("/a/x");
    world.put("/a/z");
    let told = ["2 /a/x", "4 /a/y", "5 /a/x", "6 /a/z"];
    assert_eq!(drain(&mut stream), told);
    assert_eq!(drain(&mut future), ["6 /a/z"]);
    let once = Interest {
        once: true,
        ..since(3)
    };
    let mut once = world.await_events(&once).expect("all is kept");
    assert_eq!(drain(&mut once), ["4 /a/y", "end"]);
}

#[test]
fn what_readers_see_already_is_not_told_to_who_comes_then() {
    let mut world = World::new();
    let command = txn(vec![put("/a")]);
    let applied = world.apply(&command);
    // Readers are ahead of what is published.
    let mut now = world.stream("/a");
    let since = Interest {
        since: Some(2),
        ..at("/a")
    };
    let mut since = world.await_events(&since).expect("it is kept");
    world.sink.publish(&command, &applied);
    world.put("/a");
    assert_eq!(drain(&mut now), ["3 /a"]);
    assert_eq!(drain(&mut since), ["2 /a", "3 /a"]);
}

#[test]
fn names_decide_who_hears_of_what() {
    let mut world = World::new();
    let mut whole = world.await_events(&beneath("/")).expect("it may wait");
    let mut hidden = world.await_events(&beneath("/a/_h")).expect("it may wait");
    let mut sibling = world.await_events(&beneath("/a/_")).expect("it may wait");
    let mut own = world.stream("/a");
    for key in ["/a", "/a/_h", "/a/_h/k", "/a/_h/_k", "/_a", "/a/b"] {
        world.put(key);
    }
    assert_eq!(drain(&mut whole), ["2 /a", "7 /a/b"]);
    assert_eq!(drain(&mut hidden), ["3 /a/_h", "4 /a/_h/k"]);
    assert_eq!(drain(&mut sibling), [""; 0]);
    assert_eq!(drain(&mut own), ["2 /a"]);
}

#[test]
fn paths_are_compared_by_their_names() {
    assert!(is_beneath(b"/", b"/a"));
    assert!(is_beneath(b"/a", b"/a/b/c"));
    for (above, path) in [("/a", "/a"), ("/a", "/ab"), ("/a/b", "/a"), ("/", "/")] {
        assert!(
            !is_beneath(above.as_bytes(), path.as_bytes()),
            "{above} {path}"
        );
    }
    assert!(passes_over(b"/", b"/_a/b"));
    assert!(passes_over(b"/a", b"/a/b/_c"));
    assert!(!passes_over(b"/_a", b"/_a/b_/c"));
}

#[test]
fn the_end_of_a_directory_reaches_what_ended_with_it() {
    let mut world = World::new();
    world.put("/d/a/k");
    world.put("/dx");
    let mut streams =
        ["/d/a/k", "/d/a", "/d", "/d/a/none", "/dx", "/"].map(|path| world.stream(path));
    let mut above = world.await_events(&beneath("/")).expect("it may wait");
    world.remove("/d");
    let told = streams.each_mut().map(drain);
    let ended = vec!["4 /d".to_owned()];
    assert_eq!(told[..3], [ended.clone(), ended.clone(), ended.clone()]);
    assert!(told[3..].iter().all(Vec::is_empty), "{told:?}");
    assert_eq!(drain(&mut above), ended);
    // It is in the past of what lay beneath, and of nothing else.
    for (path, found) in [("/d/a/k", 1), ("/dx", 0)] {
        let since = Interest {
            since: Some(4),
            ..at(path)
        };
        let mut stream = world.await_events(&since).expect("it is kept");
        assert_eq!(drain(&mut stream).len(), found, "{path}");
    }
}

#[test]
fn a_stream_that_is_not_read_ends_and_costs_nothing_more() {
    let mut world = World::new();
    let mut stream = world.stream("/a");
    for _ in 0..EVENTS_MAX + 5 {
        world.put("/a");
    }
    let found = drain(&mut stream);
    assert_eq!(found.len(), EVENTS_MAX + 1);
    assert_eq!(found.last().map(String::as_str), Some("end"));
}

#[test]
fn what_is_not_kept_cannot_be_waited_for() {
    let mut world = World::new();
    for _ in 0..1_005 {
        world.put("/a");
    }
    let since = |since| Interest {
        since: Some(since),
        once: true,
        ..at("/a")
    };
    let cleared = Unwaited::Cleared {
        asked: 6,
        oldest: 7,
        newest: 1_006,
    };
    assert_eq!(world.await_events(&since(6)).err(), Some(cleared));
    let mut stream = world.await_events(&since(7)).expect("it is kept");
    assert_eq!(drain(&mut stream), ["7 /a", "end"]);
}

/// More events in one command than are kept: nobody may believe to have seen all.
#[test]
fn who_missed_events_is_dismissed() {
    let mut world = World::new();
    let keys: Vec<String> = (0..1_001).map(|key| format!("/d/{key}")).collect();
    world.run(&txn(keys.iter().map(|key| put(key)).collect()));
    let mut stream = world.await_events(&beneath("/d")).expect("it may wait");
    world.run(&txn(vec![Op::Delete(Delete {
        span: Span {
            start: "/d/".into(),
            end: End::Before("/d0".into()),
        },
        want_previous: false,
    })]));
    assert_eq!(drain(&mut stream), ["end"]);
}

#[test]
fn silent_events_are_told_to_nobody() {
    let mut world = World::new();
    let mut stream = world.await_events(&beneath("/")).expect("it may wait");
    let silent = NodeWrite {
        silent: true,
        ..NodeWrite::new("v")
    };
    world.step("/a", Action::Write(silent));
    assert_eq!(drain(&mut stream), [""; 0]);
    let past = Interest {
        since: Some(2),
        ..beneath("/")
    };
    let mut past = world.await_events(&past).expect("all is kept");
    assert_eq!(drain(&mut past), [""; 0]);
}

#[test]
fn who_waits_where_an_access_list_is_is_told_nothing() {
    let mut world = World::new();
    world.put("/d/a");
    let mut streams = [at("/d/a"), beneath("/d"), beneath("/")]
        .map(|interest| world.await_events(&interest).expect("it may wait"));
    let mut elsewhere = world.stream("/d");
    world.put("/d/a");
    world.restrict("/d/a", true);
    world.put("/d/a");
    // What came while it was open is not told any more, now that it is not.
    for stream in &mut streams {
        assert_eq!(drain(stream), ["end"]);
    }
    assert_eq!(drain(&mut elsewhere), [""; 0]);
    let denied = |interest| world.await_events(&interest).err() == Some(Unwaited::Denied);
    assert!(denied(at("/d/a")) && denied(beneath("/d")) && denied(beneath("/")));
    assert!(!denied(at("/d")) && !denied(beneath("/d/a/b")) && !denied(at("/d/ab")));
    assert_eq!(world.hub.events().waiting(), 1, "the one elsewhere");
}

#[test]
fn access_lists_that_are_not_waited_for_deny_nothing() {
    let mut world = World::new();
    for key in ["/d/_h/k", "/d!", "/e"] {
        world.put(key);
        world.restrict(key, true);
    }
    let mut stream = world.await_events(&beneath("/d")).expect("it may wait");
    world.put("/d/_h/k");
    world.put("/d/a");
    assert_eq!(drain(&mut stream), ["6 /d/a"]);
}

#[test]
fn the_past_stays_closed_but_for_what_still_is() {
    let mut world = World::new();
    world.put("/a");
    world.restrict("/a", true);
    world.put("/a");
    let since = |since| Interest {
        since: Some(since),
        ..at("/a")
    };
    let outcome = |world: &World, interest| match world.await_events(&interest) {
        Ok(mut stream) => drain(&mut stream),
        Err(unwaited) => vec![unwaited.to_string()],
    };
    let denied = [Unwaited::Denied.to_string()];
    assert_eq!(outcome(&world, since(2)), denied);
    world.restrict("/a", false);
    assert_eq!(outcome(&world, since(3)), ["3 /a"]);
    world.put("/a");
    assert_eq!(outcome(&world, since(3)), denied);
    assert_eq!(outcome(&world, since(2)), ["2 /a", "end"]);
    assert_eq!(outcome(&world, since(4)), ["4 /a"]);
}

#[test]
fn what_is_open_is_told_without_what_was_protected_before() {
    let mut world = World::new();
    world.put("/a");
    world.restrict("/a", true);
    world.put("/a");
    world.restrict("/a", false);
    let mut stream = world.stream("/a");
    let shows_previous = [(), ()].map(|()| {
        world.put("/a");
        let mut cx = Context::from_waker(Waker::noop());
        match stream.poll_next(&mut cx) {
            Poll::Ready(Some(news)) => news.event.previous.is_some(),
            Poll::Ready(None) | Poll::Pending => panic!("there is an event"),
        }
    });
    assert_eq!(shows_previous, [false, true]);
}

#[test]
fn who_may_everything_is_told_of_what_is_protected() {
    let mut world = World::new();
    world.guard();
    world.put("/a");
    world.restrict("/a", true);
    let roots = |interest| Interest {
        by: Principal::user("root"),
        ..interest
    };
    let past = Interest {
        since: Some(2),
        ..roots(at("/a"))
    };
    let waits = |interest| world.await_events(&interest).expect("it may wait");
    let (mut live, mut past) = (waits(roots(beneath("/"))), waits(past));
    world.put("/a");
    assert_eq!(drain(&mut live), ["3 /a"]);
    assert_eq!(drain(&mut past), ["2 /a", "3 /a"]);
}

/// Alice may read beneath `/a/`, and what that takes is judged as each event is told.
#[test]
fn roles_are_judged_as_events_are_told() {
    let mut world = World::new();
    world.guard();
    let alices = |interest| Interest {
        by: Principal::user("alice"),
        ..interest
    };
    let waits = |world: &World, interest| world.await_events(&interest).expect("it may wait");
    let mut inside = waits(&world, alices(beneath("/a")));
    world.put("/a/k");
    assert_eq!(drain(&mut inside), ["2 /a/k"]);
    let mut key = waits(&world, alices(at("/a/k")));
    // That a directory ended, by itself, may be known.
    world.remove("/a");
    assert_eq!(drain(&mut inside), ["3 /a"]);
    assert_eq!(drain(&mut key), ["3 /a"]);
    // A file of that name may not.
    world.put("/a");
    assert_eq!(drain(&mut inside), ["end"]);
    let mut revoked = waits(&world, alices(at("/a/k")));
    world.put("/a/k");
    world.change(vec![AuthChange::Revoke {
        user: "alice".into(),
        role: "ra".into(),
    }]);
    assert_eq!(drain(&mut revoked), ["end"]);
}

#[test]
fn an_event_is_encoded_once_for_all() {
    let mut world = World::new();
    let mut streams = [world.stream("/a"), world.stream("/a")];
    world.make_directory("/a");
    let mut cx = Context::from_waker(Waker::noop());
    let news = streams
        .each_mut()
        .map(|stream| match stream.poll_next(&mut cx) {
            Poll::Ready(Some(news)) => news,
            Poll::Ready(None) | Poll::Pending => panic!("there is an event"),
        });
    assert!(Arc::ptr_eq(&news[0], &news[1]));
    assert_eq!(news[0].encoded(|_| "once".into()), "once");
    assert_eq!(news[1].encoded(|_| "twice".into()), "once");
}

#[test]
fn only_so_many_wait_at_a_time() {
    let world = World::new();
    let mut streams: Vec<_> = (0..WAITING_MAX).map(|_| world.stream("/a")).collect();
    let refused = || world.await_events(&at("/a")).err() == Some(Unwaited::TooMany);
    assert!(refused() && refused());
    streams.pop();
    streams.push(world.stream("/b"));
    assert!(refused());
    drop(streams);
    assert_eq!(world.hub.events().waiting(), 0);
}

/// The last event that is published while some come, some go, and some follow.
const CROWDED: u64 = 3_000;

/// Takes a few of the events at a time and comes back for the rest, until it has heard of all.
fn follow(hub: &EventHub, reader: &Reader, heard: &AtomicU64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without I/O");
    loop {
        let interest = Interest {
            since: Some(heard.load(Ordering::Relaxed) + 1),
            ..beneath("/")
        };
        let waits = hub.await_events(reader, interest);
        let mut stream = waits.map_err(|unwaited| unwaited.to_string())?;
        for _ in 0..10 {
            // It ends if it was too slow.
            let Some(news) = runtime.block_on(stream.next()) else {
                break;
            };
            let expected = heard.load(Ordering::Relaxed) + 1;
            if news.event.index != expected {
                return Err(format!("{} instead of {expected}", news.event.index));
            }
            heard.store(expected, Ordering::Release);
            if expected == CROWDED {
                return Ok(());
            }
        }
    }
}

#[test]
fn nothing_is_lost_or_told_twice_while_others_come_and_go() {
    let mut world = World::new();
    let (hub, reader) = (world.hub.events().clone(), world.keyspace.reader());
    // Before the first event.
    let heard = [const { AtomicU64::new(1) }; 3];
    let slowest = || heard.iter().map(|it| it.load(Ordering::Acquire)).min();
    let slowest = || slowest().expect("some follow");
    thread::scope(|scope| {
        for heard in &heard {
            scope.spawn(|| {
                let followed = follow(&hub, &reader, heard);
                // Nobody has to wait for one that is done, or failed.
                heard.store(u64::MAX, Ordering::Release);
                followed.expect("it hears of all, in order");
            });
        }
        scope.spawn(|| {
            while slowest() < CROWDED {
                let passing = ["/d/1", "/d", "/"].map(|path| hub.await_events(&reader, at(path)));
                assert!(passing.iter().all(Result::is_ok));
            }
        });
        for event in 2..=CROWDED {
            // The past is kept so far that those who follow find it.
            while event > slowest().saturating_add(500) {
                thread::yield_now();
            }
            world.put(&format!("/d/{}", event % 7));
        }
    });
    assert_eq!(hub.waiting(), 0);
}
