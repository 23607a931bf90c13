//! A true stream is accepted; each kind of fault, planted into it, is found and called by its name.

use super::*;

fn entry(value: u64, created: u64, modified: u64, version: u64) -> Entry {
    Entry {
        value,
        created,
        modified,
        version,
        lease: 0,
    }
}

/// Keys 1 and 2 are written, then both at once, then key 1 is deleted, then key 9 is written.
fn history() -> Vec<Event> {
    let event = |revision, key, now, previous| Event {
        revision,
        key,
        now,
        previous,
    };
    let (one, two) = (entry(10, 2, 2, 1), entry(20, 3, 3, 1));
    let (one_again, two_again) = (entry(11, 2, 4, 2), entry(21, 3, 4, 2));
    vec![
        event(2, 1, Some(one), None),
        event(3, 2, Some(two), None),
        event(4, 1, Some(one_again), Some(one)),
        event(4, 2, Some(two_again), Some(two)),
        event(5, 1, None, Some(one_again)),
        event(6, 9, Some(entry(90, 6, 6, 1)), None),
    ]
}

/// A watcher of keys 1 and 2 that received all, one message a revision, then a bookmark at 6.
fn faithful() -> Watch {
    let mut messages: Vec<Message> = (2..=5)
        .map(|revision| Message {
            revision,
            compacted: 0,
            events: history()
                .into_iter()
                .filter(|e| e.revision == revision)
                .collect(),
        })
        .collect();
    messages.push(Message {
        revision: 6,
        compacted: 0,
        events: vec![],
    });
    Watch {
        span: 1..3,
        from: 2,
        want_previous: true,
        messages,
        compacted: None,
        complete_to: Some(6),
    }
}

fn verdict(plant: impl FnOnce(&mut Watch)) -> Result<(), Violation> {
    let mut watch = faithful();
    plant(&mut watch);
    check(&history(), &watch)
}

#[test]
fn a_faithful_stream_is_accepted() {
    assert_eq!(verdict(|_| ()), Ok(()));
}

#[test]
fn several_revisions_may_share_a_message() {
    let merged = |watch: &mut Watch| {
        let events = watch.messages.iter().flat_map(|m| m.events.clone());
        watch.messages = vec![Message {
            revision: 6,
            compacted: 0,
            events: events.collect(),
        }];
    };
    assert_eq!(verdict(merged), Ok(()));
}

#[test]
fn a_later_start_leaves_out_what_was_before() {
    let late = |watch: &mut Watch| {
        watch.from = 4;
        watch.messages.drain(..2);
    };
    assert_eq!(verdict(late), Ok(()));
}

#[test]
fn previous_entries_come_only_when_asked_for() {
    assert!(matches!(
        verdict(|watch| watch.want_previous = false),
        Err(Violation::WrongPrevious(_))
    ));
    let without = |watch: &mut Watch| {
        watch.want_previous = false;
        for event in watch.messages.iter_mut().flat_map(|m| &mut m.events) {
            event.previous = None;
        }
    };
    assert_eq!(verdict(without), Ok(()));
}

#[test]
fn a_lost_previous_entry_is_found() {
    assert!(matches!(
        verdict(|watch| watch.messages[2].events[1].previous = None),
        Err(Violation::WrongPrevious(_))
    ));
}

#[test]
fn a_previous_entry_may_be_left_out_once_it_is_compacted() {
    let compacted_at = |compacted| {
        move |watch: &mut Watch| {
            watch.messages[2].compacted = compacted;
            watch.messages[2].events[1].previous = None;
        }
    };
    assert_eq!(verdict(compacted_at(4)), Ok(()));
    assert!(matches!(
        verdict(compacted_at(3)),
        Err(Violation::WrongPrevious(_))
    ));
}

#[test]
fn a_wrong_create_flag_is_found() {
    // An update that calls itself a creation.
    let plant = |watch: &mut Watch| watch.messages[2].events[0].now = Some(entry(11, 4, 4, 1));
    assert!(matches!(verdict(plant), Err(Violation::WrongEntry(_))));
}

