//! The process as its operator sees it: exit codes, log lines, ports, signals, restarts.

mod access;
mod auth;
mod certificates;
mod etcd_v2;
mod full_disk;
mod server;
mod zookeeper;

use server::{PATIENCE, Server, get, put, run};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;

#[test]
fn versions_and_help_are_shown() {
    let shown = run(&["--version"]);
    assert!(shown.status.success());
    let text = String::from_utf8(shown.stdout).expect("text");
    assert!(text.starts_with("etcd Version: 3.7.1\n"), "{text}");
    let shown = run(&["-h"]);
    assert!(shown.status.success());
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("--initial-cluster-token 'etcd-cluster'")
    );
}

#[test]
fn exit_codes_are_gos() {
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(&["--auto-tls"]).status.code(), Some(1));
    assert_eq!(run(&["stray"]).status.code(), Some(1));
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("http://127.0.0.1:{port}");
    let data = dir.path().join("d");
    let ended = run(&[
        "--listen-client-urls=http://127.0.0.1:0",
        "--advertise-client-urls=http://127.0.0.1:1",
        "--listen-peer-urls",
        &url,
        "--data-dir",
        data.to_str().expect("a plain path"),
    ]);
    assert_eq!(ended.status.code(), Some(1));
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(log.contains("Address already in use"), "{log}");
    assert!(!data.exists(), "nothing was founded");
}

#[tokio::test]
async fn one_port_speaks_http_and_grpc() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--metrics=extensive"]);
    let mut kv = server.kv().await;
    put(&mut kv, "k", "v").await;
    get(&mut kv, "k").await;
    let health = server.get("/health");
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
    assert!(
        health.ends_with("\r\n\r\n{\"health\":\"true\",\"reason\":\"\"}"),
        "{health}"
    );
    let version = server.get("/version");
    assert!(
        version.contains("{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\""),
        "{version}"
    );
    assert!(server.get("/nothing").contains("404 Not Found"));
    let metrics = server.get("/metrics");
    for line in [
        "\netcd_server_has_leader 1\n",
        "\netcd_debugging_mvcc_current_revision 2\n",
        "\netcd_debugging_mvcc_keys_total 1\n",
        "\netcd_debugging_mvcc_total_put_size_in_bytes 2\n",
        "\netcd_mvcc_put_total 1\n",
        "\netcd_mvcc_range_total 1\n",
        "\ngrpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n",
        "\ngrpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n",
        "\netcd_disk_wal_fsync_duration_seconds_count ",
        "\nprocess_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

/// What is neither HTTP nor HTTP/2, and a TLS greeting, must not hold a connection.
#[tokio::test]
async fn garbage_is_cut_off_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\x00\x00\x00\x2d\x00\x00\x00\x00",
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame, nor does it look like one",
    ] {
        server.exchange(garbage);
    }
    put(&mut server.kv().await, "k", "v").await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path(), &[]);
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    put(&mut kv, "b", "2").await;
    assert_eq!(server.signal("-KILL").signal(), Some(9));
    // What was founded counts, not what founding it again would say.
    let mut server = Server::start(dir.path(), &["--initial-cluster=other=http://127.0.0.1:9"]);
    let mut kv = server.kv().await;
    assert_eq!(get(&mut kv, "a").await, ["1"]);
    assert_eq!(get(&mut kv, "b").await, ["2"]);
    put(&mut kv, "a", "3").await;
    assert_eq!(server.signal("-TERM").code(), Some(0));
    server.await_line("closed etcd server");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(get(&mut server.kv().await, "a").await, ["3"]);
}

#[tokio::test]
async fn metrics_and_health_have_a_port_of_their_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("metrics.sock");
    let url = format!("--listen-metrics-urls=unix://{}", socket.display());
    let _server = Server::start(&dir.path().join("d"), &[&url]);
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream
        .write_all(b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("writable");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    assert!(answer.contains("[+]linearizable_read ok\n"), "{answer}");
}
