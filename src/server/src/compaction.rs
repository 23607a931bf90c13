//! Automatic compaction: when to forget which revisions. Pure; [`drive`] gives it time and carries
//! out what it says. Rules and intervals are etcd's.

use crate::flags::value::FlagValue;
use gateway::keyspace::{Command, Refusal, Revision};
use gateway::{Error, Gate, Principal};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// In the mode 'revision', time between two compactions.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// In the mode 'periodic', the longest time between two compactions.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// Samples of the revision in each period.
const SAMPLES: u32 = 10;
/// Where nothing is configured, time between two looks at how much has gathered ...
const UNASKED_INTERVAL: Duration = Duration::from_millis(100);
/// ... and how many of the newest revisions are kept when as many came from clients who have no use
/// for them ...
const UNASKED_REVISIONS: u64 = 100_000;
/// ... but only so many where history took half of the room that the space quota left it, and none
/// once three quarters of the quota are used: who never compacts cannot disarm the alarm either, so it
/// must not come for history.
const UNASKED_REVISIONS_CROWDED: u64 = 1_000;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// What happened since this long ago.
    Period(Duration),
    /// This many of the newest revisions.
    Revisions(u64),
    /// What etcd's clients wrote. ZooKeeper's and etcd v2's have no history and never compact: where
    /// they write, the newest revisions are kept, as far as the space quota leaves room.
    Unasked,
}

/// What a tick looks at.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The newest revision.
    pub revision: u64,
    /// Revisions since the last compaction whose makers have no use for history.
    pub unwanted: u64,
    /// What the keyspace takes.
    pub used_bytes: u64,
    /// What it may take; none if there is no bound.
    pub quota_bytes: Option<u64>,
    /// Whether this member leads.
    pub leading: bool,
}

impl Retention {
    /// Reads `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub fn parse(mode: &str, text: &str) -> Result<Retention, String> {
        let failed = |why: String| format!("error parsing CompactionRetention: {why}");
        let retention = match mode {
            "periodic" => match text.parse::<u32>() {
                // Without a unit, hours.
                Ok(hours) => Retention::Period(Duration::from_secs(u64::from(hours) * 3600)),
                Err(_) => Retention::Period(
                    Duration::parse(text)
                        .map_err(|_| failed(format!("invalid duration {text:?}")))?,
                ),
            },
            "revision" => Retention::Revisions(
                text.parse()
                    .map_err(|_| failed(format!("invalid number {text:?}")))?,
            ),
            "" => return Err("undefined auto-compaction-mode".into()),
            _ => return Err(format!("unknown auto-compaction-mode {mode:?}")),
        };
        Ok(match retention {
            Retention::Period(Duration::ZERO) | Retention::Revisions(0) => Retention::Unasked,
            Retention::Period(_) | Retention::Revisions(_) | Retention::Unasked => retention,
        })
    }
}

/// Decides what to compact. Times count from any fixed moment.
#[derive(Debug)]
pub struct Compactor {
    retention: Retention,
    /// The revision at each tick, oldest first, over one period.
    samples: VecDeque<u64>,
    last_success: Duration,
    last_revision: u64,
    compacted_once: bool,
    /// The least that the keyspace took at a tick since the last compaction: about what it takes
    /// without history.
    least_bytes: u64,
}

impl Compactor {
    /// Starts at time `now`, when the newest revision is `revision`.
    pub fn new(retention: Retention, now: Duration, revision: u64) -> Compactor {
        Compactor {
            retention,
            samples: VecDeque::from([revision]),
            last_success: now,
            last_revision: 0,
            compacted_once: false,
            least_bytes: u64::MAX,
        }
    }

    /// Time between two ticks.
    pub fn tick_interval(&self) -> Duration {
        match self.retention {
            Retention::Period(period) => period.min(PERIODIC_INTERVAL_MAX) / SAMPLES,
            Retention::Revisions(_) => REVISION_INTERVAL,
            Retention::Unasked => UNASKED_INTERVAL,
        }
    }

