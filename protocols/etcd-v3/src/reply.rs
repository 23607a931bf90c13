//! The hot calls' replies: what was found, and how etcd spells it.

use crate::wire::{
    Event, Header, KeyValue, Reply, Shown, bytes_size, int_size, nested_size, write_bytes,
    write_int, write_nested,
};
use bytes::BufMut;
use gateway::keyspace::{Change, Entry, RangeAnswer};
use std::borrow::Cow;

/// etcdserverpb.RangeResponse.
#[derive(Debug)]
pub struct Ranged {
    /// Absent in all but the last part of a stream.
    pub header: Option<Header>,
    /// What was found.
    pub entries: Vec<Entry>,
    /// How much of it to show.
    pub shown: Shown,
    /// Whether the limit left some out.
    pub more: bool,
    /// Number of keys in the range.
    pub count: u64,
}

impl Ranged {
    /// The reply that shows `answer`.
    pub fn new(header: Header, answer: RangeAnswer, shown: Shown) -> Ranged {
        Ranged {
            header: Some(header),
            entries: answer.entries,
            shown,
            more: answer.more,
            count: answer.count,
        }
    }

    fn entries(&self) -> impl Iterator<Item = KeyValue<'_>> {
        self.entries
            .iter()
            .map(|entry| KeyValue::new(entry, self.shown))
    }
}

impl Reply for Ranged {
    fn size(&self) -> usize {
        let header = self.header.map_or(0, |it| nested_size(it.size()));
        let entries: usize = self.entries().map(|it| nested_size(it.size())).sum();
        header + entries + int_size(self.more.into()) + int_size(self.count)
    }

    fn write(&self, out: &mut impl BufMut) {
        if let Some(header) = self.header {
            header.write(out);
        }
        self.entries().for_each(|entry| entry.write_as(2, out));
        write_int(3, self.more.into(), out);
        write_int(4, self.count, out);
    }
}

/// etcdserverpb.RangeStreamResponse: one part of a range.
#[derive(Debug)]
pub struct RangePart(pub Ranged);

impl Reply for RangePart {
    fn size(&self) -> usize {
        nested_size(self.0.size())
    }

    fn write(&self, out: &mut impl BufMut) {
        write_nested(1, self.0.size(), out);
        self.0.write(out);
    }
}

/// etcdserverpb.PutResponse.
#[derive(Debug)]
pub struct Stored {
    /// Who answers, at which revision.
    pub header: Header,
    /// The entry before, if asked for.
    pub previous: Option<Entry>,
}

impl Reply for Stored {
    fn size(&self) -> usize {
        let previous = self.previous.as_ref();
        nested_size(self.header.size())
            + previous.map_or(0, |it| nested_size(KeyValue::whole(it).size()))
    }

    fn write(&self, out: &mut impl BufMut) {
        self.header.write(out);
        if let Some(previous) = &self.previous {
            KeyValue::whole(previous).write_as(2, out);
        }
    }
}

/// etcdserverpb.DeleteRangeResponse.
#[derive(Debug)]
pub struct Deleted {
    /// Who answers, at which revision.
    pub header: Header,
    /// How many keys went.
    pub deleted: u64,
    /// What they were, if asked for.
    pub previous: Vec<Entry>,
}

impl Reply for Deleted {
    fn size(&self) -> usize {
        let previous = self.previous.iter().map(KeyValue::whole);
        let previous: usize = previous.map(|it| nested_size(it.size())).sum();
        nested_size(self.header.size()) + int_size(self.deleted) + previous
    }

    fn write(&self, out: &mut impl BufMut) {
        self.header.write(out);
        write_int(2, self.deleted, out);
        for previous in &self.previous {
            KeyValue::whole(previous).write_as(3, out);
        }
    }
}

/// etcdserverpb.TxnResponse.
#[derive(Debug)]
pub struct Committed {
    /// Who answers, at which revision; empty in a nested one.
    pub header: Header,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One answer for each operation that ran.
    pub answers: Vec<Answered>,
}

/// etcdserverpb.ResponseOp.
#[derive(Debug)]
pub enum Answered {
    /// To a range.
    Range(Ranged),
    /// To a put.
    Put(Stored),
    /// To a delete.
    Delete(Deleted),
    /// To a transaction inside.
    Txn(Committed),
}

impl Answered {
    fn size(&self) -> usize {
        match self {
            Answered::Range(range) => nested_size(range.size()),
            Answered::Put(put) => nested_size(put.size()),
            Answered::Delete(delete) => nested_size(delete.size()),
            Answered::Txn(txn) => nested_size(txn.size()),
        }
    }

    fn write(&self, out: &mut impl BufMut) {
        match self {
            Answered::Range(range) => {
                write_nested(1, range.size(), out);
                range.write(out);
            }
            Answered::Put(put) => {
                write_nested(2, put.size(), out);
                put.write(out);
            }
            Answered::Delete(delete) => {
                write_nested(3, delete.size(), out);
                delete.write(out);
            }
            Answered::Txn(txn) => {
                write_nested(4, txn.size(), out);
                txn.write(out);
            }
        }
    }
}

