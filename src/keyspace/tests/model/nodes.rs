//! Random steps at nodes among random puts and deletes: whatever happens, every node has the
//! children it counts, is there for a reason, and is the same after a snapshot; and what is refused
//! has left no trace.

use crate::{cases, key, span};
use keyspace::change::Cause;
use keyspace::command::{Delete, Grant, Op, Put, Txn};
use keyspace::node::{Action, Deadline, Kind, NodeOp, NodeTest, NodeWrite, Parents, Sequence};
use keyspace::{Command, Keyspace, LeaseId, Outcome, Reader, Revision, Stamp, WallMs};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;

fn path() -> impl Strategy<Value = bytes::Bytes> {
    let paths = vec![
        "/", "/x", "/x/y", "/x/z", "/x/y/z", "/x-", "/y", "/y/x", "bad", "/y/",
    ];
    select(paths).prop_map(bytes::Bytes::from)
}

fn test() -> impl Strategy<Value = NodeTest> {
    prop_oneof![
        Just(NodeTest::Exists),
        Just(NodeTest::Missing),
        Just(NodeTest::File),
        (1u64..3).prop_map(NodeTest::Version),
        (0u32..2).prop_map(NodeTest::AclVersion),
        (0u64..20).prop_map(|event| NodeTest::Same {
            value: (event % 2 == 0).then(|| "v".into()),
            event: Some(event).filter(|event| *event > 10),
        }),
    ]
}

fn deadline() -> impl Strategy<Value = Deadline> {
    prop_oneof![
        2 => Just(Deadline::Clear),
        1 => Just(Deadline::Keep),
        1 => (0u64..100).prop_map(|at| Deadline::At(WallMs(at))),
    ]
}

fn write() -> impl Strategy<Value = NodeWrite> {
    let kind = select(vec![
        Kind::Plain,
        Kind::Plain,
        Kind::Container,
        Kind::Idle { ttl_ms: 9 },
    ]);
    let sequence = select(vec![
        None,
        None,
        Some(Sequence::Creates),
        Some(Sequence::Event),
    ]);
    let parents = select(vec![Parents::Required, Parents::Made]);
    let lease = select(vec![
        None,
        Some(LeaseId(0)),
        Some(LeaseId(1)),
        Some(LeaseId(2)),
    ]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (flags, kind, sequence, parents, lease, deadline()).prop_map(
        |((keep, reborn, acl), kind, sequence, parents, lease, deadline)| NodeWrite {
            value: (!keep).then(|| "v".into()),
            null: keep && reborn,
            lease,
            deadline,
            kind,
            acl: (acl && reborn).then(|| "who".into()),
            sequence,
            parents,
            reborn,
            silent: keep,
        },
    )
}

fn node_op() -> impl Strategy<Value = NodeOp> {
    let action = prop_oneof![
        6 => write().prop_map(Action::Write),
        1 => Just(Action::Check),
        2 => deadline().prop_map(|deadline| Action::MakeDirectory { deadline }),
        3 => any::<bool>().prop_map(|recursive| Action::Remove { recursive }),
        1 => any::<bool>().prop_map(|open| Action::SetAcl((!open).then(|| "who".into()))),
    ];
    (path(), prop::collection::vec(test(), 0..2), action).prop_map(|(path, tests, action)| NodeOp {
        path,
        tests,
        action,
        cause: Cause::Set,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let key = || prop_oneof![key(), path()];
    let put = (key(), 0i64..3).prop_map(|(key, lease)| {
        Op::Put(Put {
            key,
            value: Some("p".into()),
            lease: Some(LeaseId(lease)),
            want_previous: false,
        })
    });
    let delete = span().prop_map(|span| {
        Op::Delete(Delete {
            span,
            want_previous: false,
        })
    });
    let txn = prop::collection::vec(prop_oneof![3 => put, 1 => delete], 1..4);
    let grant = (1i64..3).prop_map(|lease| {
        Command::Grant(Grant {
            lease: LeaseId(lease),
            ttl_ms: 1,
            password: None,
        })
    });
    prop_oneof![
        4 => prop::collection::vec(node_op(), 1..4).prop_map(Command::Nodes),
        4 => txn.prop_map(|then| Command::Txn(Txn { then, ..Txn::default() })),
        1 => grant,
        1 => (1i64..3).prop_map(|lease| Command::Revoke(LeaseId(lease))),
        1 => (0i64..3).prop_map(|lease| Command::Expire(vec![LeaseId(lease)])),
        1 => (0u64..30).prop_map(|revision| Command::Compact(Revision(revision))),
    ]
}

/// Walks the tree from a node down; gathers every path.
fn walk(reader: &Reader, path: &[u8], found: &mut BTreeSet<Vec<u8>>) {
    let (_, view) = reader.node(path);
    let view = view.expect("what its parent lists exists");
    let (_, names) = reader.children(path);
    let names = names.expect("what exists can be listed");
    assert_eq!(
        names.len(),
        view.children as usize,
        "{}",
        path.escape_ascii()
    );
    assert!(names.is_sorted());
    found.insert(path.to_vec());
    for name in names {
        let above = if path == b"/" { b"" } else { path };
        walk(reader, &[above, b"/", &name].concat(), found);
    }
}

/// Every live key that is a path, and every path above one, is in the tree.
fn check_all_reached(reader: &Reader, found: &BTreeSet<Vec<u8>>) {
    let all = keyspace::command::Range::of(keyspace::Span::all());
    for entry in reader.range(&all).expect("it reads").entries {
        let key = entry.key();
        let is_path = key == b"/" || (key.starts_with(b"/") && !key.ends_with(b"/"));
        let slashes = (1..key.len()).filter(|place| key[*place] == b'/');
        for end in slashes.chain([key.len()]).filter(|_| is_path) {
            assert!(found.contains(&key[..end]), "{}", key[..end].escape_ascii());
        }
        assert_eq!(entry.event() > 0, is_path, "{}", key.escape_ascii());
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nodes_keep_their_word(commands in prop::collection::vec(command(), 1..40)) {
        let mut keyspace = Keyspace::new();
        for (index, command) in (1..).zip(&commands) {
            prop_assert_eq!(&Command::decode(&command.encode()).expect("it decodes"), command);
            let reader = keyspace.reader();
            let before = (keyspace.digest(), reader.bytes_in_use(), reader.event());
            // Time stands still, so that a refusal has no way to show in the digest.
            let stamp = Stamp { index, wall: WallMs(40) };
            let applied = keyspace.apply(stamp, command);
            if let (Err(_), true) = (&applied.outcome, index > 1) {
                let after = (keyspace.digest(), reader.bytes_in_use(), reader.event());
                prop_assert_eq!(after, before);
            }
            if let Ok(Outcome::Nodes(answers)) = &applied.outcome {
                let last = answers.last().expect("there was a step");
                let (_, now) = reader.node(&last.path);
                prop_assert_eq!(format!("{now:?}"), format!("{:?}", last.node));
            }
            let told = reader.events(before.2 + 1).1.len() as u64;
            prop_assert_eq!(told, (reader.event() - before.2).min(1_000));
            let mut found = BTreeSet::new();
            walk(&reader, b"/", &mut found);
            check_all_reached(&reader, &found);
            let restored = Keyspace::restore(keyspace.cut(None).expect("it can be cut"));
            let restored = restored.expect("a cut can be restored");
            prop_assert_eq!(restored.digest(), keyspace.digest());
            if index % 7 == 0 {
                while keyspace.tidy() {}
                prop_assert_eq!(restored.reader().bytes_in_use(), reader.bytes_in_use());
                keyspace = restored;
            }
        }
    }
}
