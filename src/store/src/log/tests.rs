//! What only the inside of a log can be made to do.

use std::path::Path;

use bytes::Bytes;

use super::*;

fn entry(index: u64) -> LogEntry {
    LogEntry {
        index,
        term: 1,
        kind: 0,
        data: Bytes::from_static(b"data"),
    }
}

fn open(dir: &Path) -> Log {
    let options = LogOptions {
        segment_bytes: 4096,
        ..LogOptions::default()
    };
    Log::open(dir, options).unwrap()
}

#[test]
fn failed_write_fails_everything_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(&[entry(1)], Vote::default()).unwrap();
    let reader = log.reader();
    // A device on which every write finds no space.
    let good = std::mem::replace(&mut log.segment, Arc::new(Segment::dev_full()));
    let fault = log.append(&[entry(2)], Vote::default()).unwrap_err();
    assert!(fault.cause.contains("free space"), "{fault}");
    log.segment = good;
    assert_eq!(log.append(&[entry(2)], Vote::default()), Err(fault.clone()));
    assert_eq!(log.append(&[], Vote::default()), Err(fault.clone()));
    assert_eq!(log.reset(9, 9), Err(fault.clone()));
    assert_eq!(log.cut(1), Err(fault.clone()));
    assert_eq!(reader.entries(1, 2, 0), Err(fault));
    drop(log);
    assert_eq!(open(dir.path()).last_index(), 1);
}

#[test]
fn commit_alone_is_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = syncs.clone();
    let options = LogOptions {
        on_sync: Some(Arc::new(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })),
        ..LogOptions::default()
    };
    let mut log = Log::open(dir.path(), options).unwrap();
    let mut vote = Vote {
        term: 1,
        vote: 1,
        commit: 0,
    };
    let count = || syncs.load(std::sync::atomic::Ordering::Relaxed);
    log.append(&[entry(1)], vote).unwrap();
    assert_eq!(count(), 1);
    vote.commit = 1;
    log.append(&[], vote).unwrap();
    log.append(&[], vote).unwrap();
    assert_eq!(count(), 1);
    vote.vote = 2;
    log.append(&[], vote).unwrap();
    assert_eq!(count(), 2);
}