impl Reply for Committed {
    fn size(&self) -> usize {
        let answers: usize = self.answers.iter().map(|it| nested_size(it.size())).sum();
        nested_size(self.header.size()) + int_size(self.succeeded.into()) + answers
    }

    fn write(&self, out: &mut impl BufMut) {
        self.header.write(out);
        write_int(2, self.succeeded.into(), out);
        for answer in &self.answers {
            write_nested(3, answer.size(), out);
            answer.write(out);
        }
    }
}

/// etcdserverpb.WatchResponse.
#[derive(Debug, Default)]
pub struct Watched {
    /// Who answers, and up to which revision the watcher has now seen everything.
    pub header: Header,
    /// Which watcher; -1 for all of the stream.
    pub watch_id: i64,
    /// The answer to a create request.
    pub created: bool,
    /// The watcher is over.
    pub canceled: bool,
    /// The oldest revision that can be watched, when that ended the watcher.
    pub compact_revision: u64,
    /// What else ended it.
    pub cancel_reason: Cow<'static, str>,
    /// More of this revision follows.
    pub fragment: bool,
    /// What happened.
    pub changes: Vec<Change>,
    /// Whether the client wants to see what was there before.
    pub with_previous: bool,
}

impl Watched {
    fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.changes
            .iter()
            .map(|it| Event::new(it, self.with_previous))
    }

    /// Splits what is larger than `bytes_max` between events. All parts but the last are fragments.
    pub fn split(mut self, bytes_max: usize) -> Vec<Watched> {
        if self.changes.len() < 2 || self.size() < bytes_max {
            return vec![self];
        }
        let changes = std::mem::take(&mut self.changes);
        let empty = self.size();
        let mut parts: Vec<Watched> = Vec::new();
        let mut room = 0;
        for change in changes {
            let size = nested_size(Event::new(&change, self.with_previous).size());
            match parts.last_mut() {
                Some(part) if size < room => {
                    room -= size;
                    part.changes.push(change);
                }
                Some(_) | None => {
                    room = bytes_max.saturating_sub(empty + size);
                    parts.push(Watched {
                        header: self.header,
                        watch_id: self.watch_id,
                        fragment: true,
                        changes: vec![change],
                        with_previous: self.with_previous,
                        ..Watched::default()
                    });
                }
            }
        }
        if let Some(last) = parts.last_mut() {
            last.fragment = false;
        }
        parts
    }
}

impl Reply for Watched {
    fn size(&self) -> usize {
        let events: usize = self.events().map(|it| nested_size(it.size())).sum();
        nested_size(self.header.size())
            + int_size(self.watch_id as u64)
            + int_size(self.created.into())
            + int_size(self.canceled.into())
            + int_size(self.compact_revision)
            + bytes_size(self.cancel_reason.as_bytes())
            + int_size(self.fragment.into())
            + events
    }

    fn write(&self, out: &mut impl BufMut) {
        self.header.write(out);
        write_int(2, self.watch_id as u64, out);
        write_int(3, self.created.into(), out);
        write_int(4, self.canceled.into(), out);
        write_int(5, self.compact_revision, out);
        write_bytes(6, self.cancel_reason.as_bytes(), out);
        write_int(7, self.fragment.into(), out);
        self.events().for_each(|event| event.write_as(11, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, delete, put};
    use proto::etcdserverpb as pb;
    use proto::mvccpb;

    const HEADER: Header = Header {
        cluster: u64::MAX,
        member: 7,
        revision: 300,
        term: 2,
    };

    /// What a client reads out of a reply; and the size it was said to have is right.
    fn read<M: prost::Message + Default>(reply: &impl Reply) -> M {
        let mut bytes = Vec::new();
        reply.write(&mut bytes);
        assert_eq!(bytes.len(), reply.size());
        M::decode(&bytes[..]).expect("what was written can be read")
    }

    fn header() -> Option<pb::ResponseHeader> {
        Some(HEADER.into())
    }

    fn key_value(key: &str, value: &str, revision: i64, version: i64) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: revision - version + 1,
            mod_revision: revision,
            version,
            lease: 0,
        }
    }

    fn ranged(world: &World, shown: Shown) -> Ranged {
        Ranged {
            header: Some(HEADER),
            entries: vec![world.entry("a"), world.entry("b")],
            shown,
            more: true,
            count: 5,
        }
    }

