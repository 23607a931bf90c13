//! Random steps at nodes among random puts and deletes: whatever happens, every node has the
//! children it counts, is there for a reason, and is the same after a snapshot; and what is refused
//! has left no trace.

use crate::{cases, key, span};
use keyspace::aside::{Limits, Role, Tally};
use keyspace::change::Cause;
use keyspace::command::{Attach, Delete, Expired, Grant, Nodes, Op, Put, Session, Turn, Txn};
use keyspace::node::{Action, Deadline, Kind, NodeOp, NodeTest, NodeWrite, Parents, Sequence};
use keyspace::{
    AccessEntry, AccessList, Command, Identity, Keyspace, LeaseId, Outcome, Permissions, Principal,
    Reader, Refusal, Revision, Stamp, WallMs,
};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};

fn path() -> impl Strategy<Value = bytes::Bytes> {
    let paths = vec![
        "/", "/x", "/x/y", "/x/z", "/x/y/z", "/x-", "/y", "/y/x", "bad", "/y/", "\0/z",
    ];
    select(paths).prop_map(bytes::Bytes::from)
}

fn test() -> impl Strategy<Value = NodeTest> {
    prop_oneof![
        Just(NodeTest::Exists),
        Just(NodeTest::Missing),
        Just(NodeTest::File),
        Just(NodeTest::Unrestricted),
        Just(NodeTest::ParentUnbound),
        permissions().prop_map(NodeTest::Allowed),
        permissions().prop_map(NodeTest::ParentAllowed),
        (1u64..3).prop_map(NodeTest::Version),
        (0u32..2).prop_map(NodeTest::AclVersion),
        (0u64..2).prop_map(|bytes| NodeTest::Room { bytes }),
        (0u64..20).prop_map(|event| NodeTest::Same {
            value: (event % 2 == 0).then(|| "v".into()),
            event: Some(event).filter(|event| *event > 10),
        }),
    ]
}

fn permissions() -> impl Strategy<Value = Permissions> {
    select(vec![Permissions::READ, Permissions::CREATE])
}

fn caller() -> impl Strategy<Value = Identity> {
    select(vec!["ann", "bob"]).prop_map(|id| Identity::new("digest", id))
}

fn access_list() -> impl Strategy<Value = Option<AccessList>> {
    let entry =
        (permissions(), caller()).prop_map(|(permissions, who)| AccessEntry { permissions, who });
    let entries = prop::collection::vec(entry, 0..3);
    prop::option::weighted(0.5, entries.prop_map(AccessList::from))
}

fn turn() -> impl Strategy<Value = Turn> {
    (session(), 0u64..2, 0u64..3).prop_map(|(lease, attachment, seq)| Turn {
        lease,
        attachment,
        seq,
    })
}

fn session() -> impl Strategy<Value = LeaseId> {
    (1i64..3).prop_map(LeaseId)
}

fn password() -> impl Strategy<Value = bytes::Bytes> {
    select(vec!["right", "right", "right", "wrong"]).prop_map(bytes::Bytes::from)
}

fn nodes() -> impl Strategy<Value = Nodes> {
    let by = prop::collection::vec(caller(), 0..2);
    (
        prop::option::of(turn()),
        prop::option::of(by),
        prop::collection::vec(node_op(), 1..4),
    )
        .prop_map(|(turn, by, ops)| Nodes {
            turn,
            by: by.map(Into::into),
            ops,
            principal: Principal::System,
        })
}

fn deadline() -> impl Strategy<Value = Deadline> {
    prop_oneof![
        2 => Just(Deadline::Clear),
        1 => Just(Deadline::Keep),
        1 => (0u64..100).prop_map(|at| Deadline::At(WallMs(at))),
    ]
}

fn sequence() -> impl Strategy<Value = Option<Sequence>> {
    select(vec![
        None,
        None,
        Some(Sequence::Creates),
        Some(Sequence::Event),
    ])
}

