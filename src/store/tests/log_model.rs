//! Every log against a model: random operations, with the process and the machine stopping in
//! between. What was acknowledged is there afterwards, and nothing else is.

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use store::log::{Log, LogOptions};
use store::mem::{Faults, MemDisk, MemLog};
use store::{LogEntry, LogStore, Vote};

/// So short that a sequence of operations goes through many of them.
const SEGMENT_BYTES: u32 = 2048;
/// So little that most entries are read from the files.
const CACHE_BYTES: usize = 1500;
const DATA_BYTES_MAX: usize = 700;

#[derive(Clone, Debug)]
enum Op {
    /// Entries of these lengths, replacing so many at the end, if they are not committed.
    Append {
        lengths: Vec<usize>,
        replacing: u64,
        commit: bool,
    },
    Vote {
        vote: u64,
    },
    Commit,
    Reset {
        beyond: u64,
    },
    Cut {
        before_last: u64,
    },
    Restart,
    /// The sync of an append fails; the process ends, and so much of the append is left.
    Crash {
        lengths: Vec<usize>,
        kept: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let lengths = || prop::collection::vec(0..DATA_BYTES_MAX, 1..8);
    prop_oneof![
        8 => (lengths(), 0..5u64, any::<bool>()).prop_map(|(lengths, replacing, commit)| {
            Op::Append { lengths, replacing, commit }
        }),
        1 => (1..4u64).prop_map(|vote| Op::Vote { vote }),
        2 => Just(Op::Commit),
        1 => (0..20u64).prop_map(|beyond| Op::Reset { beyond }),
        3 => (0..10u64).prop_map(|before_last| Op::Cut { before_last }),
        3 => Just(Op::Restart),
        2 => (lengths(), 0..8usize).prop_map(|(lengths, kept)| Op::Crash { lengths, kept }),
    ]
}

/// An implementation under test, on something that outlives the process.
trait Disk {
    fn open(&self) -> Box<dyn LogStore>;
    /// Appends with a sync that fails, ends the process and the machine, and says how much of the
    /// append may be left: `None` when the implementation cannot be made to fail so.
    fn crash(&self, log: Box<dyn LogStore>, entries: &[LogEntry], kept: usize) -> bool;
}

impl Disk for MemDisk {
    fn open(&self) -> Box<dyn LogStore> {
        Box::new(MemLog::open(self))
    }

    fn crash(&self, mut log: Box<dyn LogStore>, entries: &[LogEntry], kept: usize) -> bool {
        self.set_faults(Faults {
            sync_fails: true,
            ..Faults::default()
        });
        let vote = log.vote();
        assert!(log.append(entries, vote).is_err());
        self.set_faults(Faults::default());
        MemDisk::crash(self, |unsynced| kept.min(unsynced));
        true
    }
}

struct Files(PathBuf);

impl Disk for Files {
    fn open(&self) -> Box<dyn LogStore> {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: CACHE_BYTES,
            ..LogOptions::default()
        };
        Box::new(Log::open(&self.0, options).unwrap())
    }

    fn crash(&self, log: Box<dyn LogStore>, _: &[LogEntry], _: usize) -> bool {
        drop(log);
        false
    }
}

/// What a log must hold.
#[derive(Clone, Debug)]
struct Model {
    base: (u64, u64),
    entries: Vec<LogEntry>,
    vote: Vote,
    term: u64,
}

impl Model {
    fn last_index(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn make(&mut self, lengths: &[usize], after: u64) -> Vec<LogEntry> {
        self.term += 1;
        let entry = |(&length, index): (&usize, u64)| LogEntry {
            index,
            term: self.term,
            kind: (length % 3) as u8,
            data: Bytes::from(vec![index as u8; length]),
        };
        lengths.iter().zip(after + 1..).map(entry).collect()
    }

    fn put(&mut self, entries: &[LogEntry]) {
        self.entries
            .truncate((entries[0].index - self.base.0 - 1) as usize);
        self.entries.extend_from_slice(entries);
    }

    fn check(&mut self, log: &dyn LogStore) {
        assert_eq!(log.vote(), self.vote);
        assert_eq!(log.last_index(), self.last_index());
        // A log may keep what was cut off, and may not keep what was not.
        let first = log.first_index();
        assert!(first <= self.base.0 + 1);
        assert_eq!(log.term(self.base.0), Some(self.base.1));
        assert!(log.term(first - 1).is_some());
        assert_eq!(log.term(self.last_index() + 1), None);
        let mut held = Vec::new();
        let reader = log.reader();
        while held.len() < self.entries.len() {
            let from = self.base.0 + 1 + held.len() as u64;
            let some = reader.entries(from, self.last_index() + 1, 1000).unwrap();
            let bytes: usize = some.iter().map(|entry| entry.data.len()).sum();
            assert!(some.len() == 1 || bytes <= 1000);
            held.extend(some);
        }
        assert_eq!(held, self.entries);
        for entry in &self.entries {
            assert_eq!(log.term(entry.index), Some(entry.term));
        }
    }
}

fn run(disk: &dyn Disk, ops: &[Op]) {
    let mut model = Model {
        base: (0, 0),
        entries: Vec::new(),
        vote: Vote::default(),
        term: 0,
    };
    let mut log = disk.open();
    for op in ops {
        match op {
            Op::Append {
                lengths,
                replacing,
                commit,
            } => {
                let after = model.last_index().saturating_sub(*replacing);
                let after = after.max(model.base.0).max(model.vote.commit);
                let entries = model.make(lengths, after);
                let mut vote = model.vote;
                vote.term = model.term;
                if *commit {
                    vote.commit = after + lengths.len() as u64;
                }
                log.append(&entries, vote).unwrap();
                model.put(&entries);
                model.vote = vote;
            }
            Op::Vote { vote } => {
                model.vote.vote = *vote;
                log.append(&[], model.vote).unwrap();
            }
            Op::Commit => {
                model.vote.commit = model.last_index();
                log.append(&[], model.vote).unwrap();
            }
            Op::Reset { beyond } => {
                model.term += 1;
                model.base = (model.last_index() + beyond, model.term);
                model.entries.clear();
                log.reset(model.base.0, model.base.1).unwrap();
            }
            Op::Cut { before_last } => {
                let index = model.vote.commit.saturating_sub(*before_last);
                if index > model.base.0 {
                    let term = model.entries[(index - model.base.0 - 1) as usize].term;
                    model.entries.drain(..(index - model.base.0) as usize);
                    model.base = (index, term);
                    log.cut(index).unwrap();
                }
            }
            Op::Restart => {
                let first = log.first_index();
                drop(log);
                log = disk.open();
                assert_eq!(log.first_index(), first);
            }
            Op::Crash { lengths, kept } => {
                // Make the commits that no sync covered durable, so that the model is exact.
                model.vote.vote += 1;
                log.append(&[], model.vote).unwrap();
                let entries = model.make(lengths, model.last_index());
                if disk.crash(log, &entries, *kept) {
                    let kept = &entries[..entries.len().min(*kept)];
                    if !kept.is_empty() {
                        model.put(kept);
                    }
                }
                log = disk.open();
            }
        }
        model.check(log.as_ref());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn log_in_memory_keeps_what_it_acknowledged(ops in prop::collection::vec(op(), 1..60)) {
        run(&MemDisk::new(), &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn log_in_files_keeps_what_it_acknowledged(ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(&Files(dir.path().join("log")), &ops);
    }
}
