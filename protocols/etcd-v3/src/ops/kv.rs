//! Keys: range, put, delete, transactions, compaction.

use super::{Ops, check, convert};
use crate::errors::Error;
use crate::reply::{Committed, Deleted, RangePart, Ranged, Stored};
use crate::wire::{Header, Reply, Shown};
use gateway::keyspace::command::{Filter, Op, Range, Txn};
use gateway::keyspace::{Answer, Command, End, Outcome, RangeAnswer, Revision, TxnOutcome};
use gateway::limits::AT_ONCE_MAX;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};
use std::sync::atomic::Ordering::Relaxed;

impl Ops {
    /// Reads keys.
    pub async fn range(&self, request: RangeRequest) -> Result<Ranged, Error> {
        check::range(&request)?;
        if !request.serializable {
            self.gate.linearize().await?;
        }
        self.served.ranges.fetch_add(1, Relaxed);
        let answer = self.read(&convert::range(&request)).await?;
        let header = self.header(answer.revision);
        Ok(Ranged::new(header, answer, convert::shown(&request)))
    }

    /// Reads keys as this member has them.
    async fn read(&self, range: &Range) -> Result<RangeAnswer, Error> {
        let reader = self.gate.reader();
        if !self.is_large(range) {
            return Ok(reader.range_for(&self.by, range)?);
        }
        let (reader, by, range) = (reader.clone(), self.by.clone(), range.clone());
        let read = move || reader.range_for(&by, &range);
        Ok(self.gate.read_aside(read).await??)
    }

    /// Whether reading a range may take long. In another order or filtered all of it is read, whatever
    /// the limit, and as of an older revision all of it is walked to count it.
    fn is_large(&self, range: &Range) -> bool {
        if range.span.end == End::Single {
            return false;
        }
        let newest = self.gate.reader().revision();
        if range.revision.is_some_and(|revision| revision < newest) {
            return true;
        }
        let is_plain = range.sort.is_none() && range.filter == Filter::default();
        let is_limited = is_plain && (1..=AT_ONCE_MAX).contains(&range.limit);
        if range.count_only || is_limited {
            return false;
        }
        let counted = self.gate.reader().range(&Range {
            count_only: true,
            ..range.clone()
        });
        counted.is_ok_and(|counted| counted.count > AT_ONCE_MAX)
    }

    /// Reads keys in parts, so that no answer grows with the range.
    pub async fn range_stream(&self, request: RangeRequest) -> Result<RangeParts, Error> {
        check::range_stream(&request)?;
        if !request.serializable {
            self.gate.linearize().await?;
        }
        self.served.ranges.fetch_add(1, Relaxed);
        let mut range = convert::range(&request);
        let left = match range.limit {
            0 => u64::MAX,
            limit => limit,
        };
        range.limit = match range.count_only {
            true => 0,
            false => RangeParts::FIRST.min(left),
        };
        let first = self.read(&range).await?;
        range.revision.get_or_insert(first.revision);
        Ok(RangeParts {
            ops: self.clone(),
            range,
            shown: convert::shown(&request),
            revision: first.revision,
            count: first.count,
            first: Some(first),
            left,
            step: RangeParts::FIRST,
            done: false,
        })
    }

    /// Writes a key.
    pub async fn put(&self, request: PutRequest) -> Result<Stored, Error> {
        check::put(&request)?;
        self.check_size(&request)?;
        let (header, answer) = self.write(Op::Put(convert::put(request))).await?;
        match answer {
            Answer::Put(previous) => Ok(Stored { header, previous }),
            Answer::Range(_) | Answer::Delete { .. } | Answer::Txn(_) => unreachable!("a put"),
        }
    }

    /// Deletes keys.
    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<Deleted, Error> {
        check::delete(&request)?;
        self.check_size(&request)?;
        let (header, answer) = self.write(Op::Delete(convert::delete(&request))).await?;
        match answer {
            Answer::Delete { deleted, previous } => Ok(Deleted {
                header,
                deleted,
                previous,
            }),
            Answer::Range(_) | Answer::Put(_) | Answer::Txn(_) => unreachable!("a delete"),
        }
    }

    /// Runs one operation through the log.
    async fn write(&self, op: Op) -> Result<(Header, Answer), Error> {
        let txn = Txn::unconditional(vec![op]);
        let (revision, mut outcome) = self.propose_txn(txn).await?;
        let answer = outcome.answers.pop();
        let answer = answer.expect("a transaction answers each of its operations");
        Ok((self.header(revision), answer))
    }

    async fn propose_txn(&self, txn: Txn) -> Result<(Revision, TxnOutcome), Error> {
        let accepted = self.gate.propose(&self.by, Command::Txn(txn)).await?;
        match accepted.outcome {
            Outcome::Txn(outcome) => Ok((accepted.revision, outcome)),
            Outcome::Done | Outcome::Ended(_) | Outcome::Nodes(_) => unreachable!("a transaction"),
        }
    }

    /// Runs a transaction.
    pub async fn txn(&self, request: TxnRequest) -> Result<Committed, Error> {
        check::txn(&request, self.gate.limits().txn_ops_max)?;
        let reads = Reads::of(&request);
        match reads {
            Reads::Here => {}
            Reads::Linearized => self.gate.linearize().await?,
            Reads::None => self.check_size(&request)?,
        }
        let (txn, views) = convert::txn(request);
        let (revision, outcome) = match reads {
            Reads::Here | Reads::Linearized => {
                let (revision, outcome) = self.read_txn(txn).await?;
                self.served.txn(outcome.answers.len());
                (revision, outcome)
            }
            Reads::None => self.propose_txn(txn).await?,
        };
        Ok(convert::committed(self.header(revision), outcome, views))
    }

