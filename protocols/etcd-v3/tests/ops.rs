//! etcd's calls in plain messages, over a real replica of one member.

mod common;

use common::{Server, alone, alone_with, limits, timely};
use etcd_v3::Options;
use etcd_v3::errors::{self, Error};
use etcd_v3::ops::watch::Session;
use etcd_v3::reply::Watched;
use etcd_v3::wire::Reply;
use gateway::keyspace::Command;
use gateway::keyspace::command::{Op, Put, Txn};
use gateway::{Limits, Principal};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::watch_request::RequestUnion;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a client reads out of a reply.
fn read<M: prost::Message + Default>(reply: &impl Reply) -> M {
    let mut bytes = Vec::new();
    reply.write(&mut bytes);
    M::decode(&bytes[..]).expect("what was written can be read")
}

fn put_request(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

fn prefix(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: b"\0".as_slice().into(),
        ..pb::RangeRequest::default()
    }
}

async fn put(server: &Server, key: &str, value: &str) -> Result<i64, Error> {
    let stored = server.etcd.ops().put(put_request(key, value)).await?;
    Ok(stored.header.revision as i64)
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn delete_request(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        ..pb::DeleteRangeRequest::default()
    }
}

#[tokio::test]
async fn answers_inside_a_transaction_carry_the_revision_they_saw() {
    let server = alone(limits()).await;
    put(&server, "a", "1").await.unwrap();
    let get = || op(Request::RequestRange(prefix("a")));
    let inner = pb::TxnRequest {
        success: vec![op(Request::RequestPut(put_request("b", "2"))), get()],
        ..pb::TxnRequest::default()
    };
    let request = pb::TxnRequest {
        success: vec![
            op(Request::RequestDeleteRange(delete_request("none"))),
            get(),
            op(Request::RequestTxn(inner)),
            op(Request::RequestDeleteRange(delete_request("a"))),
        ],
        ..pb::TxnRequest::default()
    };
    let committed = server.etcd.ops().txn(request).await.unwrap();
    let txn: pb::TxnResponse = read(&committed);
    assert_eq!(txn.header.as_ref().unwrap().revision, 3);
    let revisions: Vec<Option<i64>> = txn.responses.iter().map(revision_of).collect();
    assert_eq!(revisions, [Some(2), Some(2), Some(0), Some(3)]);
    let Some(pb::response_op::Response::ResponseTxn(inner)) = &txn.responses[2].response else {
        panic!("{txn:?}")
    };
    let revisions: Vec<Option<i64>> = inner.responses.iter().map(revision_of).collect();
    assert_eq!(revisions, [Some(3), Some(3)]);
}

fn revision_of(answer: &pb::ResponseOp) -> Option<i64> {
    use pb::response_op::Response as R;
    let header = match answer.response.as_ref()? {
        R::ResponseRange(it) => it.header.as_ref(),
        R::ResponsePut(it) => it.header.as_ref(),
        R::ResponseDeleteRange(it) => it.header.as_ref(),
        R::ResponseTxn(it) => it.header.as_ref(),
    };
    Some(header?.revision)
}

#[tokio::test]
async fn the_parts_of_a_range_make_the_range() {
    let server = alone(Limits {
        request_bytes_max: 30_000,
        ..limits()
    })
    .await;
    let value = "v".repeat(1000);
    for n in 0..200 {
        put(&server, &format!("k{n:03}"), &value).await.unwrap();
    }
    for limit in [0, 1, 10, 25, 200, 500] {
        let request = pb::RangeRequest {
            limit,
            ..prefix("k")
        };
        let whole = server.etcd.ops().range(request.clone()).await.unwrap();
        let mut parts = server.etcd.ops().range_stream(request).await.unwrap();
        let mut merged = pb::RangeResponse::default();
        let mut sizes = Vec::new();
        while let Some(part) = parts.next_part().unwrap() {
            assert!(merged.header.is_none(), "only the last part has a header");
            let part: pb::RangeStreamResponse = read(&part);
            let part = part.range_response.expect("a part is a range");
            sizes.push(part.kvs.len());
            merged.kvs.extend(part.kvs);
            merged.header = part.header;
            merged.more = part.more;
            merged.count = part.count;
            // What comes after the first part is not seen.
            put(&server, "k000", &value).await.unwrap();
        }
        let mut whole: pb::RangeResponse = read(&whole);
        whole.header = merged.header;
        assert_eq!(merged, whole, "limit {limit}");
        if limit == 0 {
            assert_eq!(
                sizes[..2],
                [10, 20],
                "parts grow to about the request limit"
            );
            assert!(sizes.iter().all(|&size| size <= 20), "{sizes:?}");
        }
    }
}

