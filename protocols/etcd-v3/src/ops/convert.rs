//! etcd's requests in the keyspace's words, and its answers in etcd's.

use crate::reply::{Answered, Committed, Deleted, Ranged, Stored};
use crate::wire::{Header, Shown};
use bytes::Bytes;
use gateway::keyspace::command::{
    Delete, Filter, Guard, Op, Put, Range, Relation, Sort, SortBy, Test, Txn,
};
use gateway::keyspace::{Answer, End, LeaseId, Revision, Span, TxnOutcome};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// The keys from `key` to `range_end`: none for one key, a zero byte for no end.
pub fn span(key: &Bytes, range_end: &Bytes) -> Span {
    let end = match &range_end[..] {
        [] => End::Single,
        [0] => End::Unbounded,
        _ => End::Before(range_end.clone()),
    };
    Span {
        start: key.clone(),
        end,
    }
}

/// Revisions and limits that etcd treats as "not given" when they are not positive.
fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|&value| value > 0)
}

/// What a range asks for.
pub fn range(request: &RangeRequest) -> Range {
    // An upper bound below zero excludes everything, and so does 1: keys begin at revision 2.
    let at_most = |bound: i64| match bound {
        0 => 0,
        bound => positive(bound).unwrap_or(1),
    };
    Range {
        span: span(&request.key, &request.range_end),
        revision: positive(request.revision).map(Revision),
        limit: positive(request.limit).unwrap_or(0),
        sort: sort(request),
        filter: Filter {
            modified_min: positive(request.min_mod_revision).unwrap_or(0),
            modified_max: at_most(request.max_mod_revision),
            created_min: positive(request.min_create_revision).unwrap_or(0),
            created_max: at_most(request.max_create_revision),
        },
        count_only: request.count_only,
    }
}

fn sort(request: &RangeRequest) -> Option<Sort> {
    let by = match request.sort_target() {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Version,
        SortTarget::Create => SortBy::Created,
        SortTarget::Mod => SortBy::Modified,
        SortTarget::Value => SortBy::Value,
    };
    let (descending, after_limit) = match request.sort_order() {
        SortOrder::None => (false, true),
        SortOrder::Ascend => (false, false),
        SortOrder::Descend => (true, false),
    };
    let sort = Sort {
        by,
        descending,
        after_limit,
    };
    (by != SortBy::Key || descending).then_some(sort)
}

/// What a range shows: without values, etcd answers from its index, which knows no leases, unless
/// it needs the values to sort by them.
pub fn shown(request: &RangeRequest) -> Shown {
    match (request.keys_only, request.sort_target()) {
        (false, _) => Shown::Whole,
        (true, SortTarget::Value) => Shown::WithoutValue,
        (true, SortTarget::Key | SortTarget::Version | SortTarget::Create | SortTarget::Mod) => {
            Shown::Indexed
        }
    }
}

/// What a put writes.
pub fn put(request: PutRequest) -> Put {
    Put {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease: (!request.ignore_lease).then_some(LeaseId(request.lease)),
        want_previous: request.prev_kv,
    }
}

/// What a delete removes.
pub fn delete(request: &DeleteRangeRequest) -> Delete {
    Delete {
        span: span(&request.key, &request.range_end),
        want_previous: request.prev_kv,
    }
}

/// A transaction, and how its answers are to be shown.
pub fn txn(request: TxnRequest) -> (Txn, Views) {
    let (then, then_views) = ops(request.success);
    let (otherwise, otherwise_views) = ops(request.failure);
    let txn = Txn {
        guards: request.compare.into_iter().map(guard).collect(),
        then,
        otherwise,
        ..Txn::default()
    };
    let views = Views {
        then: then_views,
        otherwise: otherwise_views,
    };
    (txn, views)
}

/// How a transaction's answers are to be shown, in the shape of the transaction.
#[derive(Debug, Default)]
pub struct Views {
    then: Vec<View>,
    otherwise: Vec<View>,
}

