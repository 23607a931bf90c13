//! What the kernel knows about this process, under the names of Prometheus' clients.

use super::page::Page;
use rustix::param::{clock_ticks_per_second, page_size};
use std::fs;
use zookeeper::OpenFiles;

/// Adds what can be read; a figure that cannot is left out.
pub fn write(page: &mut Page) {
    if let Some(stat) = Stat::read() {
        page.counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            stat.cpu_seconds,
        );
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            stat.resident_bytes,
        );
        page.gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            stat.virtual_bytes,
        );
        if let Some(booted) = booted_seconds() {
            page.gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                booted + stat.started_seconds,
            );
        }
    }
    if let Some(OpenFiles { open, max }) = open_files() {
        page.gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            max,
        );
        page.gauge("process_open_fds", "Number of open file descriptors.", open);
        page.gauge("os_fd_limit", "The file descriptor limit.", max);
        page.gauge("os_fd_used", "The number of used file descriptors.", open);
    }
}

/// What this process has open, and may open.
pub fn open_files() -> Option<OpenFiles> {
    let max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The directory's own descriptor is one of them.
    let open = open.saturating_sub(1);
    Some(OpenFiles { open, max })
}

/// The parts of `/proc/self/stat` that are wanted.
struct Stat {
    cpu_seconds: f64,
    /// Since the machine booted.
    started_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read() -> Option<Stat> {
        Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// See proc(5); fields are counted behind the name, which may hold anything.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        Some(Stat {
            cpu_seconds: seconds(number(11)? + number(12)?),
            started_seconds: seconds(number(19)?),
            virtual_bytes: number(20)?,
            resident_bytes: number(21)? * page_size() as u64,
        })
    }
}

/// When the machine booted, in seconds since 1970.
fn booted_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let behind = "S 1 2 3 4 5 6 7 8 9 10 100 50 13 14 15 16 17 18 200 4096 2 22";
        let stat = Stat::parse(&format!("42 (a) b) {behind}")).expect("parses");
        assert_eq!(stat.virtual_bytes, 4096);
        assert_eq!(stat.resident_bytes, 2 * page_size() as u64);
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(
            (stat.cpu_seconds, stat.started_seconds),
            (150.0 / ticks, 200.0 / ticks)
        );
        assert!(Stat::parse("42 (a) S 1").is_none());
    }
}