/// A thread carries many connections, and none waits for what another reads.
#[test]
fn only_small_ranges_are_read_on_the_connections_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    runtime.unwrap().block_on(read_small_and_large_ranges());
}

async fn read_small_and_large_ranges() {
    const KEYS: usize = 1_200;
    let server = alone(limits()).await;
    let write = |nth| {
        let put = Put::new(format!("k{nth:04}"), "v");
        Command::Txn(Txn::unconditional(vec![Op::Put(put)]))
    };
    for start in (0..KEYS).step_by(100) {
        let writes = (start..start + 100).map(write).collect();
        let gate = server.etcd.ops().gate();
        gate.submit(&Principal::System, writes).await.unwrap();
    }
    let limited = |limit| pb::RangeRequest {
        limit,
        ..prefix("k")
    };
    let descending = |limit, range| pb::RangeRequest {
        sort_order: pb::range_request::SortOrder::Descend.into(),
        limit,
        ..range
    };
    let counted = pb::RangeRequest {
        count_only: true,
        ..prefix("k")
    };
    let newest = server.etcd.ops().gate().reader().revision().0;
    let before = |range| pb::RangeRequest {
        revision: i64::try_from(newest - 1).unwrap(),
        ..range
    };
    for (request, found, at_once) in [
        (prefix("k1"), 200, true),
        (prefix("k0"), KEYS, false),
        (limited(1_000), 1_000, true),
        (limited(1_001), 1_001, false),
        (counted, 0, true),
        (descending(3, prefix("k")), 3, false),
        (descending(3, prefix("k1")), 3, true),
        (before(limited(3)), 3, false),
    ] {
        let request = pb::RangeRequest {
            serializable: true,
            ..request
        };
        let case = format!("{request:?}");
        // What is done aside waits for the one thread there is for it.
        let (release, held) = mpsc::channel::<()>();
        let holding = tokio::task::spawn_blocking(move || held.recv());
        let mut asked = pin!(server.etcd.ops().range(request));
        let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled.is_ready(), at_once, "{case}");
        drop(release);
        assert!(holding.await.unwrap().is_err(), "it was released");
        let ranged = match polled {
            Poll::Ready(ranged) => ranged,
            Poll::Pending => asked.await,
        };
        assert_eq!(ranged.unwrap().entries.len(), found, "{case}");
    }
}