    /// A tick: what to compact, if anything. Only the leader compacts; the others keep their
    /// samples, so that a new leader goes on where the old one stopped.
    pub fn tick(&mut self, now: Duration, seen: Seen) -> Option<u64> {
        let Seen {
            revision, leading, ..
        } = seen;
        self.least_bytes = self.least_bytes.min(seen.used_bytes);
        match self.retention {
            Retention::Period(period) => {
                let oldest = self.samples.front().copied().unwrap_or(revision);
                let window = period.as_nanos() / self.tick_interval().as_nanos().max(1) + 1;
                self.samples.push_back(revision);
                if self.samples.len() as u128 > window {
                    self.samples.pop_front();
                }
                // The first time a whole period has to pass, so that the oldest sample is that old.
                let wait = if self.compacted_once {
                    period.min(PERIODIC_INTERVAL_MAX)
                } else {
                    period
                };
                let due = now.saturating_sub(self.last_success) >= wait;
                (leading && due && oldest != self.last_revision).then_some(oldest)
            }
            Retention::Revisions(kept) => {
                let at = revision.saturating_sub(kept);
                (leading && at > 0 && at != self.last_revision).then_some(at)
            }
            Retention::Unasked => {
                let at = revision.saturating_sub(self.kept_unasked(seen)?);
                (leading && at > self.last_revision).then_some(at)
            }
        }
    }

    /// How many of the newest revisions to keep where nothing is configured; none if all.
    fn kept_unasked(&self, seen: Seen) -> Option<u64> {
        if seen.unwanted == 0 {
            return None;
        }
        if let Some(quota_bytes) = seen.quota_bytes {
            let room_bytes = quota_bytes.saturating_sub(self.least_bytes);
            if seen.used_bytes - self.least_bytes > room_bytes / 2 {
                let full = seen.used_bytes >= quota_bytes - quota_bytes / 4;
                return Some(if full { 0 } else { UNASKED_REVISIONS_CROWDED });
            }
        }
        (seen.unwanted >= UNASKED_REVISIONS).then_some(UNASKED_REVISIONS)
    }

    /// A compaction succeeded (or someone had compacted that far already).
    pub fn compacted(&mut self, now: Duration, revision: u64) {
        self.last_success = now;
        self.last_revision = revision;
        self.compacted_once = true;
        self.least_bytes = u64::MAX;
    }
}

