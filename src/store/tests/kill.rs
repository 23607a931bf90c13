//! A process that is killed with kill -9 while it writes log and checkpoints: what it had reported
//! is there, and a restart finds the state it had.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use store::checkpoint::Checkpoints;
use store::log::{Log, LogOptions};
use store::{CheckpointStore, LogEntry, LogReader, LogStore, Mark, Record, Vote};

const DIR_VARIABLE: &str = "STORE_KILL_TEST_DIR";
const ROUNDS: u64 = 12;
const KEYS: u64 = 97;

/// An entry that can be told to be right by its index alone.
fn entry(index: u64) -> LogEntry {
    let length = (index * 7919 % 1500) as usize;
    LogEntry {
        index,
        term: index / 100,
        kind: 1,
        data: Bytes::from(vec![index as u8; length]),
    }
}

/// A little replica: entry `i` sets key `31 i mod 97` to `i`.
struct Member {
    log: Log,
    checkpoints: Checkpoints,
    state: BTreeMap<u64, u64>,
}

impl Member {
    fn open(dir: &Path) -> Member {
        let options = LogOptions {
            segment_bytes: 64 << 10,
            ..LogOptions::default()
        };
        let log = Log::open(&dir.join("log"), options).unwrap();
        let mut checkpoints = Checkpoints::open(&dir.join("checkpoint")).unwrap();
        let mut state = BTreeMap::new();
        let mut applied = 0;
        if let Some(loaded) = checkpoints.load().unwrap() {
            applied = loaded.mark.index;
            let number = |bytes: Bytes| u64::from_be_bytes(bytes[..].try_into().unwrap());
            let records = loaded.records.map(Result::unwrap);
            state = records
                .map(|record| (number(record.key), number(record.value)))
                .collect();
        }
        assert!(log.first_index() <= applied + 1, "the log does not lead on");
        assert!(
            applied <= log.last_index(),
            "the log ends before the checkpoint"
        );
        for entry in log
            .entries(applied + 1, log.last_index() + 1, u64::MAX)
            .unwrap()
        {
            state.insert(entry.index * 31 % KEYS, entry.index);
        }
        Member {
            log,
            checkpoints,
            state,
        }
    }

    fn append(&mut self) {
        let next = self.log.last_index() + 1;
        let batch: Vec<_> = (next..next + 1 + next % 9).map(entry).collect();
        let vote = Vote {
            term: next / 100,
            vote: 1,
            commit: next - 1,
        };
        self.log.append(&batch, vote).unwrap();
        for entry in batch {
            self.state.insert(entry.index * 31 % KEYS, entry.index);
        }
        println!("\nappended {}", self.log.last_index());
    }

    fn records(&self, since: u64) -> Vec<Record> {
        let changed = self.state.iter().filter(|&(_, &value)| value > since);
        let record = |(key, value): (&u64, &u64)| Record {
            key: Bytes::copy_from_slice(&key.to_be_bytes()),
            value: Bytes::copy_from_slice(&value.to_be_bytes()),
        };
        changed.map(record).collect()
    }

    fn mark(&self) -> Mark {
        let index = self.log.last_index();
        Mark {
            index,
            term: index / 100,
            meta: Bytes::new(),
        }
    }

    fn write_image(&mut self) {
        let mut sink = self.checkpoints.begin_image(self.mark()).unwrap();
        for record in self.records(0) {
            sink.push(record).unwrap();
        }
        sink.finish().unwrap();
        println!("\nimage {}", self.log.last_index());
        self.log.cut(self.checkpoints.log_needed_from()).unwrap();
    }

    fn write_increment(&mut self) {
        if let Some(newest) = self.checkpoints.newest() {
            let records = self.records(newest.index);
            self.checkpoints
                .increment(newest.index, self.mark(), records)
                .unwrap();
        }
    }
}

/// The process to be killed: writes, and reports what it wrote, until it is.
#[test]
#[ignore = "the other test starts it"]
fn write_until_killed() {
    let dir = std::env::var_os(DIR_VARIABLE).expect("it says where to write");
    let mut member = Member::open(Path::new(&dir));
    for round in 1u64.. {
        member.append();
        match (round % 23, round % 5) {
            (0, _) => member.write_image(),
            (_, 0) => member.write_increment(),
            (_, _) => {}
        }
    }
}

#[test]
fn acknowledged_entries_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut appended, mut image) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "write_until_killed"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // More after each start, so that the kill comes at ever other places.
        let kill_after = 1 + round * 13;
        let mut reports = 0;
        for line in lines.map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("appended", index)) => appended = index.parse::<u64>().unwrap(),
                Some(("image", index)) => image = index.parse::<u64>().unwrap(),
                Some(_) | None => continue,
            }
            reports += 1;
            if reports == kill_after {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success(), "it was to be killed");

        let member = Member::open(dir.path());
        let (first, last) = (member.log.first_index(), member.log.last_index());
        assert!(
            last >= appended,
            "{appended} was appended, the log ends with {last}"
        );
        let held = member.log.entries(first, last + 1, u64::MAX).unwrap();
        assert_eq!(held, (first..=last).map(entry).collect::<Vec<_>>());
        assert!(member.checkpoints.newest().map_or(0, |newest| newest.index) >= image);
        let state: BTreeMap<_, _> = (1..=last).map(|index| (index * 31 % KEYS, index)).collect();
        assert_eq!(member.state, state);
    }
    assert!(image > 0 && appended > ROUNDS * 13);
}
