//! Which keys changed at which revision, in order: what watchers catch up from, and what compaction
//! walks instead of the whole keyspace.

use crate::slot::Slot;
use std::collections::VecDeque;

/// Changes in one chunk of memory; the unit in which space is taken and given back.
const CHUNK: usize = 1024;

/// One change: 16 bytes, since the slot knows the rest.
#[derive(Clone)]
pub(crate) struct Trace {
    pub revision: u64,
    pub slot: Slot,
}

/// All changes from the last compaction's revision on. Each has a position that it keeps for ever.
pub(crate) struct History {
    /// All but the last are full.
    chunks: VecDeque<Vec<Trace>>,
    /// Position of the first change in the first chunk.
    base: usize,
    /// Position of the next change that compaction looks at.
    pub tidied: usize,
}

impl History {
    pub fn new() -> History {
        History {
            chunks: VecDeque::new(),
            base: 0,
            tidied: 0,
        }
    }

    pub fn push(&mut self, trace: Trace) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(trace),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(trace);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// The change at a position; none beyond the newest and before what was forgotten.
    pub fn get(&self, position: usize) -> Option<&Trace> {
        let offset = position.checked_sub(self.base)?;
        self.chunks.get(offset / CHUNK)?.get(offset % CHUNK)
    }

    /// Position of the first change at or after `revision`.
    pub fn find(&self, revision: u64) -> usize {
        let before = |chunk: &Vec<Trace>| chunk.last().is_some_and(|t| t.revision < revision);
        let full = self.chunks.partition_point(before);
        let rest = |chunk: &Vec<Trace>| chunk.partition_point(|t| t.revision < revision);
        self.base + full * CHUNK + self.chunks.get(full).map_or(0, rest)
    }

    /// Gives back chunks that hold only tidied changes from before `revision`.
    pub fn forget(&mut self, revision: u64) {
        let done = |chunk: &Vec<Trace>| chunk.last().is_some_and(|t| t.revision < revision);
        while self.tidied >= self.base + CHUNK && self.chunks.front().is_some_and(done) {
            self.chunks.pop_front();
            self.base += CHUNK;
        }
    }
}
