//! etcd's users and roles, as ZooKeeper's clients meet them.

use crate::client::*;
use gateway::Principal;
use gateway::keyspace::auth::{AuthChange, AuthChanges, Permission};
use gateway::keyspace::{Command, End, Permissions, Span};
use zookeeper::Options;
use zookeeper::jute::Write;

/// Users `root` and `ann` with a password of the same name; she may read and write beneath `/a/`, and
/// read `/r`.
async fn with_users() -> Server {
    let server = Server::start(Options::default()).await;
    let mut changes = Vec::new();
    for user in ["root", "ann"] {
        let hash = server.gate.hash_password(user.into()).await;
        changes.push(AuthChange::AddUser {
            user: user.into(),
            password: Some(hash.expect("it hashes")),
        });
        changes.push(AuthChange::Grant {
            user: user.into(),
            role: user.into(),
            ahead: true,
        });
    }
    changes.push(AuthChange::AddRole("ann".into()));
    let both = Permissions::READ | Permissions::WRITE;
    let end = End::Before("/a0".into());
    let start = "/a/".into();
    for (span, may) in [
        (Span { start, end }, both),
        (Span::single("/r"), Permissions::READ),
    ] {
        changes.push(AuthChange::Permit {
            role: "ann".into(),
            permission: Permission { span, may },
        });
    }
    server.change(changes).await;
    server
}

impl Server {
    async fn change(&self, changes: Vec<AuthChange>) {
        let changes = AuthChanges {
            changes,
            ..AuthChanges::default()
        };
        let changed = self
            .gate
            .propose(&Principal::System, Command::Auth(changes));
        timely(changed).await.expect("it is changed");
    }
}

fn digest(token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.int(0);
    out.text("digest");
    out.text(token);
    out
}

/// etcd's users are everybody's: who is none may do nothing, and the others what their roles permit.
#[tokio::test]
async fn users_may_what_their_roles_permit() {
    let server = with_users().await;
    let mut client = server.connect().await;
    for path in ["/a", "/a/b", "/r", "/z"] {
        assert_eq!(client.call(1, CREATE, create(path, 0)).await.error, 0);
    }
    server.change(vec![AuthChange::Enable]).await;
    let get = |path: &str| path_and_watch(path, true);
    for (kind, body, ann, root) in [
        (GET_DATA, get("/a/b"), 0, 0),
        (SET_DATA, set("/a/b"), 0, 0),
        (CREATE, create("/a/c", 0), 0, -110),
        (CREATE, create("/a/s-", 2), 0, 0),
        (GET_DATA, get("/r"), 0, 0),
        (SET_DATA, set("/r"), NO_AUTH, 0),
        (GET_DATA, get("/z"), NO_AUTH, 0),
        (EXISTS, get("/none"), NO_AUTH, NO_NODE),
        (CREATE, create("/new", 0), NO_AUTH, 0),
        (GET_DATA, get("/zookeeper"), 0, 0),
    ] {
        for (who, expected) in [
            (None, NO_AUTH),
            (Some("ann:ann"), ann),
            (Some("root:root"), root),
        ] {
            let mut client = server.connect().await;
            if let Some(who) = who {
                assert_eq!(client.call(-4, AUTH, digest(who)).await.error, 0);
            }
            let expected = match (who, expected) {
                (None, _) if body == get("/zookeeper") => 0,
                _ => expected,
            };
            let answer = client.call(1, kind, body.clone()).await;
            assert_eq!(answer.error, expected, "{who:?} {kind}");
        }
    }
}

#[tokio::test]
async fn a_users_wrong_password_ends_the_connection() {
    let server = with_users().await;
    let mut early = server.connect().await;
    assert_eq!(early.call(-4, AUTH, digest("ann:x")).await.error, 0);
    server.change(vec![AuthChange::Enable]).await;
    let mut client = server.connect().await;
    let answer = client.call(-4, AUTH, digest("ann:x")).await;
    assert_eq!(answer.error, AUTH_FAILED);
    assert!(client.reply().await.is_none());
    // Who is no user has an identity for access lists, and no more.
    let mut client = server.connect().await;
    assert_eq!(client.call(-4, AUTH, digest("eve:x")).await.error, 0);
    let answer = client.call(1, GET_DATA, path_and_watch("/a/b", false));
    assert_eq!(answer.await.error, NO_AUTH);
}

/// What a role does not permit any more is not told to those who watch it either.
#[tokio::test]
async fn what_may_not_be_read_any_more_is_not_told() {
    let server = with_users().await;
    let mut root = server.connect().await;
    assert_eq!(root.call(1, CREATE, create("/r", 0)).await.error, 0);
    server.change(vec![AuthChange::Enable]).await;
    assert_eq!(root.call(-4, AUTH, digest("root:root")).await.error, 0);
    let mut ann = server.connect().await;
    assert_eq!(ann.call(-4, AUTH, digest("ann:ann")).await.error, 0);
    let watched = ann.call(1, GET_DATA, path_and_watch("/r", true)).await;
    assert_eq!(watched.error, 0);
    let forbid = AuthChange::Forbid {
        role: "ann".into(),
        span: Span::single("/r"),
    };
    server.change(vec![forbid]).await;
    assert_eq!(root.call(2, SET_DATA, set("/r")).await.error, 0);
    // The answer to what came after, and no event before it.
    let answer = ann.call(2, SYNC, set("/")).await;
    assert_eq!((answer.xid, answer.error), (2, 0));
    let answer = ann.call(3, GET_DATA, path_and_watch("/r", false)).await;
    assert_eq!((answer.xid, answer.error), (3, NO_AUTH));
}
