//! Random commands against the naive model: every answer, every change, every read of every
//! revision, with compaction, postponed work, snapshots and increments at random points between.

mod auth;
mod naive;
mod nodes;

use keyspace::command::{
    Alarm, AlarmChange, Command, Delete, Expired, Filter, Grant, Guard, LeaseRemaining, Op, Put,
    Range, Relation, Session, Sort, SortBy, Test, Txn,
};
use keyspace::{
    Damaged, End, Keyspace, LeaseId, Principal, Record, Restoring, Revision, Span, Stamp, WallMs,
};
use naive::{Naive, PlainRange, plain_applied, plain_changes, plain_txn};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Read(Range),
    ReadTxn(Txn),
    /// From this far after the revision before the compacted one.
    History(u64, usize),
    Tidy,
    /// Go on with what a whole cut preserved.
    Restore,
    /// Bring the image on disk up to date by an increment, and compare.
    Increment,
}

fn key() -> impl Strategy<Value = bytes::Bytes> {
    select(vec!["a", "b", "ba", "/x", "/x/y", "/x/z"]).prop_map(bytes::Bytes::from)
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        3 => key().prop_map(Span::single),
        1 => (key(), key()).prop_map(|(start, end)| Span { start, end: End::Before(end) }),
        1 => key().prop_map(|start| Span { start, end: End::Unbounded }),
        1 => Just(Span::all()),
    ]
}

fn value() -> impl Strategy<Value = bytes::Bytes> {
    select(vec!["", "1", "2", "33"]).prop_map(bytes::Bytes::from)
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1i64..4).prop_map(LeaseId)
}

fn bound() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 1 => 0u64..20]
}

fn range() -> impl Strategy<Value = Range> {
    let by = select(vec![
        SortBy::Key,
        SortBy::Version,
        SortBy::Created,
        SortBy::Modified,
        SortBy::Value,
    ]);
    // An order that is to be applied after the limit is ascending, and not by key.
    let sort = (by, 0..3).prop_map(|(by, kind)| Sort {
        by,
        descending: kind == 1,
        after_limit: kind == 2 && by != SortBy::Key,
    });
    let filter = (bound(), bound(), bound(), bound()).prop_map(|(a, b, c, d)| Filter {
        modified_min: a,
        modified_max: b,
        created_min: c,
        created_max: d,
    });
    let filter = prop_oneof![3 => Just(Filter::default()), 1 => filter];
    let revision = prop::option::of((0u64..30).prop_map(Revision));
    (
        span(),
        revision,
        0u64..4,
        prop::option::of(sort),
        filter,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(span, revision, limit, sort, filter, count_only)| Range {
            span,
            revision,
            limit,
            sort,
            filter,
            count_only,
        })
}

fn guard() -> impl Strategy<Value = Guard> {
    let test = prop_oneof![
        (-1i64..3).prop_map(Test::Version),
        (0i64..20).prop_map(Test::Created),
        (0i64..20).prop_map(Test::Modified),
        value().prop_map(Test::Value),
        (0i64..4).prop_map(Test::Lease),
    ];
    let relation = select(vec![
        Relation::Equal,
        Relation::Greater,
        Relation::Less,
        Relation::NotEqual,
    ]);
    (span(), test, relation).prop_map(|(span, test, relation)| Guard {
        span,
        test,
        relation,
    })
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![
        4 => Just(Some(LeaseId::NONE)),
        3 => lease().prop_map(Some),
        1 => Just(None),
    ];
    (
        key(),
        prop::option::weighted(0.9, value()),
        lease,
        any::<bool>(),
    )
        .prop_map(|(key, value, lease, want_previous)| Put {
            key,
            value,
            lease,
            want_previous,
        })
}

fn op() -> impl Strategy<Value = Op> {
    let delete = (span(), any::<bool>()).prop_map(|(span, want_previous)| Delete {
        span,
        want_previous,
    });
    let leaf = prop_oneof![
        5 => put().prop_map(Op::Put),
        2 => delete.prop_map(Op::Delete),
        1 => range().prop_map(Op::Range),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| txn_of(inner.boxed()).prop_map(Op::Txn))
}

