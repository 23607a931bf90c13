//! gRPC calls, under the names of Go's gRPC interceptors.

use super::page::Page;
use etcd_v3::calls::{CODE_LABELS, Calls, Kind, Method};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Upper bounds of the histogram of times in seconds, those of Prometheus' clients.
const BUCKETS_S: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How long calls took, by method. Streams last as long as their clients want and are left out.
pub struct Timings {
    methods: Vec<Times>,
}

#[derive(Default)]
struct Times {
    buckets: [AtomicU64; BUCKETS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            methods: Method::ALL.iter().map(|_| Times::default()).collect(),
        }
    }
}

/// A call whose time is being taken.
pub struct Timed {
    timings: Arc<Timings>,
    method: Method,
    started: Instant,
}

impl Timed {
    /// Starts the clock for the call at a path, if that is one with an end.
    pub fn start(timings: &Arc<Timings>, path: &str) -> Option<Timed> {
        let method = Method::of(path)?;
        match method.kind() {
            Kind::ServerStream | Kind::BidiStream => None,
            Kind::Unary => Some(Timed {
                timings: timings.clone(),
                method,
                started: Instant::now(),
            }),
        }
    }

    /// Notes the time.
    pub fn finish(self) {
        let took = self.started.elapsed();
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|bound| seconds <= *bound);
        let times = &self.timings.methods[self.method as usize];
        times.buckets[bucket.unwrap_or(BUCKETS_S.len())].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        times.sum_us.fetch_add(micros, Relaxed);
    }
}

/// Adds the times.
pub fn write_timings(page: &mut Page, timings: &Timings) {
    let mut family = page.family(
        "grpc_server_handling_seconds",
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
        "histogram",
    );
    for (&method, times) in Method::ALL.iter().zip(&timings.methods) {
        let [kind, service, name] = labels(method);
        let counts: Vec<u64> = times.buckets.iter().map(|it| it.load(Relaxed)).collect();
        let sum = Duration::from_micros(times.sum_us.load(Relaxed));
        family.histogram(
            &[name, service, kind],
            &BUCKETS_S,
            &counts,
            sum.as_secs_f64(),
        );
    }
}

/// Adds the counts of all methods, called or not.
pub fn write(page: &mut Page, calls: &Calls) {
    page.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "The total number of bytes received from grpc clients.",
        calls.received_bytes.load(Relaxed),
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "The total number of bytes sent to grpc clients.",
        calls.sent_bytes.load(Relaxed),
    );
    let mut family = page.family(
        "etcd_server_client_requests_total",
        "The total number of client requests per client version.",
        "counter",
    );
    for (version, unary, stream) in calls.requests() {
        for (kind, count) in [("unary", unary), ("stream", stream)] {
            family.sample(&[("client_api_version", &version), ("type", kind)], count);
        }
    }
    let mut family = page.family(
        "grpc_server_handled_total",
        "Total number of RPCs completed on the server, regardless of success or failure.",
        "counter",
    );
    for &method in Method::ALL {
        let [kind, service, name] = labels(method);
        for (code, count) in CODE_LABELS.iter().zip(calls.handled(method)) {
            family.sample(&[("grpc_code", code), name, service, kind], count);
        }
    }
    let mut family = page.family(
        "grpc_server_started_total",
        "Total number of RPCs started on the server.",
        "counter",
    );
    for &method in Method::ALL {
        let [kind, service, name] = labels(method);
        family.sample(&[name, service, kind], calls.started(method));
    }
}

fn labels(method: Method) -> [(&'static str, &'static str); 3] {
    [
        ("grpc_type", method.kind().label()),
        ("grpc_service", method.service()),
        ("grpc_method", method.name()),
    ]
}
