//! What the watchers of one key and its writers know of each other, across connections and
//! threads.
//!
//! Every write must reach every watcher; a slice is over when it has.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::load::{DRAIN_MS_MAX, Slice};

/// How many of the latest writes are remembered with the instant they were asked for: more than
/// can be on their way to a watcher.
const ASKED_MAX: usize = 1 << 16;
/// How often watchers that wait for their last events look whether the writers rest.
const LOOK_MS: u64 = 2;

/// What writers tell watchers.
#[derive(Debug)]
pub struct FanOut {
    written: AtomicU64,
    writers_busy: AtomicUsize,
    asked: AtomicU64,
    asked_at_ns: Box<[AtomicU64]>,
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            written: AtomicU64::new(0),
            writers_busy: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            asked_at_ns: (0..ASKED_MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl FanOut {
    /// A slice begins with so many writing connections.
    pub fn begin(&self, writers: usize) {
        self.writers_busy.store(writers, Ordering::SeqCst);
    }

    /// A write is being asked for. Where one connection writes, the n-th event belongs to the n-th
    /// write.
    pub fn asks(&self, now: Instant) {
        let number = self.asked.load(Ordering::SeqCst);
        self.slot(number).store(stamp_ns(now), Ordering::SeqCst);
        self.asked.store(number + 1, Ordering::SeqCst);
    }

    /// When the write with this number, from 0, was asked for.
    pub fn asked_at_ns(&self, number: u64) -> u64 {
        self.slot(number).load(Ordering::SeqCst)
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        &self.asked_at_ns[number as usize % ASKED_MAX]
    }

    /// A write was acknowledged.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// A writing connection has had its last answer of the slice.
    pub fn writer_rests(&self) {
        self.writers_busy.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many writes there were in all, once the writers rest.
    pub fn total(&self) -> Option<u64> {
        let busy = self.writers_busy.load(Ordering::SeqCst) > 0;
        (!busy).then(|| self.written.load(Ordering::SeqCst))
    }
}

/// Events as one connection of watchers counts them.
#[derive(Debug)]
pub struct Events {
    slice: Slice,
    last: Instant,
}

impl Events {
    /// None so far.
    pub fn new(slice: Slice) -> Self {
        Self {
            last: slice.start,
            slice,
        }
    }

    /// Begins a slice.
    pub fn begin(&mut self, slice: Slice) {
        self.last = slice.start;
        self.slice = slice;
    }

    /// An event came of a write that was asked for at `asked_ns`, if it says so.
    pub fn take(&mut self, asked_ns: Option<u64>, now: Instant) {
        self.last = now;
        let mut tally = self.slice.tally.borrow_mut();
        let Some(asked_ns) = asked_ns else {
            tally.misses += 1;
            return;
        };
        let age_ns = stamp_ns(now).saturating_sub(asked_ns);
        let asked = now.checked_sub(Duration::from_nanos(age_ns)).unwrap_or(now);
        tally.succeeded(asked, now);
    }

    /// Whether `seen` is what `watchers` see of all writes so far; until then, when to look again.
    pub fn await_all(
        &self,
        seen: u64,
        watchers: usize,
        shared: &FanOut,
        now: Instant,
    ) -> anyhow::Result<Option<Instant>> {
        let expected = shared.total().map(|writes| writes * watchers as u64);
        if expected.is_some_and(|events| seen >= events) {
            let mut tally = self.slice.tally.borrow_mut();
            tally.elapsed = tally.elapsed.max(self.last - self.slice.start);
            return Ok(None);
        }
        anyhow::ensure!(
            now < self.slice.give_up_at(),
            "{DRAIN_MS_MAX} ms after the end of the slice {watchers} watchers have seen {seen} \
             events of {expected:?}",
        );
        let look_at = now + Duration::from_millis(LOOK_MS);
        Ok(Some(look_at.max(self.slice.end)))
    }
}

/// Nanoseconds since the process first asked: a clock that every connection shares.
pub fn stamp_ns(now: Instant) -> u64 {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = now.saturating_duration_since(*EPOCH).as_nanos();
    u64::try_from(since).expect("a benchmark lasts less than 500 years")
}

/// How much of `total` falls to part `number` of `parts`, as evenly as it goes.
pub fn share_of(total: usize, parts: usize, number: usize) -> usize {
    total / parts + usize::from(number < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_complete() {
        for (total, parts) in [(10, 3), (2, 5), (8, 8), (0, 4)] {
            let shares: Vec<_> = (0..parts).map(|n| share_of(total, parts, n)).collect();
            assert_eq!(shares.iter().sum::<usize>(), total);
            let spread = shares.iter().max().expect("some") - shares.iter().min().expect("some");
            assert!(spread <= 1, "{shares:?}");
        }
    }
}
