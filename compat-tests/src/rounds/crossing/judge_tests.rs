//! A sound history passes, and whatever is left out of it, doubled, exchanged or made up is found.

use std::collections::BTreeSet;

use checker::kv::Entry;
use checker::watch::{Event, Message, Watch};

use super::*;
use crate::rounds::crossing::history::*;
use crate::rounds::crossing::truth::Truth;

/// A key that all write, and one that is created for a session.
const REGISTER: Key = 0;
const LOCK: Key = 1;
const KEYS: [Key; 2] = [REGISTER, LOCK];
const SESSION: Lease = 77;
const SECOND_US: u64 = 1_000_000;
/// The revision at which everything begins, and the index.
const FIRST: Clocks = Clocks {
    revision: 10,
    index: 5,
};

/// The values of the register, in order, and the lock's; each names its writer.
const PUT: Value = 1;
const SWAPPED: Value = 1 << 32;
const SET: Value = 2 << 32;
const EPHEMERAL: Value = (2 << 32) + 1;
const TIMED: Value = (1 << 32) + 1;

fn entry(value: Value, created: u64, modified: u64, version: u64, lease: Lease) -> Entry {
    Entry {
        value,
        created,
        modified,
        version,
        lease,
    }
}

/// Every change: the event, what etcd v2 calls it, and when the first watcher is told.
fn changes() -> Vec<(Event, Action, u64)> {
    let put = entry(PUT, 11, 11, 1, 0);
    let swapped = entry(SWAPPED, 11, 12, 2, 0);
    let set = entry(SET, 11, 13, 3, 0);
    let ephemeral = entry(EPHEMERAL, 14, 14, 1, SESSION);
    let timed = entry(TIMED, 17, 17, 1, 0);
    let event = |revision, key, now, previous| Event {
        revision,
        key,
        now,
        previous,
    };
    vec![
        (event(11, REGISTER, Some(put), None), Action::Written, 5),
        (
            event(12, REGISTER, Some(swapped), Some(put)),
            Action::Written,
            25,
        ),
        (
            event(13, REGISTER, Some(set), Some(swapped)),
            Action::Written,
            45,
        ),
        (event(14, LOCK, Some(ephemeral), None), Action::Written, 65),
        (event(15, REGISTER, None, Some(set)), Action::Deleted, 105),
        (
            event(16, LOCK, None, Some(ephemeral)),
            Action::Expired,
            4 * SECOND_US,
        ),
        (
            event(17, REGISTER, Some(timed), None),
            Action::Written,
            6 * SECOND_US + 5,
        ),
        (
            event(18, REGISTER, None, Some(timed)),
            Action::Expired,
            7 * SECOND_US + 5,
        ),
    ]
}

fn shown(value: Value, version: u64) -> Found {
    Found::Entry(Shown {
        value: Some(value),
        version: Some(version),
        ..Shown::default()
    })
}

fn operation(
    client: u32,
    key: Key,
    began_us: u64,
    ask: Ask,
    answer: Option<(Moment, Answer)>,
) -> Operation {
    Operation {
        client,
        key,
        began_us,
        ask,
        answered: answer.map(|(at, answer)| Answered {
            ended_us: began_us + 10,
            at,
            answer,
        }),
    }
}

fn write(value: Value, guard: Guard, bind: Bind) -> Ask {
    Ask::Write { value, guard, bind }
}

