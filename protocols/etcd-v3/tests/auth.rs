//! Users and roles bind etcd's calls: those that name nobody get what guests may do.

mod common;

use common::{Server, alone, limits, timely};
use etcd_v3::errors::{self, Error};
use gateway::Principal;
use gateway::keyspace::auth::{AuthChange, AuthChanges, GUEST, Permission, ROOT};
use gateway::keyspace::{Command, End, Permissions, Span};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::watch_request::RequestUnion;
use std::future::poll_fn;

async fn change(server: &Server, changes: Vec<AuthChange>) {
    let changes = AuthChanges {
        changes,
        ..AuthChanges::default()
    };
    let gate = server.etcd.ops().gate();
    let changed = gate.propose(&Principal::System, Command::Auth(changes));
    changed.await.expect("it is changed");
}

/// Authentication is on, and nobody is there but root.
async fn guarded() -> Server {
    let server = alone(limits()).await;
    put(&server, "/a/1").await.expect("nothing is in its way");
    put(&server, "/b").await.expect("nothing is in its way");
    let lease = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    server.etcd.ops().lease_grant(lease).await.expect("a lease");
    let add = AuthChange::AddUser {
        user: ROOT.into(),
        password: None,
    };
    let grant = AuthChange::Grant {
        user: ROOT.into(),
        role: ROOT.into(),
        ahead: false,
    };
    change(&server, vec![add, grant, AuthChange::Enable]).await;
    server
}

fn put_of(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

async fn put(server: &Server, key: &str) -> Result<(), Error> {
    server.etcd.ops().put(put_of(key)).await.map(drop)
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

/// What each kind of call comes to; `None` is done.
async fn all(server: &Server) -> Vec<(&'static str, Option<Error>)> {
    let ops = server.etcd.ops();
    let txn = |request| pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(request),
        }],
        ..pb::TxnRequest::default()
    };
    let reads = txn(Request::RequestRange(range("/a/1", "")));
    let writes = txn(Request::RequestPut(put_of("/a/1")));
    let delete = pb::DeleteRangeRequest {
        key: "/a/2".into(),
        ..pb::DeleteRangeRequest::default()
    };
    let time_to_live = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
    let keep_alive = pb::LeaseKeepAliveRequest { id: 7 };
    let add = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://localhost:1".to_owned()],
        is_learner: true,
    };
    let alarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        alarm: pb::AlarmType::Nospace.into(),
        ..pb::AlarmRequest::default()
    };
    let compact = pb::CompactionRequest {
        revision: 1,
        ..pb::CompactionRequest::default()
    };
    vec![
        ("range", ops.range(range("/a/1", "")).await.err()),
        ("put", put(server, "/a/1").await.err()),
        ("delete", ops.delete_range(delete).await.err()),
        ("reading txn", ops.txn(reads).await.err()),
        ("writing txn", ops.txn(writes).await.err()),
        (
            "lease",
            ops.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 8 })
                .await
                .err(),
        ),
        ("keep alive", ops.lease_keep_alive(keep_alive).await.err()),
        (
            "time to live",
            ops.lease_time_to_live(time_to_live).await.err(),
        ),
        ("leases", ops.lease_leases(pb::LeaseLeasesRequest {}).err()),
        (
            "revoke",
            ops.lease_revoke(pb::LeaseRevokeRequest { id: 8 })
                .await
                .err(),
        ),
        ("status", ops.status(pb::StatusRequest {}).err()),
        ("alarms", ops.alarm(pb::AlarmRequest::default()).await.err()),
        (
            "members",
            ops.member_list(pb::MemberListRequest::default())
                .await
                .err(),
        ),
        ("raise", ops.alarm(alarm).await.err()),
        ("compact", ops.compact(compact).await.err()),
        ("defragment", ops.defragment(pb::DefragmentRequest {}).err()),
        (
            "hash",
            ops.hash_kv(pb::HashKvRequest::default()).await.err(),
        ),
        ("add", ops.member_add(add).await.err()),
        (
            "move",
            ops.move_leader(pb::MoveLeaderRequest::default())
                .await
                .err(),
        ),
    ]
}

#[tokio::test]
async fn who_names_nobody_may_nothing_without_a_role_for_guests() {
    let server = guarded().await;
    for (what, error) in all(&server).await {
        assert_eq!(error, Some(errors::USER_EMPTY), "{what}");
    }
}

#[tokio::test]
async fn guests_may_what_their_role_permits() {
    let server = guarded().await;
    let span = Span {
        start: "/a/".into(),
        end: End::Before("/a0".into()),
    };
    let permission = Permission {
        span,
        may: Permissions::READ | Permissions::WRITE,
    };
    let role = || GUEST.into();
    let permit = AuthChange::Permit {
        role: role(),
        permission,
    };
    change(&server, vec![AuthChange::AddRole(role()), permit]).await;
    for (what, error) in all(&server).await {
        let expected = match what {
            "raise" | "compact" | "defragment" | "hash" | "add" | "move" => {
                Some(errors::USER_EMPTY)
            }
            _ => None,
        };
        assert_eq!(error, expected, "{what}");
    }
    let ops = server.etcd.ops();
    let read = |key, end| async move { ops.range(range(key, end)).await.err() };
    assert_eq!(read("/a/", "/a0").await, None);
    assert_eq!(read("/a/", "/b").await, Some(errors::USER_EMPTY));
    assert_eq!(read("/b", "").await, Some(errors::USER_EMPTY));
    assert_eq!(put(&server, "/b").await, Err(errors::USER_EMPTY));
    // A lease is not to be ended by who could not delete its keys.
    let bound = pb::PutRequest {
        lease: 7,
        ..put_of("/b")
    };
    change(&server, vec![AuthChange::Disable]).await;
    ops.put(bound).await.expect("nothing is in its way");
    change(&server, vec![AuthChange::Enable]).await;
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    assert_eq!(
        ops.lease_revoke(revoke).await.err(),
        Some(errors::USER_EMPTY)
    );
    let keep_alive = pb::LeaseKeepAliveRequest { id: 7 };
    assert_eq!(
        ops.lease_keep_alive(keep_alive).await.err(),
        Some(errors::USER_EMPTY)
    );
}

/// etcd tells a watcher that may not watch why, in the way Go shows an error of gRPC.
#[tokio::test]
async fn a_watcher_that_may_not_watch_is_told_why() {
    let server = guarded().await;
    let mut session = server.etcd.ops().watch();
    let create = pb::WatchCreateRequest {
        key: "/a/1".into(),
        ..pb::WatchCreateRequest::default()
    };
    session.request(pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    });
    let reply = timely(poll_fn(|cx| session.poll_reply(cx))).await;
    let told = (reply.created, reply.canceled, &*reply.cancel_reason);
    let reason = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    assert_eq!(told, (true, true, reason));
}