fn write() -> impl Strategy<Value = NodeWrite> {
    let kind = select(vec![
        Kind::Plain,
        Kind::Plain,
        Kind::Container { linger_ms: 60_000 },
        Kind::Idle { ttl_ms: 9 },
    ]);
    let parents = select(vec![Parents::Required, Parents::Made]);
    let lease = select(vec![
        None,
        Some(LeaseId(0)),
        Some(LeaseId(1)),
        Some(LeaseId(2)),
    ]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), access_list());
    (flags, kind, sequence(), parents, lease, deadline()).prop_map(
        |((keep, reborn, sparing, acl), kind, sequence, parents, lease, deadline)| NodeWrite {
            value: (!keep).then(|| "v".into()),
            null: keep && reborn,
            lease,
            deadline,
            kind,
            acl: acl.filter(|_| reborn),
            sequence,
            parents,
            reborn,
            silent: keep,
            role: Role::Plain,
            spares_directory: sparing,
        },
    )
}

fn node_op() -> impl Strategy<Value = NodeOp> {
    let action = prop_oneof![
        6 => write().prop_map(Action::Write),
        1 => Just(Action::Check),
        2 => (deadline(), sequence()).prop_map(|(deadline, sequence)| Action::MakeDirectory {
            deadline,
            sequence,
        }),
        3 => any::<bool>().prop_map(|recursive| Action::Remove { recursive }),
        1 => access_list().prop_map(Action::SetAcl),
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
            lease: Some(LeaseId(lease)),
            ..Put::new(key, "p")
        })
    });
    let delete = span().prop_map(|span| {
        Op::Delete(Delete {
            span,
            want_previous: false,
        })
    });
    let txn = prop::collection::vec(prop_oneof![3 => put, 1 => delete], 1..4);
    let opening = (password(), 0u64..2).prop_map(|(password, attachment)| Session {
        password,
        attachment,
    });
    let grant = (session(), prop::option::weighted(0.8, opening)).prop_map(|(lease, session)| {
        Command::Grant(Grant {
            lease,
            ttl_ms: 1,
            session,
        })
    });
    let attach = (session(), password(), 0u64..2).prop_map(|(lease, password, attachment)| {
        Command::Attach(Attach {
            lease,
            password,
            attachment,
            ttl_ms: 1,
        })
    });
    let expired = (0i64..3, prop::option::of(0u64..2)).prop_map(|(lease, attachment)| Expired {
        lease: LeaseId(lease),
        attachment,
    });
    prop_oneof![
        6 => nodes().prop_map(Command::Nodes),
        1 => attach,
        1 => turn().prop_map(Command::Close),
        4 => txn.prop_map(|then| Command::Txn(Txn { then, ..Txn::default() })),
        2 => grant,
        1 => (1i64..3).prop_map(|lease| Command::Revoke(LeaseId(lease), Principal::System)),
        1 => expired.prop_map(|expired| Command::Expire(vec![expired])),
        1 => (0u64..30).prop_map(|revision| Command::Compact(Revision(revision))),
    ]
}

/// Who holds which session, with which password, and whose turn it is: said as simply as possible.
#[derive(Default)]
struct Sessions(BTreeMap<LeaseId, (bytes::Bytes, u64, u64)>);

impl Sessions {
    /// What a turn comes to.
    fn take_turn(&mut self, turn: Turn) -> Result<(), Refusal> {
        match self.0.get_mut(&turn.lease) {
            None => Err(Refusal::LeaseNotFound(turn.lease)),
            Some((_, attachment, _)) if *attachment != turn.attachment => Err(Refusal::Moved),
            Some((_, _, next)) if *next != turn.seq => Err(Refusal::OutOfTurn),
            Some((_, _, next)) => {
                *next += 1;
                Ok(())
            }
        }
    }

    /// What a command must have come to, as far as sessions go.
    fn apply(&mut self, command: &Command, outcome: &Result<Outcome, Refusal>) {
        match command {
            Command::Nodes(nodes) => {
                let Some(turn) = nodes.turn else { return };
                let refused = outcome.clone().err();
                match self.take_turn(turn) {
                    Err(refusal) => assert_eq!(refused, Some(refusal)),
                    Ok(()) => assert!(
                        !matches!(refused, Some(Refusal::Moved | Refusal::OutOfTurn)),
                        "{refused:?}"
                    ),
                }
            }
            Command::Close(turn) => {
                assert_eq!(outcome.clone().err(), self.take_turn(*turn).err());
                if outcome.is_ok() {
                    self.0.remove(&turn.lease);
                }
            }
            Command::Grant(grant) => {
                let opened = grant.session.as_ref().filter(|_| outcome.is_ok());
                let held = opened.map(|it| (it.password.clone(), it.attachment, 0));
                self.0.extend(held.map(|held| (grant.lease, held)));
            }
            Command::Attach(attach) => {
                let held = self.0.get_mut(&attach.lease);
                let held = held.filter(|held| held.0 == attach.password);
                assert_eq!(outcome.is_ok(), held.is_some());
                if let Some(held) = held {
                    (held.1, held.2) = (attach.attachment, 0);
                }
            }
            Command::Revoke(lease, _) => drop(self.0.remove(lease)),
            Command::Expire(leases) => leases.iter().for_each(|expired| {
                let holder = self.0.get(&expired.lease).map(|held| held.1);
                if holder == expired.attachment {
                    self.0.remove(&expired.lease);
                }
            }),
            Command::Txn(_)
            | Command::Compact(_)
            | Command::Checkpoint(_)
            | Command::Alarm(_)
            | Command::Auth(_) => {}
        }
    }
}