    /// Runs a transaction that only reads on what this member has.
    async fn read_txn(&self, txn: Txn) -> Result<(Revision, TxnOutcome), Error> {
        let mut ops = txn.then.iter().chain(&txn.otherwise);
        let is_large = ops.any(|op| match op {
            Op::Range(range) => self.is_large(range),
            Op::Put(_) | Op::Delete(_) | Op::Txn(_) => false,
        });
        let mut guarded = txn.guards.iter().map(|guard| Range::of(guard.span.clone()));
        let reader = self.gate.reader();
        if !is_large && !guarded.any(|range| self.is_large(&range)) {
            return Ok(reader.txn_for(&self.by, &txn)?);
        }
        let (reader, by) = (reader.clone(), self.by.clone());
        let read = move || reader.txn_for(&by, &txn);
        Ok(self.gate.read_aside(read).await??)
    }

    /// Forgets old versions.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        // etcd takes any revision, and finds one below zero to be compacted already.
        let revision = Revision(u64::try_from(request.revision).unwrap_or(0));
        // The compaction refuses what cannot be hashed.
        let hashed = self.hash_up_to(Some(revision.0)).await;
        let command = Command::Compact(revision);
        let accepted = self.gate.propose(&self.by, command).await?;
        if let Ok(hashed) = hashed {
            self.kept_hashes.keep(hashed);
        }
        if request.physical {
            self.gate.tidy().await;
        }
        Ok(CompactionResponse {
            header: Some(self.header(accepted.revision).into()),
        })
    }
}

/// How a transaction without writes may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// From what this member has: it only has ranges that ask for no more.
    Here,
    /// From what this member has once it has all that was acknowledged.
    Linearized,
    /// It has an operation other than a range (even a nested transaction that only reads) and goes
    /// through the log.
    None,
}

impl Reads {
    /// A transaction of comparisons alone counts as serializable in etcd, and may be stale there.
    /// Nobody asked for that, so it is not here.
    fn of(request: &TxnRequest) -> Reads {
        let mut reads = Reads::Linearized;
        let mut fresh = false;
        for op in request.success.iter().chain(&request.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    fresh |= !range.serializable;
                    reads = Reads::Here;
                }
                Some(
                    Request::RequestPut(_)
                    | Request::RequestDeleteRange(_)
                    | Request::RequestTxn(_),
                )
                | None => return Reads::None,
            }
        }
        match fresh {
            true => Reads::Linearized,
            false => reads,
        }
    }
}

/// A range that is answered part by part, all at one revision.
pub struct RangeParts {
    ops: Ops,
    range: Range,
    shown: Shown,
    /// What all parts are read at.
    revision: Revision,
    /// How many keys there are, sent or not.
    count: u64,
    /// The first part, until it is sent.
    first: Option<RangeAnswer>,
    /// What may still be sent.
    left: u64,
    /// How many keys the next part has.
    step: u64,
    done: bool,
}

impl RangeParts {
    /// etcd's first part has as many keys.
    const FIRST: u64 = 10;

    /// The next part; none after the last.
    pub fn next_part(&mut self) -> Result<Option<RangePart>, Error> {
        if self.done {
            return Ok(None);
        }
        let answer = match self.first.take() {
            Some(first) => first,
            None => self.go_on()?,
        };
        let found = answer.entries.len() as u64;
        self.left -= found;
        self.done = !answer.more || self.left == 0;
        let mut part = Ranged {
            header: None,
            entries: answer.entries,
            shown: self.shown,
            more: false,
            count: 0,
        };
        if self.done {
            part.header = Some(self.ops.header(self.revision));
            part.more = answer.more;
            part.count = self.count;
        }
        self.resume_after(&part);
        Ok(Some(RangePart(part)))
    }

    fn go_on(&mut self) -> Result<RangeAnswer, Error> {
        self.range.limit = self.step.min(self.left);
        self.ops.served.ranges.fetch_add(1, Relaxed);
        let reader = self.ops.gate.reader();
        Ok(reader.part_for(&self.ops.by, &self.range)?)
    }

    /// The next part begins behind the last key, with as many keys as come near the request limit.
    fn resume_after(&mut self, part: &Ranged) {
        let Some(last) = part.entries.last() else {
            return;
        };
        let mut next = Vec::with_capacity(last.key().len() + 1);
        next.extend_from_slice(last.key());
        next.push(0);
        self.range.span.start = next.into();
        let aim = self.ops.gate.limits().request_bytes_max;
        let size = part.size();
        self.step = if size < aim / 2 {
            self.step.saturating_mul(2)
        } else if size > aim.saturating_mul(2) {
            (self.step / 2).max(1)
        } else {
            self.step
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::etcdserverpb::RequestOp;

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn range(serializable: bool) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: "k".into(),
            serializable,
            ..RangeRequest::default()
        }))
    }

    #[test]
    fn only_explicitly_serializable_ranges_are_read_without_asking_the_leader() {
        let of = |success: Vec<RequestOp>, failure: Vec<RequestOp>| {
            Reads::of(&TxnRequest {
                compare: vec![],
                success,
                failure,
            })
        };
        assert_eq!(of(vec![], vec![]), Reads::Linearized);
        assert_eq!(of(vec![range(true)], vec![range(true)]), Reads::Here);
        assert_eq!(of(vec![range(true)], vec![range(false)]), Reads::Linearized);
        assert_eq!(of(vec![range(true)], vec![]), Reads::Here);
        let inner = op(Request::RequestTxn(TxnRequest::default()));
        assert_eq!(of(vec![range(true), inner], vec![]), Reads::None);
        let put = op(Request::RequestPut(PutRequest::default()));
        assert_eq!(of(vec![], vec![put]), Reads::None);
    }
}