fn operations() -> Vec<Operation> {
    let revision = Moment::Revision;
    let index = Moment::Index;
    let done = |at, before, now| Some((at, Answer::Done { before, now }));
    let found = |at, found| Some((at, Answer::Found(found)));
    let plain = Bind::Lease(0);
    let put = write(PUT, Guard::Always, plain);
    let swap = write(SWAPPED, Guard::Holds(PUT), Bind::Time(None));
    let set = write(SET, Guard::Version(2), Bind::Stay);
    let create = write(EPHEMERAL, Guard::Absent, Bind::Lease(SESSION));
    let delete = Ask::Delete {
        guard: Guard::Holds(SET),
    };
    let late = write(3, Guard::Holds(SET), plain);
    let timed = write(TIMED, Guard::Always, Bind::Time(Some(SECOND_US)));
    let by_index = Found::Entry(Shown {
        value: Some(SET),
        index: Some(8),
        ..Shown::default()
    });
    let by_zxid = Found::Entry(Shown {
        modified: Some(13),
        created: Some(11),
        lease: Some(0),
        version: Some(3),
        value: Some(SET),
        index: None,
    });
    let refused = Some((revision(15), Answer::Refused(Found::Nothing)));
    let (began_us, expired_us) = (6 * SECOND_US, 8 * SECOND_US);
    vec![
        operation(
            0,
            REGISTER,
            0,
            put,
            done(revision(11), Found::Nothing, shown(PUT, 1)),
        ),
        operation(
            1,
            REGISTER,
            20,
            swap,
            done(index(7), shown(PUT, 1), shown(SWAPPED, 2)),
        ),
        operation(
            2,
            REGISTER,
            40,
            set,
            done(revision(13), Found::Unsaid, shown(SET, 3)),
        ),
        operation(
            2,
            LOCK,
            60,
            create,
            done(revision(14), Found::Nothing, Found::Unsaid),
        ),
        operation(
            0,
            REGISTER,
            80,
            Ask::Read,
            found(revision(14), shown(SET, 3)),
        ),
        operation(1, REGISTER, 80, Ask::Read, found(index(9), by_index)),
        operation(2, REGISTER, 80, Ask::Read, found(revision(14), by_zxid)),
        operation(
            0,
            REGISTER,
            90,
            Ask::ReadLate,
            found(revision(11), shown(PUT, 1)),
        ),
        operation(
            1,
            REGISTER,
            100,
            delete,
            done(index(10), by_index, Found::Nothing),
        ),
        operation(0, REGISTER, 120, late, refused),
        operation(
            1,
            REGISTER,
            began_us,
            timed,
            done(index(12), Found::Nothing, shown(TIMED, 1)),
        ),
        operation(
            0,
            REGISTER,
            expired_us,
            Ask::Read,
            found(revision(18), Found::Nothing),
        ),
    ]
}

fn watch() -> EtcdWatch {
    let messages = changes().into_iter().map(|(event, ..)| Message {
        revision: event.revision,
        compacted: 0,
        events: vec![event],
    });
    EtcdWatch {
        watch: Watch {
            span: 0..2,
            from: FIRST.revision + 1,
            want_previous: true,
            messages: messages.collect(),
            compacted: None,
            complete_to: Some(18),
        },
        came_us: changes().into_iter().map(|(.., told_us)| told_us).collect(),
    }
}

fn wait() -> Vec<WaitEvent> {
    let events = changes().into_iter().zip(FIRST.index + 1..);
    let told = events.map(|((event, action, _), index)| WaitEvent {
        index,
        key: event.key,
        action,
        value: event.now.map(|now| now.value),
        previous: event.previous.map(|previous| previous.value),
    });
    told.collect()
}

fn told(key: Key, what: Happening, revision: impl Into<Option<u64>>) -> Line {
    let revision = revision.into();
    Line::Told {
        key,
        what,
        revision,
    }
}

/// A session that watches all always, and one that sets watches that are told once.
fn sessions() -> Vec<Vec<Line>> {
    use Happening::{Changed, Created, Deleted};
    let shown = |revision| Line::Shown { revision };
    let armed = |key, revision| Line::Armed { key, revision };
    let always = vec![
        Line::ArmedAlways { revision: 10 },
        told(REGISTER, Created, 11),
        told(REGISTER, Changed, 12),
        shown(12),
        told(REGISTER, Changed, 13),
        shown(13),
        Line::Broke,
        // The lock was created meanwhile, which nobody is told of.
        Line::Resumed { revision: 14 },
        told(REGISTER, Deleted, 15),
        told(LOCK, Deleted, 16),
        told(REGISTER, Created, 17),
        shown(17),
        told(REGISTER, Deleted, 18),
        shown(18),
    ];
    let once = vec![
        armed(REGISTER, 11),
        told(REGISTER, Changed, 12),
        shown(12),
        armed(REGISTER, 12),
        armed(LOCK, 12),
        Line::Broke,
        told(REGISTER, Changed, None),
        told(LOCK, Created, None),
        Line::Resumed { revision: 14 },
        armed(LOCK, 14),
        armed(REGISTER, 15),
        told(LOCK, Deleted, 16),
        armed(LOCK, 16),
        Line::Broke,
        // The register came and went meanwhile, and the lock stays away.
        Line::Resumed { revision: 18 },
        shown(18),
    ];
    vec![always, once]
}

fn sound() -> History {
    History {
        first: FIRST,
        operations: operations(),
        lives: vec![Life {
            lease: SESSION,
            ttl_us: 4 * SECOND_US,
            alive_us: 100,
            tolerance_us: SECOND_US / 2,
            ended_us: None,
        }],
        watches: vec![watch(), watch()],
        waits: vec![wait(), wait()],
        sessions: sessions(),
        last: Clocks {
            revision: 18,
            index: 13,
        },
        held: vec![Vec::new(), Vec::new()],
    }
}

