//! What is wrong with a request whatever the state, found in etcd's order (v3rpc/key.go).

use crate::errors::{self, Error};
use bytes::Bytes;
use gateway::keyspace::{End, Span};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

/// Checks a range.
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(errors::EMPTY_KEY);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    match known {
        true => Ok(()),
        false => Err(errors::INVALID_SORT_OPTION),
    }
}

/// Checks a range that is to be answered in parts.
pub fn range_stream(request: &RangeRequest) -> Result<(), Error> {
    range(request)?;
    let by_key = request.sort_target() == SortTarget::Key;
    match request.sort_order() {
        SortOrder::None => {}
        SortOrder::Ascend if by_key => {}
        SortOrder::Ascend | SortOrder::Descend => {
            let message = "RangeStream does not support custom sort orders";
            return Err(Error::unimplemented(message));
        }
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|&bound| bound != 0) {
        let message = "RangeStream does not support revision filters";
        return Err(Error::unimplemented(message));
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(errors::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(errors::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(errors::LEASE_PROVIDED);
    }
    Ok(())
}

/// Checks a delete.
pub fn delete(request: &DeleteRangeRequest) -> Result<(), Error> {
    match request.key.is_empty() {
        true => Err(errors::EMPTY_KEY),
        false => Ok(()),
    }
}

/// Checks a transaction: its size, each operation, then that it writes no key twice.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    txn_shape(request, ops_max)?;
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

/// A transaction inside another gets what the outer one left of the limit, so the depth is bounded.
fn txn_shape(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    let ops = request.compare.len();
    let ops = ops.max(request.success.len()).max(request.failure.len());
    let Some(left) = ops_max.checked_sub(ops) else {
        return Err(errors::TOO_MANY_OPS);
    };
    if request.compare.iter().any(|it| it.key.is_empty()) {
        return Err(errors::EMPTY_KEY);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete(request)?,
            Some(Request::RequestTxn(request)) => txn_shape(request, left)?,
            None => return Err(errors::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What one branch writes.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Deletes,
}

impl<'a> Writes<'a> {
    /// Collects what `ops` write, unless a key is put twice or both put and deleted. The order of
    /// the steps is etcd's: it decides that a key may be put by one nested transaction and deleted
    /// by a later one, but not the other way round.
    fn of(ops: &'a [RequestOp]) -> Result<Writes<'a>, Error> {
        let mut all = Writes::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                all.deletes
                    .add(super::convert::span(&delete.key, &delete.range_end));
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(inner)) = &op.request {
                all.add_branches(Writes::of(&inner.success)?, Writes::of(&inner.failure)?)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                all.add_put(&put.key)?;
            }
        }
        Ok(all)
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        match self.deletes.hold(key) || !self.puts.insert(key) {
            true => Err(errors::DUPLICATE_KEY),
            false => Ok(()),
        }
    }

    /// Only one of the two branches will run, so they may put the same keys.
    fn add_branches(&mut self, then: Writes<'a>, otherwise: Writes<'a>) -> Result<(), Error> {
        for &key in &then.puts {
            self.add_put(key)?;
        }
        for &key in otherwise.puts.difference(&then.puts) {
            self.add_put(key)?;
        }
        self.deletes.merge(then.deletes);
        self.deletes.merge(otherwise.deletes);
        Ok(())
    }
}

/// The deleted ranges, joined where they overlap, so that a lookup is one step however many there
/// are: requests are hostile until shown otherwise.
#[derive(Default)]
struct Deletes {
    /// From the first key to the first one after; none means no end.
    ranges: BTreeMap<Bytes, Option<Bytes>>,
}

impl Deletes {
    fn add(&mut self, span: Span) {
        let end = match span.end {
            End::Single => Some(successor(&span.start)),
            End::Before(end) => Some(end),
            End::Unbounded => None,
        };
        self.add_range(span.start, end);
    }

    fn add_range(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return;
        }
        // Whatever begins before the new range ends, and ends after it begins, becomes part of it.
        loop {
            let before = match &end {
                Some(end) => self.ranges.range(..=end.clone()).next_back(),
                None => self.ranges.iter().next_back(),
            };
            let Some((old_start, old_end)) = before else {
                break;
            };
            if old_end.as_ref().is_some_and(|old_end| *old_end < start) {
                break;
            }
            let (old_start, old_end) = (old_start.clone(), old_end.clone());
            self.ranges.remove(&old_start);
            start = start.min(old_start);
            end = match (end, old_end) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (None, _) | (_, None) => None,
            };
        }
        self.ranges.insert(start, end);
    }

    fn merge(&mut self, other: Deletes) {
        for (start, end) in other.ranges {
            self.add_range(start, end);
        }
    }

    fn hold(&self, key: &[u8]) -> bool {
        let up_to_key = (Bound::Unbounded, Bound::Included(key));
        let last = self.ranges.range::<[u8], _>(up_to_key).next_back();
        last.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < &end[..]))
    }
}

