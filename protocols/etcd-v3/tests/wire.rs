//! The calls over a connection, as far as they differ from the calls in plain messages.

mod common;

use common::{alone, leaderless, limits, timely};
use etcd_v3::Method;
use gateway::Limits;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::health::HealthCheckRequest;
use proto::health::health_client::HealthClient;
use proto::v3lockpb::lock_client::LockClient;
use tonic::{Code, Request};

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

fn watch(key: &str) -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: key.to_owned().into(),
            ..pb::WatchCreateRequest::default()
        })),
    }
}

/// Asks that there be a leader.
fn led<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let yes = "true".parse().expect("a valid header");
    request.metadata_mut().insert("hasleader", yes);
    request
}

#[tokio::test]
async fn calls_are_answered_and_counted() {
    let mut server = alone(limits()).await;
    let channel = server.connect().await;
    let mut kv = KvClient::new(channel.clone());
    kv.put(put("a", "1")).await.unwrap();
    let found = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "1");
    let refused = kv.range(get("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: key is not provided");
    let mut parts = kv.range_stream(get("a")).await.unwrap().into_inner();
    let part = parts.message().await.unwrap().expect("one part");
    assert_eq!(part.range_response.unwrap().count, 1);
    assert!(parts.message().await.unwrap().is_none());

    let calls = server.etcd.calls();
    assert_eq!(calls.started(Method::Range), 2);
    assert_eq!(calls.handled(Method::Range)[0], 1);
    assert_eq!(
        calls.handled(Method::Range)[Code::InvalidArgument as usize],
        1
    );
    assert_eq!(calls.handled(Method::RangeStream)[0], 1);
    assert_eq!(calls.requests(), [("unknown".to_owned(), 3, 1)]);
}

#[tokio::test]
async fn a_watch_hears_of_a_put() {
    let mut server = alone(limits()).await;
    let channel = server.connect().await;
    let (requests, stream) = tokio::sync::mpsc::channel(4);
    requests.send(watch("a")).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut replies = WatchClient::new(channel.clone())
        .watch(led(stream))
        .await
        .unwrap()
        .into_inner();
    assert!(replies.message().await.unwrap().expect("a reply").created);
    KvClient::new(channel).put(put("a", "1")).await.unwrap();
    let reply = timely(replies.message()).await.unwrap().expect("a reply");
    assert_eq!(reply.events[0].kv.as_ref().unwrap().value, "1");
    assert_eq!(server.etcd.ops().gate().hub().figures().streams, 1);
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_as_by_grpc_go() {
    let mut server = alone(Limits {
        request_bytes_max: 1000,
        ..limits()
    })
    .await;
    let mut kv = KvClient::new(server.connect().await);
    let refused = kv.put(put("k", &"v".repeat(600_000))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let expected = "grpc: received message larger than max (600007 vs. 525288)";
    assert_eq!(refused.message(), expected);
    let calls = server.etcd.calls();
    assert_eq!(
        calls.handled(Method::Put)[Code::ResourceExhausted as usize],
        1
    );
}

/// Transactions in transactions, as many as the decoder takes; etcd takes thousands.
const NESTED_MAX: usize = 50;

#[tokio::test]
async fn transactions_nested_too_deeply_are_refused() {
    let mut server = alone(limits()).await;
    let mut kv = KvClient::new(server.connect().await);
    let nested = |levels| {
        (1..levels).fold(pb::TxnRequest::default(), |inner, _| pb::TxnRequest {
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestTxn(inner)),
            }],
            ..pb::TxnRequest::default()
        })
    };
    kv.txn(nested(NESTED_MAX)).await.unwrap();
    let refused = kv.txn(nested(NESTED_MAX + 1)).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused:?}");
    kv.put(put("a", "1")).await.expect("the connection lives");
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let mut server = alone(limits()).await;
    let channel = server.connect().await;
    let lock = proto::v3lockpb::LockRequest::default();
    let refused = LockClient::new(channel.clone())
        .lock(lock)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(refused.message(), "unknown service v3lockpb.Lock");
    let downgrade = pb::DowngradeRequest::default();
    let mut maintenance = MaintenanceClient::new(channel);
    let refused = maintenance.downgrade(downgrade).await.unwrap_err();
    let expected = "unknown method Downgrade for service etcdserverpb.Maintenance";
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unimplemented, expected)
    );
}

#[tokio::test]
async fn the_one_health_service_serves() {
    let mut server = alone(limits()).await;
    let mut health = HealthClient::new(server.connect().await);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let serving = health.check(ask("")).await.unwrap().into_inner();
    assert_eq!(serving.status().as_str_name(), "SERVING");
    let mut watched = health.watch(ask("")).await.unwrap().into_inner();
    let first = timely(watched.message()).await.unwrap().expect("a status");
    assert_eq!(first.status().as_str_name(), "SERVING");
    assert_eq!(
        health.check(ask("x")).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn who_wants_a_leader_is_not_kept_waiting_for_one() {
    let mut server = leaderless(limits()).await;
    let mut kv = KvClient::new(server.connect().await);
    let refused = kv.put(led(put("a", "1"))).await.unwrap_err();
    let expected = (Code::Unavailable, "etcdserver: no leader");
    assert_eq!((refused.code(), refused.message()), expected);
    let local = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    let refused = kv.range(led(local.clone())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), expected);
    assert_eq!(kv.range(local).await.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn a_member_without_leader_says_so_to_who_waits() {
    let server = leaderless(limits()).await;
    let patience = limits().election_timeout;
    timely(server.etcd.ops().gate().leaderless(patience)).await;
    let status = server.etcd.ops().status(pb::StatusRequest {}).unwrap();
    assert_eq!(status.errors, ["etcdserver: no leader"]);
}
