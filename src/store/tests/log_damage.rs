//! What a log in files makes of damage: what was never acknowledged is dropped, what was is either
//! there or makes the log refuse to open.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use store::log::{Log, LogOptions};
use store::{Fault, LogEntry, LogReader, LogStore, Vote};

const SEGMENT_BYTES: u32 = 4096;
/// The length of a frame without data, and to what multiple frames are padded.
const HEADER_BYTES: usize = 40;
const ALIGN_BYTES: usize = 8;
/// The data of a vote's frame.
const VOTE_BYTES: usize = 8;

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        ..LogOptions::default()
    }
}

fn open(dir: &Path) -> Result<Log, Fault> {
    Log::open(dir, options())
}

fn entry(index: u64, data_bytes: usize) -> LogEntry {
    LogEntry {
        index,
        term: 1,
        kind: 0,
        data: Bytes::from(vec![index as u8; data_bytes]),
    }
}

fn frame_bytes(data_bytes: usize) -> usize {
    (HEADER_BYTES + data_bytes).next_multiple_of(ALIGN_BYTES)
}

fn held(log: &Log) -> Vec<LogEntry> {
    log.entries(log.first_index(), log.last_index() + 1, u64::MAX)
        .unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some()).collect();
    paths.sort();
    paths
}

/// A closed log of batches, all in its first segment.
struct Closed {
    dir: tempfile::TempDir,
    batches: Vec<Vec<LogEntry>>,
    /// Where each batch begins, and where the last one ends.
    offsets: Vec<usize>,
    bytes: Vec<u8>,
}

impl Closed {
    fn new(batches: &[&[usize]]) -> Closed {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path()).unwrap();
        let mut closed = Closed {
            dir,
            batches: Vec::new(),
            offsets: vec![frame_bytes(HEADER_BYTES)],
            bytes: Vec::new(),
        };
        for lengths in batches {
            let entries: Vec<_> = lengths
                .iter()
                .zip(log.last_index() + 1..)
                .map(|(&n, i)| entry(i, n))
                .collect();
            // What a follower is told to be committed can come with the entries themselves.
            let vote = Vote {
                commit: entries.last().unwrap().index,
                ..Vote::default()
            };
            log.append(&entries, vote).unwrap();
            let bytes: usize = lengths.iter().map(|&n| frame_bytes(n)).sum();
            let end = closed.offsets.last().unwrap() + bytes + frame_bytes(VOTE_BYTES);
            closed.offsets.push(end);
            closed.batches.push(entries);
        }
        drop(log);
        closed.bytes = fs::read(closed.path()).unwrap();
        closed
    }

    fn path(&self) -> PathBuf {
        segments(self.dir.path())[0].clone()
    }

    /// Opens the log with its segment changed.
    fn open_with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Result<Log, Fault> {
        for written_later in &segments(self.dir.path())[1..] {
            fs::remove_file(written_later).unwrap();
        }
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        fs::write(self.path(), bytes).unwrap();
        open(self.dir.path())
    }

    fn entries(&self, batches: usize) -> Vec<LogEntry> {
        self.batches[..batches].concat()
    }

    /// What must hold of a log whose last batch was torn: only some of that batch is missing, and
    /// the log goes on.
    fn check_torn(&self, log: Result<Log, Fault>) {
        let mut log = log.unwrap();
        let before = self.entries(self.batches.len() - 1);
        let mut found = held(&log);
        assert!(found.len() >= before.len());
        assert_eq!(found, self.entries(self.batches.len())[..found.len()]);
        found.push(entry(log.last_index() + 1, 9));
        log.append(&found[found.len() - 1..], log.vote()).unwrap();
        drop(log);
        assert_eq!(held(&open(self.dir.path()).unwrap()), found);
    }
}

#[test]
fn last_batch_torn_at_any_byte_costs_only_itself() {
    let closed = Closed::new(&[&[3], &[7, 10], &[12, 0]]);
    for torn_at in closed.offsets[2]..closed.offsets[3] {
        closed.check_torn(closed.open_with(|bytes| bytes[torn_at..].fill(0)));
        closed.check_torn(closed.open_with(|bytes| bytes.truncate(torn_at)));
        closed.check_torn(closed.open_with(|bytes| bytes[torn_at] ^= 0x10));
        // A disk may write the later part of a batch, and not the earlier.
        closed.check_torn(closed.open_with(|bytes| bytes[closed.offsets[2]..torn_at].fill(0)));
    }
}

