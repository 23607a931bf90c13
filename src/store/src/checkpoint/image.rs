//! Images: one flat file, records in key order, checked in blocks of about a megabyte.
//!
//! ```text
//! file    8 bytes of magic, a mark block, record blocks, an end block
//! block   0 check (CRC32C of bytes 4.. to its end), 4 tag, 8 ordinal, 12 records, 16 body length,
//!         20 body
//! mark    body: index 8, term 8, meta
//! records body: for each record key length 4, value length 4, key, value
//! end     body: number of records 8, CRC32C of all other blocks' checks in order 4
//! ```
//!
//! Little-endian throughout. An image is whole when its end block says so; nothing follows it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use crate::disk::{failed, refused};
use crate::{Fault, Mark, Record};

const MAGIC: [u8; 8] = *b"rimage\0\x01";
const BLOCK_HEADER_BYTES: usize = 20;
const RECORD_HEADER_BYTES: usize = 8;
const END_BODY_BYTES: usize = 12;
const MARK_BODY_BYTES_MIN: usize = 16;
/// A block is closed once its body has this much.
const BLOCK_BYTES: usize = 1 << 20;
/// No record is longer, so that reading one back is bounded.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 20;
/// What is written is synced in pieces of about this size, so that the log's own syncs do not
/// queue behind a whole image.
const SYNC_BYTES: usize = 16 << 20;

const TAG_MARK: u32 = 1;
const TAG_RECORDS: u32 = 2;
const TAG_END: u32 = 3;

const WRITE: &str = "write the image";
const READ: &str = "read the image";

/// An image being written.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    /// The block being filled, with room for its header.
    block: Vec<u8>,
    block_records: u32,
    ordinal: u32,
    records: u64,
    last_key: Option<Bytes>,
    checks: u32,
    unsynced_bytes: usize,
}

impl Writer {
    pub(super) fn create(path: &Path, mark: &Mark) -> Result<Writer, Fault> {
        let file = File::create(path).map_err(|error| failed("create the image", path, &error))?;
        let mut writer = Writer {
            path: path.to_path_buf(),
            file,
            block: vec![0; BLOCK_HEADER_BYTES],
            block_records: 0,
            ordinal: 0,
            records: 0,
            last_key: None,
            checks: 0,
            unsynced_bytes: 0,
        };
        writer.write(&MAGIC)?;
        writer.block.put_u64_le(mark.index);
        writer.block.put_u64_le(mark.term);
        writer.block.put_slice(&mark.meta);
        writer.close_block(TAG_MARK)?;
        Ok(writer)
    }

    pub(super) fn push(&mut self, record: Record) -> Result<(), Fault> {
        if self
            .last_key
            .as_ref()
            .is_some_and(|last| *last >= record.key)
        {
            return Err(refused(
                WRITE,
                &self.path,
                "its records are not in key order",
            ));
        }
        if record.key.len() + record.value.len() > RECORD_BYTES_MAX {
            return Err(refused(WRITE, &self.path, "a record is too long"));
        }
        self.block.put_u32_le(record.key.len() as u32);
        self.block.put_u32_le(record.value.len() as u32);
        self.block.put_slice(&record.key);
        self.block.put_slice(&record.value);
        self.block_records += 1;
        self.records += 1;
        self.last_key = Some(record.key);
        if self.block.len() - BLOCK_HEADER_BYTES >= BLOCK_BYTES {
            self.close_block(TAG_RECORDS)?;
        }
        Ok(())
    }

    /// Makes the file whole and durable, under the name it was created with. Answers its check.
    pub(super) fn finish(mut self) -> Result<u32, Fault> {
        if self.block_records > 0 {
            self.close_block(TAG_RECORDS)?;
        }
        let check = self.checks;
        self.block.put_u64_le(self.records);
        self.block.put_u32_le(check);
        self.close_block(TAG_END)?;
        self.file
            .sync_all()
            .map_err(|error| failed("sync the image", &self.path, &error))?;
        Ok(check)
    }

