//! Increments over one image, in sled.
//!
//! sled 0.34 is fit for this under conditions, all of which hold here:
//!
//! - A batch is atomic within one tree, so the mark is in the same tree and batch as the records.
//! - `flush` writes, but does not make the disk write: the file is synced here, and its directory.
//! - Large values go to files of their own that are never synced: values are split, and increments
//!   with long keys are refused.
//! - It may fail to open what it wrote, or panic: whatever goes wrong, here or there, is a
//!   [`Doubt`], and the increments are dropped. Nothing is lost with them: the log goes back
//!   further.
//! - It might lose a part silently: every record has a check, and the mark has their number and
//!   sum.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use sled::{Batch, Db};

use crate::disk::sync_dir;
use crate::{Mark, Record};

/// sled writes its file in segments of this size, and a page longer than a quarter of one to a
/// file of its own.
const SEGMENT_BYTES: usize = 2 << 20;
/// Longer values are split: sixteen of them share a page.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// Increments with longer keys are refused: 256 of them share a page of the tree's inner nodes.
const KEY_BYTES_MAX: usize = 1 << 10;
/// Larger increments are refused: they are a batch in memory, and an image is cheaper by far.
const INCREMENT_BYTES_MAX: usize = 64 << 20;
/// sled's cache of pages. They are written, and read at most once.
const CACHE_BYTES: u64 = 8 << 20;

/// The mark's key. Records are at `RECORD ‖ key`, the parts of split values at
/// `PART ‖ number 8 ‖ part 4`, big-endian.
const MARK: &[u8] = b"m";
const RECORD: u8 = b'r';
const PART: u8 = b'p';

/// What a record's place holds: a check of key and value, and the value or where its parts are.
const WHOLE: u8 = 0;
const SPLIT: u8 = 1;
const CHECK_BYTES: usize = 5;
const SPLIT_BYTES: usize = CHECK_BYTES + 12;
const MARK_BYTES_MIN: usize = 44;

/// Why increments are dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Doubt {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Disk(#[from] crate::Fault),
    #[error("sled panicked")]
    Panic,
    #[error("they are damaged: {0}")]
    Damaged(&'static str),
    #[error("they belong to another image")]
    OtherImage,
}

/// What holds of all records together, stored with the mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    records: u64,
    /// Of their checks, wrapping.
    checks: u64,
    /// The next split value's number.
    next_number: u64,
}

/// The increments over one image.
pub(super) struct Increments {
    pub(super) dir: PathBuf,
    db: Db,
    /// The image's check.
    image_check: u32,
    /// Where they stand; `None` while there are none.
    pub(super) mark: Option<Mark>,
    sum: Sum,
}

/// Removes the files of increments. What stays, because of an error, is not used again.
pub(super) fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %dir.display(), %error, "old increments stay");
    }
}

/// Whether records can be an increment at all.
pub(super) fn suits(mark: &Mark, records: &[Record]) -> bool {
    let bytes = |record: &Record| record.key.len() + record.value.len();
    mark.meta.len() <= VALUE_BYTES_MAX
        && records
            .iter()
            .all(|record| record.key.len() <= KEY_BYTES_MAX)
        && records.iter().map(bytes).sum::<usize>() <= INCREMENT_BYTES_MAX
}

impl Increments {
    /// Opens the increments in `dir`, or begins them, over the image with this check.
    pub(super) fn open(dir: &Path, image_check: u32) -> Result<Increments, Doubt> {
        guarded(|| {
            await_release(dir)?;
            let db = sled::Config::new()
                .path(dir)
                .segment_size(SEGMENT_BYTES)
                .cache_capacity(CACHE_BYTES)
                .open()?;
            let mut increments = Increments {
                dir: dir.to_path_buf(),
                db,
                image_check,
                mark: None,
                sum: Sum::default(),
            };
            if let Some(stored) = increments.db.get(MARK)? {
                increments.take_mark(Bytes::copy_from_slice(&stored))?;
            }
            increments.read()?;
            Ok(increments)
        })
    }

