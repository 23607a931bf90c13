//! Checkpoints in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{MemDisk, fault};
use crate::merge::Merge;
use crate::{CheckpointStore, Fault, IMAGES_KEPT, ImageSink, Loaded, Mark, Record};

struct Image {
    mark: Mark,
    records: Arc<[Record]>,
    damaged: bool,
}

#[derive(Default)]
struct Increments {
    mark: Option<Mark>,
    records: BTreeMap<Bytes, Bytes>,
}

/// The checkpoints as they are on a [`MemDisk`], oldest first.
#[derive(Default)]
pub(super) struct Files {
    images: Vec<Image>,
    /// Over the newest image.
    increments: Increments,
}

/// A [`CheckpointStore`] on a [`MemDisk`].
pub struct MemCheckpoints {
    disk: MemDisk,
    generation: u64,
}

struct MemImage {
    disk: MemDisk,
    generation: u64,
    mark: Mark,
    records: Vec<Record>,
}

impl Files {
    pub(super) fn damage_newest(&mut self) -> bool {
        match self.images.last_mut() {
            Some(image) => {
                image.damaged = true;
                true
            }
            None => false,
        }
    }

    fn newest(&self) -> Option<&Mark> {
        let image = self.images.last().map(|image| &image.mark);
        self.increments.mark.as_ref().or(image)
    }

    /// Takes a finished image in, and removes what it supersedes.
    fn take(&mut self, image: Image) {
        let older = self
            .images
            .partition_point(|other| other.mark.index <= image.mark.index);
        if older == self.images.len() {
            self.increments = Increments::default();
        }
        self.images.insert(older, image);
        let excess = self.images.len().saturating_sub(IMAGES_KEPT);
        self.images.drain(..excess);
    }

    fn drop_damaged(&mut self) {
        while self.images.last().is_some_and(|image| image.damaged) {
            self.images.pop();
            self.increments = Increments::default();
        }
    }
}

impl MemCheckpoints {
    /// Opens the checkpoints that are on this disk; a new disk has none.
    pub fn open(disk: &MemDisk) -> MemCheckpoints {
        MemCheckpoints {
            disk: disk.clone(),
            generation: disk.generation(),
        }
    }
}

impl CheckpointStore for MemCheckpoints {
    fn load(&mut self) -> Result<Option<Loaded>, Fault> {
        let action = "load the checkpoint";
        let mut disk = self.disk.enter(self.generation, action)?;
        let files = &mut disk.checkpoint;
        let had_images = !files.images.is_empty();
        files.drop_damaged();
        let Some(image) = files.images.last() else {
            return if had_images {
                Err(fault(action, "no image is whole"))
            } else {
                Ok(None)
            };
        };
        let records = image.records.clone();
        let below = (0..records.len()).map(move |i| Ok(records[i].clone()));
        let over = files.increments.records.clone();
        let over = over
            .into_iter()
            .map(|(key, value)| Ok(Record { key, value }));
        Ok(Some(Loaded {
            mark: files.newest().expect("there is an image").clone(),
            records: Box::new(Merge::new(below, over)),
        }))
    }

    fn begin_image(&mut self, mark: Mark) -> Result<Box<dyn ImageSink>, Fault> {
        let mut disk = self.disk.enter(self.generation, "begin an image")?;
        disk.write("begin an image", mark.meta.len())?;
        Ok(Box::new(MemImage {
            disk: self.disk.clone(),
            generation: self.generation,
            mark,
            records: Vec::new(),
        }))
    }

    fn newest(&self) -> Option<Mark> {
        self.disk.0.lock().checkpoint.newest().cloned()
    }

    fn increment(&mut self, since: u64, mark: Mark, records: Vec<Record>) -> Result<bool, Fault> {
        let action = "write an increment";
        let mut disk = self.disk.enter(self.generation, action)?;
        if disk
            .checkpoint
            .newest()
            .is_none_or(|newest| newest.index != since)
        {
            return Ok(false);
        }
        let bytes = |record: &Record| record.key.len() + record.value.len();
        disk.write(action, records.iter().map(bytes).sum())?;
        if disk.sync(action)? {
            let increments = &mut disk.checkpoint.increments;
            increments.mark = Some(mark);
            for record in records {
                increments.records.insert(record.key, record.value);
            }
        }
        Ok(true)
    }

    fn log_needed_from(&self) -> u64 {
        let disk = self.disk.0.lock();
        match disk.checkpoint.images.as_slice() {
            [older, _] => older.mark.index,
            _ => 0,
        }
    }
}

impl ImageSink for MemImage {
    fn push(&mut self, record: Record) -> Result<(), Fault> {
        let action = "write an image";
        if self
            .records
            .last()
            .is_some_and(|last| last.key >= record.key)
        {
            return Err(fault(action, "its records are not in key order"));
        }
        let mut disk = self.disk.enter(self.generation, action)?;
        disk.write(action, record.key.len() + record.value.len())?;
        self.records.push(record);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Fault> {
        let mut disk = self.disk.enter(self.generation, "finish an image")?;
        if disk.sync("finish an image")? {
            disk.checkpoint.take(Image {
                mark: self.mark,
                records: self.records.into(),
                damaged: false,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(index: u64) -> Mark {
        Mark {
            index,
            term: 1,
            meta: Bytes::new(),
        }
    }

    fn record(key: &'static str, value: &'static str) -> Record {
        Record {
            key: Bytes::from(key),
            value: Bytes::from(value),
        }
    }

    fn image(store: &mut MemCheckpoints, index: u64, value: &'static str) {
        let mut sink = store.begin_image(mark(index)).unwrap();
        sink.push(record("a", value)).unwrap();
        sink.push(record("b", value)).unwrap();
        sink.finish().unwrap();
    }

    fn loaded(disk: &MemDisk) -> (u64, Vec<Record>) {
        let loaded = MemCheckpoints::open(disk).load().unwrap().unwrap();
        (
            loaded.mark.index,
            loaded.records.map(Result::unwrap).collect(),
        )
    }

    #[test]
    fn damaged_image_falls_back_with_the_log_still_there() {
        let disk = MemDisk::new();
        let mut store = MemCheckpoints::open(&disk);
        image(&mut store, 10, "1");
        assert_eq!(store.log_needed_from(), 0);
        image(&mut store, 20, "2");
        assert_eq!(store.log_needed_from(), 10);
        assert!(
            store
                .increment(20, mark(25), vec![record("b", "3")])
                .unwrap()
        );
        assert_eq!(
            loaded(&disk),
            (25, vec![record("a", "2"), record("b", "3")])
        );
        assert!(disk.damage_newest_image());
        assert_eq!(
            loaded(&disk),
            (10, vec![record("a", "1"), record("b", "1")])
        );
    }

    #[test]
    fn increment_collected_before_an_image_was_finished_is_refused() {
        let disk = MemDisk::new();
        let mut store = MemCheckpoints::open(&disk);
        image(&mut store, 10, "1");
        assert!(
            store
                .increment(10, mark(25), vec![record("a", "2")])
                .unwrap()
        );
        image(&mut store, 20, "1");
        assert!(
            !store
                .increment(25, mark(30), vec![record("b", "3")])
                .unwrap()
        );
        assert_eq!(store.newest(), Some(mark(20)));
    }
}
