//! Users and roles, managed through etcd v2, bind the clients of every protocol.

use crate::server::{Server, put};
use crate::zookeeper::{ANYONE, CLIENTS, plain};
use proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::{Code, Status};
use zookeeper::jute::Write;

const AUTH: i32 = 100;
const NO_AUTH: i32 = -102;
const UNAUTHORIZED: &str = "HTTP/1.1 401 ";
/// `root:rpw`, as basic authentication has it.
const ROOT: Option<&str> = Some("cm9vdDpycHc=");
/// `alice:apw`.
const ALICE: Option<&str> = Some("YWxpY2U6YXB3");

/// What a request is answered, in one text.
fn ask(server: &Server, who: Option<&str>, request: (&str, &str, &str)) -> String {
    let (method, path, body) = request;
    server.ask_v2(who, method, path, body)
}

/// Does what must be done.
fn demand(server: &Server, who: Option<&str>, request: (&str, &str, &str)) {
    let answer = ask(server, who, request);
    assert!(answer.starts_with("HTTP/1.1 20"), "{request:?}: {answer}");
}

/// Who names nobody may do nothing; alice may read and write beneath `/a/`.
fn guard(server: &Server) {
    let user = |user, body| demand(server, ROOT, ("PUT", user, body));
    user("/v2/auth/users/root", r#"{"user":"root","password":"rpw"}"#);
    demand(server, None, ("PUT", "/v2/auth/enable", ""));
    user(
        "/v2/auth/roles/ra",
        r#"{"role":"ra","permissions":{"kv":{"read":["/a/*"],"write":["/a/*"]}}}"#,
    );
    user(
        "/v2/auth/users/alice",
        r#"{"user":"alice","password":"apw","roles":["ra"]}"#,
    );
    user(
        "/v2/auth/roles/guest",
        r#"{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}"#,
    );
}

fn assert_unnamed<T>(answered: Result<T, Status>) {
    let Err(refused) = answered else {
        panic!("it was answered");
    };
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: user name is empty")
    );
}

async fn assert_guarded(server: &Server) {
    let mut kv = server.kv().await;
    let read = RangeRequest {
        key: "/a/k".into(),
        ..RangeRequest::default()
    };
    assert_unnamed(kv.range(read).await);
    let write = PutRequest {
        key: "/a/k".into(),
        ..PutRequest::default()
    };
    assert_unnamed(kv.put(write).await);
    for request in [
        ("GET", "/v2/keys/a/k", ""),
        ("GET", "/v2/keys/a/k?wait=true", ""),
        ("PUT", "/v2/keys/a/k", "value=1"),
        ("DELETE", "/v2/keys/a/k", ""),
        ("GET", "/v2/auth/users", ""),
        (
            "POST",
            "/v2/members",
            r#"{"peerURLs":["http://127.0.0.1:1"]}"#,
        ),
    ] {
        let answer = ask(server, None, request);
        assert!(answer.starts_with(UNAUTHORIZED), "{request:?}: {answer}");
    }
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    assert_eq!(client.create("/a/new", ANYONE).await.0, NO_AUTH);
}

#[tokio::test]
async fn who_is_denied_by_one_protocol_does_not_come_in_by_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path(), &["--bcrypt-cost=4"]);
    put(&mut server.kv().await, "/a/k", "before").await;
    put(&mut server.kv().await, "/z", "before").await;
    guard(&server);
    assert_guarded(&server).await;

    // Through v2 ...
    let read = ask(&server, ALICE, ("GET", "/v2/keys/a/k", ""));
    assert!(read.contains(r#""value":"before""#), "{read}");
    demand(&server, ALICE, ("PUT", "/v2/keys/a/k", "value=alices"));
    for request in [
        ("GET", "/v2/keys/z", ""),
        ("PUT", "/v2/keys/z", "value=1"),
        ("GET", "/v2/keys/?recursive=true", ""),
        ("DELETE", "/v2/auth/users/root", ""),
    ] {
        let answer = ask(&server, ALICE, request);
        assert!(answer.starts_with(UNAUTHORIZED), "{request:?}: {answer}");
    }
    // ... and through ZooKeeper.
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    let login = client.call(AUTH, |out| {
        out.int(0);
        out.text("digest");
        out.text("alice:apw");
    });
    assert_eq!(login.await.0, 0);
    assert_eq!(client.create("/a/by-zookeeper", ANYONE).await.0, 0);
    assert_eq!(client.create("/b", ANYONE).await.0, NO_AUTH);
    let read = ask(&server, ALICE, ("GET", "/v2/keys/a/by-zookeeper", ""));
    assert!(read.contains(r#""value":"data""#), "{read}");

    server.signal("-KILL");
    let server = Server::start(dir.path(), &["--bcrypt-cost=4"]);
    assert_guarded(&server).await;
    demand(&server, ROOT, ("DELETE", "/v2/auth/enable", ""));
    put(&mut server.kv().await, "/z", "after").await;
}