#[tokio::test]
async fn over_the_quota_nothing_grows_until_an_operator_made_room() {
    let server = alone(Limits {
        space_bytes_max: Some(53_248),
        ..limits()
    })
    .await;
    let ops = server.etcd.ops();
    let status = || ops.status(pb::StatusRequest {}).unwrap();
    let empty = status();
    assert!(empty.db_size < empty.db_size_quota);
    let page = "b".repeat(4096);
    let mut written = 0;
    let refused = loop {
        match put(&server, "big", &page).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, errors::NO_SPACE);
    assert!(written > 3, "{written}");
    let full = status();
    assert!(full.db_size > empty.db_size);
    let member = full.header.unwrap().member_id;
    assert_eq!(full.errors, [format!("memberID:{member} alarm:NOSPACE")]);
    assert_eq!(put(&server, "small", "x").await, Err(errors::NO_SPACE));
    let grant = pb::LeaseGrantRequest { ttl: 10, id: 0 };
    assert_eq!(ops.lease_grant(grant).await, Err(errors::NO_SPACE));
    ops.delete_range(delete_request("none")).await.unwrap();
    ops.range(prefix("a")).await.unwrap();

    let compact = pb::CompactionRequest {
        revision: full.header.unwrap().revision,
        physical: true,
    };
    ops.compact(compact).await.unwrap();
    ops.defragment(pb::DefragmentRequest {}).unwrap();
    assert!(status().db_size < full.db_size);
    assert_eq!(
        put(&server, "small", "x").await,
        Err(errors::NO_SPACE),
        "the alarm stands"
    );
    let disarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Deactivate.into(),
        member_id: member,
        alarm: pb::AlarmType::Nospace.into(),
    };
    let disarmed = ops.alarm(disarm).await.unwrap();
    assert_eq!(disarmed.alarms[0].member_id, member);
    assert!(ops.alarm(disarm).await.unwrap().alarms.is_empty());
    put(&server, "small", "x").await.unwrap();
}

#[tokio::test]
async fn a_history_hashes_after_its_compaction_as_before() {
    let server = alone(limits()).await;
    let ops = server.etcd.ops();
    for value in ["1", "2", "3"] {
        put(&server, "a", value).await.unwrap();
    }
    let hash = async |revision| ops.hash_kv(pb::HashKvRequest { revision }).await.unwrap();
    let before = hash(3).await;
    assert_eq!((before.compact_revision, before.hash_revision), (-1, 3));
    let compact = pb::CompactionRequest {
        revision: 3,
        physical: true,
    };
    ops.compact(compact).await.unwrap();
    assert!(ops.gate().reader().is_tidy());
    assert_eq!(hash(3).await, before);
    let newest = hash(0).await;
    assert_eq!((newest.compact_revision, newest.hash_revision), (3, 4));
}

#[tokio::test]
async fn leases_are_as_etcd_grants_them() {
    let server = alone(limits()).await;
    let ops = server.etcd.ops();
    let grant = async |ttl, id| ops.lease_grant(pb::LeaseGrantRequest { ttl, id }).await;
    let granted = grant(-5, 0).await.unwrap();
    assert!(granted.id > 0);
    assert_eq!(granted.ttl, 1, "raised to what outlives an election");
    assert_eq!(grant(100, 7).await.unwrap().ttl, 100);
    assert_eq!(grant(100, 7).await, Err(errors::LEASE_EXISTS));
    assert_eq!(
        grant(9_000_000_001, 8).await,
        Err(errors::LEASE_TTL_TOO_LARGE)
    );
    for key in ["b", "a"] {
        let bound = pb::PutRequest {
            lease: 7,
            ..put_request(key, "")
        };
        ops.put(bound).await.unwrap();
    }
    let unknown = pb::PutRequest {
        lease: 9,
        ..put_request("c", "")
    };
    assert_eq!(ops.put(unknown).await.unwrap_err(), errors::LEASE_NOT_FOUND);

    let left = async |id| {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        ops.lease_time_to_live(request).await.unwrap()
    };
    let of_seven = left(7).await;
    assert!(of_seven.ttl <= 100 && of_seven.ttl > 90);
    assert_eq!(of_seven.granted_ttl, 100);
    assert_eq!(of_seven.keys, ["a", "b"]);
    assert_eq!(left(9).await.ttl, -1);
    let keep = async |id| {
        ops.lease_keep_alive(pb::LeaseKeepAliveRequest { id })
            .await
            .unwrap()
    };
    assert_eq!(keep(7).await.ttl, 100);
    assert_eq!(keep(9).await.ttl, 0);

    let before = ops
        .range(prefix("a"))
        .await
        .unwrap()
        .header
        .unwrap()
        .revision;
    let revoked = ops
        .lease_revoke(pb::LeaseRevokeRequest { id: 7 })
        .await
        .unwrap();
    assert_eq!(revoked.header.unwrap().revision as u64, before + 1);
    assert_eq!(ops.range(prefix("a")).await.unwrap().count, 0);
    let again = ops.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await;
    assert_eq!(again, Err(errors::LEASE_NOT_FOUND));
}

