//! What is measured, and the page that shows it under etcd's and ZooKeeper's names, so that existing dashboards and
//! alerts light up. Every crate counts for itself; here the counts get their names.

pub mod calls;
mod etcd_v2;
pub mod page;
pub mod process;
mod replica;
mod zookeeper;

use crate::config::MetricsLevel;
use ::etcd_v2::EtcdV2;
use ::replica::Handle;
use ::zookeeper::ZooKeeper;
use calls::Timings;
use etcd_v3::EtcdV3;
use gateway::Gate;
use page::Page;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the server itself counts, and where the rest is found.
pub struct Metrics {
    checks: Mutex<BTreeMap<(&'static str, &'static str), Checked>>,
    gate: Gate,
    replica: Handle,
    etcd: EtcdV3,
    /// None where it is switched off.
    etcd_v2: Option<EtcdV2>,
    /// None where nobody listens for its clients.
    zookeeper: Option<ZooKeeper>,
    /// Taken only when everything is to be measured.
    pub timings: Option<Arc<Timings>>,
}

/// Results of one health check.
#[derive(Clone, Copy, Default)]
struct Checked {
    passed: u64,
    failed: u64,
    last_passed: bool,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(
        level: MetricsLevel,
        gate: Gate,
        replica: Handle,
        etcd: EtcdV3,
        etcd_v2: Option<EtcdV2>,
        zookeeper: Option<ZooKeeper>,
    ) -> Metrics {
        let timings = match level {
            MetricsLevel::Basic => None,
            MetricsLevel::Extensive => Some(Arc::default()),
        };
        Metrics {
            timings,
            checks: Mutex::default(),
            gate,
            replica,
            etcd,
            etcd_v2,
            zookeeper,
        }
    }

    /// Counts a health check's result.
    pub fn checked(&self, endpoint: &'static str, check: &'static str, passed: bool) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = checks.entry((endpoint, check)).or_default();
        checked.last_passed = passed;
        if passed {
            checked.passed += 1;
        } else {
            checked.failed += 1;
        }
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut page = Page::default();
        let served = self.etcd.ops().served();
        replica::write(&mut page, &self.gate, &self.replica, served);
        calls::write(&mut page, self.etcd.calls());
        if let Some(timings) = &self.timings {
            calls::write_timings(&mut page, timings);
        }
        if let Some(etcd_v2) = &self.etcd_v2 {
            etcd_v2::write(&mut page, &etcd_v2.figures());
        }
        self.write_checks(&mut page);
        process::write(&mut page);
        if let Some(zookeeper) = &self.zookeeper {
            zookeeper::write(&mut page, &zookeeper.office().figures());
        }
        page.finish()
    }

    fn write_checks(&self, page: &mut Page) {
        let checks = self
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let health = checks
            .get(&("health", "health"))
            .copied()
            .unwrap_or_default();
        page.counter(
            "etcd_server_health_failures",
            "The total number of failed health checks",
            health.failed,
        );
        page.counter(
            "etcd_server_health_success",
            "The total number of successful health checks",
            health.passed,
        );
        let others = || {
            checks
                .iter()
                .filter(|((endpoint, _), _)| *endpoint != "health")
        };
        let mut family = page.family(
            "etcd_server_healthcheck",
            "The result of each kind of healthcheck.",
            "gauge",
        );
        for ((endpoint, check), checked) in others() {
            let labels = [("name", *check), ("type", *endpoint)];
            family.sample(&labels, u8::from(checked.last_passed));
        }
        let mut family = page.family(
            "etcd_server_healthchecks_total",
            "The total number of each kind of healthcheck.",
            "counter",
        );
        for ((endpoint, check), checked) in others() {
            for (status, count) in [("success", checked.passed), ("error", checked.failed)] {
                let labels = [("name", *check), ("status", status), ("type", *endpoint)];
                family.sample(&labels, count);
            }
        }
    }
}
