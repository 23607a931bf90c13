//! A full disk: a clear fault before anything is acknowledged, and what is there can still be read.

use std::fs;

use bytes::Bytes;
use store::checkpoint::Checkpoints;
use store::log::{Log, LogOptions};
use store::small_disk::SmallDisk;
use store::{CheckpointStore, Fault, ImageSink, LogEntry, LogReader, LogStore, Mark, Record, Vote};

fn entry(index: u64) -> LogEntry {
    LogEntry {
        index,
        term: 1,
        kind: 0,
        data: Bytes::from(vec![index as u8; 1000]),
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::default()
    }
}

#[test]
fn log_on_a_full_disk_refuses_stays_readable_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(512 << 10) else {
        return;
    };
    disk.fill(Some(200 << 10));
    let dir = disk.path().join("log");
    let mut log = Log::open(&dir, options()).unwrap();
    let mut index = 0;
    let fault = loop {
        match log.append(&[entry(index + 1)], Vote::default()) {
            Ok(()) => index += 1,
            Err(fault) => break fault,
        }
    };
    assert!(
        fault
            .to_string()
            .starts_with("cannot fill the log segment ahead in"),
        "{fault}"
    );
    assert!(fault.cause.contains("No space left on device"), "{fault}");
    assert!(fault.cause.contains("free space"), "{fault}");
    assert!(index >= 100, "only {index} entries fit");
    let all: Vec<_> = (1..=index).map(entry).collect();
    assert_eq!(log.entries(1, index + 1, u64::MAX).unwrap(), all);

    drop(log);
    let mut log = Log::open(&dir, options()).unwrap();
    assert_eq!(log.entries(1, index + 1, u64::MAX).unwrap(), all);
    assert!(log.append(&[entry(index + 1)], Vote::default()).is_err());
    disk.make_room();
    log.append(&[entry(index + 1)], Vote::default()).unwrap();
    drop(log);
    assert_eq!(Log::open(&dir, options()).unwrap().last_index(), index + 1);
}

fn mark(index: u64) -> Mark {
    Mark {
        index,
        ..Mark::default()
    }
}

fn records(count: u32, value_bytes: usize) -> Vec<Record> {
    let record = |key: u32| Record {
        key: Bytes::copy_from_slice(&key.to_be_bytes()),
        value: vec![7; value_bytes].into(),
    };
    (0..count).map(record).collect()
}

fn write_image(store: &mut Checkpoints, index: u64, records: Vec<Record>) -> Result<(), Fault> {
    let mut sink = store.begin_image(mark(index))?;
    for record in records {
        sink.push(record)?;
    }
    ImageSink::finish(sink)
}

#[test]
fn checkpoints_on_a_full_disk_stay_what_they_were_and_go_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(16 << 20) else {
        return;
    };
    let dir = disk.path().join("checkpoint");
    let mut store = Checkpoints::open(&dir).unwrap();
    let small = records(10, 100);
    write_image(&mut store, 10, small.clone()).unwrap();
    disk.fill(Some(12 << 20));

    let fault = write_image(&mut store, 20, records(10_000, 1000)).unwrap_err();
    assert!(fault.cause.contains("free space"), "{fault}");
    let unfinished = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let unfinished = unfinished.filter(|path| path.extension().is_some_and(|e| e == "unfinished"));
    assert_eq!(unfinished.count(), 0, "what did not fit still takes room");

    // sled finds no room either: the increment is not laid, and an image is asked for.
    assert!(!store.increment(10, mark(20), records(8000, 1000)).unwrap());
    let loaded = store.load().unwrap().unwrap();
    assert_eq!(loaded.mark, mark(10));
    assert_eq!(
        loaded.records.map(Result::unwrap).collect::<Vec<_>>(),
        small
    );

    disk.make_room();
    write_image(&mut store, 20, small.clone()).unwrap();
    assert!(store.increment(20, mark(30), small).unwrap());
    drop(store);
    assert_eq!(Checkpoints::open(&dir).unwrap().newest(), Some(mark(30)));
}