#[tokio::test]
async fn requests_over_the_limit_are_refused() {
    let server = alone(Limits {
        request_bytes_max: 1000,
        ..limits()
    })
    .await;
    assert!(put(&server, "k", &"v".repeat(900)).await.is_ok());
    let refused = put(&server, "k", &"v".repeat(1000)).await;
    assert_eq!(refused, Err(errors::REQUEST_TOO_LARGE));
}

fn create(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        ..pb::WatchCreateRequest::default()
    }
}

fn request(session: &mut Session, union: RequestUnion) {
    session.request(pb::WatchRequest {
        request_union: Some(union),
    });
}

async fn reply(session: &mut Session) -> pb::WatchResponse {
    read::<pb::WatchResponse>(&timely(poll_fn(|cx| session.poll_reply(cx))).await)
}

/// The reply that is due without waiting, if there is one.
async fn reply_due(session: &mut Session) -> Option<Watched> {
    poll_fn(|cx| {
        Poll::Ready(match session.poll_reply(cx) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => None,
        })
    })
    .await
}

async fn ask(session: &mut Session, create: pb::WatchCreateRequest) -> pb::WatchResponse {
    request(session, RequestUnion::CreateRequest(create));
    reply(session).await
}

#[tokio::test]
async fn watchers_are_created_and_refused_as_by_etcd() {
    let server = alone(limits()).await;
    put(&server, "a", "1").await.unwrap();
    let mut session = server.etcd.ops().watch();
    let first = ask(&mut session, create("a")).await;
    assert!(first.created && !first.canceled);
    assert_eq!((first.watch_id, first.header.unwrap().revision), (0, 2));
    let chosen = pb::WatchCreateRequest {
        watch_id: 1,
        ..create("a")
    };
    assert_eq!(ask(&mut session, chosen.clone()).await.watch_id, 1);
    assert_eq!(
        ask(&mut session, create("a")).await.watch_id,
        2,
        "1 is taken"
    );
    let empty = pb::WatchCreateRequest {
        range_end: "a".into(),
        ..create("b")
    };
    let past = pb::WatchCreateRequest {
        start_revision: -1,
        ..create("b")
    };
    for (refused, reason) in [
        (
            chosen,
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (empty, "mvcc: watcher range is empty"),
        (
            past,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ] {
        let refused = ask(&mut session, refused).await;
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, &refused.cancel_reason[..]), (-1, reason));
    }
    let cancel = |watch_id| RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
    request(&mut session, cancel(77));
    request(&mut session, cancel(2));
    let cancelled = reply(&mut session).await;
    assert!(cancelled.canceled && !cancelled.created);
    assert_eq!((cancelled.watch_id, &cancelled.cancel_reason[..]), (2, ""));
    assert!(reply_due(&mut session).await.is_none());
}