#[test]
fn damage_anywhere_before_the_last_batch_is_refused_or_without_effect() {
    let closed = Closed::new(&[&[30], &[7, 100], &[50, 0, 33], &[8]]);
    let whole = closed.entries(4);
    let mut refused = 0;
    for offset in 0..closed.offsets[3] {
        match closed.open_with(|bytes| bytes[offset] ^= 0x04) {
            Ok(log) => assert_eq!(held(&log), whole, "a flip at {offset} changed the log"),
            Err(fault) => {
                assert!(fault.cause.contains("damaged"), "{fault}");
                assert!(fault.cause.contains("remove this member"), "{fault}");
                refused += 1;
            }
        }
    }
    let padding = 2 + 1 + 4 + 6 + 7;
    assert!(
        refused >= closed.offsets[3] - padding,
        "{refused} of {}",
        closed.offsets[3]
    );
}

#[test]
fn remains_of_a_torn_batch_do_not_pass_for_what_is_written_next() {
    let closed = Closed::new(&[&[30], &[50, 60, 70]]);
    let first = closed.offsets[1];
    let mut log = closed.open_with(|bytes| bytes[first] ^= 1).unwrap();
    assert_eq!(log.last_index(), 1);
    let new = LogEntry {
        term: 2,
        ..entry(2, 50)
    };
    log.append(std::slice::from_ref(&new), log.vote()).unwrap();
    drop(log);
    assert_eq!(held(&open(closed.dir.path()).unwrap()), [entry(1, 30), new]);
}

/// A log over several segments, each entry about a third of one.
fn long_log(dir: &Path, count: u64) -> Log {
    let mut log = open(dir).unwrap();
    for index in 1..=count {
        let vote = Vote {
            commit: index,
            ..Vote::default()
        };
        log.append(&[entry(index, 1000)], vote).unwrap();
    }
    log
}

#[test]
fn damage_in_a_sealed_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(long_log(dir.path(), 20));
    let second = &segments(dir.path())[1];
    let whole = fs::read(second).unwrap();
    for offset in [0, 20, 90, 1500] {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        fs::write(second, bytes).unwrap();
        let fault = open(dir.path()).err().unwrap();
        assert!(fault.cause.contains("remove this member"), "{fault}");
    }
    fs::remove_file(second).unwrap();
    let fault = open(dir.path()).err().unwrap();
    assert!(fault.cause.contains("does not follow"), "{fault}");
}

#[test]
fn damaged_beginning_of_the_last_segment_does_not_hide_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = long_log(dir.path(), 9);
    log.append(&[entry(10, 10)], log.vote()).unwrap();
    drop(log);
    let last = segments(dir.path())
        .into_iter()
        .rfind(|path| fs::read(path).unwrap()[0] != 0)
        .unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes[3] ^= 1;
    fs::write(&last, bytes).unwrap();
    assert!(open(dir.path()).err().unwrap().cause.contains("damaged"));
}

#[test]
fn recycled_segments_do_not_pass_for_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = long_log(dir.path(), 30);
    for index in 31..200 {
        log.cut(index - 1).unwrap();
        log.append(&[entry(index, 1000)], log.vote()).unwrap();
        if index % 7 == 0 {
            let first = log.first_index();
            drop(log);
            log = open(dir.path()).unwrap();
            assert_eq!((log.first_index(), log.last_index()), (first, index));
        }
    }
    drop(log);
    let kept = segments(dir.path()).len();
    assert!(kept <= 6, "{kept} segments for one entry");
}

#[test]
fn only_one_process_opens_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let fault = open(dir.path()).err().unwrap();
    assert!(fault.cause.contains("another process"), "{fault}");
    drop(log);
    open(dir.path()).unwrap();
}

#[test]
fn entry_longer_than_a_segment_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    let batch = [entry(1, 10), entry(2, SEGMENT_BYTES as usize)];
    assert!(log.append(&batch, Vote::default()).is_err());
    log.append(&batch[..1], Vote::default()).unwrap();
    assert_eq!(held(&log), batch[..1]);
}

#[test]
fn directory_that_cannot_be_made_is_named() {
    let fault = open(Path::new("/proc/self/no/log")).err().unwrap();
    assert!(
        fault
            .to_string()
            .starts_with("cannot create the directory /proc/self/no"),
        "{fault}"
    );
}
