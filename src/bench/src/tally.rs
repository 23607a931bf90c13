//! What a slice of load counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies are recorded in nanoseconds between these bounds; what lies outside counts as the
/// bound.
const LATENCY_NS_MIN: u64 = 1;
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// Three significant digits: a latency is known to 0.1 %.
const LATENCY_DIGITS: u8 = 3;
/// How many kinds of failure are told apart; a server's error texts may carry numbers.
const FAILURE_KINDS_MAX: usize = 16;
const OTHER_FAILURES: &str = "other failures";

/// Counts and latencies of one slice, or of several added up.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Successful operations, or delivered events.
    pub operations: u64,
    /// Successful operations that moved the server's revision by one.
    pub writes: u64,
    /// Successful answers that did not say what they must: a get without its key, a transaction
    /// on the wrong branch.
    pub misses: u64,
    /// Operations that were due (open loop) but could not be sent before the slice's end.
    pub unsent: u64,
    /// Failed operations by what the server said.
    pub failures: BTreeMap<String, u64>,
    /// When the last answer came, relative to the slice's start.
    pub elapsed: Duration,
    /// From the intended start to the answer, in nanoseconds.
    pub latencies: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let latencies = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS)
            .expect("the bounds are constants that a histogram accepts");
        Self {
            operations: 0,
            writes: 0,
            misses: 0,
            unsent: 0,
            failures: BTreeMap::new(),
            elapsed: Duration::ZERO,
            latencies,
        }
    }

    /// One operation succeeded.
    pub fn succeeded(&mut self, intended: Instant, now: Instant) {
        self.operations += 1;
        let latency = now.saturating_duration_since(intended).as_nanos();
        self.latencies
            .saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
    }

    /// One operation failed for this reason.
    pub fn failed(&mut self, reason: String) {
        let known = self.failures.contains_key(&reason);
        let kind = if known || self.failures.len() < FAILURE_KINDS_MAX {
            reason
        } else {
            OTHER_FAILURES.to_owned()
        };
        *self.failures.entry(kind).or_default() += 1;
    }

    /// How many operations failed.
    pub fn failure_count(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Adds what another connection, thread or slice counted; `elapsed` becomes the longer one.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.writes += other.writes;
        self.misses += other.misses;
        self.unsent += other.unsent;
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies
            .add(&other.latencies)
            .expect("all our histograms have the same bounds");
    }

    /// Operations per second over the slice.
    pub fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.operations as f64 / seconds
        } else {
            0.0
        }
    }

    /// The latency in milliseconds that `quantile` (0 to 1) of the operations stayed within.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(latencies_us: impl IntoIterator<Item = u64>) -> Tally {
        let start = Instant::now();
        let mut tally = Tally::new();
        for us in latencies_us {
            tally.succeeded(start, start + Duration::from_micros(us));
        }
        tally
    }

    #[test]
    fn percentiles_are_those_of_the_recorded_latencies() {
        let tally = tally_of(1..=1_000);
        for (quantile, expected_ms) in [(0.5, 0.5), (0.99, 0.99), (0.999, 0.999), (1.0, 1.0)] {
            let got = tally.latency_ms(quantile);
            assert!((got / expected_ms - 1.0).abs() < 0.002, "{quantile}: {got}");
        }
    }

    #[test]
    fn adding_merges_counts_and_distributions() {
        let mut sum = tally_of([100; 99]);
        sum.elapsed = Duration::from_millis(500);
        let mut other = tally_of([9_000]);
        other.elapsed = Duration::from_millis(1_000);
        other.failed("a".into());
        sum.failed("a".into());
        sum.add(&other);
        assert_eq!(sum.operations, 100);
        assert_eq!(sum.failure_count(), 2);
        assert!((sum.per_second() - 100.0).abs() < 1e-9);
        assert!((sum.latency_ms(0.99) / 0.1 - 1.0).abs() < 0.002);
        assert!((sum.latency_ms(1.0) / 9.0 - 1.0).abs() < 0.002);
    }

    /// A server may put a different number into every error text.
    #[test]
    fn kinds_of_failure_are_bounded_and_none_is_lost() {
        let mut tally = Tally::new();
        for n in 0..1_000 {
            tally.failed(format!("failure {n}"));
        }
        assert!(tally.failures.len() <= FAILURE_KINDS_MAX + 1);
        assert_eq!(tally.failure_count(), 1_000);
    }

    #[test]
    fn an_empty_slice_has_no_rate() {
        assert!(Tally::new().per_second().abs() < f64::EPSILON);
    }
}
