//! What ZooKeeper's clients do, under the names of its own page of metrics. They bear no prefix there,
//! and none of them is one of etcd's.

use super::page::Page;
use zookeeper::figures::Figures;

/// Adds the figures. ZooKeeper's help is the name.
pub fn write(page: &mut Page, figures: &Figures) {
    for (name, value) in &figures.gauges {
        page.gauge(name, name, value);
    }
    for (name, value) in &figures.counters {
        page.counter(name, name, value);
    }
    for summary in &figures.summaries {
        let mut family = page.family(summary.name, summary.name, "summary");
        family.summary(&summary.quantiles, summary.count, summary.sum);
    }
    // How long elections take is not measured; alerts ask how many there were.
    let elections = figures.elections;
    page.family("election_time", "election_time", "summary")
        .summary_count(elections);
}
