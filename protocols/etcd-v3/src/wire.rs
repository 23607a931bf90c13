//! Replies as bytes, straight from the keyspace's entries.
//!
//! The generated messages own their keys and values; filling them from the keyspace would copy every
//! one of them once more. So the replies of the hot calls write themselves. Field numbers are those
//! of proto/etcd/rpc.proto and kv.proto; tests read what is written here back with the generated types.

use bytes::BufMut;
use gateway::keyspace::{Change, Entry};
use prost::encoding::{encode_varint, encoded_len_varint};

/// A message on its way out.
pub trait Reply: Send + 'static {
    /// Its length in bytes.
    fn size(&self) -> usize;
    /// Appends it to `out`, which has room for it.
    fn write(&self, out: &mut impl BufMut);
}

/// Cold replies are generated messages.
macro_rules! generated {
    ($($message:ty),* $(,)?) => {$(
        impl Reply for $message {
            fn size(&self) -> usize {
                prost::Message::encoded_len(self)
            }
            fn write(&self, out: &mut impl BufMut) {
                prost::Message::encode(self, out).expect("`out` has room");
            }
        }
    )*};
}

generated! {
    proto::etcdserverpb::CompactionResponse,
    proto::etcdserverpb::LeaseGrantResponse,
    proto::etcdserverpb::LeaseRevokeResponse,
    proto::etcdserverpb::LeaseKeepAliveResponse,
    proto::etcdserverpb::LeaseTimeToLiveResponse,
    proto::etcdserverpb::LeaseLeasesResponse,
    proto::etcdserverpb::MemberAddResponse,
    proto::etcdserverpb::MemberRemoveResponse,
    proto::etcdserverpb::MemberUpdateResponse,
    proto::etcdserverpb::MemberListResponse,
    proto::etcdserverpb::MemberPromoteResponse,
    proto::etcdserverpb::AlarmResponse,
    proto::etcdserverpb::StatusResponse,
    proto::etcdserverpb::DefragmentResponse,
    proto::etcdserverpb::HashResponse,
    proto::etcdserverpb::HashKvResponse,
    proto::etcdserverpb::MoveLeaderResponse,
    proto::health::HealthCheckResponse,
}

/// Fields above 15 would need a second byte for their key.
const VARINT: u8 = 0;
const DELIMITED: u8 = 2;

pub(crate) fn int_size(value: u64) -> usize {
    match value {
        0 => 0,
        value => 1 + encoded_len_varint(value),
    }
}

pub(crate) fn write_int(field: u8, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        out.put_u8(field << 3 | VARINT);
        encode_varint(value, out);
    }
}

pub(crate) fn bytes_size(value: &[u8]) -> usize {
    match value.len() {
        0 => 0,
        len => nested_size(len),
    }
}

pub(crate) fn write_bytes(field: u8, value: &[u8], out: &mut impl BufMut) {
    if !value.is_empty() {
        write_nested(field, value.len(), out);
        out.put_slice(value);
    }
}

/// What a nested message of `size` bytes takes with its key and length.
pub(crate) fn nested_size(size: usize) -> usize {
    1 + encoded_len_varint(size as u64) + size
}

/// Begins a nested message of `size` bytes.
pub(crate) fn write_nested(field: u8, size: usize, out: &mut impl BufMut) {
    out.put_u8(field << 3 | DELIMITED);
    encode_varint(size as u64, out);
}

/// etcdserverpb.ResponseHeader. The default is an empty header, as nested transactions carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster that answers.
    pub cluster: u64,
    /// The member that answers.
    pub member: u64,
    /// The revision the answer was computed at; 0 leaves it out.
    pub revision: u64,
    /// Raft's term.
    pub term: u64,
}

impl Header {
    /// The header of an answer inside a transaction: only the revision.
    pub fn inner(revision: u64) -> Header {
        Header {
            revision,
            ..Header::default()
        }
    }

    pub(crate) fn size(&self) -> usize {
        int_size(self.cluster)
            + int_size(self.member)
            + int_size(self.revision)
            + int_size(self.term)
    }

    /// Writes it as field 1, where every response has it.
    pub(crate) fn write(&self, out: &mut impl BufMut) {
        write_nested(1, self.size(), out);
        write_int(1, self.cluster, out);
        write_int(2, self.member, out);
        write_int(3, self.revision, out);
        write_int(4, self.term, out);
    }
}

impl From<Header> for proto::etcdserverpb::ResponseHeader {
    fn from(header: Header) -> Self {
        proto::etcdserverpb::ResponseHeader {
            cluster_id: header.cluster,
            member_id: header.member,
            revision: header.revision as i64,
            raft_term: header.term,
        }
    }
}

/// How much of an entry a client wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Everything.
    #[default]
    Whole,
    /// Everything but the value: keys_only, where the value was needed for sorting.
    WithoutValue,
    /// Only what etcd's index knows: neither value nor lease.
    Indexed,
}

/// mvccpb.KeyValue.
pub(crate) struct KeyValue<'a> {
    entry: &'a Entry,
    shown: Shown,
}

impl<'a> KeyValue<'a> {
    pub(crate) fn whole(entry: &'a Entry) -> KeyValue<'a> {
        KeyValue::new(entry, Shown::Whole)
    }

    pub(crate) fn new(entry: &'a Entry, shown: Shown) -> KeyValue<'a> {
        KeyValue { entry, shown }
    }

    fn value(&self) -> &[u8] {
        match self.shown {
            Shown::Whole => self.entry.value(),
            Shown::WithoutValue | Shown::Indexed => &[],
        }
    }

    fn lease(&self) -> u64 {
        match self.shown {
            Shown::Whole | Shown::WithoutValue => self.entry.lease().0 as u64,
            Shown::Indexed => 0,
        }
    }

    pub(crate) fn size(&self) -> usize {
        bytes_size(self.entry.key())
            + int_size(self.entry.created().0)
            + int_size(self.entry.modified().0)
            + int_size(self.entry.version())
            + bytes_size(self.value())
            + int_size(self.lease())
    }

    pub(crate) fn write_as(&self, field: u8, out: &mut impl BufMut) {
        write_nested(field, self.size(), out);
        self.write(out);
    }

    pub(crate) fn write(&self, out: &mut impl BufMut) {
        write_bytes(1, self.entry.key(), out);
        write_int(2, self.entry.created().0, out);
        write_int(3, self.entry.modified().0, out);
        write_int(4, self.entry.version(), out);
        write_bytes(5, self.value(), out);
        write_int(6, self.lease(), out);
    }
}

/// mvccpb.Event.
pub(crate) struct Event<'a> {
    change: &'a Change,
    previous: Option<KeyValue<'a>>,
}

impl<'a> Event<'a> {
    pub(crate) fn new(change: &'a Change, with_previous: bool) -> Event<'a> {
        let previous = change.previous.as_ref().filter(|_| with_previous);
        Event {
            change,
            previous: previous.map(KeyValue::whole),
        }
    }

    fn kind(&self) -> u64 {
        let deleted = self.change.entry.is_tombstone();
        u64::from(deleted)
    }

    pub(crate) fn size(&self) -> usize {
        let previous = self.previous.as_ref();
        int_size(self.kind())
            + nested_size(KeyValue::whole(&self.change.entry).size())
            + previous.map_or(0, |it| nested_size(it.size()))
    }

    pub(crate) fn write_as(&self, field: u8, out: &mut impl BufMut) {
        write_nested(field, self.size(), out);
        write_int(1, self.kind(), out);
        KeyValue::whole(&self.change.entry).write_as(2, out);
        if let Some(previous) = &self.previous {
            previous.write_as(3, out);
        }
    }
}