fn txn_of(op: BoxedStrategy<Op>) -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op.clone(), 0..4);
    (prop::collection::vec(guard(), 0..2), ops(), ops()).prop_map(|(guards, then, otherwise)| Txn {
        guards,
        then,
        otherwise,
        principal: Principal::System,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let single = |op| Txn {
        then: vec![op],
        ..Txn::default()
    };
    let alarm = (
        1u64..3,
        select(vec![Alarm::NoSpace, Alarm::Corrupt]),
        prop::bool::weighted(0.3),
    );
    let grant = (lease(), 1u64..9).prop_map(|(lease, ttl_ms)| Grant {
        lease,
        ttl_ms,
        session: (ttl_ms > 4).then(|| Session {
            password: "secret".into(),
            attachment: ttl_ms,
        }),
    });
    let holder = prop::option::of(5u64..9);
    let expired = (lease(), holder).prop_map(|(lease, attachment)| Expired { lease, attachment });
    let remaining = (lease(), 0u64..9).prop_map(|(lease, remaining_ms)| LeaseRemaining {
        lease,
        remaining_ms,
    });
    prop_oneof![
        8 => put().prop_map(move |put| Command::Txn(single(Op::Put(put)))),
        6 => txn_of(op().boxed()).prop_map(Command::Txn),
        2 => (0u64..30).prop_map(|revision| Command::Compact(Revision(revision))),
        3 => grant.prop_map(Command::Grant),
        1 => lease().prop_map(|lease| Command::Revoke(lease, Principal::System)),
        1 => prop::collection::vec(expired, 0..3).prop_map(Command::Expire),
        1 => remaining.prop_map(|remaining| Command::Checkpoint(vec![remaining])),
        1 => alarm.prop_map(|(member, alarm, raised)| {
            Command::Alarm(AlarmChange { member, alarm, raised })
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let read_only = txn_of(range().prop_map(Op::Range).boxed());
    prop_oneof![
        20 => command().prop_map(Step::Apply),
        6 => range().prop_map(Step::Read),
        2 => read_only.prop_map(Step::ReadTxn),
        4 => (0u64..6, 0usize..5).prop_map(|(offset, max)| Step::History(offset, max)),
        3 => Just(Step::Tidy),
        1 => Just(Step::Restore),
        2 => Just(Step::Increment),
    ]
}

/// The keyspace beside its model, and beside an image kept up to date by increments.
struct Pair {
    keyspace: Keyspace,
    naive: Naive,
    image: BTreeMap<bytes::Bytes, Record>,
    image_revision: Revision,
    index: u64,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            keyspace: Keyspace::new(),
            naive: Naive::new(),
            image: BTreeMap::new(),
            image_revision: Revision(0),
            index: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let reader = self.keyspace.reader();
        match step {
            Step::Apply(command) => {
                prop_assert_eq!(
                    &Command::decode(&command.encode()).expect("it decodes"),
                    command
                );
                self.index += 1;
                let stamp = Stamp {
                    index: self.index,
                    wall: WallMs(self.index * 7 % 50),
                };
                let applied = self.keyspace.apply(stamp, command);
                prop_assert_eq!(plain_applied(&applied), self.naive.apply(command));
            }
            Step::Read(range) => {
                let answer = reader.range(range);
                let expected = self.naive.range(range);
                prop_assert_eq!(
                    answer.as_ref().map(PlainRange::of),
                    expected.as_ref().cloned()
                );
            }
            Step::ReadTxn(txn) => {
                let answer = reader.txn(txn).map(|(_, outcome)| plain_txn(&outcome));
                prop_assert_eq!(answer, self.naive.read_txn(txn));
            }
            Step::History(offset, max) => {
                let from = self.naive.compacted.saturating_sub(1) + offset;
                let changes = reader.history(Revision(from), *max);
                let changes = changes.map(|changes| plain_changes(&changes));
                prop_assert_eq!(changes, self.naive.history(from, *max));
            }
            Step::Tidy => {
                let digest = self.keyspace.digest();
                while self.keyspace.tidy() {}
                prop_assert_eq!(self.keyspace.digest(), digest);
            }
            Step::Restore => {
                let cut = self.keyspace.cut(None).expect("a whole cut can be taken");
                let restored = restore_in_runs(cut, false).expect("a cut can be restored");
                self.same(&restored)?;
                self.keyspace = restored;
            }
            Step::Increment => self.increment()?,
        }
        self.compare_leases()
    }

    fn increment(&mut self) -> Result<(), TestCaseError> {
        let cut = Some(self.image_revision).filter(|_| !self.image.is_empty());
        let cut = self.keyspace.cut(cut).or_else(|| {
            self.image.clear();
            self.keyspace.cut(None)
        });
        let cut = cut.expect("a whole cut can be taken");
        self.image_revision = cut.revision();
        self.image
            .extend(cut.map(|record| (record.key.clone(), record)));
        let restored = Keyspace::restore(self.image.values().cloned());
        self.same(&restored.expect("an image can be restored"))
    }

    fn same(&mut self, other: &Keyspace) -> Result<(), TestCaseError> {
        prop_assert_eq!(other.digest(), self.keyspace.digest());
        while self.keyspace.tidy() {}
        let (ours, theirs) = (self.keyspace.reader(), other.reader());
        prop_assert_eq!(ours.bytes_in_use(), theirs.bytes_in_use());
        prop_assert_eq!(ours.alarms(), theirs.alarms());
        prop_assert_eq!(ours.leases(), theirs.leases());
        Ok(())
    }

    fn compare_leases(&self) -> Result<(), TestCaseError> {
        let reader = self.keyspace.reader();
        prop_assert_eq!(reader.revision().0, self.naive.revision());
        prop_assert_eq!(reader.compacted().0, self.naive.compacted);
        let views = reader.leases().into_iter();
        let views: BTreeMap<_, _> = views
            .map(|view| (view.lease.0, (view.ttl_ms, view.remaining_ms)))
            .collect();
        prop_assert_eq!(&views, &self.naive.leases);
        for lease in views.keys() {
            let keys = reader
                .lease_keys(LeaseId(*lease))
                .expect("the lease is there");
            prop_assert_eq!(keys, self.naive.lease_keys(*lease));
        }
        Ok(())
    }
}

/// Cases to run; more for a night than for a change.
fn cases() -> ProptestConfig {
    let cases = std::env::var("MODEL_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(500),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Restores a few records at a time, as several threads would; the last run first if `turned`.
fn restore_in_runs(
    records: impl Iterator<Item = Record>,
    turned: bool,
) -> Result<Keyspace, Damaged> {
    let mut records = records.fuse();
    let restoring = Restoring::begin(&mut records)?;
    let mut runs = Vec::new();
    loop {
        let next: Vec<_> = records.by_ref().take(3).collect();
        if next.is_empty() {
            break;
        }
        runs.push(restoring.run(next.into_iter())?);
    }
    if turned {
        runs.reverse();
    }
    restoring.finish(runs)
}

#[test]
fn runs_out_of_their_order_are_refused() {
    let mut keyspace = Keyspace::new();
    for key in ["a", "b", "c", "d"] {
        let txn = Txn::unconditional(vec![Op::Put(Put::new(key, "v"))]);
        keyspace.apply(Stamp::default(), &Command::Txn(txn));
    }
    let cut = || keyspace.cut(None).expect("it can be cut");
    assert!(restore_in_runs(cut(), false).is_ok());
    assert!(restore_in_runs(cut(), true).is_err());
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_keyspace_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step)?;
        }
        pair.step(&Step::Restore)?;
    }

    /// What comes from a disk or a peer may be damaged anywhere; restoring must say so or cope.
    #[test]
    fn damaged_records_never_panic(
        commands in prop::collection::vec(prop_oneof![command(), auth::command()], 1..30),
        which: prop::sample::Index,
        place: prop::sample::Index,
        byte: u8,
        drop_it: bool,
    ) {
        let mut keyspace = Keyspace::new();
        for command in &commands {
            keyspace.apply(Stamp::default(), command);
        }
        let mut records: Vec<Record> = keyspace.cut(None).expect("it can be cut").collect();
        let which = which.index(records.len());
        if drop_it {
            records.remove(which);
        } else {
            let record = &mut records[which];
            let mut value = record.value.to_vec();
            let place = place.index(value.len());
            value[place] = byte;
            record.value = value.into();
        }
        if let Ok(restored) = Keyspace::restore(records.into_iter()) {
            restored.digest();
            restored.reader().history(restored.reader().compacted(), usize::MAX).expect("readable");
        }
    }

    /// A log entry may hold anything.
    #[test]
    fn decoding_garbage_never_panics(mut bytes: Vec<u8>, command in command(), place: usize) {
        let _ = Command::decode(&bytes);
        let encoded = command.encode();
        bytes.truncate(3);
        let place = place % encoded.len();
        let mut damaged = encoded[..place].to_vec();
        damaged.append(&mut bytes);
        damaged.extend(&encoded[place..]);
        if let Ok(decoded) = Command::decode(&damaged) {
            prop_assert_eq!(Command::decode(&decoded.encode()).expect("it decodes"), decoded);
        }
    }
}