/// Ticks for ever.
pub async fn drive(mut compactor: Compactor, gate: &Gate, started: Instant) {
    loop {
        sleep(compactor.tick_interval()).await;
        let status = gate.status();
        let seen = Seen {
            revision: gate.reader().revision().0,
            unwanted: gate.reader().stepped(),
            used_bytes: gate.space().in_use_bytes,
            quota_bytes: gate.limits().space_bytes_max,
            leading: status.leader == status.member,
        };
        let Some(revision) = compactor.tick(started.elapsed(), seen) else {
            continue;
        };
        info!(revision, "starting auto compaction");
        let compact = Command::Compact(Revision(revision));
        match gate.propose(&Principal::System, compact).await {
            Ok(_) | Err(Error::Refused(Refusal::Compacted { .. })) => {
                info!(revision, "completed auto compaction");
                compactor.compacted(started.elapsed(), revision);
            }
            Err(error) => warn!(revision, %error, "failed auto compaction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(count: u64) -> Duration {
        Duration::from_secs(count * 60)
    }

    #[test]
    fn retention_is_hours_without_a_unit() {
        let parse = Retention::parse;
        assert_eq!(parse("periodic", "0"), Ok(Retention::Unasked));
        assert_eq!(parse("revision", "0"), Ok(Retention::Unasked));
        assert_eq!(parse("periodic", "5"), Ok(Retention::Period(minutes(300))));
        assert_eq!(parse("periodic", "5m"), Ok(Retention::Period(minutes(5))));
        assert_eq!(parse("revision", "1000"), Ok(Retention::Revisions(1000)));
        assert!(parse("periodic", "-1").is_err());
        assert!(parse("revision", "5m").is_err());
        assert_eq!(
            parse("daily", "1"),
            Err("unknown auto-compaction-mode \"daily\"".into())
        );
    }

    fn seen(revision: u64) -> Seen {
        Seen {
            revision,
            unwanted: 0,
            used_bytes: 0,
            quota_bytes: None,
            leading: true,
        }
    }

    /// Every tick's decision, with one revision a minute from 1 on, until `until`.
    fn run(retention: Retention, until: Duration) -> Vec<(u64, u64)> {
        let mut compactor = Compactor::new(retention, Duration::ZERO, 1);
        let mut compactions = Vec::new();
        let mut now = compactor.tick_interval();
        while now <= until {
            let minute = now.as_secs() / 60;
            if let Some(revision) = compactor.tick(now, seen(minute + 1)) {
                compactor.compacted(now, revision);
                compactions.push((minute, revision));
            }
            now += compactor.tick_interval();
        }
        compactions
    }

    #[test]
    fn an_hour_is_kept_and_cut_hourly() {
        let compactions = run(Retention::Period(minutes(60)), minutes(240));
        assert_eq!(compactions, [(60, 1), (120, 55), (180, 115), (240, 175)]);
    }

    #[test]
    fn a_day_is_kept_and_cut_hourly() {
        let compactions = run(Retention::Period(minutes(24 * 60)), minutes(27 * 60));
        assert_eq!(
            compactions,
            [(1440, 1), (1500, 55), (1560, 115), (1620, 175)]
        );
    }

    #[test]
    fn revisions_are_cut_every_five_minutes() {
        let compactions = run(Retention::Revisions(10), minutes(25));
        assert_eq!(compactions, [(10, 1), (15, 6), (20, 11), (25, 16)]);
    }

    #[test]
    fn only_the_leader_cuts_and_failures_are_tried_again() {
        let mut compactor = Compactor::new(Retention::Revisions(1), Duration::ZERO, 0);
        let following = Seen {
            leading: false,
            ..seen(9)
        };
        assert_eq!(compactor.tick(minutes(5), following), None);
        assert_eq!(compactor.tick(minutes(10), seen(9)), Some(8));
        assert_eq!(compactor.tick(minutes(15), seen(9)), Some(8));
        compactor.compacted(minutes(15), 8);
        assert_eq!(compactor.tick(minutes(20), seen(9)), None);
    }

    #[test]
    fn unasked_only_what_nobody_wants_is_cut() {
        let mut compactor = Compactor::new(Retention::Unasked, Duration::ZERO, 1);
        let mut tick = |revision, unwanted| {
            let seen = Seen {
                unwanted,
                ..seen(revision)
            };
            compactor.tick(minutes(1), seen)
        };
        assert_eq!(
            tick(5_000_000, 0),
            None,
            "etcd's clients compact themselves"
        );
        assert_eq!(tick(5_000_000, UNASKED_REVISIONS - 1), None);
        assert_eq!(tick(UNASKED_REVISIONS, UNASKED_REVISIONS), None);
        assert_eq!(tick(150_000, UNASKED_REVISIONS), Some(50_000));
    }

    #[test]
    fn unasked_history_gets_half_the_room_it_is_left() {
        let mut compactor = Compactor::new(Retention::Unasked, Duration::ZERO, 1);
        let seen = |revision, unwanted, used_bytes| Seen {
            unwanted,
            used_bytes,
            quota_bytes: Some(1_000),
            ..seen(revision)
        };
        let mut at = |seen| {
            let due = compactor.tick(minutes(1), seen);
            due.inspect(|revision| compactor.compacted(minutes(1), *revision))
        };
        assert_eq!(at(seen(1, 1, 200)), None);
        assert_eq!(at(seen(4_000, 3_000, 600)), None);
        assert_eq!(at(seen(5_000, 0, 990)), None, "etcd's clients are told");
        assert_eq!(at(seen(5_000, 4_000, 601)), Some(4_000));
        assert_eq!(at(seen(5_001, 1, 601)), None, "it may not go at once");
        assert_eq!(at(seen(5_002, 2, 700)), None);
        assert_eq!(at(seen(5_003, 3, 400)), None);
        assert_eq!(at(seen(5_004, 4, 750)), Some(5_004), "no room for any");
        let unbounded = Seen {
            quota_bytes: None,
            ..seen(9_000, 9_000, u64::MAX)
        };
        assert_eq!(at(seen(9_000, 1, 1)), None);
        assert_eq!(at(unbounded), None);
    }
}