#[tokio::test]
async fn events_come_filtered_and_with_what_was_before() {
    let server = alone(limits()).await;
    put(&server, "a", "1").await.unwrap();
    let mut session = server.etcd.ops().watch();
    let from_the_past = pb::WatchCreateRequest {
        start_revision: 2,
        prev_kv: true,
        filters: vec![FilterType::Nodelete.into()],
        ..create("a")
    };
    ask(&mut session, from_the_past).await;
    let only_deletions = pb::WatchCreateRequest {
        filters: vec![FilterType::Noput.into()],
        ..create("a")
    };
    ask(&mut session, only_deletions).await;
    let of_the_past = reply(&mut session).await;
    assert_eq!(of_the_past.watch_id, 0);
    assert_eq!(of_the_past.events[0].prev_kv, None, "it was created then");
    put(&server, "a", "2").await.unwrap();
    let event = &reply(&mut session).await.events[0];
    assert_eq!(event.kv.as_ref().unwrap().value, "2");
    assert_eq!(event.prev_kv.as_ref().unwrap().value, "1");
    server
        .etcd
        .ops()
        .delete_range(delete_request("a"))
        .await
        .unwrap();
    let deleted = reply(&mut session).await;
    assert_eq!((deleted.watch_id, deleted.events.len()), (1, 1));
    assert_eq!(deleted.events[0].prev_kv, None, "nobody asked for it");
    assert!(reply_due(&mut session).await.is_none());
}

#[tokio::test]
async fn progress_comes_after_the_events_it_speaks_of() {
    let server = alone(limits()).await;
    let mut session = server.etcd.ops().watch();
    let ask_progress = |session: &mut Session| {
        request(
            session,
            RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
        );
    };
    ask_progress(&mut session);
    assert!(reply_due(&mut session).await.is_none(), "nobody watches");
    ask(&mut session, create("a")).await;
    put(&server, "a", "1").await.unwrap();
    ask_progress(&mut session);
    assert_eq!(reply(&mut session).await.events.len(), 1);
    assert!(
        reply_due(&mut session).await.is_none(),
        "it was behind when it was asked"
    );
    put(&server, "other", "1").await.unwrap();
    ask_progress(&mut session);
    let progress = reply(&mut session).await;
    assert_eq!(
        (progress.watch_id, progress.header.unwrap().revision),
        (-1, 3)
    );
    assert!(progress.events.is_empty());
}

#[tokio::test]
async fn progress_is_told_to_whom_it_interests_when_nothing_happens() {
    let options = Options {
        watch_progress_interval: Duration::from_millis(100),
    };
    let server = alone_with(limits(), options).await;
    let mut session = server.etcd.ops().watch();
    let interested = pb::WatchCreateRequest {
        progress_notify: true,
        ..create("a")
    };
    ask(&mut session, create("a")).await;
    ask(&mut session, interested).await;
    for _ in 0..2 {
        let progress = reply(&mut session).await;
        let revision = progress.header.unwrap().revision;
        assert_eq!((progress.watch_id, revision), (1, 1));
        assert!(progress.events.is_empty());
    }
}

#[tokio::test]
async fn one_revision_is_fragmented_only_where_asked_for() {
    let server = alone(Limits {
        request_bytes_max: 2_000_000,
        ..limits()
    })
    .await;
    let mut session = server.etcd.ops().watch();
    let all = pb::WatchCreateRequest {
        range_end: b"\0".as_slice().into(),
        ..create("")
    };
    let in_pieces = pb::WatchCreateRequest {
        fragment: true,
        ..all.clone()
    };
    ask(&mut session, all).await;
    ask(&mut session, in_pieces).await;
    for key in ["a", "b", "c", "d"] {
        put(&server, key, &"v".repeat(900_000)).await.unwrap();
    }
    let delete_all = pb::DeleteRangeRequest {
        range_end: b"\0".as_slice().into(),
        ..delete_request("a")
    };
    while reply_due(&mut session).await.is_some() {}
    let with_values = pb::WatchCreateRequest {
        range_end: b"\0".as_slice().into(),
        prev_kv: true,
        fragment: true,
        ..create("")
    };
    ask(&mut session, with_values).await;
    server.etcd.ops().delete_range(delete_all).await.unwrap();
    let mut parts = Vec::new();
    for _ in 0..4 {
        let reply = reply(&mut session).await;
        parts.push((reply.watch_id, reply.events.len(), reply.fragment));
    }
    assert_eq!(
        parts,
        [(0, 4, false), (1, 4, false), (2, 2, true), (2, 2, false)]
    );
}