fn passes(change: impl FnOnce(&mut History)) {
    let mut history = sound();
    change(&mut history);
    history.check(&KEYS).expect("nothing is wrong with it");
}

fn complaint(change: impl FnOnce(&mut History)) -> String {
    let mut history = sound();
    change(&mut history);
    let error = history.check(&KEYS).expect_err("the judge must see it");
    format!("{error:#}")
}

/// What one of the judges says of operations that do not belong to the changes.
fn complaint_of(
    judge: impl Fn(&History, &Truth) -> Result<()>,
    change: impl FnOnce(&mut Vec<Operation>),
) -> String {
    let mut history = sound();
    let truth = Truth::new(&history).expect("nothing is wrong with it");
    change(&mut history.operations);
    let error = judge(&history, &truth).expect_err("the judge must see it");
    format!("{error:#}")
}

fn linear(history: &History, truth: &Truth) -> Result<()> {
    one_key::check(history, &truth.values())
}

fn has(complaint: &str, words: &str) {
    assert!(complaint.contains(words), "{complaint}");
}

#[test]
fn a_sound_history_passes() {
    passes(|_| {});
}

#[test]
fn what_was_asked_in_vain_may_have_happened_or_not() {
    for place in [0, 1, 2, 3, 8, 10] {
        passes(|history| history.operations[place].answered = None);
    }
    passes(|history| {
        let never = write(9, Guard::Always, Bind::Lease(0));
        history
            .operations
            .push(operation(0, REGISTER, 30, never, None));
        let guard = Guard::Always;
        let delete = Ask::Delete { guard };
        history
            .operations
            .push(operation(0, REGISTER, 30, delete, None));
    });
}

#[test]
fn a_lost_write_is_found() {
    let lose = |operations: &mut Vec<Operation>| {
        let lost = write(9, Guard::Always, Bind::Lease(0));
        let (before, now) = (Found::Unsaid, shown(9, 3));
        let answer = (Moment::Revision(13), Answer::Done { before, now });
        operations.push(operation(0, REGISTER, 60, lost, Some(answer)));
    };
    has(&complaint_of(linear, lose), "not linearizable");
    has(&complaint_of(order::check, lose), "is lost");
    // A deletion after which the value is there.
    let undo = |operations: &mut Vec<Operation>| {
        let guard = Guard::Always;
        let before = Found::Unsaid;
        let now = Found::Nothing;
        let answer = (Moment::Revision(13), Answer::Done { before, now });
        operations.push(operation(
            0,
            REGISTER,
            60,
            Ask::Delete { guard },
            Some(answer),
        ));
    };
    has(&complaint_of(linear, undo), "not linearizable");
    has(&complaint_of(order::check, undo), "is lost");
}

#[test]
fn a_stale_read_is_found() {
    let stale = |operations: &mut Vec<Operation>| {
        let answer = (Moment::Revision(11), Answer::Found(shown(PUT, 1)));
        operations.push(operation(0, REGISTER, 60, Ask::Read, Some(answer)));
    };
    has(&complaint_of(linear, stale), "not linearizable");
    has(&complaint_of(order::check, stale), "was answered before");
    let expired = |operations: &mut Vec<Operation>| {
        let answer = (Moment::Index(12), Answer::Found(shown(TIMED, 1)));
        operations.push(operation(
            0,
            REGISTER,
            9 * SECOND_US,
            Ask::Read,
            Some(answer),
        ));
    };
    has(&complaint_of(linear, expired), "not linearizable");
    has(&complaint_of(order::check, expired), "was answered before");
}

#[test]
fn a_second_success_of_one_comparison_is_found() {
    let twice = |operations: &mut Vec<Operation>| {
        let swap = write(SWAPPED + 1, Guard::Holds(PUT), Bind::Time(None));
        let (before, now) = (Found::Unsaid, Found::Unsaid);
        let answer = (Moment::Index(7), Answer::Done { before, now });
        operations.push(operation(1, REGISTER, 20, swap, Some(answer)));
    };
    has(&complaint_of(linear, twice), "not linearizable");
    has(&complaint_of(order::check, twice), "is lost");
    let created = |operations: &mut Vec<Operation>| {
        let create = write(9, Guard::Absent, Bind::Lease(0));
        let (before, now) = (Found::Nothing, Found::Unsaid);
        let answer = (Moment::Revision(14), Answer::Done { before, now });
        operations.push(operation(0, LOCK, 60, create, Some(answer)));
    };
    has(&complaint_of(linear, created), "not linearizable");
    has(&complaint_of(order::check, created), "is lost");
}

