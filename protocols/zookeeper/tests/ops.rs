//! What changes come to, judged by a keyspace without replication: error codes and their order.

use bytes::Bytes;
use gateway::keyspace::access::Identity;
use gateway::keyspace::change::Outcome;
use gateway::keyspace::command::{Grant, Nodes, Session};
use gateway::keyspace::node::NodeAnswer;
use gateway::keyspace::{Command, Keyspace, LeaseId, Principal, Stamp};
use std::slice;
use std::sync::Arc;
use zookeeper::Options;
use zookeeper::errors::{Code, Failure};
use zookeeper::jute::Write as _;
use zookeeper::ops::{self, Caller, Steps};
use zookeeper::record::{self, Request};
use zookeeper::stat::Stat;

const SESSION: LeaseId = LeaseId(7);
const ANYONE: (&str, &str) = ("world", "anyone");

/// A request's kind and body.
type Part = (i32, Vec<u8>);

fn body(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    build(&mut out);
    out
}

fn append_acl(out: &mut Vec<u8>, acl: &[(&str, &str)]) {
    out.count(acl.len());
    for (scheme, id) in acl {
        out.int(31);
        out.text(scheme);
        out.text(id);
    }
}

fn create_for(path: &str, flags: i32, acl: &[(&str, &str)]) -> Part {
    let body = body(|out| {
        out.text(path);
        out.text("data");
        append_acl(out, acl);
        out.int(flags);
    });
    (1, body)
}

fn create(path: &str, flags: i32) -> Part {
    create_for(path, flags, &[ANYONE])
}

fn create_ttl(path: &str, flags: i32, ttl_ms: i64) -> Part {
    let (_, mut body) = create(path, flags);
    body.long(ttl_ms);
    (21, body)
}

fn path_and_version(kind: i32, path: &str, version: i32) -> Part {
    let body = body(|out| {
        out.text(path);
        out.int(version);
    });
    (kind, body)
}

fn delete(path: &str, version: i32) -> Part {
    path_and_version(2, path, version)
}

fn check(path: &str, version: i32) -> Part {
    path_and_version(13, path, version)
}

fn set(path: &str, version: i32) -> Part {
    let body = body(|out| {
        out.text(path);
        out.buffer(None);
        out.int(version);
    });
    (5, body)
}

fn set_acl(path: &str, acl: &[(&str, &str)], version: i32) -> Part {
    let body = body(|out| {
        out.text(path);
        append_acl(out, acl);
        out.int(version);
    });
    (7, body)
}

/// A keyspace with one client.
struct World {
    keyspace: Keyspace,
    index: u64,
    options: Options,
    ids: Vec<Identity>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            keyspace: Keyspace::new(),
            index: 0,
            options: Options::default(),
            ids: vec![Identity::new("ip", "127.0.0.1")],
        };
        let session = Session {
            password: Bytes::from_static(b"secret"),
            attachment: 1,
        };
        let granted = world.apply(Command::Grant(Grant {
            lease: SESSION,
            ttl_ms: 10_000,
            session: Some(session),
        }));
        assert!(granted.is_ok());
        world
    }

    fn apply(&mut self, command: Command) -> Result<Outcome, Failure> {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            ..Stamp::default()
        };
        let applied = self.keyspace.apply(stamp, &command);
        applied.outcome.map_err(Failure::from)
    }

    fn run(&mut self, (kind, body): Part) -> Result<Vec<NodeAnswer>, (usize, Code)> {
        let mut frame = Vec::new();
        frame.int(1);
        frame.int(kind);
        frame.extend_from_slice(&body);
        let frame = Bytes::from(frame);
        let (_, request) = record::parse(&frame).expect("a sound request");
        let writes = match &request {
            Request::Write(write) => slice::from_ref(write),
            Request::Multi(writes) => writes,
            other => panic!("{other:?} changes nothing"),
        };
        let caller = Caller {
            session: SESSION,
            ids: &self.ids,
            options: &self.options,
        };
        let steps = Steps::of(writes, &frame, caller);
        let (len, doomed) = (steps.ops.len(), steps.doomed);
        let by: Arc<[Identity]> = self.ids.clone().into();
        let command = Command::Nodes(Nodes {
            by: Some(by),
            ops: steps.ops,
            ..Nodes::default()
        });
        match self.apply(command) {
            Ok(Outcome::Nodes(answers)) => Ok(answers),
            Err(Failure::Answer(code, Some(step))) => {
                Err((step, ops::code_of(step, code, len, doomed)))
            }
            other => panic!("steps were answered with {other:?}"),
        }
    }

    fn multi(&mut self, parts: &[Part]) -> Result<Vec<NodeAnswer>, (usize, Code)> {
        let body = body(|out| {
            for (kind, body) in parts {
                out.int(*kind);
                out.boolean(false);
                out.int(-1);
                out.extend_from_slice(body);
            }
            out.int(-1);
            out.boolean(true);
            out.int(-1);
        });
        self.run((14, body))
    }

    fn does(&mut self, part: Part) -> NodeAnswer {
        self.run(part).expect("it is done").remove(0)
    }

    fn fails(&mut self, part: Part) -> Code {
        self.run(part).expect_err("it has to fail").1
    }

    fn stat(&self, path: &str) -> Option<Stat> {
        let (_, node) = self.keyspace.reader().node(path.as_bytes());
        node.map(|node| Stat::of(&node))
    }
}