#[derive(Debug)]
enum View {
    Range(Shown),
    Write,
    Txn(Views),
}

fn ops(requests: Vec<RequestOp>) -> (Vec<Op>, Vec<View>) {
    let requests = requests.into_iter().filter_map(|op| op.request);
    requests.map(op).unzip()
}

fn op(request: Request) -> (Op, View) {
    match request {
        Request::RequestRange(request) => {
            (Op::Range(range(&request)), View::Range(shown(&request)))
        }
        Request::RequestPut(request) => (Op::Put(put(request)), View::Write),
        Request::RequestDeleteRange(request) => (Op::Delete(delete(&request)), View::Write),
        Request::RequestTxn(request) => {
            let (txn, views) = txn(request);
            (Op::Txn(txn), View::Txn(views))
        }
    }
}

/// A comparison. A figure that is missing, or of another kind than the target, is zero.
fn guard(compare: Compare) -> Guard {
    let relation = match compare.result() {
        CompareResult::Equal => Relation::Equal,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
        CompareResult::NotEqual => Relation::NotEqual,
    };
    let span = span(&compare.key, &compare.range_end);
    let target = compare.target();
    let test = match (target, compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(it))) => Test::Version(it),
        (CompareTarget::Version, _) => Test::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(it))) => Test::Created(it),
        (CompareTarget::Create, _) => Test::Created(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(it))) => Test::Modified(it),
        (CompareTarget::Mod, _) => Test::Modified(0),
        (CompareTarget::Value, Some(TargetUnion::Value(it))) => Test::Value(it),
        (CompareTarget::Value, _) => Test::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(it))) => Test::Lease(it),
        (CompareTarget::Lease, _) => Test::Lease(0),
    };
    Guard {
        span,
        test,
        relation,
    }
}

/// The reply to a transaction: etcd puts the whole header on the outside, the revision alone on the
/// answers, and an empty one on transactions inside.
pub fn committed(header: Header, outcome: TxnOutcome, views: Views) -> Committed {
    let after = header.revision;
    let mut revision = if changes(&outcome) { after - 1 } else { after };
    committed_at(header, outcome, views, &mut revision, after)
}

/// `revision` is what an operation at this place saw; it becomes `after` with the first write.
fn committed_at(
    header: Header,
    outcome: TxnOutcome,
    views: Views,
    revision: &mut u64,
    after: u64,
) -> Committed {
    let views = match outcome.succeeded {
        true => views.then,
        false => views.otherwise,
    };
    let answers = outcome.answers.into_iter().zip(views);
    let answers = answers.map(|(answer, view)| match answer {
        Answer::Range(answer) => {
            let shown = match view {
                View::Range(shown) => shown,
                View::Write | View::Txn(_) => Shown::Whole,
            };
            Answered::Range(Ranged::new(Header::inner(*revision), answer, shown))
        }
        Answer::Put(previous) => {
            *revision = after;
            let header = Header::inner(after);
            Answered::Put(Stored { header, previous })
        }
        Answer::Delete { deleted, previous } => {
            if deleted > 0 {
                *revision = after;
            }
            Answered::Delete(Deleted {
                header: Header::inner(*revision),
                deleted,
                previous,
            })
        }
        Answer::Txn(inner) => {
            let views = match view {
                View::Txn(views) => views,
                View::Range(_) | View::Write => Views::default(),
            };
            let header = Header::default();
            Answered::Txn(committed_at(header, inner, views, revision, after))
        }
    });
    Committed {
        header,
        succeeded: outcome.succeeded,
        answers: answers.collect(),
    }
}

/// Whether a transaction changed anything.
fn changes(outcome: &TxnOutcome) -> bool {
    outcome.answers.iter().any(|answer| match answer {
        Answer::Range(_) => false,
        Answer::Put(_) => true,
        Answer::Delete { deleted, .. } => *deleted > 0,
        Answer::Txn(inner) => changes(inner),
    })
}