#[test]
fn a_comparison_that_failed_without_reason_is_found() {
    let refuse = |operations: &mut Vec<Operation>| {
        let swap = write(9, Guard::Holds(SET), Bind::Time(None));
        let answer = (Moment::Index(9), Answer::Refused(Found::Unsaid));
        operations.push(operation(1, REGISTER, 80, swap, Some(answer)));
    };
    has(&complaint_of(linear, refuse), "not linearizable");
    has(
        &complaint_of(order::check, refuse),
        "its last change then was",
    );
    let check = |operations: &mut Vec<Operation>| {
        let (before, now) = (Found::Unsaid, Found::Unsaid);
        let guard = Guard::Version(1);
        let answer = (Moment::Revision(14), Answer::Done { before, now });
        operations.push(operation(
            2,
            REGISTER,
            60,
            Ask::Check { guard },
            Some(answer),
        ));
    };
    has(&complaint_of(linear, check), "not linearizable");
    has(
        &complaint_of(order::check, check),
        "its last change then was",
    );
}

#[test]
fn an_ephemeral_that_outlives_its_sessions_end_is_found() {
    let there = |history: &mut History| {
        let answer = (Moment::Revision(14), Answer::Found(shown(EPHEMERAL, 1)));
        let read = operation(0, LOCK, 95, Ask::Read, Some(answer));
        history.operations.push(read);
    };
    passes(there);
    let closed = complaint(|history| {
        there(history);
        history.lives[0].ended_us = Some((71, 90));
    });
    has(&closed, "not linearizable");
}

#[test]
fn answers_that_belong_elsewhere_are_found() {
    for place in [0, 1, 2, 3, 8, 10] {
        for by in [-1, 1] {
            complaint(|history| {
                let answered = history.operations[place].answered.as_mut();
                let at = &mut answered.expect("it was answered").at;
                let (Moment::Revision(number) | Moment::Index(number)) = at;
                *number = number.saturating_add_signed(by);
            });
        }
    }
    let read = |shown| Some((Moment::Revision(14), Answer::Found(Found::Entry(shown))));
    let said = |change: fn(&mut Shown)| {
        let mut shown = Shown::default();
        change(&mut shown);
        let complaint = complaint(|history| {
            let read = operation(0, REGISTER, 80, Ask::ReadLate, read(shown));
            history.operations.push(read);
        });
        has(&complaint, "its last change then was");
    };
    said(|shown| shown.value = Some(SWAPPED));
    said(|shown| shown.created = Some(13));
    said(|shown| shown.modified = Some(12));
    said(|shown| shown.version = Some(2));
    said(|shown| shown.lease = Some(SESSION));
    said(|shown| shown.index = Some(9));
}

/// Everything that can be done wrong to a list of what was told.
fn wrongs<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    let mut wrongs = Vec::new();
    for place in 0..list.len() {
        let mut missed = list.to_vec();
        missed.remove(place);
        let mut doubled = list.to_vec();
        doubled.insert(place, list[place].clone());
        wrongs.extend([missed, doubled]);
        if place > 0 {
            let mut reordered = list.to_vec();
            reordered.swap(place - 1, place);
            wrongs.push(reordered);
        }
    }
    wrongs
}

#[test]
fn whatever_etcds_watchers_are_told_wrongly_is_found() {
    for watcher in [0, 1] {
        for wrong in wrongs(&watch().watch.messages) {
            complaint(|history| history.watches[watcher].watch.messages = wrong);
        }
        for wrong in wrongs(&wait()) {
            let complaint = complaint(|history| history.waits[watcher] = wrong);
            has(&complaint, &format!("waiter {watcher}"));
        }
    }
}

#[test]
fn whatever_an_event_says_wrongly_is_found() {
    for place in 0..changes().len() {
        let changed = |change: fn(&mut Event)| {
            complaint(|history| {
                change(&mut history.watches[1].watch.messages[place].events[0]);
            });
            complaint(|history| {
                for watch in &mut history.watches {
                    change(&mut watch.watch.messages[place].events[0]);
                }
            });
        };
        changed(|event| event.key = 1 - event.key);
        changed(|event| {
            event.now = match event.now {
                Some(_) => None,
                None => event.previous,
            };
        });
        changed(|event| event.previous = None.or(event.now));
        changed(|event| {
            if let Some(entry) = event.now.as_mut().or(event.previous.as_mut()) {
                entry.version += 1;
            }
        });
        let said = |change: fn(&mut WaitEvent)| {
            complaint(|history| change(&mut history.waits[1][place]));
        };
        said(|event| event.key = 1 - event.key);
        said(|event| event.value = event.value.xor(Some(9)));
        said(|event| event.previous = event.previous.xor(Some(9)));
        said(|event| {
            event.action = match event.action {
                Action::Written => Action::Deleted,
                Action::Deleted | Action::Expired => Action::Written,
            };
        });
    }
}

