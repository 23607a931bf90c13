//! ZooKeeper's access lists bind etcd's clients too: what touches a protected node is denied.

use crate::server::{PATIENCE, Server, get, put};
use crate::zookeeper::{ANYONE, AUTH, CLIENTS, CREATE, DELETE, plain};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use zookeeper::jute::Write;

const SET_ACL: i32 = 7;
const MULTI: i32 = 14;
/// Somebody who is not here.
const SOMEBODY: (&str, &str) = ("digest", "somebody:secret");
const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..RangeRequest::default()
    }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    }
}

fn put_of(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..PutRequest::default()
    }
}

fn txn(compared: &str, otherwise: Request) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            key: compared.to_owned().into(),
            ..Compare::default()
        }],
        success: vec![],
        failure: vec![RequestOp {
            request: Some(otherwise),
        }],
    }
}

fn assert_denied<T>(what: &str, answered: Result<T, Status>) {
    let Err(refused) = answered else {
        panic!("{what} was answered");
    };
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::PermissionDenied, "etcdserver: permission denied"),
        "{what}"
    );
}

async fn assert_all_denied(kv: &mut KvClient<Channel>) {
    assert_denied("a key", kv.range(range("/a/secret", "")).await);
    assert_denied("a prefix", kv.range(range("/a/", "/a0")).await);
    assert_denied("all keys", kv.range(range("\0", "\0")).await);
    assert_denied("a put", kv.put(put_of("/a/secret")).await);
    assert_denied("a child", kv.put(put_of("/a/secret/child")).await);
    assert_denied("a delete", kv.delete_range(delete("/a/secret", "")).await);
    assert_denied("deletes", kv.delete_range(delete("/a", "/b")).await);
    let harmless = || Request::RequestRange(range("/open", ""));
    assert_denied("a comparison", kv.txn(txn("/a/secret", harmless())).await);
    let read = Request::RequestRange(range("/a/secret", ""));
    assert_denied("a read in a transaction", kv.txn(txn("/open", read)).await);
    let write = Request::RequestPut(put_of("/a/secret"));
    assert_denied("a put in a transaction", kv.txn(txn("/open", write)).await);
}

#[tokio::test]
async fn what_touches_a_protected_node_is_denied() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let mut kv = server.kv().await;
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    assert_eq!(client.create("/a", ANYONE).await.0, 0);
    put(&mut kv, "/a/known", "before").await;
    assert_eq!(client.create("/a/secret", SOMEBODY).await.0, 0);
    assert_all_denied(&mut kv).await;

    put(&mut kv, "/a/open", "others go on").await;
    assert_eq!(get(&mut kv, "/a/open").await, ["others go on"]);
    let deleted = kv.delete_range(delete("/a/o", "/a/p")).await;
    assert_eq!(deleted.expect("answered").into_inner().deleted, 1);
    let compared = txn("/a/known", Request::RequestRange(range("/a/known", "")));
    kv.txn(compared).await.expect("answered");

    // Who protects a node says who may create and delete beneath it.
    let protected = client.call(SET_ACL, |out| {
        out.text("/a");
        out.count(1);
        out.int(31);
        out.text(SOMEBODY.0);
        out.text(SOMEBODY.1);
        out.int(-1);
    });
    assert_eq!(protected.await.0, 0);
    assert_denied("a new child", kv.put(put_of("/a/new")).await);
    assert_denied(
        "a child's end",
        kv.delete_range(delete("/a/known", "")).await,
    );
    kv.put(put_of("/a/known")).await.expect("it was there");
    kv.put(put_of("/a/known/deep"))
        .await
        .expect("its own is open");
}

/// A watch stream with one watcher, and what it is told.
async fn watch(server: &Server, key: &str, range_end: &str) -> Streaming<WatchResponse> {
    watch_from(server, key, range_end, 0).await
}

/// The same from a revision on; 0 is now.
async fn watch_from(
    server: &Server,
    key: &str,
    range_end: &str,
    start_revision: i64,
) -> Streaming<WatchResponse> {
    let create = WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    watch_as(server, create).await
}

async fn watch_as(server: &Server, create: WatchCreateRequest) -> Streaming<WatchResponse> {
    let client = WatchClient::connect(server.uri()).await;
    let mut client = client.expect("it listens");
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    // The client's side stays open for as long as the stream is read.
    let requests = tokio_stream::StreamExt::chain(
        tokio_stream::once(create),
        tokio_stream::pending::<WatchRequest>(),
    );
    let answers = client.watch(requests).await.expect("a stream");
    answers.into_inner()
}

async fn next(answers: &mut Streaming<WatchResponse>) -> WatchResponse {
    let next = tokio::time::timeout(PATIENCE, answers.message()).await;
    let next = next.expect("in time").expect("no error");
    next.expect("the stream goes on")
}

#[tokio::test]
async fn watchers_of_protected_nodes_are_cancelled() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let mut kv = server.kv().await;
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    let mut early = watch(&server, "/a", "/b").await;
    assert!(next(&mut early).await.created);
    put(&mut kv, "/a/open", "seen").await;
    assert_eq!(next(&mut early).await.events.len(), 1);
    assert_eq!(client.create("/a/secret", SOMEBODY).await.0, 0);
    let cancelled = next(&mut early).await;
    assert!(cancelled.canceled && cancelled.events.is_empty());
    assert_eq!(cancelled.cancel_reason, DENIED);

    let mut late = watch(&server, "/a/secret", "").await;
    let refused = next(&mut late).await;
    assert!(refused.created && refused.canceled);
    assert_eq!((refused.watch_id, &*refused.cancel_reason), (-1, DENIED));
    let mut other = watch(&server, "/a/open", "").await;
    let answer = next(&mut other).await;
    assert!(answer.created && !answer.canceled);
}