    fn close_block(&mut self, tag: u32) -> Result<(), Fault> {
        let body_bytes = (self.block.len() - BLOCK_HEADER_BYTES) as u32;
        let mut header = &mut self.block[4..BLOCK_HEADER_BYTES];
        header.put_u32_le(tag);
        header.put_u32_le(self.ordinal);
        header.put_u32_le(self.block_records);
        header.put_u32_le(body_bytes);
        let check = crc32c::crc32c(&self.block[4..]).to_le_bytes();
        self.block[..4].copy_from_slice(&check);
        self.checks = crc32c::crc32c_append(self.checks, &check);
        let block = std::mem::take(&mut self.block);
        self.write(&block)?;
        self.block = block;
        self.block.truncate(BLOCK_HEADER_BYTES);
        self.block.shrink_to(2 * BLOCK_BYTES);
        self.block_records = 0;
        self.ordinal += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let failure = |error| failed(WRITE, &self.path, &error);
        self.file.write_all(bytes).map_err(failure)?;
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= SYNC_BYTES {
            self.file.sync_data().map_err(failure)?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }
}

/// An image being read back, block by block.
pub(super) struct Blocks {
    path: PathBuf,
    file: File,
    /// What is left of the file.
    left_bytes: u64,
    ordinal: u32,
    records: u64,
    checks: u32,
    end: End,
}

/// What the end block says of all others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct End {
    records: u64,
    /// CRC32C of their checks.
    check: u32,
}

/// One block of an image, as far as its check goes.
struct Block {
    tag: u32,
    ordinal: u32,
    records: u32,
    body: Bytes,
    check: [u8; 4],
}

impl Block {
    fn body_bytes(header: &[u8; BLOCK_HEADER_BYTES]) -> u64 {
        u64::from((&header[16..]).get_u32_le())
    }

    /// A block from its header and body; `None` if its check is another.
    fn decode(header: &[u8; BLOCK_HEADER_BYTES], body: Bytes) -> Option<Block> {
        let (check, mut fields) = header.split_first_chunk()?;
        let found = crc32c::crc32c_append(crc32c::crc32c(fields), &body);
        (found == u32::from_le_bytes(*check)).then(|| Block {
            tag: fields.get_u32_le(),
            ordinal: fields.get_u32_le(),
            records: fields.get_u32_le(),
            body,
            check: *check,
        })
    }
}

impl End {
    /// Reads the last block of a file of so many bytes, which is as long in every image; `None`
    /// when it is damaged.
    fn read(file: &File, bytes: u64) -> io::Result<Option<End>> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        let mut body = [0; END_BODY_BYTES];
        let Some(offset) = bytes.checked_sub((header.len() + body.len()) as u64) else {
            return Ok(None);
        };
        file.read_exact_at(&mut header, offset)?;
        file.read_exact_at(&mut body, offset + header.len() as u64)?;
        let block = Block::decode(&header, Bytes::copy_from_slice(&body));
        let end = block.as_ref().and_then(End::of);
        Ok(end.filter(|end| end.records <= bytes / RECORD_HEADER_BYTES as u64))
    }

    fn of(block: &Block) -> Option<End> {
        let mut body = &block.body[..];
        (block.tag == TAG_END && body.len() == END_BODY_BYTES).then(|| End {
            records: body.get_u64_le(),
            check: body.get_u32_le(),
        })
    }
}

impl Blocks {
    /// Opens an image and reads where it stands and how it ends. Whether what is between is whole
    /// shows only as it is read.
    pub(super) fn open(path: &Path) -> Result<(Mark, Blocks), Fault> {
        let failure = |error| failed("open the image", path, &error);
        let mut file = File::open(path).map_err(failure)?;
        let bytes = file.metadata().map_err(failure)?.len();
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(failure)?;
        if magic != MAGIC {
            let cause = "it is no image, or a newer version wrote it";
            return Err(refused("open the image", path, cause));
        }
        let end = End::read(&file, bytes).map_err(failure)?;
        let end = end.ok_or_else(|| refused("open the image", path, "its end is damaged"))?;
        let mut blocks = Blocks {
            path: path.to_path_buf(),
            file,
            left_bytes: bytes - MAGIC.len() as u64,
            ordinal: 0,
            records: 0,
            checks: 0,
            end,
        };
        let mut block = blocks.read_block()?;
        if block.tag != TAG_MARK || block.body.len() < MARK_BODY_BYTES_MIN {
            return Err(blocks.damaged());
        }
        let mark = Mark {
            index: block.body.get_u64_le(),
            term: block.body.get_u64_le(),
            meta: block.body,
        };
        Ok((mark, blocks))
    }