#[test]
fn whatever_zookeepers_watchers_are_told_wrongly_is_found() {
    for (session, lines) in sessions().into_iter().enumerate() {
        for (place, line) in lines.iter().enumerate() {
            let Line::Told {
                key,
                what,
                revision,
            } = *line
            else {
                continue;
            };
            let spoil = |change: &dyn Fn(&mut Vec<Line>)| {
                let complaint = complaint(|history| change(&mut history.sessions[session]));
                has(&complaint, &format!("session {session}"));
            };
            spoil(&|lines| {
                lines.remove(place);
            });
            spoil(&|lines| lines.insert(place, *line));
            spoil(&|lines| lines[place] = told(1 - key, what, revision));
            // What happened between two connections is told by what is there then.
            if let Some(revision) = revision {
                spoil(&|lines| lines[place] = told(key, what, revision + 1));
                spoil(&|lines| lines[place] = told(key, what, None));
                let other = match what {
                    Happening::Created | Happening::Deleted => Happening::Changed,
                    Happening::Changed => Happening::Deleted,
                };
                spoil(&|lines| lines[place] = told(key, other, revision));
            }
        }
        let late = |lines: &mut Vec<Line>| {
            let shown = lines
                .iter()
                .position(|line| matches!(line, Line::Shown { .. }));
            let shown = shown.expect("something was shown");
            lines.swap(shown - 1, shown);
        };
        has(
            &complaint(|history| late(&mut history.sessions[session])),
            "before the event",
        );
        let back = |lines: &mut Vec<Line>| lines.push(Line::Shown { revision: 17 });
        has(
            &complaint(|history| back(&mut history.sessions[session])),
            "what was before",
        );
    }
}

#[test]
fn an_early_end_is_found() {
    let told_at = |place: usize, told_us| {
        complaint(|history| {
            for watch in &mut history.watches {
                watch.came_us[place] = told_us;
            }
        })
    };
    has(&told_at(5, 3 * SECOND_US), "expired early");
    has(&told_at(7, 6 * SECOND_US + 500), "expired early");
    let kept = complaint(|history| history.lives[0].alive_us = SECOND_US);
    has(&kept, "expired early");
    let unbind = |operations: &mut Vec<Operation>| {
        operations[10].ask = write(TIMED, Guard::Always, Bind::Time(None));
    };
    has(&complaint_of(linear, unbind), "not linearizable");
    has(&complaint_of(ends::check, unbind), "expired early");
}

#[test]
fn what_is_left_behind_is_found() {
    let to = |revision: u64| {
        complaint(move |history| {
            let changes = revision - FIRST.revision;
            let len = usize::try_from(changes).expect("a few");
            for watch in &mut history.watches {
                watch.watch.messages.truncate(len);
                watch.watch.complete_to = Some(revision);
            }
            for waits in &mut history.waits {
                waits.truncate(len);
            }
            history.last = Clocks {
                revision,
                index: FIRST.index + changes,
            };
            history
                .operations
                .truncate(if revision < 17 { 10 } else { 11 });
            history.sessions.clear();
            let left = changes_of(&history.watches[0]);
            history.held = vec![left.clone(), left];
        })
    };
    has(&to(15), "left behind");
    has(&to(17), "left behind");
}

/// What is there after the last change of each key.
fn changes_of(watch: &EtcdWatch) -> Vec<(Key, Entry)> {
    let events = || watch.watch.messages.iter().flat_map(|m| &m.events);
    let keys: BTreeSet<_> = events().map(|event| event.key).collect();
    let last = |key: &Key| {
        let event = events().rfind(|event| event.key == *key)?;
        Some((*key, event.now?))
    };
    keys.iter().filter_map(last).collect()
}

#[test]
fn a_member_that_holds_something_else_is_found() {
    let other = complaint(|history| {
        history.held[1].push((REGISTER, entry(PUT, 11, 11, 1, 0)));
    });
    has(&other, "member 2 holds");
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    let made_up = complaint(|history| {
        history.operations.remove(0);
    });
    has(&made_up, "nobody wrote");
}