#[test]
fn creations_fail_in_zookeepers_order() {
    let mut world = World::new();
    world.does(create("/a", 0));
    for (part, code) in [
        (create_for("/no/a", 9, &[]), Code::BadArguments),
        (create_for("a", 0, &[]), Code::BadArguments),
        (create_for("/no/a", 0, &[]), Code::InvalidAcl),
        (create_for("/no/a", 0, &[("sasl", "x")]), Code::InvalidAcl),
        (create("/no/a", 0), Code::NoNode),
        (create("/a//b", 0), Code::NoNode),
        (create("/a/./b", 0), Code::NoNode),
        (create("/a/", 0), Code::BadArguments),
        (create("/no/", 0), Code::NoNode),
        (create("/no/.", 0), Code::NoNode),
        (create("/a/.", 0), Code::BadArguments),
        (create("/a/\u{1f600}", 0), Code::BadArguments),
        (create("/a\0", 0), Code::BadArguments),
        (create("/a", 0), Code::NodeExists),
        (create("/", 0), Code::NodeExists),
    ] {
        assert_eq!(world.fails(part.clone()), code, "{part:?}");
    }
}

#[test]
fn ephemerals_end_with_their_session_and_have_no_children() {
    let mut world = World::new();
    world.does(create("/a", 1));
    assert_eq!(world.stat("/a").map(|stat| stat.ephemeral_owner), Some(7));
    assert_eq!(
        world.fails(create("/a/b", 0)),
        Code::NoChildrenForEphemerals
    );
    world
        .apply(Command::Revoke(SESSION, Principal::System))
        .expect("it is there");
    assert_eq!(world.stat("/a"), None);
}

#[test]
fn sequences_count_the_creations() {
    let mut world = World::new();
    world.does(create("/a", 0));
    assert_eq!(world.does(create("/a/x", 2)).path, "/a/x0000000000");
    world.does(delete("/a/x0000000000", 0));
    assert_eq!(world.does(create("/a/", 3)).path, "/a/0000000001");
    assert_eq!(world.fails(create("/b/x", 2)), Code::NoNode);
    assert_eq!(world.fails(create("/a//", 2)), Code::NoNode);
}

#[test]
fn times_to_live_are_only_for_their_kind_of_request() {
    let mut world = World::new();
    assert_eq!(world.fails(create_ttl("/a", 5, 100)), Code::Unimplemented);
    world.options.extended_types = true;
    for (part, code) in [
        (create("/a", 5), Code::BadArguments),
        (create_ttl("/a", 5, 0), Code::BadArguments),
        (create_ttl("/a", 5, 1 << 40), Code::BadArguments),
        (create_ttl("/a", 0, 100), Code::BadArguments),
        (create_ttl("/a", 1, 100), Code::BadArguments),
    ] {
        assert_eq!(world.fails(part.clone()), code, "{part:?}");
    }
    world.does(create_ttl("/a", 6, 100));
    let stat = world.stat("/a0000000000").expect("it was created");
    assert_eq!(stat.ephemeral_owner, 0);
}

