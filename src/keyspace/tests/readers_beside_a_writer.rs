//! Readers run while the writer writes, compacts and tidies up: whatever they see must be one
//! revision's state as a whole.

use keyspace::command::{Delete, Op, Put, Range, Sort, SortBy, Txn};
use keyspace::{Answer, Command, End, Keyspace, RangeAnswer, Reader, Refusal, Revision};
use keyspace::{Span, Stamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Keys that are live at every revision from the first on.
const LIVE: u64 = 700;
const COMMANDS: u64 = 6_000;

fn key(n: u64) -> String {
    // Spread over the tree, so that leaves split, thin out and merge.
    format!("k/{:05}", n * 7919 % 20_011)
}

fn put(key: String, value: u64) -> Op {
    Op::Put(Put::new(key, value.to_string()))
}

/// At revision 2, keys 0 to LIVE; each later revision takes the lowest away, adds a next one, and
/// writes the revision's number into two counters.
fn command(revision: u64) -> Command {
    let mut then = vec![put("c/1".into(), revision), put("c/2".into(), revision)];
    if revision == 2 {
        then.extend((0..LIVE).map(|n| put(key(n), n)));
    } else {
        let (gone, new) = (revision - 3, LIVE + revision - 3);
        then.push(put(key(new), new));
        then.push(Op::Delete(Delete {
            span: Span::single(key(gone)),
            want_previous: false,
        }));
    }
    Command::Txn(Txn {
        then,
        ..Txn::default()
    })
}

fn keys() -> Range {
    Range::of(Span {
        start: "k/".into(),
        end: End::Before("k0".into()),
    })
}

fn counters() -> Range {
    Range::of(Span {
        start: "c/".into(),
        end: End::Unbounded,
    })
}

fn check_keys(answer: &RangeAnswer, at: u64) {
    assert_eq!(answer.count, LIVE, "at {at}");
    assert_eq!(answer.entries.len() as u64, LIVE, "at {at}");
    assert!(answer.entries.is_sorted_by(|a, b| a.key() < b.key()));
    for entry in &answer.entries {
        let n: u64 = std::str::from_utf8(entry.value())
            .expect("a number")
            .parse()
            .expect("one");
        assert!(
            (at - 2..at - 2 + LIVE).contains(&n),
            "{n} is not there at {at}"
        );
    }
}

fn check_counters(answer: &RangeAnswer, at: u64) {
    let counters: Vec<_> = answer
        .entries
        .iter()
        .filter(|e| e.key().starts_with(b"c/"))
        .collect();
    let written: Vec<&[u8]> = counters.iter().map(|entry| entry.value()).collect();
    let expected = at.to_string();
    assert_eq!(written, [expected.as_bytes(), expected.as_bytes()]);
}

fn read_newest(reader: &Reader) {
    let answer = reader.range(&keys()).expect("the newest can be read");
    check_keys(&answer, answer.revision.0);

    let mut last = keys();
    last.limit = 10;
    last.sort = Some(Sort {
        by: SortBy::Key,
        descending: true,
        after_limit: false,
    });
    let answer = reader.range(&last).expect("the newest can be read");
    assert_eq!(
        (answer.entries.len(), answer.count, answer.more),
        (10, LIVE, true)
    );

    let txn = Txn {
        then: vec![Op::Range(counters()), Op::Range(keys())],
        ..Txn::default()
    };
    let (revision, outcome) = reader.txn(&txn).expect("the newest can be read");
    let [Answer::Range(found), Answer::Range(all)] = &outcome.answers[..] else {
        panic!("two ranges were asked for");
    };
    check_counters(found, revision.0);
    check_keys(all, revision.0);
}

fn read_older(reader: &Reader) {
    let at = Revision((reader.compacted().0 + 3).max(2));
    let mut range = keys();
    range.revision = Some(at);
    match reader.range(&range) {
        Ok(answer) => check_keys(&answer, at.0),
        Err(Refusal::Compacted { compacted }) => assert!(compacted > at),
        Err(Refusal::Future { newest }) => assert!(newest < at),
        Err(other) => panic!("refused: {other}"),
    }
    match reader.history(at, 40) {
        Ok(changes) => {
            let revisions = changes.chunk_by(|a, b| a.entry.modified() == b.entry.modified());
            for (expected, revision) in (at.0..).zip(revisions) {
                assert_eq!(
                    revision[0].entry.modified().0,
                    expected,
                    "revisions follow each other"
                );
                assert_eq!(
                    revision.len() as u64,
                    if expected == 2 { LIVE + 2 } else { 4 }
                );
            }
        }
        Err(Refusal::Compacted { compacted }) => assert!(compacted > at),
        Err(other) => panic!("refused: {other}"),
    }
}

#[test]
fn readers_see_whole_revisions() {
    let mut keyspace = Keyspace::new();
    keyspace.apply(Stamp::default(), &command(2));
    let reader = keyspace.reader();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    read_newest(&reader);
                    read_older(&reader);
                }
            });
        }
        for revision in 3..COMMANDS {
            let applied = keyspace.apply(Stamp::default(), &command(revision));
            assert_eq!(applied.revision.0, revision);
            if revision % 50 == 0 {
                let compact = Command::Compact(Revision(revision - 20));
                keyspace
                    .apply(Stamp::default(), &compact)
                    .outcome
                    .expect("it can be compacted");
                keyspace.tidy();
            }
            if revision % 500 == 0 {
                // A cut that is read while the writer goes on still tells its own revision.
                let cut = keyspace.cut(None).expect("a whole cut can be taken");
                let digest = keyspace.digest();
                scope.spawn(move || {
                    let restored = Keyspace::restore(cut).expect("a cut can be restored");
                    assert_eq!(restored.digest(), digest);
                    check_keys(
                        &restored.reader().range(&keys()).expect("it reads"),
                        revision,
                    );
                });
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}