fn both(first: Request, second: Request) -> TxnRequest {
    let ops = [first, second].map(|request| RequestOp {
        request: Some(request),
    });
    TxnRequest {
        success: ops.into(),
        ..TxnRequest::default()
    }
}

/// `/secret` was there at that revision, between others that were open.
async fn assert_past_denied(kv: &mut KvClient<Channel>, revision: i64) {
    let past = |key: &str, range_end: &str| RangeRequest {
        revision,
        ..range(key, range_end)
    };
    kv.range(past("/open", "")).await.expect("it was open");
    assert_denied("a read of the past", kv.range(past("/secret", "")).await);
    let counted = RangeRequest {
        count_only: true,
        ..past("/secret", "")
    };
    assert_denied("counting the past", kv.range(counted).await);
    let limited = RangeRequest {
        limit: 1,
        ..past("/", "0")
    };
    assert_denied("the past up to a limit", kv.range(limited).await);

    let read = || Request::RequestRange(past("/secret", ""));
    let write = || Request::RequestPut(put_of("/x"));
    let beside = kv.txn(both(write(), read())).await;
    assert_denied("a read of the past beside a put", beside);
    let nested = Request::RequestTxn(both(read(), read()));
    let nested = kv.txn(both(nested, write())).await;
    assert_denied("a read of the past further in", nested);
    let nothing = kv.range(range("/x", "")).await.expect("answered");
    assert_eq!(nothing.into_inner().count, 0, "of what was denied is done");
}

/// What is open now says nothing of what was protected before it.
#[tokio::test]
async fn what_a_protected_node_held_is_not_told_with_what_replaces_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let mut kv = server.kv().await;
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    assert_eq!(client.create("/secret", SOMEBODY).await.0, 0);
    let shown = kv.range(range("/open", "")).await.expect("answered");
    let revision = shown.into_inner().header.expect("a header").revision;
    let replaced = client.call(MULTI, |out| {
        let step = |out: &mut Vec<u8>, kind| {
            out.int(kind);
            out.boolean(kind == -1);
            out.int(-1);
        };
        step(out, DELETE);
        out.text("/secret");
        out.int(-1);
        step(out, CREATE);
        out.text("/secret");
        out.text("open");
        out.count(1);
        out.int(31);
        out.text(ANYONE.0);
        out.text(ANYONE.1);
        out.int(0);
        step(out, -1);
    });
    assert_eq!(replaced.await.0, 0);
    put(&mut kv, "/secret", "newer").await;

    let mut answers = watch_as(
        &server,
        WatchCreateRequest {
            key: "/secret".into(),
            start_revision: revision + 1,
            prev_kv: true,
            ..WatchCreateRequest::default()
        },
    )
    .await;
    assert!(next(&mut answers).await.created);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let told = next(&mut answers).await;
        assert!(!told.canceled);
        seen.extend(told.events.into_iter().map(|event| {
            let value = |kv: proto::mvccpb::KeyValue| String::from_utf8_lossy(&kv.value).into();
            [event.kv.map(value), event.prev_kv.map(value)]
        }));
    }
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(seen, [[text("open"), None], [text("newer"), text("open")]]);
}

#[tokio::test]
async fn what_was_protected_stays_so_in_the_past() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let mut kv = server.kv().await;
    let mut client = plain(server.addresses(CLIENTS)[0]).await;
    put(&mut kv, "/open", "before").await;
    assert_eq!(client.create("/secret", SOMEBODY).await.0, 0);
    let shown = kv.range(range("/open", "")).await.expect("answered");
    let revision = shown.into_inner().header.expect("a header").revision;
    let deleted = client.call(DELETE, |out| {
        out.text("/secret");
        out.int(-1);
    });
    assert_eq!(deleted.await.0, 0);
    put(&mut kv, "/open", "after").await;

    assert_past_denied(&mut kv, revision).await;
    let mut late = watch_from(&server, "/", "0", revision - 1).await;
    assert!(next(&mut late).await.created);
    let cancelled = next(&mut late).await;
    assert!(cancelled.canceled && cancelled.events.is_empty());
    assert_eq!(cancelled.cancel_reason, DENIED);

    // One that its owner has opened shows what it holds.
    let shown = client.call(AUTH, |out| {
        out.int(0);
        out.text("digest");
        out.buffer(Some(b"owner:secret"));
    });
    assert_eq!(shown.await.0, 0);
    assert_eq!(client.create("/opened", ("auth", "")).await.0, 0);
    assert_denied("a key", kv.range(range("/opened", "")).await);
    let opened = client.call(SET_ACL, |out| {
        out.text("/opened");
        out.count(1);
        out.int(31);
        out.text(ANYONE.0);
        out.text(ANYONE.1);
        out.int(-1);
    });
    assert_eq!(opened.await.0, 0);
    assert_eq!(get(&mut kv, "/opened").await, ["data"]);
}