#[test]
fn versions_are_judged_after_the_node() {
    let mut world = World::new();
    world.does(create("/a", 0));
    world.does(set("/a", 0));
    for (part, code) in [
        (set("/no", 9), Code::NoNode),
        (set("/a/", 0), Code::BadArguments),
        (set("/a", 0), Code::BadVersion),
        (delete("/a", 0), Code::BadVersion),
        (delete("/no", 9), Code::NoNode),
        (delete("/", -1), Code::BadArguments),
        (delete("/a//", -1), Code::NoNode),
        (delete("a", -1), Code::BadArguments),
        (set_acl("/a", &[ANYONE], 3), Code::BadVersion),
        (set_acl("/no", &[], 3), Code::InvalidAcl),
    ] {
        assert_eq!(world.fails(part.clone()), code, "{part:?}");
    }
    world.does(set("/a", -1));
    assert_eq!(world.stat("/a").map(|stat| stat.version), Some(2));
    world.does(create("/a/b", 0));
    assert_eq!(world.fails(delete("/a", 2)), Code::NotEmpty);
}

#[test]
fn access_lists_bind_who_is_not_named() {
    let mut world = World::new();
    world.does(create("/a", 0));
    world.does(create("/a/b", 0));
    world.does(set_acl("/a", &[("digest", "user:x")], 0));
    for part in [
        create("/a/c", 0),
        create("/a/.", 0),
        delete("/a/b", -1),
        set("/a", 9),
        set_acl("/a", &[ANYONE], 9),
    ] {
        assert_eq!(world.fails(part.clone()), Code::NoAuth, "{part:?}");
    }
    assert_eq!(
        world.multi(&[check("/a", 9)]).err(),
        Some((0, Code::NoAuth))
    );
    world.ids.push(Identity::new("digest", "user:x"));
    world.does(create("/a/c", 0));
}

#[test]
fn a_multi_fails_where_its_first_step_fails() {
    let mut world = World::new();
    world.does(create("/a", 0));
    let fails = |world: &mut World, parts: &[Part]| world.multi(parts).err();
    let parts = [create("/b", 0), check("/a", 1), create("bad", 0)];
    assert_eq!(fails(&mut world, &parts), Some((1, Code::BadVersion)));
    let parts = [create("/b", 0), create("bad", 0), check("/a", 1)];
    assert_eq!(fails(&mut world, &parts), Some((1, Code::BadArguments)));
    assert_eq!(world.stat("/b"), None);
    let parts = [
        create("/b", 0),
        set("/b", 0),
        delete("/b", 1),
        check("/a", 0),
    ];
    let answers = world.multi(&parts).map(|answers| answers.len());
    assert_eq!(answers, Ok(4));
}

#[test]
fn zookeepers_own_nodes_are_not_changed() {
    let mut world = World::new();
    for (part, code) in [
        (create("/zookeeper", 0), Code::NodeExists),
        (create("/zookeeper/config/a", 0), Code::NoAuth),
        (create("/zookeeper/a", 0), Code::Unimplemented),
        (create("/zookeeper/quota", 0), Code::NodeExists),
        (delete("/zookeeper/quota", -1), Code::BadArguments),
        (delete("/zookeeper", -1), Code::BadArguments),
        (delete("/zookeeper/config", -1), Code::BadArguments),
        (delete("/zookeeper/quota/a", -1), Code::NoNode),
        (set("/zookeeper/config", -1), Code::NoAuth),
        (set("/zookeeper/none", -1), Code::NoNode),
    ] {
        assert_eq!(world.fails(part.clone()), code, "{part:?}");
    }
    let parts = [check("/zookeeper/quota", 0), check("/zookeeper", 1)];
    assert_eq!(world.multi(&parts).err(), Some((1, Code::BadVersion)));
    assert!(world.multi(&parts[..1]).is_ok());
    let quota = world.does(create("/zookeeper/quota/a", 0));
    assert!(quota.node.is_some_and(|node| node.entry.is_none()));
    assert!(world.keyspace.reader().node(b"/zookeeper").1.is_none());
}
