//! gRPC calls, under the names of Go's gRPC interceptors.

use super::page::Page;
use etcd_v3::calls::{CODE_LABELS, Calls, Method};
use std::sync::atomic::Ordering::Relaxed;

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
