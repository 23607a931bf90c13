//! The nouns every other module uses: keys, spans, revisions, lease ids, wall time.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::fmt;

/// A position in the keyspace's history: one step for every transaction that changed something.
/// A fresh keyspace stands at revision 1, as etcd does; the first write makes 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Revision(#[n(0)] pub u64);

/// A lease's (and so a session's) name, chosen by the proposer. 0 means "no lease".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct LeaseId(#[n(0)] pub i64);

impl LeaseId {
    /// "Bound to no lease".
    pub const NONE: LeaseId = LeaseId(0);
}

/// Milliseconds since the Unix epoch, as stamped by the proposer. Time is data here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct WallMs(#[n(0)] pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the log says about the entry a command travelled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The command's place in the replicated log.
    pub index: u64,
    /// The proposer's clock. The keyspace never lets its own time run backwards.
    pub wall: WallMs,
}

/// A set of neighbouring keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Span {
    /// The first key.
    #[n(0)]
    #[cbor(with = "crate::codec::bytes")]
    pub start: Bytes,
    /// Where it stops.
    #[n(1)]
    pub end: End,
}

/// Where a [`Span`] stops.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum End {
    /// The span is the one key `start`.
    #[n(0)]
    Single,
    /// Up to, not including, this key.
    #[n(1)]
    Before(
        #[n(0)]
        #[cbor(with = "crate::codec::bytes")]
        Bytes,
    ),
    /// No end.
    #[n(2)]
    Unbounded,
}

impl Span {
    /// The span of one key.
    pub fn single(key: impl Into<Bytes>) -> Span {
        Span {
            start: key.into(),
            end: End::Single,
        }
    }

    /// Every key.
    pub fn all() -> Span {
        Span {
            start: Bytes::new(),
            end: End::Unbounded,
        }
    }

    /// The first key beyond a span of more than one key; none when it has no end.
    pub(crate) fn before(&self) -> Option<&[u8]> {
        match &self.end {
            End::Before(end) => Some(end),
            End::Unbounded => None,
            End::Single => unreachable!("a single key is looked up, not scanned for"),
        }
    }

    /// Whether `key` lies in the span.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Before(end) => key >= &self.start[..] && key < &end[..],
            End::Unbounded => key >= &self.start[..],
        }
    }
}
