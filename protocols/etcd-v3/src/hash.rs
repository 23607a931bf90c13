//! etcd's hash of a history (storage/mvcc/hash.go): a CRC-32C over the name of its bucket and then,
//! revision by revision, what its file holds for each: the revision as a key, and the entry as a
//! message. What the last compaction passed over counts only as far as it is still current.

use crate::wire::{KeyValue, write_bytes};
use gateway::keyspace::command::{Filter, Range};
use gateway::keyspace::{Entry, Reader, Refusal, Revision, Span};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// As many hashes of compacted histories are kept (etcd's figure).
const KEPT_MAX: usize = 10;
/// Changes read at a time.
const BATCH: usize = 1000;

/// A hash and what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The hash.
    pub hash: u32,
    /// The last compaction before it; 0 if there was none.
    pub compacted: Revision,
    /// The revision up to which it goes.
    pub revision: Revision,
    /// The newest revision at the time.
    pub newest: Revision,
}

/// The hashes of histories just before they were compacted. etcd goes on answering with these, so
/// that members can be compared at a revision after it was compacted. (There every member takes
/// them; here the one that was asked to compact does.)
#[derive(Debug, Default)]
pub struct Kept {
    hashes: Mutex<VecDeque<Hashed>>,
}

impl Kept {
    /// The hash of the history up to `revision` before it was compacted.
    pub fn get(&self, revision: Revision) -> Option<Hashed> {
        let hashes = self.hashes.lock();
        hashes.iter().find(|it| it.revision == revision).copied()
    }

    /// Keeps a hash, and the newest of those that were kept.
    pub fn keep(&self, hashed: Hashed) {
        let mut hashes = self.hashes.lock();
        if hashes.len() == KEPT_MAX {
            hashes.pop_front();
        }
        hashes.push_back(hashed);
    }
}

/// Hashes the keys up to `revision`, or up to the newest.
pub fn keys(reader: &Reader, revision: Option<u64>) -> Result<Hashed, Refusal> {
    loop {
        let compacted = reader.compacted();
        let newest = reader.revision();
        let revision = revision.map_or(newest, Revision);
        if revision < compacted {
            return Err(Refusal::Compacted { compacted });
        }
        if revision > newest {
            return Err(Refusal::Future { newest });
        }
        let hash = match hash_between(reader, compacted, revision) {
            Ok(hash) if reader.compacted() == compacted => hash,
            // A compaction came between; what it left is hashed anew.
            Ok(_) | Err(Refusal::Compacted { .. }) => continue,
            Err(refusal) => return Err(refusal),
        };
        return Ok(Hashed {
            hash,
            compacted,
            revision,
            newest,
        });
    }
}

fn hash_between(reader: &Reader, compacted: Revision, revision: Revision) -> Result<u32, Refusal> {
    let mut hash = crc32c::crc32c(b"key");
    let mut scratch = Vec::new();
    let mut add = |entry: &Entry| {
        scratch.clear();
        write_record(entry, &mut scratch);
        hash = crc32c::crc32c_append(hash, &scratch);
    };
    kept(reader, compacted, revision)?.iter().for_each(&mut add);
    let mut from = Revision(compacted.0 + 1);
    while from <= revision {
        let changes = reader.history(from, BATCH)?;
        let Some(last) = changes.last() else { break };
        from = Revision(last.entry.modified().0 + 1);
        let entries = changes.iter().map(|change| &change.entry);
        entries
            .take_while(|entry| entry.modified() <= revision)
            .for_each(&mut add);
    }
    Ok(hash)
}

/// The entries that the compaction left and that are current at `revision`, in the order in which
/// they were written. etcd takes all that the compaction left if none of the keys is there any more.
fn kept(reader: &Reader, compacted: Revision, revision: Revision) -> Result<Vec<Entry>, Refusal> {
    if compacted == Revision(0) {
        return Ok(Vec::new());
    }
    let of = |revision| Range {
        revision: Some(revision),
        filter: Filter {
            modified_max: compacted.0,
            ..Filter::default()
        },
        ..Range::of(Span::all())
    };
    let mut answer = reader.range(&of(revision))?;
    if answer.count == 0 {
        answer = reader.range(&of(compacted))?;
    }
    answer
        .entries
        .sort_unstable_by_key(|entry| (entry.modified(), entry.sub()));
    Ok(answer.entries)
}

/// A record of etcd's file: the revision as its key, marked when it is a deletion, and the entry.
fn write_record(entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.modified().0.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&u64::from(entry.sub()).to_be_bytes());
    if entry.is_tombstone() {
        // Of a deleted key etcd's file has the name alone.
        out.push(b't');
        write_bytes(1, entry.key(), out);
    } else {
        KeyValue::whole(entry).write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, delete, put};

    /// The figures are etcd's own (3.7.3, `etcdctl endpoint hashkv`) after the same commands.
    #[test]
    fn equal_histories_hash_as_etcd_hashes_them() {
        let mut world = World::new();
        assert_eq!(keys(&world.reader(), None).unwrap().hash, 1_084_519_789);
        world.run([put("a", "1")]);
        world.run([put("a", "2")]);
        world.run([put("b", "3")]);
        let whole = keys(&world.reader(), None).unwrap();
        assert_eq!(whole.hash, 2_183_248_841);
        world.run([delete("a")]);
        assert_eq!(keys(&world.reader(), Some(4)).unwrap().hash, whole.hash);
        world.compact(3);
        let hashed = Hashed {
            hash: 2_221_601_066,
            compacted: Revision(3),
            revision: Revision(5),
            newest: Revision(5),
        };
        assert_eq!(keys(&world.reader(), None), Ok(hashed));
        let compacted = Revision(3);
        assert_eq!(
            keys(&world.reader(), Some(2)),
            Err(Refusal::Compacted { compacted })
        );
        let newest = Revision(5);
        assert_eq!(
            keys(&world.reader(), Some(6)),
            Err(Refusal::Future { newest })
        );
    }
}