    #[test]
    fn a_range_reads_back() {
        let mut world = World::new();
        world.run([put("a", "1")]);
        world.run([put("a", "2"), put("b", "")]);
        let mut expected = pb::RangeResponse {
            header: header(),
            kvs: vec![key_value("a", "2", 3, 2), key_value("b", "", 3, 1)],
            more: true,
            count: 5,
        };
        let reply = ranged(&world, Shown::Whole);
        assert_eq!(read::<pb::RangeResponse>(&reply), expected);
        let part = read::<pb::RangeStreamResponse>(&RangePart(reply));
        assert_eq!(part.range_response.as_ref(), Some(&expected));
        expected.kvs[0].value.clear();
        let keys = ranged(&world, Shown::Indexed);
        assert_eq!(read::<pb::RangeResponse>(&keys), expected);
    }

    #[test]
    fn writes_read_back() {
        let mut world = World::new();
        world.run([put("a", "1")]);
        let before = key_value("a", "1", 2, 1);
        let stored = Stored {
            header: HEADER,
            previous: Some(world.entry("a")),
        };
        let expected = pb::PutResponse {
            header: header(),
            prev_kv: Some(before.clone()),
        };
        assert_eq!(read::<pb::PutResponse>(&stored), expected);
        let deleted = Deleted {
            header: Header::default(),
            deleted: 200,
            previous: vec![world.entry("a")],
        };
        let deleted_expected = pb::DeleteRangeResponse {
            header: Some(pb::ResponseHeader::default()),
            deleted: 200,
            prev_kvs: vec![before],
        };
        assert_eq!(read::<pb::DeleteRangeResponse>(&deleted), deleted_expected);
        let inner = Committed {
            header: Header::default(),
            succeeded: false,
            answers: vec![Answered::Delete(deleted)],
        };
        let txn = Committed {
            header: HEADER,
            succeeded: true,
            answers: vec![
                Answered::Put(stored),
                Answered::Range(ranged_empty()),
                Answered::Txn(inner),
            ],
        };
        let txn = read::<pb::TxnResponse>(&txn);
        assert!(txn.succeeded);
        let answers: Vec<_> = txn.responses.into_iter().map(|it| it.response).collect();
        use pb::response_op::Response as R;
        let Some(R::ResponseTxn(inner)) = &answers[2] else {
            panic!("{answers:?}")
        };
        assert_eq!(answers[0], Some(R::ResponsePut(expected)));
        assert_eq!(
            answers[1],
            Some(R::ResponseRange(pb::RangeResponse {
                header: header(),
                ..pb::RangeResponse::default()
            }))
        );
        assert_eq!(inner.header, Some(pb::ResponseHeader::default()));
        let inner = inner.responses[0].response.clone();
        assert_eq!(inner, Some(R::ResponseDeleteRange(deleted_expected)));
    }

    fn ranged_empty() -> Ranged {
        Ranged {
            header: Some(HEADER),
            entries: vec![],
            shown: Shown::Whole,
            more: false,
            count: 0,
        }
    }

    #[test]
    fn events_read_back() {
        let mut world = World::new();
        world.run([put("a", "1")]);
        let mut changes = world.run([put("a", "2")]).changes;
        changes.extend(world.run([delete("a")]).changes);
        let watched = Watched {
            header: HEADER,
            watch_id: -1,
            changes,
            with_previous: true,
            ..Watched::default()
        };
        let read = read::<pb::WatchResponse>(&watched);
        assert_eq!(read.watch_id, -1);
        let [put, deleted] = &read.events[..] else {
            panic!("{read:?}")
        };
        assert_eq!(put.r#type(), mvccpb::event::EventType::Put);
        assert_eq!(put.kv, Some(key_value("a", "2", 3, 2)));
        assert_eq!(put.prev_kv, Some(key_value("a", "1", 2, 1)));
        assert_eq!(deleted.r#type(), mvccpb::event::EventType::Delete);
        let tombstone = mvccpb::KeyValue {
            key: "a".into(),
            mod_revision: 4,
            ..mvccpb::KeyValue::default()
        };
        assert_eq!(deleted.kv, Some(tombstone));
        assert_eq!(deleted.prev_kv, Some(key_value("a", "2", 3, 2)));
    }

    #[test]
    fn large_replies_are_cut_between_events() {
        let mut world = World::new();
        let changes = world.run([put("a", "1"), put("b", "2"), put("c", "3"), put("d", "4")]);
        let watched = |changes| Watched {
            header: HEADER,
            watch_id: 3,
            changes,
            ..Watched::default()
        };
        let whole = watched(changes.changes.clone());
        let two = watched(changes.changes[..2].to_vec()).size();
        for (bytes_max, parts) in [
            (usize::MAX, vec![4]),
            (two + 5, vec![2, 2]),
            (1, vec![1; 4]),
        ] {
            let split = watched(whole.changes.clone()).split(bytes_max);
            let sizes: Vec<usize> = split.iter().map(|it| it.changes.len()).collect();
            assert_eq!(sizes, parts, "at most {bytes_max} bytes");
            let (last, others) = split.split_last().expect("there is a part");
            assert!(!last.fragment);
            assert!(others.iter().all(|it| it.fragment && it.watch_id == 3));
        }
    }
}