    /// Adds an increment that [`suits`] and makes it durable.
    pub(super) fn lay(&mut self, mark: Mark, records: Vec<Record>) -> Result<(), Doubt> {
        guarded(|| {
            let mut batch = Batch::default();
            // Of a key given twice the last counts, and its check only once.
            let records: BTreeMap<_, _> = records
                .into_iter()
                .map(|record| (record.key, record.value))
                .collect();
            for (key, value) in records {
                self.replace(&mut batch, &key, &value)?;
            }
            batch.insert(MARK, self.encode_mark(&mark));
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            File::open(self.dir.join("db"))?.sync_data()?;
            sync_dir(&self.dir)?;
            self.mark = Some(mark);
            Ok(())
        })
    }

    /// Closes them, for whatever reason, and removes their files.
    pub(super) fn discard(self) {
        let Increments { dir, db, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(path = %dir.display(), "sled panicked when it was closed");
        }
        remove(&dir);
    }

    /// All records, in key order, if they are what was laid.
    pub(super) fn records(&self) -> Result<Vec<Record>, Doubt> {
        guarded(|| self.read())
    }

    fn read(&self) -> Result<Vec<Record>, Doubt> {
        let mut records = Vec::new();
        let mut checks = 0u64;
        for stored in self.db.scan_prefix([RECORD]) {
            let (key, stored) = stored?;
            let key = Bytes::copy_from_slice(&key[1..]);
            let (check, value) = self.value(&stored)?;
            if check_of(&key, &value) != check {
                return Err(Doubt::Damaged("a record"));
            }
            checks = checks.wrapping_add(u64::from(check));
            records.push(Record { key, value });
        }
        if (records.len() as u64, checks) != (self.sum.records, self.sum.checks) {
            return Err(Doubt::Damaged("their sum"));
        }
        Ok(records)
    }

    /// A stored record's check and value.
    fn value(&self, stored: &[u8]) -> Result<(u32, Bytes), Doubt> {
        let (check, split) = header(stored)?;
        let mut rest = &stored[CHECK_BYTES..];
        if !split {
            return Ok((check, Bytes::copy_from_slice(rest)));
        }
        let (number, parts) = (rest.get_u64(), rest.get_u32());
        let mut value = Vec::new();
        for part in 0..parts {
            let part = self.db.get(part_key(number, part))?;
            value.extend_from_slice(&part.ok_or(Doubt::Damaged("a part is missing"))?);
        }
        Ok((check, value.into()))
    }

    fn replace(&mut self, batch: &mut Batch, key: &[u8], value: &[u8]) -> Result<(), Doubt> {
        let place = [&[RECORD], key].concat();
        if let Some(old) = self.db.get(&place)? {
            let (check, split) = header(&old)?;
            self.sum.records -= 1;
            self.sum.checks = self.sum.checks.wrapping_sub(u64::from(check));
            if split {
                let mut rest = &old[CHECK_BYTES..];
                let (number, parts) = (rest.get_u64(), rest.get_u32());
                for part in 0..parts {
                    batch.remove(&part_key(number, part));
                }
            }
        }
        let check = check_of(key, value);
        self.sum.records += 1;
        self.sum.checks = self.sum.checks.wrapping_add(u64::from(check));
        let mut stored = Vec::with_capacity(SPLIT_BYTES + value.len().min(VALUE_BYTES_MAX));
        if value.len() <= VALUE_BYTES_MAX {
            stored.put_u8(WHOLE);
            stored.put_u32(check);
            stored.put_slice(value);
        } else {
            let number = self.sum.next_number;
            self.sum.next_number += 1;
            let parts = value.chunks(VALUE_BYTES_MAX);
            stored.put_u8(SPLIT);
            stored.put_u32(check);
            stored.put_u64(number);
            stored.put_u32(parts.len() as u32);
            for (part, ordinal) in parts.zip(0..) {
                batch.insert(&part_key(number, ordinal), part);
            }
        }
        batch.insert(place, stored);
        Ok(())
    }

    fn encode_mark(&self, mark: &Mark) -> Vec<u8> {
        let mut stored = Vec::with_capacity(MARK_BYTES_MIN + mark.meta.len());
        stored.put_u32(self.image_check);
        stored.put_u64(mark.index);
        stored.put_u64(mark.term);
        stored.put_u64(self.sum.records);
        stored.put_u64(self.sum.checks);
        stored.put_u64(self.sum.next_number);
        stored.put_slice(&mark.meta);
        stored
    }

