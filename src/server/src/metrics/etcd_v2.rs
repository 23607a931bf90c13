//! What etcd v2's clients do, under the names that etcd had as long as it served them.

use super::page::Page;
use etcd_v2::stats::{Count, Figures};

/// Adds the figures.
pub fn write(page: &mut Page, figures: &Figures) {
    let mut kinds = |name, help, counts: &[Count], of: fn(&Count) -> u64| {
        let mut family = page.family(name, help, "counter");
        for count in counts {
            family.sample(&[("action", count.action)], of(count));
        }
    };
    kinds(
        "etcd_debugging_store_reads_total",
        "Total number of reads action by (get/getRecursive), local to this member.",
        &figures.reads,
        |count| count.done,
    );
    kinds(
        "etcd_debugging_store_reads_failed_total",
        "Failed read actions by (get/getRecursive), local to this member.",
        &figures.reads,
        |count| count.failed,
    );
    kinds(
        "etcd_debugging_store_writes_total",
        "Total number of writes (e.g. set/compareAndDelete) seen by this member.",
        &figures.writes,
        |count| count.done,
    );
    kinds(
        "etcd_debugging_store_writes_failed_total",
        "Failed write actions (e.g. set/compareAndDelete), seen by this member.",
        &figures.writes,
        |count| count.failed,
    );
    page.counter(
        "etcd_debugging_store_expires_total",
        "Total number of expired keys.",
        figures.expired,
    );
    page.counter(
        "etcd_debugging_store_watch_requests_total",
        "Total number of incoming watch requests (new or reestablished).",
        figures.waits,
    );
    page.gauge(
        "etcd_debugging_store_watchers",
        "Count of currently active watchers.",
        figures.waiting,
    );
}
