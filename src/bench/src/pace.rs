//! When the next request is due.
//!
//! In a closed loop a client asks again as soon as it was answered. At a fixed rate (an open
//! loop) requests are due on a schedule, and a request that had to wait for a free client counts
//! from when it was due: otherwise a server that stalls would hide its stall by not being asked.

use std::time::{Duration, Instant};

/// The schedule of one connection during one slice.
#[derive(Debug)]
pub enum Pace {
    /// As fast as answers come.
    Closed,
    /// One request per interval.
    Open {
        /// When the next request is due.
        next: Instant,
        /// Between two requests.
        interval: Duration,
        /// Whether requests wait for a client rather than for the clock.
        starved: bool,
    },
}

impl Pace {
    /// A pace of `per_second`, the first request being due at `start`; closed when there is none.
    pub fn new(per_second: Option<f64>, start: Instant) -> Self {
        per_second.map_or(Self::Closed, |rate| Self::Open {
            next: start,
            interval: Duration::from_secs_f64(1.0 / rate),
            starved: false,
        })
    }

    /// Takes the next request that is due at `now` and before `end`: the instant from which its
    /// latency counts.
    pub fn take(&mut self, now: Instant, end: Instant) -> Option<Instant> {
        match self {
            Self::Closed => (now < end).then_some(now),
            Self::Open {
                next,
                interval,
                starved,
            } => {
                if *next > now {
                    *starved = false;
                    return None;
                }
                if now >= end {
                    return None;
                }
                let due = *next;
                *next += *interval;
                // Waking late from our own timer is not the server's doing.
                Some(if *starved { due } else { now })
            }
        }
    }

    /// Tells that no client is free for what is or becomes due.
    pub fn starve(&mut self) {
        match self {
            Self::Closed => {}
            Self::Open { starved, .. } => *starved = true,
        }
    }

    /// When to look again, if the clock decides that.
    pub fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Closed => None,
            Self::Open { next, .. } => Some(*next),
        }
    }

    /// How many requests were due before `end` and have not been taken.
    pub fn unsent(&self, end: Instant) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open { next, interval, .. } => {
                let behind = end.saturating_duration_since(*next).as_secs_f64();
                (behind / interval.as_secs_f64()).ceil() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_closed_loop_is_always_due_until_the_end() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        assert_eq!(pace.take(start, start + SECOND), Some(start));
        assert_eq!(pace.take(start + SECOND, start + SECOND), None);
        assert_eq!(pace.unsent(start + SECOND), 0);
    }

    #[test]
    fn an_open_loop_keeps_its_schedule() {
        let start = Instant::now();
        let end = start + SECOND;
        let mut pace = Pace::new(Some(10.0), start);
        let mut sent = 0;
        for step in 0..20 {
            while pace.take(start + SECOND / 20 * step, end).is_some() {
                sent += 1;
            }
        }
        assert_eq!(sent, 10);
        assert_eq!(pace.unsent(end), 0);
    }

    /// An overloaded server must not make the slice longer; what it missed is counted instead.
    #[test]
    fn nothing_is_sent_after_the_end_and_the_rest_is_counted() {
        let start = Instant::now();
        let end = start + SECOND;
        let mut pace = Pace::new(Some(10.0), start);
        assert!(pace.take(start, end).is_some());
        assert_eq!(pace.take(end, end), None);
        assert_eq!(pace.unsent(end), 9);
    }

    /// Coordinated omission: a stall of the server must show in the latencies.
    #[test]
    fn requests_that_waited_for_a_client_count_from_when_they_were_due() {
        let start = Instant::now();
        let end = start + SECOND;
        let mut pace = Pace::new(Some(10.0), start);
        assert_eq!(pace.take(start, end), Some(start));
        pace.starve();
        let later = start + Duration::from_millis(500);
        assert_eq!(pace.take(later, end), Some(start + SECOND / 10));
        assert_eq!(pace.take(later, end), Some(start + SECOND / 5));
        assert_eq!(pace.unsent(end), 7);
    }

    #[test]
    fn waking_late_is_not_held_against_the_server() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(10.0), start);
        let late = start + Duration::from_millis(3);
        assert_eq!(pace.take(late, start + SECOND), Some(late));
    }
}
