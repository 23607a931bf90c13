//! What is in the log, in memory: where each entry is, its term, and the newest entries themselves.
//! Shared between the writer and readers; locked only to look and to publish, never across I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::frame::{self, Frame};
use super::segment::Segment;
use crate::disk::refused;
use crate::{Fault, LogEntry, LogReader};

/// What an entry costs beside its data.
const ENTRY_BYTES: usize = size_of::<LogEntry>();
/// Older entries are read in pieces of about this size.
const READ_BYTES: u32 = 1 << 20;

/// Where an entry's frame is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) epoch: u32,
    pub(super) offset: u32,
    pub(super) data_bytes: u32,
}

/// A segment that holds a part of the log.
#[derive(Clone)]
pub(super) struct InUse {
    pub(super) segment: Arc<Segment>,
    /// The last entry's index when the segment began.
    pub(super) base_index: u64,
}

/// The log's content.
pub(super) struct View {
    /// By epoch, oldest first. The last one is being written.
    pub(super) segments: BTreeMap<u32, InUse>,
    /// Index and term of the entry before the first.
    base_index: u64,
    base_term: u64,
    places: VecDeque<Place>,
    /// Index of the first entry of each term, and the term.
    terms: VecDeque<(u64, u64)>,
    /// The newest entries.
    cache: VecDeque<LogEntry>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// The write or sync that failed.
    poison: Option<Fault>,
}

/// Neighbouring entries of one segment, read with one call.
struct Run {
    segment: Arc<Segment>,
    first_index: u64,
    places: Vec<Place>,
}

impl View {
    /// An empty log, of whose newest entries so much is kept in memory.
    pub(super) fn new(cache_bytes_max: usize) -> View {
        View {
            segments: BTreeMap::new(),
            base_index: 0,
            base_term: 0,
            places: VecDeque::new(),
            terms: VecDeque::new(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
            poison: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    pub(super) fn first_index(&self) -> u64 {
        self.base_index + 1
    }

    pub(super) fn last_index(&self) -> u64 {
        self.base_index + self.places.len() as u64
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        if index < self.base_index || index > self.last_index() {
            return None;
        }
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms[after - 1].1)
    }

    /// Forgets everything and continues after this entry.
    pub(super) fn reset(&mut self, index: u64, term: u64) {
        self.truncate(self.base_index);
        (self.base_index, self.base_term) = (index, term);
    }

    /// Puts an entry in its place; those with the same or a greater index are gone. One that is
    /// before the first is not held, but leaves its mark all the same, so that reading back a log
    /// whose older part is gone gives what the writer had.
    pub(super) fn put(&mut self, entry: LogEntry, place: Place) {
        assert!(entry.index <= self.last_index() + 1, "entries have no gap");
        self.truncate((entry.index - 1).max(self.base_index));
        if entry.index <= self.base_index {
            if entry.index == self.base_index {
                self.base_term = entry.term;
            }
            return;
        }
        if self
            .terms
            .back()
            .is_none_or(|&(_, term)| term != entry.term)
        {
            self.terms.push_back((entry.index, entry.term));
        }
        self.places.push_back(place);
        self.cache_bytes += entry.data.len() + ENTRY_BYTES;
        self.cache.push_back(entry);
        while self.cache_bytes > self.cache_bytes_max {
            self.shrink_cache();
        }
    }

    /// Forgets the segments all of whose entries are up to `index`. Answers their epochs.
    pub(super) fn cut(&mut self, index: u64) -> Vec<u32> {
        // An overwritten suffix can make a later segment begin at a smaller index: the newest one
        // that allows it counts.
        let later = self.segments.values().skip(1);
        let Some(oldest) = later
            .rev()
            .find(|segment| segment.base_index <= index)
            .cloned()
        else {
            return Vec::new();
        };
        let base_index = oldest.base_index;
        if base_index > self.base_index {
            self.base_term = self.term(base_index).expect("only what is held is cut");
            self.places.drain(..(base_index - self.base_index) as usize);
            self.base_index = base_index;
            let after = self
                .terms
                .partition_point(|&(first, _)| first <= base_index + 1);
            self.terms.drain(..after.saturating_sub(1));
            while self
                .cache
                .front()
                .is_some_and(|entry| entry.index <= base_index)
            {
                self.shrink_cache();
            }
        }
        self.drop_segments_before(oldest.segment.epoch)
    }

    /// Forgets all segments older than `epoch`. Answers their epochs.
    pub(super) fn drop_segments_before(&mut self, epoch: u32) -> Vec<u32> {
        let kept = self.segments.split_off(&epoch);
        std::mem::replace(&mut self.segments, kept)
            .into_keys()
            .collect()
    }

    /// Forgets the entries after `last`.
    fn truncate(&mut self, last: u64) {
        self.places.truncate((last - self.base_index) as usize);
        while self.terms.back().is_some_and(|&(first, _)| first > last) {
            self.terms.pop_back();
        }
        while self.cache.back().is_some_and(|entry| entry.index > last) {
            let entry = self.cache.pop_back().expect("it was just seen");
            self.cache_bytes -= entry.data.len() + ENTRY_BYTES;
        }
    }

    fn shrink_cache(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= entry.data.len() + ENTRY_BYTES;
        }
    }

    /// How many entries from `from` on, which is held, are within `bytes_max`; at least one.
    fn fitting(&self, from: u64, to: u64, bytes_max: u64) -> u64 {
        let places = self.places.range((from - self.base_index - 1) as usize..);
        let mut bytes = 0;
        let fits = |place: &&Place| {
            bytes += u64::from(place.data_bytes);
            bytes <= bytes_max
        };
        let fitting = places.take((to - from) as usize).take_while(fits).count() as u64;
        fitting.max(1)
    }

    /// The entries `from..to`, all held, as runs to be read.
    fn runs(&self, from: u64, to: u64) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for index in from..to {
            let place = self.places[(index - self.base_index - 1) as usize];
            match runs.last_mut() {
                Some(run) if run.takes(place) => run.places.push(place),
                Some(_) | None => runs.push(Run {
                    segment: self.segments[&place.epoch].segment.clone(),
                    first_index: index,
                    places: vec![place],
                }),
            }
        }
        runs
    }
}

