//! Times to live, and moments as RFC 3339 spells them.

use gateway::keyspace::WallMs;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The days from the first of March of the year 0 to that of 1970 without its January and February: the
/// calendar is simplest where years begin in March.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;

/// Deadlines before the year 2000 are none (v2store/store.go: `minExpireTime`).
const DEADLINE_MIN_NS: i64 = 946_684_800_000_000_000;

/// This member's clock.
pub fn now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_ms = since.map_or(0, |since| since.as_millis());
    WallMs(u64::try_from(since_ms).unwrap_or(u64::MAX))
}

/// When what lives for so many seconds from `now` on ends. As in etcd, which counts in nanoseconds
/// that wrap, what is too long ends at once or never.
pub fn deadline(now: WallMs, ttl_s: u64) -> Option<WallMs> {
    let now_ns = now.0.cast_signed().wrapping_mul(1_000_000);
    let ttl_ns = ttl_s.cast_signed().wrapping_mul(1_000_000_000);
    let deadline_ns = now_ns.wrapping_add(ttl_ns);
    let deadline_ms = (deadline_ns / 1_000_000).cast_unsigned();
    (deadline_ns >= DEADLINE_MIN_NS).then_some(WallMs(deadline_ms))
}

/// The whole seconds left, any part of one counted; below zero when it is past.
pub fn ttl_s(now: WallMs, deadline: WallMs) -> i64 {
    let left_ms = deadline.0.cast_signed().saturating_sub(now.0.cast_signed());
    left_ms / 1000 + i64::from(left_ms % 1000 > 0)
}

/// A moment in UTC, with as many decimals as there are.
pub fn rfc_3339(at: WallMs) -> String {
    let (days, ms) = (at.0 / DAY_MS + DAYS_BEFORE_1970, at.0 % DAY_MS);
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // Every fourth year has a day more, but not every hundredth, but every four hundredth.
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months alternate so that five of them have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let decimals = match ms % 1000 {
        0 => String::new(),
        ms => format!(".{ms:03}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{decimals}Z")
}

/// So long, as Go's `time.Duration` spells it: `1h2m3.5s`.
pub fn duration(ms: u64) -> String {
    let (hours, minutes, rest_ms) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let seconds = format!("{}.{:03}", rest_ms / 1000, rest_ms % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) if ms > 0 && ms < 1000 => format!("{ms}ms"),
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        (_, _) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spelled_as_in_go() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_735_689_599_120, "2024-12-31T23:59:59.12Z"),
            (4_107_542_400_500, "2100-03-01T00:00:00.5Z"),
        ] {
            assert_eq!(rfc_3339(WallMs(ms)), expected);
        }
    }

    #[test]
    fn durations_are_spelled_as_in_go() {
        for (ms, expected) in [
            (0, "0s"),
            (5, "5ms"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (3_723_040, "1h2m3.04s"),
            (36_000_000, "10h0m0s"),
        ] {
            assert_eq!(duration(ms), expected);
        }
    }

    #[test]
    fn parts_of_seconds_count_while_they_are_left() {
        let now = WallMs(10_000);
        for (deadline, expected) in [
            (110_000, 100),
            (109_001, 100),
            (10_001, 1),
            (10_000, 0),
            (9_999, 0),
            (8_999, -1),
        ] {
            assert_eq!(ttl_s(now, WallMs(deadline)), expected, "{deadline}");
        }
    }

    #[test]
    fn what_is_too_long_wraps_as_in_etcd() {
        let now = WallMs(1_700_000_000_000);
        let after = |ttl_s| deadline(now, ttl_s).map(|deadline| deadline.0);
        assert_eq!(after(0), Some(now.0));
        assert_eq!(after(100), Some(now.0 + 100_000));
        assert_eq!(after(3_153_600_000), Some(now.0 + 3_153_600_000_000));
        assert_eq!(after(i64::MAX.cast_unsigned()), Some(now.0 - 1_000));
        assert_eq!(after(8_000_000_000), None);
    }
}