/// What counts `/x`, which has room for three nodes.
fn counting() -> Command {
    let aside = |path: &'static str, role| NodeOp {
        path: path.into(),
        tests: Vec::new(),
        action: Action::Write(NodeWrite {
            role,
            ..NodeWrite::new("v")
        }),
        cause: Cause::Set,
    };
    let (of, limits) = (
        bytes::Bytes::from("/x"),
        Limits {
            nodes_max: Some(3),
            bytes_max: None,
        },
    );
    let set = Role::Limits {
        of: of.clone(),
        limits,
    };
    Command::Nodes(Nodes {
        ops: vec![aside("\0/l", set), aside("\0/t", Role::Tally { of })],
        ..Nodes::default()
    })
}

/// Counts what lies at and beneath `/x`.
fn tally(reader: &Reader, paths: &BTreeSet<Vec<u8>>) -> Tally {
    let beneath = |path: &&Vec<u8>| **path == b"/x" || path.starts_with(b"/x/");
    let values = paths.iter().filter(beneath).map(|path| {
        let entry = reader.node(path).1.and_then(|view| view.entry);
        let len = entry.map_or(0, |entry| entry.value().len());
        i64::try_from(len).expect("it is short")
    });
    values.fold(Tally::default(), |all, bytes| Tally {
        nodes: all.nodes + 1,
        bytes: all.bytes + bytes,
    })
}

/// A command whose refusal leaves no trace: a session's write has had its turn.
fn leaves_no_trace(command: &Command, refusal: &Refusal) -> bool {
    match (command, refusal) {
        (Command::Nodes(nodes), Refusal::Node { .. }) => nodes.turn.is_none(),
        _ => true,
    }
}

/// Walks the tree from a node down; gathers every path.
fn walk(reader: &Reader, path: &[u8], found: &mut BTreeSet<Vec<u8>>) {
    let moment = reader.moment();
    let view = moment.node(path).expect("what its parent lists exists");
    let names = moment.children(path);
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
        let mut sessions = Sessions::default();
        let stamp = Stamp { index: 0, wall: WallMs(40) };
        keyspace.apply(stamp, &counting()).outcome.expect("nothing is in its way");
        for (index, command) in (1..).zip(&commands) {
            prop_assert_eq!(&Command::decode(&command.encode()).expect("it decodes"), command);
            let reader = keyspace.reader();
            let before = (keyspace.digest(), reader.bytes_in_use(), reader.event());
            // Time stands still, so that a refusal has no way to show in the digest.
            let stamp = Stamp { index, wall: WallMs(40) };
            let applied = keyspace.apply(stamp, command);
            sessions.apply(command, &applied.outcome);
            if let Err(refusal) = &applied.outcome {
                let after = (keyspace.digest(), reader.bytes_in_use(), reader.event());
                prop_assert_eq!((after.1, after.2), (before.1, before.2));
                prop_assert_eq!(after.0 == before.0, leaves_no_trace(command, refusal));
            }
            let held: BTreeMap<_, _> = reader
                .leases()
                .iter()
                .filter_map(|view| Some((view.lease, view.attachment?)))
                .collect();
            let expected = sessions.0.iter().map(|(lease, held)| (*lease, held.1));
            prop_assert_eq!(held, expected.collect());
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
            let counted = reader.counted(b"/x").map(|(_, counted)| counted);
            prop_assert_eq!(counted, Some(tally(&reader, &found)));
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
