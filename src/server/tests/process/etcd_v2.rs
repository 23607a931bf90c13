//! etcd v2's protocol on the client port, beside the others.

use crate::server::{PATIENCE, Server, get, put};
use std::time::Instant;

/// What `method` on a path answers: the head and the content.
fn ask(server: &Server, method: &str, path: &str, form: &str) -> (String, String) {
    let answer = server.ask_v2(None, method, path, form);
    let (head, content) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    (head.to_owned(), content.to_owned())
}

fn content(server: &Server, method: &str, path: &str, form: &str) -> String {
    ask(server, method, path, form).1
}

#[tokio::test]
async fn what_v2_wrote_survives_a_kill_and_is_everyones() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path(), &[]);
    // To clients 0 is no index: they would wait for the next event, and miss the first.
    let (head, _) = ask(&server, "GET", "/v2/keys/a", "");
    assert!(head.contains("X-Etcd-Index: 1"), "{head}");
    let (head, set) = ask(&server, "PUT", "/v2/keys/a/k", "value=x");
    assert!(head.starts_with("HTTP/1.1 201 Created"), "{head}");
    assert_eq!(
        set,
        "{\"action\":\"set\",\"node\":{\"key\":\"/a/k\",\"value\":\"x\",\
         \"modifiedIndex\":2,\"createdIndex\":2}}\n"
    );
    put(&mut server.kv().await, "/a/by-v3", "y").await;
    server.signal("-KILL");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(get(&mut server.kv().await, "/a/k").await, ["x"]);
    assert_eq!(
        content(&server, "GET", "/v2/keys/a", ""),
        "{\"action\":\"get\",\"node\":{\"key\":\"/a\",\"dir\":true,\"nodes\":[\
         {\"key\":\"/a/by-v3\",\"value\":\"y\",\"modifiedIndex\":3,\"createdIndex\":3},\
         {\"key\":\"/a/k\",\"value\":\"x\",\"modifiedIndex\":2,\"createdIndex\":2}],\
         \"modifiedIndex\":2,\"createdIndex\":2}}\n"
    );
    let metrics = server.get("/metrics");
    let counted = "\netcd_debugging_store_reads_total{action=\"get\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
    let (head, event) = ask(
        &server,
        "GET",
        "/v2/keys/a?wait=true&recursive=true&waitIndex=3",
        "",
    );
    assert!(head.contains("X-Etcd-Index: 3"), "{head}");
    assert!(
        event.contains("{\"action\":\"create\",\"node\":{\"key\":\"/a/by-v3\""),
        "{event}"
    );
}

#[test]
fn paths_that_are_not_clean_are_sent_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let (head, _) = ask(&server, "PUT", "/v2/keys/a//b?ttl=5", "value=x");
    assert!(head.starts_with("HTTP/1.1 301 "), "{head}");
    assert!(head.contains("Location: /v2/keys/a/b?ttl=5"), "{head}");
    let missing = content(&server, "GET", "/v2/keys/a/b", "");
    assert!(
        missing.starts_with("{\"errorCode\":100,"),
        "nothing was done: {missing}"
    );
}

#[tokio::test]
async fn v2_has_a_root_of_its_own_if_so_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--v2-root=/apps/v2"]);
    let empty = "{\"action\":\"get\",\"node\":{\"dir\":true}}\n";
    assert_eq!(content(&server, "GET", "/v2/keys", ""), empty);
    put(&mut server.kv().await, "/other", "y").await;
    let set = content(&server, "PUT", "/v2/keys/k", "value=x");
    assert!(set.contains("\"key\":\"/k\""), "{set}");
    assert_eq!(get(&mut server.kv().await, "/apps/v2/k").await, ["x"]);
    let listed = content(&server, "GET", "/v2/keys/?recursive=true", "");
    assert!(
        listed.contains("\"/k\"") && !listed.contains("other"),
        "{listed}"
    );
}

#[test]
fn v2_is_not_served_where_it_is_switched_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--enable-v2=false"]);
    let (head, content) = ask(&server, "GET", "/v2/keys", "");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(content, "404 page not found\n");
}

/// The room that the keyspace takes, as the metrics tell it.
fn used_bytes(server: &Server) -> f64 {
    let metrics = server.get("/metrics");
    let name = "\netcd_mvcc_db_total_size_in_use_in_bytes ";
    let (_, rest) = metrics.split_once(name).expect("it is told");
    let number = rest.lines().next().expect("a line has a number");
    number.parse().expect("a number")
}

/// etcd v2's clients can neither compact nor disarm the alarm.
#[test]
fn history_that_nobody_can_read_never_fills_the_space() {
    const QUOTA_BYTES: u32 = 16 << 20;
    const VALUE_BYTES: u32 = 256 << 10;
    let dir = tempfile::tempdir().expect("a directory");
    let quota = format!("--quota-backend-bytes={QUOTA_BYTES}");
    let server = Server::start(dir.path(), &[&quota]);
    let form = format!("value={}", "x".repeat(VALUE_BYTES as usize));
    for nth in 0..3 * QUOTA_BYTES / VALUE_BYTES {
        let (head, content) = ask(&server, "PUT", "/v2/keys/k", &form);
        assert!(head.starts_with("HTTP/1.1 20"), "{nth}: {content}");
        let began = Instant::now();
        while used_bytes(&server) > f64::from(QUOTA_BYTES / 4 * 3) {
            assert!(began.elapsed() < PATIENCE, "{nth}: nothing was compacted");
        }
    }
}
