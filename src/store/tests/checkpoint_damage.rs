//! What checkpoints in files make of damage, and of a crash at the wrong moment: a restart begins
//! at the newest place that is whole, and at nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use store::checkpoint::Checkpoints;
use store::{CheckpointStore, Mark, Record};

fn mark(index: u64) -> Mark {
    Mark {
        index,
        term: 1,
        meta: Bytes::from_static(b"meta"),
    }
}

fn record(key: u32, value: Vec<u8>) -> Record {
    Record {
        key: Bytes::from(format!("key {key:06}")),
        value: value.into(),
    }
}

fn write_image(store: &mut Checkpoints, index: u64, records: u32) {
    let mut sink = store.begin_image(mark(index)).unwrap();
    for key in 0..records {
        sink.push(record(key, vec![index as u8; 20])).unwrap();
    }
    sink.finish().unwrap();
}

/// Where the checkpoints in `dir` begin, and what is in them.
fn load(dir: &Path) -> (u64, Vec<Record>) {
    let mut store = Checkpoints::open(dir).unwrap();
    loop {
        let loaded = store.load().unwrap().unwrap();
        let index = loaded.mark.index;
        if let Ok(records) = loaded.records.collect() {
            return (index, records);
        }
    }
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == kind))
        .collect();
    paths.sort();
    paths
}

#[test]
fn image_damaged_at_any_byte_falls_back_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    write_image(&mut store, 10, 3);
    write_image(&mut store, 20, 5);
    assert!(
        store
            .increment(20, mark(25), vec![record(1, vec![25])])
            .unwrap()
    );
    drop(store);
    let older: Vec<_> = (0..3).map(|key| record(key, vec![10; 20])).collect();
    let newest = files(dir.path(), "image").pop().unwrap();
    let whole = fs::read(&newest).unwrap();
    for offset in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x01;
        fs::write(&newest, &bytes).unwrap();
        assert_eq!(load(dir.path()), (10, older.clone()), "flipped at {offset}");
        fs::write(&newest, &whole[..offset]).unwrap();
        assert_eq!(load(dir.path()), (10, older.clone()), "cut off at {offset}");
    }
    fs::write(&newest, [whole.clone(), vec![0]].concat()).unwrap();
    assert_eq!(load(dir.path()), (10, older), "with a byte more");
    fs::write(&newest, whole).unwrap();
    assert_eq!(
        load(dir.path()).0,
        20,
        "the increments were dropped when there was a doubt"
    );
}

#[test]
fn no_whole_image_is_a_fault_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    write_image(&mut Checkpoints::open(dir.path()).unwrap(), 10, 3);
    fs::write(&files(dir.path(), "image")[0], "junk").unwrap();
    let fault = Checkpoints::open(dir.path()).err().unwrap();
    assert!(
        fault
            .cause
            .contains("no image is whole: remove this member"),
        "{fault}"
    );
}

/// A member that found all its images damaged must not pass for a new one at its next start.
#[test]
fn images_found_damaged_are_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    write_image(&mut store, 10, 3);
    drop(store);
    let image = files(dir.path(), "image").pop().unwrap();
    let mut bytes = fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&image, bytes).unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    let loaded = store.load().unwrap().unwrap();
    assert!(loaded.records.collect::<Result<Vec<_>, _>>().is_err());
    let fault = store.load().err().unwrap();
    assert!(fault.cause.contains("no image is whole"), "{fault}");
    drop(store);
    let fault = Checkpoints::open(dir.path()).err().unwrap();
    assert!(fault.cause.contains("no image is whole"), "{fault}");
}

#[test]
fn crash_before_the_rename_leaves_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    write_image(&mut store, 10, 3);
    // An image that is whole and has not got its name yet, and one that is not whole.
    let image = files(dir.path(), "image").pop().unwrap();
    let unfinished = dir.path().join("0000000007.unfinished");
    fs::copy(&image, &unfinished).unwrap();
    let mut sink = store.begin_image(mark(20)).unwrap();
    sink.push(record(1, vec![1])).unwrap();
    std::mem::forget(sink);
    assert_eq!(files(dir.path(), "unfinished").len(), 2);
    // The sink that was forgotten holds the lock, as a process that goes on would.
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(load(copy.path()).0, 10);
    assert_eq!(files(copy.path(), "unfinished").len(), 0);
}

#[test]
fn abandoned_image_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    drop(store.begin_image(mark(20)).unwrap());
    assert_eq!(files(dir.path(), "unfinished").len(), 0);
    assert_eq!(store.newest(), None);
}