    /// The check that tells this image from any other.
    pub(super) fn check(&self) -> u32 {
        self.end.check
    }

    /// The records.
    pub(super) fn records(self) -> Records {
        Records {
            left: self.end.records as usize,
            blocks: Some(self),
            body: Bytes::new(),
        }
    }

    /// The next block of records; `None` at the end of a whole image.
    fn next_records(&mut self) -> Result<Option<Bytes>, Fault> {
        let before = End {
            records: self.records,
            check: self.checks,
        };
        let block = self.read_block()?;
        match block.tag {
            TAG_RECORDS => {
                self.records += u64::from(block.records);
                Ok(Some(block.body))
            }
            _ if End::of(&block) == Some(before) && self.left_bytes == 0 => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    fn read_block(&mut self) -> Result<Block, Fault> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.read(&mut header)?;
        let body_bytes = Block::body_bytes(&header);
        let bytes_max = (BLOCK_BYTES + RECORD_HEADER_BYTES + RECORD_BYTES_MAX) as u64;
        if body_bytes > bytes_max.min(self.left_bytes) {
            return Err(self.damaged());
        }
        let mut body = Vec::with_capacity(body_bytes as usize);
        let read = (&mut self.file).take(body_bytes).read_to_end(&mut body);
        read.map_err(|error| failed(READ, &self.path, &error))?;
        self.left_bytes -= body.len() as u64;
        let block = Block::decode(&header, body.into()).filter(|b| b.ordinal == self.ordinal);
        let block = block.ok_or_else(|| self.damaged())?;
        self.checks = crc32c::crc32c_append(self.checks, &block.check);
        self.ordinal += 1;
        Ok(block)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        match self.file.read_exact(bytes) {
            Ok(()) => {
                self.left_bytes = self.left_bytes.saturating_sub(bytes.len() as u64);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged()),
            Err(error) => Err(failed(READ, &self.path, &error)),
        }
    }

    fn damaged(&self) -> Fault {
        let cause = format!(
            "block {} is damaged; start again to fall back",
            self.ordinal
        );
        refused(READ, &self.path, cause)
    }
}

/// The records of an image. They are slices of shared blocks.
pub(super) struct Records {
    /// `None` after the end or an error.
    blocks: Option<Blocks>,
    body: Bytes,
    /// How many are left by the image's own word.
    left: usize,
}

impl Iterator for Records {
    type Item = Result<Record, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.body.is_empty() {
            match self.blocks.as_mut()?.next_records() {
                Ok(Some(body)) => self.body = body,
                Ok(None) => self.blocks = None,
                Err(fault) => {
                    self.blocks = None;
                    return Some(Err(fault));
                }
            }
        }
        let record = split_record(&mut self.body);
        if record.is_none() {
            self.body = Bytes::new();
            let blocks = self.blocks.take()?;
            return Some(Err(blocks.damaged()));
        }
        self.left = self.left.saturating_sub(1);
        record.map(Ok)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, None)
    }
}

/// Takes the first record off a block; `None` when there is no whole one.
fn split_record(body: &mut Bytes) -> Option<Record> {
    if body.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let (key_bytes, value_bytes) = (body.get_u32_le() as usize, body.get_u32_le() as usize);
    if body.len() < key_bytes.checked_add(value_bytes)? {
        return None;
    }
    Some(Record {
        key: body.split_to(key_bytes),
        value: body.split_to(value_bytes),
    })
}
