//! Every checkpoint store against a model: whatever happens, what is loaded is the state at the
//! index it is said to be, and the newest that promises allow.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use store::checkpoint::Checkpoints;
use store::mem::{MemCheckpoints, MemDisk};
use store::{CheckpointStore, Fault, ImageSink, Mark, Record};

type State = BTreeMap<Bytes, Bytes>;

#[derive(Clone, Debug)]
enum Op {
    /// Gives keys values of these lengths.
    Change(Vec<(u8, usize)>),
    Increment,
    /// An increment collected over something older than the newest checkpoint.
    StaleIncrement,
    BeginImage,
    FinishImage,
    AbandonImage,
    Restart,
    /// Damages the newest image at this place, in parts of 256 of its length, and restarts.
    Damage(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let change = (
        any::<u8>(),
        prop_oneof![4 => 0..300usize, 1 => 0..20_000usize],
    );
    prop_oneof![
        6 => prop::collection::vec(change, 0..20).prop_map(Op::Change),
        5 => Just(Op::Increment),
        1 => Just(Op::StaleIncrement),
        3 => Just(Op::BeginImage),
        3 => Just(Op::FinishImage),
        1 => Just(Op::AbandonImage),
        2 => Just(Op::Restart),
        1 => any::<u8>().prop_map(Op::Damage),
    ]
}

/// An implementation under test, on something that outlives the process.
trait Disk {
    fn open(&self) -> Result<Box<dyn CheckpointStore>, Fault>;
    fn damage(&self, place: u8);
}

impl Disk for MemDisk {
    fn open(&self) -> Result<Box<dyn CheckpointStore>, Fault> {
        self.crash(|_| 0);
        Ok(Box::new(MemCheckpoints::open(self)))
    }

    fn damage(&self, _: u8) {
        assert!(self.damage_newest_image());
    }
}

struct Files {
    dir: PathBuf,
    /// Images that were damaged already; they stay until the next one is finished.
    damaged: RefCell<BTreeSet<PathBuf>>,
}

impl Disk for Files {
    fn open(&self) -> Result<Box<dyn CheckpointStore>, Fault> {
        Ok(Box::new(Checkpoints::open(&self.dir)?))
    }

    fn damage(&self, place: u8) {
        let paths = fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let images = paths.filter(|path| path.extension().is_some_and(|kind| kind == "image"));
        let mut damaged = self.damaged.borrow_mut();
        let newest = images.filter(|path| !damaged.contains(path)).max().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        let offset = bytes.len() * usize::from(place) / 256;
        bytes[offset] ^= 0x20;
        fs::write(&newest, bytes).unwrap();
        damaged.insert(newest);
    }
}

#[derive(Default)]
struct Model {
    index: u64,
    state: State,
    /// The states at the indexes where something was written.
    states: BTreeMap<u64, State>,
    /// The images' indexes, and that of the increments.
    images: Vec<u64>,
    increments: Option<u64>,
    /// How many values were made, so that each is new.
    values: u8,
}

impl Model {
    fn mark(&mut self) -> Mark {
        self.states.insert(self.index, self.state.clone());
        mark(self.index)
    }

    fn newest(&self) -> Option<u64> {
        self.increments.or(self.images.last().copied())
    }

    fn changed_since(&self, since: u64) -> Vec<Record> {
        let old = &self.states[&since];
        let changed = self
            .state
            .iter()
            .filter(|(key, value)| old.get(*key) != Some(*value));
        changed.map(record).collect()
    }

    fn check(&self, store: &mut dyn CheckpointStore) {
        match (load(store).unwrap(), self.newest()) {
            (None, None) => {}
            (Some((loaded, records)), Some(newest)) => {
                assert_eq!(loaded, mark(newest));
                let expected: Vec<_> = self.states[&newest].iter().map(record).collect();
                assert_eq!(records, expected);
            }
            (loaded, newest) => panic!("{loaded:?} was loaded, not {newest:?}"),
        }
        assert_eq!(store.newest(), self.newest().map(mark));
        let needed = if self.images.len() == 2 {
            self.images[0]
        } else {
            0
        };
        assert_eq!(store.log_needed_from(), needed);
    }
}

/// The newest checkpoint that can be read to its end.
fn load(store: &mut dyn CheckpointStore) -> Result<Option<(Mark, Vec<Record>)>, Fault> {
    while let Some(loaded) = store.load()? {
        if let Ok(records) = loaded.records.collect() {
            return Ok(Some((loaded.mark, records)));
        }
    }
    Ok(None)
}

fn record((key, value): (&Bytes, &Bytes)) -> Record {
    Record {
        key: key.clone(),
        value: value.clone(),
    }
}

fn mark(index: u64) -> Mark {
    Mark {
        index,
        term: index / 10,
        meta: Bytes::from(format!("members at {index}")),
    }
}

fn run(disk: &dyn Disk, ops: &[Op]) {
    let mut model = Model::default();
    let mut store = disk.open().unwrap();
    let mut sink: Option<(u64, Box<dyn ImageSink>)> = None;
    for op in ops {
        model.index += 1;
        match op {
            Op::Change(changes) => {
                for &(key, length) in changes {
                    model.values = model.values.wrapping_add(1);
                    let value = vec![model.values; length];
                    // All bytes, and the empty key, are fine.
                    let key = vec![key; usize::from(key % 5)];
                    model.state.insert(key.into(), value.into());
                }
            }
            Op::Increment => {
                let since = model.newest().unwrap_or(0);
                let records = if since > 0 {
                    model.changed_since(since)
                } else {
                    Vec::new()
                };
                let mark = model.mark();
                let laid = store.increment(since, mark, records).unwrap();
                assert_eq!(laid, since > 0);
                if laid {
                    model.increments = Some(model.index);
                }
            }
            Op::StaleIncrement => {
                let since = model.newest().map_or(1, |newest| newest - 1);
                let mark = model.mark();
                assert!(!store.increment(since, mark, Vec::new()).unwrap());
            }
            Op::BeginImage => {
                let mut begun = store.begin_image(model.mark()).unwrap();
                for pair in &model.state {
                    begun.push(record(pair)).unwrap();
                }
                sink = Some((model.index, begun));
            }
            Op::FinishImage => {
                if let Some((index, sink)) = sink.take() {
                    sink.finish().unwrap();
                    model.images.push(index);
                    model.images.drain(..model.images.len().saturating_sub(2));
                    model.increments = None;
                }
            }
            Op::AbandonImage => sink = None,
            Op::Restart => {
                sink = None;
                drop(store);
                store = disk.open().unwrap();
            }
            Op::Damage(place) => {
                if model.images.is_empty() {
                    continue;
                }
                sink = None;
                drop(store);
                disk.damage(*place);
                model.images.pop();
                model.increments = None;
                let reopened = disk.open();
                if model.images.is_empty() {
                    assert!(reopened.and_then(|mut store| load(store.as_mut())).is_err());
                    return;
                }
                store = reopened.unwrap();
            }
        }
        model.check(store.as_mut());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn checkpoints_in_memory_are_what_they_say(ops in prop::collection::vec(op(), 1..60)) {
        run(&MemDisk::new(), &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn checkpoints_in_files_are_what_they_say(ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            dir: dir.path().join("checkpoint"),
            damaged: RefCell::default(),
        };
        run(&files, &ops);
    }
}
