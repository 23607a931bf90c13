//! A segment: one file of the log, of fixed length.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame;
use crate::Fault;
use crate::disk::{failed, refused, remove, sync_dir};

/// The longest segment, so that reading one back is bounded, and offsets fit 32 bits.
pub(super) const SEGMENT_BYTES_MAX: u32 = 256 << 20;
/// The shortest: a beginning, and one entry of a few hundred bytes.
pub(super) const SEGMENT_BYTES_MIN: u32 = 1024;
/// New segments are zero-filled and synced in pieces of this size, so that the log's own syncs do
/// not queue behind tens of megabytes.
const FILL_BYTES: u32 = 8 << 20;
/// … and written in pieces of this size. The page cache keeps a file in units as large as the
/// writes that made it, and a later small write visits every block of its unit: after fills by the
/// megabyte, a write with its sync costs two to three times the CPU.
const WRITE_BYTES: u32 = 16 << 10;
const EXTENSION: &str = "segment";
const UNFINISHED: &str = "unfinished";

#[derive(Debug)]
pub(super) struct Segment {
    /// Distinguishes every use of a file as a segment; they ascend, and none comes twice.
    pub(super) epoch: u32,
    /// How long the file is.
    pub(super) capacity: u32,
    pub(super) path: PathBuf,
    file: File,
}

impl Segment {
    /// Opens a file that [`list`] found.
    pub(super) fn open(dir: &Path, epoch: u32) -> Result<Segment, Fault> {
        let path = path_of(dir, epoch);
        let action = "open the log segment";
        let failure = |error| failed(action, &path, &error);
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failure)?;
        let bytes = file.metadata().map_err(failure)?.len();
        match u32::try_from(bytes) {
            Ok(capacity) if capacity <= SEGMENT_BYTES_MAX => Ok(Segment {
                epoch,
                // Frames are aligned; what a cut-off file has beyond can hold none.
                capacity: capacity - capacity % frame::ALIGN_BYTES,
                path,
                file,
            }),
            Ok(_) | Err(_) => Err(refused(action, &path, "it is longer than any segment")),
        }
    }

    /// Makes a new file of zeros that are on disk: a sync after overwriting them changes no
    /// metadata and costs half of what it would in a growing file.
    pub(super) fn create(dir: &Path, epoch: u32, capacity: u32) -> Result<Segment, Fault> {
        let unfinished = dir.join(UNFINISHED);
        let filled = fill(&unfinished, capacity);
        if let Err(error) = filled {
            remove(&unfinished)?;
            return Err(failed("fill the log segment ahead in", dir, &error));
        }
        rename(dir, &unfinished, epoch)?;
        Segment::open(dir, epoch)
    }

    /// Makes a file that is needed no more the segment `epoch`.
    pub(super) fn recycle(dir: &Path, from: u32, epoch: u32) -> Result<Segment, Fault> {
        rename(dir, &path_of(dir, from), epoch)?;
        Segment::open(dir, epoch)
    }

    pub(super) fn read(&self, offset: u32, bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut buffer = vec![0; bytes];
        self.file
            .read_exact_at(&mut buffer, u64::from(offset))
            .map_err(|error| failed("read the log segment", &self.path, &error))?;
        Ok(buffer)
    }

    pub(super) fn write(&self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        assert!(
            offset as usize + bytes.len() <= self.capacity as usize,
            "segments do not grow"
        );
        self.file
            .write_all_at(bytes, u64::from(offset))
            .map_err(|error| failed("write the log segment", &self.path, &error))
    }

    pub(super) fn sync(&self) -> Result<(), Fault> {
        rustix::fs::fdatasync(&self.file)
            .map_err(|error| failed("sync the log segment", &self.path, &error.into()))
    }
}

/// The epochs of the segments in a directory, ascending. Removes what a crash left unfinished.
pub(super) fn list(dir: &Path) -> Result<Vec<u32>, Fault> {
    remove(&dir.join(UNFINISHED))?;
    let failure = |error| failed("list the log directory", dir, &error);
    let mut epochs = Vec::new();
    for entry in fs::read_dir(dir).map_err(failure)? {
        let path = PathBuf::from(entry.map_err(failure)?.file_name());
        let epoch = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(epoch) = epoch
            && path_of(Path::new(""), epoch) == path
        {
            epochs.push(epoch);
        }
    }
    epochs.sort_unstable();
    Ok(epochs)
}

/// Removes a segment that is needed no more.
pub(super) fn discard(dir: &Path, epoch: u32) -> Result<(), Fault> {
    remove(&path_of(dir, epoch))?;
    sync_dir(dir)
}

fn path_of(dir: &Path, epoch: u32) -> PathBuf {
    dir.join(format!("{epoch:010}.{EXTENSION}"))
}

fn rename(dir: &Path, from: &Path, epoch: u32) -> Result<(), Fault> {
    fs::rename(from, path_of(dir, epoch))
        .map_err(|error| failed("rename the log segment", from, &error))?;
    sync_dir(dir)
}

fn fill(path: &Path, capacity: u32) -> std::io::Result<()> {
    let file = File::create(path)?;
    let zeros = [0; WRITE_BYTES as usize];
    let mut offset = 0;
    while offset < capacity {
        let bytes = WRITE_BYTES.min(capacity - offset);
        file.write_all_at(&zeros[..bytes as usize], u64::from(offset))?;
        offset += bytes;
        if offset % FILL_BYTES == 0 {
            file.sync_data()?;
        }
    }
    file.sync_all()
}

#[cfg(test)]
impl Segment {
    /// One that cannot be written.
    pub(super) fn dev_full() -> Segment {
        let path = PathBuf::from("/dev/full");
        Segment {
            epoch: u32::MAX,
            capacity: SEGMENT_BYTES_MAX,
            file: File::options()
                .read(true)
                .write(true)
                .open(&path)
                .expect("Linux has it"),
            path,
        }
    }
}