#[test]
fn a_delete_that_looks_like_a_put_is_found() {
    let plant = |watch: &mut Watch| watch.messages[3].events[0].now = Some(entry(11, 2, 5, 3));
    assert!(matches!(verdict(plant), Err(Violation::WrongEntry(_))));
}

#[test]
fn an_event_left_out_is_found() {
    let plant = |watch: &mut Watch| drop(watch.messages.remove(1));
    let missing = history()[1];
    assert_eq!(verdict(plant), Err(Violation::Missing { missing }));
}

#[test]
fn a_resumed_watch_that_skips_its_first_event_is_found() {
    let plant = |watch: &mut Watch| {
        watch.from = 3;
        watch.messages.drain(..2);
    };
    let missing = history()[1];
    assert_eq!(verdict(plant), Err(Violation::Missing { missing }));
}

#[test]
fn an_event_that_never_comes_is_found_once_the_watch_is_complete() {
    let cut = |watch: &mut Watch| watch.messages.truncate(3);
    let missing = history()[4];
    assert_eq!(verdict(cut), Err(Violation::Missing { missing }));
    let still_running = |watch: &mut Watch| {
        watch.messages.truncate(3);
        watch.complete_to = None;
    };
    assert_eq!(verdict(still_running), Ok(()));
}

#[test]
fn an_event_twice_is_found() {
    let plant = |watch: &mut Watch| watch.messages.insert(1, watch.messages[0].clone());
    assert_eq!(verdict(plant), Err(Violation::Twice(history()[0])));
}

#[test]
fn events_out_of_order_are_found() {
    let plant = |watch: &mut Watch| watch.messages.swap(0, 1);
    assert!(matches!(verdict(plant), Err(Violation::OutOfOrder(_))));
}

#[test]
fn events_out_of_order_within_a_revision_are_found() {
    let plant = |watch: &mut Watch| watch.messages[2].events.swap(0, 1);
    assert!(matches!(verdict(plant), Err(Violation::OutOfOrder(_))));
}

#[test]
fn a_torn_revision_is_found() {
    let plant = |watch: &mut Watch| {
        let second = watch.messages[2].events.split_off(1);
        let rest = Message {
            revision: 4,
            compacted: 0,
            events: second,
        };
        watch.messages.insert(3, rest);
    };
    assert_eq!(verdict(plant), Err(Violation::Torn { revision: 4 }));
}

#[test]
fn an_early_bookmark_is_found() {
    let plant = |watch: &mut Watch| {
        let early = Message {
            revision: 4,
            compacted: 0,
            events: vec![],
        };
        watch.messages.insert(2, early);
    };
    assert!(matches!(verdict(plant), Err(Violation::WrongHeader { .. })));
}

#[test]
fn a_header_older_than_its_events_is_found() {
    assert!(matches!(
        verdict(|watch| watch.messages[3].revision = 4),
        Err(Violation::WrongHeader { .. })
    ));
}

#[test]
fn an_event_of_another_key_or_time_is_found() {
    let foreign = |watch: &mut Watch| watch.messages[4].events.push(history()[5]);
    let expected = Err(Violation::NotAskedFor(history()[5]));
    assert_eq!(verdict(foreign), expected);
    let early = |watch: &mut Watch| watch.from = 3;
    let expected = Err(Violation::NotAskedFor(history()[0]));
    assert_eq!(verdict(early), expected);
}

#[test]
fn an_invented_event_is_found() {
    let ghost = Event {
        revision: 6,
        key: 1,
        now: Some(entry(66, 6, 6, 1)),
        previous: None,
    };
    let plant = |watch: &mut Watch| watch.messages[4].events.push(ghost);
    assert_eq!(verdict(plant), Err(Violation::Invented(ghost)));
}

#[test]
fn a_cancellation_must_be_for_what_is_still_wanted() {
    let cancelled_at = |compacted| {
        move |watch: &mut Watch| {
            watch.messages.truncate(2);
            watch.complete_to = None;
            watch.compacted = Some(compacted);
        }
    };
    assert_eq!(verdict(cancelled_at(5)), Ok(()));
    let (compacted, next) = (4, 4);
    assert_eq!(
        verdict(cancelled_at(4)),
        Err(Violation::NotCompacted { compacted, next })
    );
}