    fn take_mark(&mut self, mut stored: Bytes) -> Result<(), Doubt> {
        if stored.len() < MARK_BYTES_MIN {
            return Err(Doubt::Damaged("their mark"));
        }
        if stored.get_u32() != self.image_check {
            return Err(Doubt::OtherImage);
        }
        let (index, term) = (stored.get_u64(), stored.get_u64());
        self.sum = Sum {
            records: stored.get_u64(),
            checks: stored.get_u64(),
            next_number: stored.get_u64(),
        };
        self.mark = Some(Mark {
            index,
            term,
            meta: stored,
        });
        Ok(())
    }
}

/// A stored record's check, and whether its value is split.
fn header(mut stored: &[u8]) -> Result<(u32, bool), Doubt> {
    match (stored.first(), stored.len()) {
        (Some(&WHOLE), CHECK_BYTES..) => Ok((stored_check(&mut stored), false)),
        (Some(&SPLIT), SPLIT_BYTES) => Ok((stored_check(&mut stored), true)),
        _ => Err(Doubt::Damaged("a record")),
    }
}

fn stored_check(stored: &mut &[u8]) -> u32 {
    stored.advance(1);
    stored.get_u32()
}

fn check_of(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

fn part_key(number: u64, part: u32) -> [u8; 13] {
    let mut key = [PART; 13];
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Waits for sled to let go of what this process has just closed, which it does on a thread of its
/// own, a little later. Nobody else has it: the directory is locked.
fn await_release(dir: &Path) -> io::Result<()> {
    match File::open(dir.join("db")) {
        Ok(file) => file.lock(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Doubt>) -> Result<T, Doubt> {
    // Whoever sees a doubt drops the increments, so nothing half done is used again.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Doubt::Panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &'static str, value: Vec<u8>) -> Record {
        Record {
            key: Bytes::from(key),
            value: value.into(),
        }
    }

    fn laid(dir: &Path) -> Increments {
        let mut increments = Increments::open(dir, 7).unwrap();
        let records = vec![record("a", vec![1]), record("b", vec![2; 10_000])];
        let mark = Mark {
            index: 5,
            ..Mark::default()
        };
        increments.lay(mark, records).unwrap();
        increments
    }

    #[test]
    fn what_sled_lost_silently_is_noticed() {
        let older = |db: &Db| {
            let check = check_of(b"a", b"older").to_be_bytes();
            let stored = [&[WHOLE][..], &check, b"older"].concat();
            db.insert(b"ra", stored).unwrap();
        };
        let losses: [fn(&Db); 5] = [
            older,
            |db| drop(db.remove(b"ra").unwrap()),
            |db| drop(db.remove(part_key(0, 1)).unwrap()),
            |db| drop(db.insert(part_key(0, 1), vec![3; VALUE_BYTES_MAX]).unwrap()),
            |db| drop(db.insert(b"m", b"short").unwrap()),
        ];
        for lose in losses {
            let dir = tempfile::tempdir().unwrap();
            let increments = laid(dir.path());
            assert_eq!(increments.records().unwrap().len(), 2);
            lose(&increments.db);
            drop(increments);
            let reopened = Increments::open(dir.path(), 7);
            assert!(matches!(reopened, Err(Doubt::Damaged(_))));
        }
    }

    #[test]
    fn increments_of_another_image_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        drop(laid(dir.path()));
        let reopened = Increments::open(dir.path(), 8);
        assert!(matches!(reopened, Err(Doubt::OtherImage)));
    }

    #[test]
    fn replaced_split_values_leave_no_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut increments = laid(dir.path());
        let again = vec![record("b", vec![3; 5000]), record("b", vec![4; 3])];
        increments.lay(Mark::default(), again).unwrap();
        assert_eq!(increments.db.scan_prefix([PART]).count(), 0);
        let records = [record("a", vec![1]), record("b", vec![4; 3])];
        assert_eq!(increments.records().unwrap(), records);
    }
}