impl Run {
    fn takes(&self, place: Place) -> bool {
        let first = self.places[0];
        place.epoch == first.epoch
            && place.offset > first.offset
            && place.end() - u64::from(first.offset) <= u64::from(READ_BYTES)
    }

    fn read(&self, entries: &mut Vec<LogEntry>) -> Result<(), Fault> {
        let start = self.places[0].offset;
        let end = self.places[self.places.len() - 1].end();
        let bytes = self
            .segment
            .read(start, (end - u64::from(start)) as usize)?;
        for (place, expected) in self.places.iter().zip(self.first_index..) {
            let frame = &bytes[(place.offset - start) as usize..];
            match frame::decode(frame, place.epoch, place.offset).map(|decoded| decoded.frame) {
                Ok(Frame::Entry {
                    index,
                    term,
                    kind,
                    data,
                }) if index == expected => {
                    entries.push(LogEntry {
                        index,
                        term,
                        kind,
                        data: Bytes::copy_from_slice(data),
                    });
                }
                Ok(_) | Err(_) => {
                    let cause = format!(
                        "entry {expected} at offset {} is damaged; {}",
                        place.offset,
                        super::RECOVERY
                    );
                    return Err(refused("read the log segment", &self.segment.path, cause));
                }
            }
        }
        Ok(())
    }
}

impl Place {
    fn end(self) -> u64 {
        u64::from(self.offset) + frame::frame_bytes(u64::from(self.data_bytes))
    }
}

/// The view as writer and readers share it.
pub(super) struct SharedView(RwLock<View>);

impl SharedView {
    pub(super) fn new(view: View) -> SharedView {
        SharedView(RwLock::new(view))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.0.write()
    }

    /// From now on everything fails with `fault`.
    pub(super) fn poison(&self, fault: Fault) {
        tracing::error!(%fault, "the log has failed and takes nothing more");
        self.0.write().poison.get_or_insert(fault);
    }
}

impl LogReader for SharedView {
    fn first_index(&self) -> u64 {
        self.read().first_index()
    }

    fn last_index(&self) -> u64 {
        self.read().last_index()
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.read().term(index)
    }

    fn entries(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<LogEntry>, Fault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let view = self.read();
        view.check()?;
        if from < view.first_index() || to > view.last_index() + 1 {
            return Err(not_held(&view, from, to));
        }
        let to = from + view.fitting(from, to, bytes_max);
        let oldest_cached = view.cache.front().map_or(to, |entry| entry.index);
        let cached_from = oldest_cached.clamp(from, to);
        let runs = view.runs(from, cached_from);
        let cached = view
            .cache
            .iter()
            .skip((cached_from.saturating_sub(oldest_cached)) as usize);
        let cached: Vec<_> = cached.take((to - cached_from) as usize).cloned().collect();
        drop(view);

        let mut entries = Vec::with_capacity((to - from) as usize);
        for run in runs {
            if let Err(fault) = run.read(&mut entries) {
                // Without the lock, the segment may have been cut off and recycled meanwhile.
                let view = self.read();
                return Err(if from < view.first_index() {
                    not_held(&view, from, to)
                } else {
                    fault
                });
            }
        }
        entries.extend(cached);
        Ok(entries)
    }
}

fn not_held(view: &View, from: u64, to: u64) -> Fault {
    Fault {
        action: "read",
        path: "the log".to_string(),
        cause: format!(
            "entries {from}..{to} are not within {}..{}",
            view.first_index(),
            view.last_index() + 1
        ),
    }
}