/// The next key in byte order.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn puts(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: key.into(),
            ..PutRequest::default()
        }))
    }

    fn deletes(key: &'static str, range_end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: false,
        }))
    }

    fn inner(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(branches(success, failure)))
    }

    fn branches(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: vec![],
            success,
            failure,
        }
    }

    #[test]
    fn a_key_is_written_once_on_each_path() {
        let check = |success| txn(&branches(success, vec![]), 128);
        let twice = Err(errors::DUPLICATE_KEY);
        assert_eq!(check(vec![puts("a"), puts("b")]), Ok(()));
        assert_eq!(check(vec![puts("a"), puts("a")]), twice);
        assert_eq!(check(vec![puts("b"), deletes("a", "c")]), twice);
        assert_eq!(check(vec![puts("c"), deletes("a", "c")]), Ok(()));
        assert_eq!(check(vec![puts("c"), deletes("a", "\0")]), twice);
        assert_eq!(check(vec![deletes("a", "c"), deletes("b", "d")]), Ok(()));
        assert_eq!(
            check(vec![puts("a"), inner(vec![puts("a")], vec![])]),
            twice
        );
        let either = || inner(vec![puts("a")], vec![puts("a")]);
        assert_eq!(check(vec![either()]), Ok(()));
        assert_eq!(check(vec![either(), either()]), twice);
        assert_eq!(
            check(vec![inner(vec![], vec![puts("a")]), puts("a")]),
            twice
        );
        let put_first = vec![
            inner(vec![puts("a")], vec![]),
            inner(vec![deletes("a", "")], vec![]),
        ];
        assert_eq!(check(put_first), Ok(()), "as etcd has it");
        let delete_first = vec![
            inner(vec![deletes("a", "")], vec![]),
            inner(vec![puts("a")], vec![]),
        ];
        assert_eq!(check(delete_first), twice);
        let other_branch = branches(vec![puts("a")], vec![puts("a")]);
        assert_eq!(txn(&other_branch, 128), Ok(()));
    }

    #[test]
    fn nested_transactions_share_the_limit() {
        let many = |n| (0..n).map(|_| deletes("a", "")).collect::<Vec<_>>();
        let check = |success| txn(&branches(success, vec![]), 4);
        assert_eq!(check(many(4)), Ok(()));
        assert_eq!(check(many(5)), Err(errors::TOO_MANY_OPS));
        assert_eq!(check(vec![inner(many(3), vec![])]), Ok(()));
        assert_eq!(
            check(vec![inner(many(4), vec![])]),
            Err(errors::TOO_MANY_OPS)
        );
        let mut deep = inner(vec![], vec![]);
        for _ in 0..10 {
            deep = inner(vec![deep], vec![]);
        }
        assert_eq!(check(vec![deep]), Err(errors::TOO_MANY_OPS));
    }

    #[test]
    fn operations_are_checked_in_order() {
        let check = |success| txn(&branches(success, vec![]), 128);
        let nothing = RequestOp { request: None };
        assert_eq!(check(vec![nothing.clone()]), Err(errors::KEY_NOT_FOUND));
        assert_eq!(check(vec![puts(""), nothing]), Err(errors::EMPTY_KEY));
        let no_key = TxnRequest {
            compare: vec![proto::etcdserverpb::Compare::default()],
            success: vec![puts("a"), puts("a")],
            failure: vec![],
        };
        assert_eq!(txn(&no_key, 128), Err(errors::EMPTY_KEY));
    }

    #[test]
    fn what_a_put_keeps_is_not_given() {
        let request = |value: &'static str, lease, ignore_value, ignore_lease| PutRequest {
            key: "a".into(),
            value: value.into(),
            lease,
            prev_kv: false,
            ignore_value,
            ignore_lease,
        };
        assert_eq!(put(&request("v", 1, false, false)), Ok(()));
        assert_eq!(put(&request("", 0, true, true)), Ok(()));
        assert_eq!(
            put(&request("v", 0, true, false)),
            Err(errors::VALUE_PROVIDED)
        );
        assert_eq!(
            put(&request("v", 1, true, true)),
            Err(errors::VALUE_PROVIDED)
        );
        assert_eq!(
            put(&request("", 1, true, true)),
            Err(errors::LEASE_PROVIDED)
        );
    }

    #[test]
    fn orders_that_are_none_are_refused() {
        let request = |sort_order, sort_target| RangeRequest {
            key: "a".into(),
            sort_order,
            sort_target,
            ..RangeRequest::default()
        };
        assert_eq!(range(&request(2, 4)), Ok(()));
        assert_eq!(range(&request(3, 0)), Err(errors::INVALID_SORT_OPTION));
        assert_eq!(range(&request(0, 5)), Err(errors::INVALID_SORT_OPTION));
        assert!(range_stream(&request(1, 0)).is_ok());
        assert!(range_stream(&request(0, 3)).is_ok());
        assert!(range_stream(&request(1, 3)).is_err());
        assert!(range_stream(&request(2, 0)).is_err());
    }

    proptest! {
        /// Against a list of the ranges as they came.
        #[test]
        fn deleted_ranges_hold_what_any_of_them_holds(
            ranges in prop::collection::vec((0..20u8, prop::option::of(0..20u8), any::<bool>()), 0..12),
            key in 0..21u8,
        ) {
            let key_of = |n: u8| Bytes::copy_from_slice(&[b'a' + n]);
            let spans: Vec<Span> = ranges
                .into_iter()
                .map(|(start, end, single)| Span {
                    start: key_of(start),
                    end: match end {
                        _ if single => End::Single,
                        Some(end) => End::Before(key_of(end)),
                        None => End::Unbounded,
                    },
                })
                .collect();
            let mut deletes = Deletes::default();
            spans.iter().for_each(|span| deletes.add(span.clone()));
            let key = key_of(key);
            prop_assert_eq!(deletes.hold(&key), spans.iter().any(|span| span.contains(&key)));
        }
    }
}
