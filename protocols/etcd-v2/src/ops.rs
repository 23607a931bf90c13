//! What requests ask of the keyspace. Pure.

use crate::query::Query;
use crate::time;
use bytes::Bytes;
use gateway::keyspace::change::Cause;
use gateway::keyspace::node::{Action, Deadline, NodeOp, NodeTest, NodeWrite, Parents, Sequence};
use gateway::keyspace::{LeaseId, WallMs};

/// The step that a PUT asks for, in etcd's order of checks (etcdserver/apply_v2.go). `now` is this
/// member's clock, which times to live count from.
pub fn put(key: Bytes, query: &Query, now: WallMs) -> NodeOp {
    match query.prev_exist {
        Some(false) => create(key, query, now),
        Some(true) if !query.compares() => update(key, query, now),
        Some(true) => compare_and_swap(key, query, now),
        None if query.compares() => compare_and_swap(key, query, now),
        None => set(key, query, now),
    }
}

/// The step that a POST asks for: what is created gets the number of its event for a name.
pub fn post(key: &Bytes, query: &Query, now: WallMs) -> NodeOp {
    let stem = match &key[..] {
        b"/" => key.clone(),
        key => [key, b"/"].concat().into(),
    };
    let op = create(stem, query, now);
    let action = match op.action {
        Action::Write(write) => Action::Write(NodeWrite {
            sequence: Some(Sequence::Event),
            ..write
        }),
        Action::MakeDirectory { deadline, .. } => Action::MakeDirectory {
            deadline,
            sequence: Some(Sequence::Event),
        },
        Action::Check | Action::Remove { .. } | Action::SetAcl(_) => op.action,
    };
    NodeOp { action, ..op }
}

/// The step that a DELETE asks for.
pub fn delete(key: Bytes, query: &Query) -> NodeOp {
    let recursive = query.recursive && !query.compares();
    let mut tests = vec![NodeTest::Exists];
    if query.compares() || !(query.dir || query.recursive) {
        tests.push(NodeTest::File);
    }
    tests.extend(comparison(query));
    let cause = if query.compares() {
        Cause::CompareAndDelete
    } else {
        Cause::Delete
    };
    step(key, tests, Action::Remove { recursive }, cause)
}

fn set(key: Bytes, query: &Query, now: WallMs) -> NodeOp {
    let exists = query.refresh.then_some(NodeTest::Exists);
    let tests = exists.into_iter().chain([NodeTest::File]).collect();
    let action = if query.dir {
        directory(query, now)
    } else {
        Action::Write(NodeWrite {
            reborn: true,
            ..write(query, now)
        })
    };
    step(key, tests, action, Cause::Set)
}

fn create(key: Bytes, query: &Query, now: WallMs) -> NodeOp {
    let action = if query.dir {
        directory(query, now)
    } else {
        // There is nothing to be refreshed: etcd creates it empty, and tells.
        Action::Write(NodeWrite {
            value: Some(query.value.clone()),
            silent: false,
            ..write(query, now)
        })
    };
    step(key, vec![NodeTest::Missing], action, Cause::Create)
}

/// Of a directory only the time to live can be changed, and only without a value.
fn update(key: Bytes, query: &Query, now: WallMs) -> NodeOp {
    let mut tests = vec![NodeTest::Exists];
    if !query.value.is_empty() {
        tests.push(NodeTest::File);
    }
    let write = NodeWrite {
        spares_directory: true,
        ..write(query, now)
    };
    step(key, tests, Action::Write(write), Cause::Update)
}

fn compare_and_swap(key: Bytes, query: &Query, now: WallMs) -> NodeOp {
    let tests = [NodeTest::Exists, NodeTest::File];
    let tests = tests.into_iter().chain(comparison(query)).collect();
    let action = Action::Write(write(query, now));
    step(key, tests, action, Cause::CompareAndSwap)
}

