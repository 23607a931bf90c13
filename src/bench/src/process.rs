//! What a server process costs: CPU time and memory, as the kernel counts them.

use std::fs;

use anyhow::Context as _;

/// A process's cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time of all its threads, in microseconds.
    pub cpu_us: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// The most resident memory there was, in bytes.
    pub rss_peak_bytes: u64,
}

/// The usage of all `pids` together; none when there are no pids.
pub fn usage_of(pids: &[u32]) -> anyhow::Result<Option<Usage>> {
    if pids.is_empty() {
        return Ok(None);
    }
    let mut sum = Usage::default();
    for pid in pids {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let ticks = cpu_ticks(&read("stat")?)
            .with_context(|| format!("/proc/{pid}/stat has an unknown form"))?;
        let status = read("status")?;
        sum.cpu_us += ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64;
        sum.rss_bytes += status_bytes(&status, "VmRSS:").unwrap_or(0);
        sum.rss_peak_bytes += status_bytes(&status, "VmHWM:").unwrap_or(0);
    }
    Ok(Some(sum))
}

/// utime + stime of a `stat` line: fields 14 and 15, counted behind the command's name, which may
/// itself hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// A line of `status` that says kibibytes.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_found_behind_any_command_name() {
        let stat = "42 (a) b (c)) S 1 1 1 0 -1 4194560 9 0 0 0 700 42 0 0 20 0 8 0 5 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(742));
    }

    #[test]
    fn garbage_is_no_number() {
        for garbage in [
            "",
            "42",
            "42 (x",
            "42 (x) S 1",
            "1 (x) S 1 1 1 0 -1 1 9 0 0 0 a b",
        ] {
            assert_eq!(cpu_ticks(garbage), None, "{garbage:?}");
        }
        let overflow = format!("1 (x) S 1 1 1 0 -1 1 9 0 0 0 {} 1", u64::MAX);
        assert_eq!(cpu_ticks(&overflow), None);
        for garbage in ["", "VmRSS:", "VmRSS: x kB", "VmRSS: 5 MB", "VmRSS: -1 kB"] {
            assert_eq!(status_bytes(garbage, "VmRSS:"), None, "{garbage:?}");
        }
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(status_bytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(status_bytes(status, "VmHWM:"), Some(2 << 20));
    }

    /// The kernel's real files must fit, and time must pass.
    #[test]
    fn our_own_process_uses_cpu_and_memory() {
        let before = usage_of(&[std::process::id()])
            .expect("readable")
            .expect("one pid");
        assert!(before.rss_bytes > 0 && before.rss_peak_bytes >= before.rss_bytes);
        let mut after = before;
        while after.cpu_us <= before.cpu_us {
            after = usage_of(&[std::process::id()])
                .expect("readable")
                .expect("one pid");
        }
        assert_eq!(usage_of(&[]).expect("nothing to read"), None);
    }
}
