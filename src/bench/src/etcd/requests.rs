//! What a client asks: unary calls made from a key space, and the check of each answer.

use std::time::Instant;

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::http2::{Calling, Error, Http2};
use super::wire;
use crate::fan_out::stamp_ns;
use crate::keys::{KeySpace, Order, random_value};

/// Paths of the calls the generator makes.
pub mod path {
    /// KV.Put.
    pub const PUT: &str = "/etcdserverpb.KV/Put";
    /// KV.Range.
    pub const RANGE: &str = "/etcdserverpb.KV/Range";
    /// KV.Txn.
    pub const TXN: &str = "/etcdserverpb.KV/Txn";
    /// Watch.Watch.
    pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
    /// Lease.LeaseGrant.
    pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    /// Lease.LeaseKeepAlive.
    pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    /// Maintenance.Status.
    pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
    /// Auth.Authenticate.
    pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
}

/// Field numbers that answers are checked by.
const KEEP_ALIVE_RESPONSE_TTL: u32 = 3;
const RANGE_RESPONSE_KVS: u32 = 2;
const RANGE_RESPONSE_COUNT: u32 = 4;
const TXN_RESPONSE_SUCCEEDED: u32 = 2;
const LEASE_GRANT_RESPONSE_ID: u32 = 2;

/// A put.
#[derive(Debug, Clone, Copy, Default)]
pub struct Put {
    /// Begin the value with [`stamp_ns`], so that a watcher knows when the event was asked for.
    pub stamped: bool,
    /// Ask for the previous key-value pair.
    pub prev_kv: bool,
}

/// A read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    /// Read the whole key space instead of one key.
    pub all: bool,
    /// Answer from the asked member's own state.
    pub serializable: bool,
    /// At most so many keys; 0 is all.
    pub limit: i64,
    /// Keys without values.
    pub keys_only: bool,
    /// Only how many there are.
    pub count_only: bool,
}

/// A transaction.
#[derive(Debug, Clone, Copy)]
pub struct Txn {
    /// Puts in the branch that is taken.
    pub puts: usize,
    /// Guards, all of which hold.
    pub guards: usize,
}

/// What the unary clients of a workload do.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Puts only.
    Put(Put),
    /// Reads only.
    Range(Range),
    /// Transactions only.
    Txn(Txn),
    /// A share of reads, the rest puts.
    Mixed {
        /// The reads.
        range: Range,
        /// The puts.
        put: Put,
        /// Reads among 1,000 operations.
        reads_per_mille: u32,
    },
    /// Every key once, several puts in a transaction.
    Fill {
        /// Puts in one transaction; 1 means plain puts.
        per_txn: u64,
    },
    /// Lease grants with this time to live.
    LeaseGrant {
        /// In seconds.
        ttl_s: i64,
    },
}

impl Operation {
    /// Whether the operation reads keys, which must then exist.
    pub fn reads(&self) -> bool {
        match self {
            Self::Range(_) | Self::Mixed { .. } => true,
            Self::Put(_) | Self::Txn(_) | Self::Fill { .. } | Self::LeaseGrant { .. } => false,
        }
    }
}

/// What an answer must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing beyond success; the revision moved.
    Written,
    /// At least one key-value pair.
    KeyValues,
    /// A count of at least one.
    Count,
    /// The branch of a transaction whose guards hold; the revision moved.
    Succeeded,
    /// A lease.
    Lease,
    /// A lease that still lives: etcd answers with a TTL of 0 when it is gone.
    Alive,
}

impl Expected {
    /// Whether `answer` shows it.
    pub fn is_met_by(self, answer: &[u8]) -> bool {
        match self {
            Self::Written => true,
            Self::KeyValues => wire::bytes_of(answer, RANGE_RESPONSE_KVS).is_some(),
            Self::Count => wire::varint_of(answer, RANGE_RESPONSE_COUNT) > 0,
            Self::Succeeded => wire::varint_of(answer, TXN_RESPONSE_SUCCEEDED) == 1,
            Self::Alive => wire::varint_of(answer, KEEP_ALIVE_RESPONSE_TTL) > 0,
            Self::Lease => wire::varint_of(answer, LEASE_GRANT_RESPONSE_ID) != 0,
        }
    }

    /// Whether the operation moves the revision by one.
    pub fn is_write(self) -> bool {
        match self {
            Self::Written | Self::Succeeded => true,
            Self::KeyValues | Self::Count | Self::Lease | Self::Alive => false,
        }
    }
}

/// Makes the requests of one connection.
#[derive(Debug, Clone)]
pub struct Requests {
    operation: Operation,
    keys: KeySpace,
    order: Order,
    value: Bytes,
    rng: SmallRng,
}

