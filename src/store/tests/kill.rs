//! A process that is killed with kill -9 while it writes: what it had reported is there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use store::log::{Log, LogOptions};
use store::{LogEntry, LogReader, LogStore, Vote};

const DIR_VARIABLE: &str = "STORE_KILL_TEST_DIR";
const ROUNDS: u64 = 12;

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

fn open_log(dir: &Path) -> Log {
    let options = LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::default()
    };
    Log::open(&dir.join("log"), options).unwrap()
}

/// The process to be killed: appends, and reports what it appended, until it is.
#[test]
#[ignore = "the other test starts it"]
fn write_until_killed() {
    let dir = std::env::var_os(DIR_VARIABLE).expect("it says where to write");
    let mut log = open_log(Path::new(&dir));
    loop {
        let next = log.last_index() + 1;
        let batch: Vec<_> = (next..next + 1 + next % 9).map(entry).collect();
        let vote = Vote {
            term: next / 100,
            vote: 1,
            commit: next - 1,
        };
        log.append(&batch, vote).unwrap();
        println!("\nappended {}", log.last_index());
        log.cut(next.saturating_sub(300)).unwrap();
    }
}

#[test]
fn acknowledged_entries_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut appended = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "write_until_killed"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reports = lines.map_while(Result::ok);
        let reports =
            reports.filter_map(|line| line.strip_prefix("appended ")?.parse::<u64>().ok());
        // More after each start, so that the kill comes at ever other places.
        let kill_after = 1 + round * 37;
        for (count, index) in reports.enumerate() {
            appended = index;
            if count as u64 == kill_after {
                child.kill().unwrap();
            }
        }
        let status = child.wait().unwrap();
        assert!(!status.success(), "it was to be killed");

        let log = open_log(dir.path());
        let (first, last) = (log.first_index(), log.last_index());
        assert!(
            last >= appended,
            "{appended} was appended, the log ends with {last}"
        );
        assert!(first <= appended.saturating_sub(300).max(1));
        let held = log.entries(first, last + 1, u64::MAX).unwrap();
        assert_eq!(held, (first..=last).map(entry).collect::<Vec<_>>());
    }
    assert!(appended > ROUNDS * 37);
}