#[test]
fn only_two_images_and_their_increments_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    for index in 1..6 {
        write_image(&mut store, index * 10, 3);
        let laid = store.increment(index * 10, mark(index * 10 + 1), vec![record(0, vec![0])]);
        assert!(laid.unwrap());
        assert_eq!(files(dir.path(), "image").len(), 2.min(index as usize));
        assert_eq!(files(dir.path(), "increments").len(), 1);
    }
}

#[test]
fn records_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    let mut sink = store.begin_image(mark(1)).unwrap();
    sink.push(record(2, vec![])).unwrap();
    assert!(sink.push(record(2, vec![])).is_err());
    assert!(sink.push(record(1, vec![])).is_err());
}

/// Increments over an image at 20: one at 30, one at 40.
fn with_increments(dir: &Path) -> [Vec<Record>; 3] {
    let mut store = Checkpoints::open(dir).unwrap();
    write_image(&mut store, 10, 100);
    write_image(&mut store, 20, 100);
    let image: Vec<_> = (0..100).map(|key| record(key, vec![20; 20])).collect();
    let mut states = [image.clone(), image.clone(), image];
    for (step, index) in [(1, 30), (2, 40)] {
        let changed: Vec<_> = (0..50)
            .map(|i| record(i * step as u32, vec![index as u8; 30 * i as usize]))
            .collect();
        for state in &mut states[step..] {
            for new in &changed {
                let old = state.iter_mut().find(|old| old.key == new.key).unwrap();
                *old = new.clone();
            }
        }
        assert!(store.increment(index - 10, mark(index), changed).unwrap());
    }
    states
}

#[test]
fn increments_damaged_anywhere_are_whole_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let [image, first, second] = with_increments(dir.path());
    let increments = files(dir.path(), "increments").pop().unwrap();
    let db = increments.join("db");
    let whole = fs::read(&db).unwrap();
    assert!(!whole.is_empty());
    let used = whole.iter().rposition(|&byte| byte != 0).unwrap();
    let saved: Vec<_> = ["conf", "db"]
        .map(|name| fs::read(increments.join(name)).unwrap())
        .into();
    let mut dropped = 0;
    for step in 0..60 {
        let offset = used * step / 60;
        fs::create_dir_all(&increments).unwrap();
        for entry in fs::read_dir(&increments).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        fs::write(increments.join("conf"), &saved[0]).unwrap();
        let mut bytes = saved[1].clone();
        if step % 2 == 0 {
            bytes[offset] ^= 0x40;
        } else {
            bytes.truncate(offset);
        }
        fs::write(&db, bytes).unwrap();
        let (index, records) = load(dir.path());
        match index {
            20 => assert_eq!(records, image),
            30 => assert_eq!(records, first),
            40 => assert_eq!(records, second),
            other => panic!("a checkpoint at {other} was never made"),
        }
        dropped += u32::from(index < 40);
    }
    assert!(dropped > 10, "{dropped} of 60 were noticed");
}

#[test]
fn large_values_and_many_keys_make_no_files_beside_the_one_that_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    write_image(&mut store, 10, 1);
    let mut records: Vec<_> = (0..2000)
        .map(|i| Record {
            key: Bytes::from(format!("{:01000}{i:024}", 0)),
            value: vec![7; 4096].into(),
        })
        .collect();
    records.extend((0..20).map(|i| record(i, vec![8; 300_000])));
    records.sort_by(|a, b| a.key.cmp(&b.key));
    assert!(store.increment(10, mark(20), records.clone()).unwrap());
    let increments = files(dir.path(), "increments").pop().unwrap();
    assert_eq!(fs::read_dir(increments.join("blobs")).unwrap().count(), 0);
    drop(store);
    assert_eq!(load(dir.path()), (20, records));
}

#[test]
fn increment_with_a_long_key_asks_for_an_image_instead() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Checkpoints::open(dir.path()).unwrap();
    write_image(&mut store, 10, 1);
    let long = Record {
        key: vec![1; 5000].into(),
        value: Bytes::new(),
    };
    assert!(!store.increment(10, mark(20), vec![long.clone()]).unwrap());
    let mut sink = store.begin_image(mark(20)).unwrap();
    sink.push(long.clone()).unwrap();
    sink.finish().unwrap();
    drop(store);
    assert_eq!(load(dir.path()), (20, vec![long]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_no_image(bytes in prop::collection::vec(any::<u8>(), 0..300), named: bool) {
        let dir = tempfile::tempdir().unwrap();
        write_image(&mut Checkpoints::open(dir.path()).unwrap(), 10, 3);
        let begin = if named { &b"rimage\0\x01"[..] } else { &[] };
        fs::write(dir.path().join("0000000009.image"), [begin, &bytes].concat()).unwrap();
        prop_assert_eq!(load(dir.path()).0, 10);
    }
}