impl Requests {
    /// `seed` makes values and random choices reproducible.
    pub fn new(
        operation: Operation,
        keys: KeySpace,
        order: Order,
        value_bytes: usize,
        seed: u64,
    ) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let value = random_value(&mut rng, value_bytes);
        Self {
            operation,
            keys,
            order,
            value,
            rng,
        }
    }

    /// Opens the next request and says what its answer must show; none when every key had its
    /// turn.
    pub fn issue(
        &mut self,
        http2: &mut Http2,
        tag: u32,
        now: Instant,
    ) -> Result<Option<Expected>, Error> {
        if let Operation::LeaseGrant { ttl_s } = self.operation {
            let request = LeaseGrantRequest { ttl: ttl_s, id: 0 };
            http2.open(tag, path::LEASE_GRANT, &request, Calling::Unary)?;
            return Ok(Some(Expected::Lease));
        }
        let Some(number) = self.order.pick(self.keys.count()) else {
            return Ok(None);
        };
        let expected = match self.operation {
            Operation::Put(put) => self.put(http2, tag, put, number, now)?,
            Operation::Range(range) => self.range(http2, tag, range, number)?,
            Operation::Txn(txn) => self.txn(http2, tag, txn, number)?,
            Operation::Fill { per_txn } => self.fill(http2, tag, per_txn, number, now)?,
            Operation::Mixed {
                range,
                put,
                reads_per_mille,
            } => {
                if self.rng.random_range(0..1_000) < reads_per_mille {
                    self.range(http2, tag, range, number)?
                } else {
                    self.put(http2, tag, put, number, now)?
                }
            }
            Operation::LeaseGrant { .. } => unreachable!("answered above: it has no key"),
        };
        Ok(Some(expected))
    }

    fn put(
        &mut self,
        http2: &mut Http2,
        tag: u32,
        put: Put,
        number: u64,
        now: Instant,
    ) -> Result<Expected, Error> {
        let value = if put.stamped {
            let mut value = self.value.to_vec();
            value[..STAMP_BYTES].copy_from_slice(&stamp_ns(now).to_be_bytes());
            value.into()
        } else {
            self.value.clone()
        };
        let request = PutRequest {
            key: self.keys.key(number),
            value,
            prev_kv: put.prev_kv,
            ..Default::default()
        };
        http2.open(tag, path::PUT, &request, Calling::Unary)?;
        Ok(Expected::Written)
    }

    fn range(
        &mut self,
        http2: &mut Http2,
        tag: u32,
        range: Range,
        number: u64,
    ) -> Result<Expected, Error> {
        let (key, range_end) = if range.all {
            (self.keys.key(0), self.keys.end())
        } else {
            (self.keys.key(number), Bytes::new())
        };
        let request = RangeRequest {
            key,
            range_end,
            limit: range.limit,
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            ..Default::default()
        };
        http2.open(tag, path::RANGE, &request, Calling::Unary)?;
        Ok(if range.count_only {
            Expected::Count
        } else {
            Expected::KeyValues
        })
    }

    fn fill(
        &mut self,
        http2: &mut Http2,
        tag: u32,
        per_txn: u64,
        first: u64,
        now: Instant,
    ) -> Result<Expected, Error> {
        if per_txn == 1 {
            return self.put(http2, tag, Put::default(), first, now);
        }
        let mut success = vec![self.put_op(first)];
        while (success.len() as u64) < per_txn
            && let Some(number) = self.order.pick(self.keys.count())
        {
            success.push(self.put_op(number));
        }
        let request = TxnRequest {
            success,
            ..Default::default()
        };
        http2.open(tag, path::TXN, &request, Calling::Unary)?;
        Ok(Expected::Succeeded)
    }

    /// Guards on versions that every key satisfies, and puts of distinct keys, since etcd refuses
    /// a transaction that puts a key twice.
    fn txn(
        &mut self,
        http2: &mut Http2,
        tag: u32,
        txn: Txn,
        number: u64,
    ) -> Result<Expected, Error> {
        let nth = |n: usize| (number + n as u64) % self.keys.count();
        let compare = (0..txn.guards)
            .map(|n| Compare {
                result: CompareResult::Greater.into(),
                target: CompareTarget::Version.into(),
                key: self.keys.key(nth(n)),
                target_union: Some(TargetUnion::Version(-1)),
                ..Default::default()
            })
            .collect();
        let request = TxnRequest {
            compare,
            success: (0..txn.puts).map(|n| self.put_op(nth(n))).collect(),
            failure: Vec::new(),
        };
        http2.open(tag, path::TXN, &request, Calling::Unary)?;
        Ok(Expected::Succeeded)
    }

    fn put_op(&self, number: u64) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: self.keys.key(number),
                value: self.value.clone(),
                ..Default::default()
            })),
        }
    }
}

/// The bytes that a stamped value begins with.
pub const STAMP_BYTES: usize = 8;