/// Whoever asks has no identity that an access list could name.
fn step(path: Bytes, tests: Vec<NodeTest>, action: Action, cause: Cause) -> NodeOp {
    let tests = [NodeTest::Unrestricted].into_iter().chain(tests);
    NodeOp {
        path,
        tests: tests.collect(),
        action,
        cause,
    }
}

fn comparison(query: &Query) -> Option<NodeTest> {
    query.compares().then(|| NodeTest::Same {
        value: query.prev_value.clone(),
        event: query.prev_index,
    })
}

/// Sets the value, or keeps it, and lets go of what ended the node: a time to live that is not given
/// anew, or a lease. A session's node stays its session's.
fn write(query: &Query, now: WallMs) -> NodeWrite {
    NodeWrite {
        value: Some(query.value.clone()).filter(|_| !query.refresh),
        lease: Some(LeaseId::NONE),
        deadline: deadline(query, now),
        parents: Parents::Made,
        silent: query.refresh,
        ..NodeWrite::new(Bytes::new())
    }
}

fn directory(query: &Query, now: WallMs) -> Action {
    Action::MakeDirectory {
        deadline: deadline(query, now),
        sequence: None,
    }
}

fn deadline(query: &Query, now: WallMs) -> Deadline {
    let deadline = query.ttl_s.and_then(|ttl_s| time::deadline(now, ttl_s));
    deadline.map_or(Deadline::Clear, Deadline::At)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Form;
    use crate::query::Method;

    fn query(text: &str) -> Query {
        let form = Form::parse(b"", text.as_bytes()).expect("a form");
        Query::parse(Method::Put, &form).expect("it makes sense")
    }

    #[test]
    fn what_a_put_means_depends_on_its_conditions() {
        for (text, expected) in [
            ("value=1", Cause::Set),
            ("prevIndex=0", Cause::Set),
            ("prevExist=false&prevValue=x", Cause::Create),
            ("prevExist=true", Cause::Update),
            ("prevExist=true&prevIndex=3", Cause::CompareAndSwap),
            ("prevValue=x", Cause::CompareAndSwap),
        ] {
            let op = put("/a".into(), &query(text), WallMs(0));
            assert_eq!(op.cause, expected, "{text}");
        }
    }

    #[test]
    fn a_refresh_keeps_the_value_and_its_silence() {
        let Action::Write(write) = put("/a".into(), &query("refresh=1&ttl=5"), WallMs(0)).action
        else {
            panic!("it writes");
        };
        assert_eq!((write.value, write.silent), (None, true));
        let created = query("refresh=1&ttl=5&prevExist=false");
        let Action::Write(write) = put("/a".into(), &created, WallMs(0)).action else {
            panic!("it writes");
        };
        assert_eq!((write.value, write.silent), (Some(Bytes::new()), false));
    }

    #[test]
    fn numbers_come_after_a_slash() {
        for (key, stem) in [("/", "/"), ("/q", "/q/")] {
            for text in ["value=1", "dir=true"] {
                let op = post(&key.into(), &query(text), WallMs(0));
                assert_eq!(op.path, stem);
                let sequence = match op.action {
                    Action::Write(write) => write.sequence,
                    Action::MakeDirectory { sequence, .. } => sequence,
                    Action::Check | Action::Remove { .. } | Action::SetAcl(_) => None,
                };
                assert_eq!(sequence, Some(Sequence::Event), "{text}");
            }
        }
    }

    #[test]
    fn a_comparing_delete_takes_files_only() {
        let op = delete("/a".into(), &query("recursive=true&prevIndex=4"));
        assert_eq!(op.action, Action::Remove { recursive: false });
        assert!(op.tests.contains(&NodeTest::File));
        let op = delete("/a".into(), &query("recursive=true"));
        assert_eq!(op.action, Action::Remove { recursive: true });
        assert!(!op.tests.contains(&NodeTest::File));
    }
}
