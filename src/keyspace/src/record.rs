//! How the state's pieces become bytes: CBOR with numbered fields, so that fields can be added.
//!
//! A cut is one head, then chunks of the lease table, then one record for each key. Record keys sort
//! in that order. All but the keys are whole in every cut, so that what has gone since an older cut
//! is not there in the newer: the head says how many lease chunks count.

use crate::command::Alarm;
use crate::invariants;
use crate::slot::{Entry, Figures, Stored};
use crate::types::{LeaseId, Revision, WallMs};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::fmt;

/// The layout that this code writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// Leases in one record.
pub(crate) const LEASES_MAX: usize = 512;

/// One piece of a cut. Keys order the records and tell which replaces which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the record belongs.
    pub key: Bytes,
    /// What it holds, versioned.
    pub value: Bytes,
}

/// The records given to [`crate::Keyspace::restore`] are not those of a cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state's record {record} cannot be read: {reason}")]
pub struct Damaged {
    /// The record's key, escaped.
    pub record: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Damaged {
    pub(crate) fn new(key: &[u8], reason: impl fmt::Display) -> Damaged {
        Damaged {
            record: key.escape_ascii().to_string(),
            reason: reason.to_string(),
        }
    }
}

/// What a record is about, as its key tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Head,
    Leases(u32),
    Slot(Bytes),
}

impl Place {
    const HEAD: u8 = 0;
    const LEASES: u8 = 1;
    const SLOT: u8 = 16;

    pub fn to_key(&self) -> Bytes {
        match self {
            Place::Head => Bytes::from_static(&[Place::HEAD]),
            Place::Leases(chunk) => [&[Place::LEASES][..], &chunk.to_be_bytes()].concat().into(),
            Place::Slot(key) => [&[Place::SLOT][..], key].concat().into(),
        }
    }

    pub fn of_key(key: &Bytes) -> Option<Place> {
        let rest = key.get(1..)?;
        match key[0] {
            Place::HEAD if rest.is_empty() => Some(Place::Head),
            Place::LEASES => Some(Place::Leases(u32::from_be_bytes(rest.try_into().ok()?))),
            Place::SLOT => Some(Place::Slot(key.slice(1..))),
            _ => None,
        }
    }
}

/// What is one for the whole keyspace.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Head {
    #[n(0)]
    pub format: u32,
    #[n(1)]
    pub revision: Revision,
    #[n(2)]
    pub compacted: Revision,
    #[n(3)]
    pub wall: WallMs,
    #[n(4)]
    pub lease_chunks: u32,
    #[n(5)]
    pub alarms: Vec<StandingAlarm>,
}

#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct StandingAlarm {
    #[n(0)]
    pub member: u64,
    #[n(1)]
    pub alarm: Alarm,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct LeaseChunk {
    #[n(0)]
    pub leases: Vec<LeaseRecord>,
}

/// A lease without its keys: each key names its lease.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct LeaseRecord {
    #[n(0)]
    pub lease: LeaseId,
    #[n(1)]
    pub ttl_ms: u64,
    #[n(2)]
    pub remaining_ms: Option<u64>,
    #[n(3)]
    #[cbor(with = "crate::codec::maybe_bytes")]
    pub password: Option<Bytes>,
}

/// A key's retained versions, oldest first.
#[derive(Debug, Encode, Decode)]
pub(crate) struct SlotRecord<'b> {
    #[b(0)]
    pub versions: Vec<VersionRecord<'b>>,
}

#[derive(Debug, Encode, Decode)]
pub(crate) struct VersionRecord<'b> {
    #[n(0)]
    pub created: u64,
    #[n(1)]
    pub modified: u64,
    #[n(2)]
    pub sub: u32,
    #[n(3)]
    pub count: u64,
    #[n(4)]
    pub lease: LeaseId,
    #[n(5)]
    pub written: WallMs,
    #[n(6)]
    pub born: WallMs,
    #[b(7)]
    #[cbor(with = "minicbor::bytes")]
    pub value: &'b [u8],
}

impl<'b> VersionRecord<'b> {
    pub fn of(entry: &'b Entry) -> VersionRecord<'b> {
        VersionRecord {
            created: entry.created().0,
            modified: entry.modified().0,
            sub: entry.sub(),
            count: entry.version(),
            lease: entry.lease(),
            written: entry.written(),
            born: entry.born(),
            value: entry.value(),
        }
    }

    /// The version, if its figures make sense and fit where they are kept.
    pub fn to_stored(&self) -> Option<Stored> {
        let fits = |figure: u64| figure < 1 << 48;
        let sound = invariants::figures_agree(self.created, self.modified, self.count)
            && fits(self.count)
            && fits(self.written.0);
        let figures = Figures {
            created: self.created,
            modified: self.modified,
            sub: self.sub,
            count: self.count,
            lease: self.lease,
            written: self.written,
        };
        sound.then(|| Stored::new(&figures, self.born, self.value))
    }

    /// Whether this version is a deletion.
    pub fn is_tombstone(&self) -> bool {
        self.created == 0
    }
}

/// Of versions in order (given by their revision and whether they are tombstones), how many at the
/// front no revision from `compacted` on shows. A deletion at `compacted` itself is kept, since a
/// watch may start there.
pub(crate) fn unreadable(versions: impl Iterator<Item = (u64, bool)>, compacted: u64) -> usize {
    let (mut before, mut gone) = (0, 0);
    for (modified, tombstone) in versions.take_while(|(modified, _)| *modified <= compacted) {
        before += 1;
        gone = if tombstone && modified < compacted {
            before
        } else {
            before - 1
        };
    }
    gone
}

pub(crate) fn encode<T: Encode<()>>(value: &T) -> Bytes {
    minicbor::to_vec(value)
        .expect("writing to memory cannot fail")
        .into()
}

pub(crate) fn decode<'b, T: Decode<'b, ()>>(record: &'b Record) -> Result<T, Damaged> {
    let mut decoder = minicbor::Decoder::new(&record.value);
    let value = decoder.decode().map_err(|e| Damaged::new(&record.key, e))?;
    if decoder.position() < record.value.len() {
        return Err(Damaged::new(&record.key, "bytes follow the record's end"));
    }
    Ok(value)
}
