//! The Raft log in segments of our own.
//!
//! A segment is a file of fixed length that was filled with zeros and synced before its first use,
//! or is used again after its content was cut off: a sync then writes the data and no metadata. The
//! log is a stream of frames (`frame`) through the segments: entries, votes, resets. An entry
//! with an index that is already there replaces it and all after it. Each segment begins with what
//! holds at that place (the last index and term, the vote, where the segment before ends), so that
//! cutting the log is removing the oldest files, and `first_index` is the same when it is opened
//! again.
//!
//! **What is trusted.** Every frame says up to where its segment was durable when it was written.
//! A bad frame with a good one behind it that vouches for it is damage, and a [`Fault`]; without
//! one it is what a crash left of writes that nobody was told of, and is erased (`recover`).
//!
//! **Who does what.** The writer ([`Log`]) appends and syncs; readers share its `view`, which is
//! changed once an append is durable; a helper thread (`spares`) fills and recycles segments.

mod frame;
mod recover;
mod segment;
mod spares;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use frame::{At, Before, Frame, START_FRAME_BYTES, frame_bytes};
use segment::Segment;
use spares::Spares;
use view::{InUse, Place, SharedView};

use crate::disk::{DirLock, make_dir, refused};
use crate::{Fault, LogEntry, LogReader, LogStore, Vote};

/// A sync that takes longer is worth a warning: followers and clients wait for it.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// Length of a segment, unless told otherwise.
pub const SEGMENT_BYTES: u32 = 64 << 20;
/// The first segment of a log is short: a new member does not wait until as much as usual is filled.
const FIRST_SEGMENT_BYTES: u32 = 8 << 20;
/// The buffer for a batch is kept for the next one up to this size.
const BUFFER_BYTES_KEPT: usize = 4 << 20;
/// What to do about a damaged log.
const RECOVERY: &str = "remove this member from the cluster and add it again with an empty data \
                        directory, or restore a backup if it is the only one";

/// Is told how long each sync took.
pub type SyncHook = Arc<dyn Fn(Duration) + Send + Sync>;

/// How a log is kept.
#[derive(Clone)]
pub struct LogOptions {
    /// Length of a segment, 1 KiB to 256 MiB, rounded up to a multiple of 8; an entry must fit in
    /// one.
    pub segment_bytes: u32,
    /// The newest entries stay in memory up to this much, so that followers that keep up, and
    /// whoever applies, never wait for the disk.
    pub cache_bytes: usize,
    /// Never sync: a crash of the machine loses acknowledged entries. For tests and benchmarks.
    pub unsafe_no_sync: bool,
    /// For metrics.
    pub on_sync: Option<SyncHook>,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: 16 << 20,
            unsafe_no_sync: false,
            on_sync: None,
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("segment_bytes", &self.segment_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("unsafe_no_sync", &self.unsafe_no_sync)
            .finish_non_exhaustive()
    }
}

/// A [`LogStore`] in a directory.
pub struct Log {
    dir: PathBuf,
    options: LogOptions,
    view: Arc<SharedView>,
    vote: Vote,
    /// The segment being written, where the next frame goes, and up to where it is durable.
    segment: Arc<Segment>,
    end: u32,
    synced: u32,
    spares: Spares,
    buffer: Vec<u8>,
    _lock: DirLock,
}

impl Log {
    /// Opens the log in `dir`, which is made if missing, and erases what a crash left of writes
    /// that were never acknowledged.
    ///
    /// # Errors
    /// When another process has it open, the disk fails or is full, or something that was durable
    /// is damaged.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Log, Fault> {
        let mut options = options;
        options.segment_bytes = options
            .segment_bytes
            .clamp(segment::SEGMENT_BYTES_MIN, segment::SEGMENT_BYTES_MAX)
            .next_multiple_of(frame::ALIGN_BYTES);
        make_dir(dir)?;
        let lock = DirLock::take(dir)?;
        let found = recover::recover(dir, options.cache_bytes)?;
        let mut next_epoch = found.next_epoch;
        let (segment, end) = match found.last {
            Some(last) => last,
            None => {
                next_epoch += 1;
                let first_bytes = options.segment_bytes.min(FIRST_SEGMENT_BYTES);
                begin(Segment::create(dir, found.next_epoch, first_bytes)?)?
            }
        };
        let spares = Spares::start(dir, options.segment_bytes, found.unused, next_epoch)?;
        let mut view = found.view;
        view.segments.entry(segment.epoch).or_insert_with(|| InUse {
            segment: segment.clone(),
            base_index: 0,
        });
        Ok(Log {
            dir: dir.to_path_buf(),
            view: Arc::new(SharedView::new(view)),
            vote: found.vote,
            segment,
            end,
            synced: if options.unsafe_no_sync { 0 } else { end },
            spares,
            buffer: Vec::new(),
            options,
            _lock: lock,
        })
    }

    /// Writes frames, and syncs if they are to be durable. Answers where they are.
    fn write(&mut self, frames: &[Frame<'_>], durable: bool) -> Result<Vec<Place>, Fault> {
        let reserved = self.reserve(frames)?;
        self.write_reserved(frames, durable, reserved)
            .inspect_err(|fault| self.view.poison(fault.clone()))
    }

    /// The segments that frames need beyond the current one. Taken before anything is written, so
    /// that a full disk leaves the log as it was.
    fn reserve(&self, frames: &[Frame<'_>]) -> Result<Vec<Segment>, Fault> {
        let whole = u64::from(self.options.segment_bytes - START_FRAME_BYTES);
        let lengths = || {
            frames
                .iter()
                .map(|frame| frame_bytes(frame.data_bytes() as u64))
        };
        if let Some(bytes) = lengths().find(|&bytes| bytes > whole) {
            let cause = format!("an entry of {bytes} bytes is longer than a segment");
            return Err(refused("append to the log in", &self.dir, cause));
        }
        let mut segments = Vec::new();
        let mut room = u64::from(self.segment.capacity - self.end);
        for bytes in lengths() {
            if bytes > room {
                match self.spares.take() {
                    Ok(segment) => segments.push(segment),
                    Err(fault) => {
                        self.spares
                            .free(segments.iter().map(|segment| segment.epoch));
                        return Err(fault);
                    }
                }
                room = whole;
            }
            room -= bytes;
        }
        Ok(segments)
    }

    fn write_reserved(
        &mut self,
        frames: &[Frame<'_>],
        durable: bool,
        reserved: Vec<Segment>,
    ) -> Result<Vec<Place>, Fault> {
        let last_index = self.last_index();
        let mut last = (
            last_index,
            self.term(last_index).expect("the last entry has a term"),
        );
        let mut reserved = reserved.into_iter();
        let mut places = Vec::with_capacity(frames.len());
        for frame in frames {
            let bytes = frame_bytes(frame.data_bytes() as u64);
            if u64::from(self.at().offset) + bytes > u64::from(self.segment.capacity) {
                let next = reserved
                    .next()
                    .expect("as many as the frames need were reserved");
                self.go_on_in(next, last)?;
            }
            places.push(Place {
                epoch: self.segment.epoch,
                offset: self.at().offset,
                data_bytes: frame.data_bytes() as u32,
            });
            frame::encode(frame, self.at(), &mut self.buffer);
            if let Frame::Entry { index, term, .. } = *frame {
                last = (index, term);
            }
        }
        self.flush()?;
        if durable {
            self.sync()?;
        }
        Ok(places)
    }

    /// Where the next frame goes.
    fn at(&self) -> At {
        At {
            epoch: self.segment.epoch,
            offset: self.end + self.buffer.len() as u32,
            synced: self.synced,
        }
    }

    /// Makes the current segment durable and begins the next one.
    fn go_on_in(
        &mut self,
        next: Segment,
        (base_index, base_term): (u64, u64),
    ) -> Result<(), Fault> {
        self.flush()?;
        self.sync()?;
        let start = Frame::Start {
            base_index,
            base_term,
            before: Before {
                epoch: self.segment.epoch,
                end: self.end,
            },
            vote: self.vote,
        };
        let segment = Arc::new(next);
        let in_use = InUse {
            segment: segment.clone(),
            base_index,
        };
        self.view.write().segments.insert(segment.epoch, in_use);
        self.segment = segment;
        (self.end, self.synced) = (0, 0);
        frame::encode(&start, self.at(), &mut self.buffer);
        Ok(())
    }

    /// Writes the buffer.
    fn flush(&mut self) -> Result<(), Fault> {
        self.segment.write(self.end, &self.buffer)?;
        self.end += self.buffer.len() as u32;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        // Not before: a small log takes one segment, and a start is not slowed down by filling two.
        if self.end > self.segment.capacity / 2 {
            self.spares.prepare();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        if self.options.unsafe_no_sync {
            return Ok(());
        }
        let begun = Instant::now();
        self.segment.sync()?;
        let took = begun.elapsed();
        self.synced = self.end;
        if let Some(on_sync) = &self.options.on_sync {
            on_sync(took);
        }
        if took > SLOW_SYNC {
            let took_ms = took.as_millis() as u64;
            tracing::warn!(took_ms, path = %self.segment.path.display(), "slow sync of the log");
        }
        Ok(())
    }

    /// Whether entries follow each other, and one that is held or the one before the first.
    fn follow(&self, entries: &[LogEntry]) -> bool {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return true;
        };
        (self.first_index()..=self.last_index() + 1).contains(&first)
            && entries
                .iter()
                .zip(first..)
                .all(|(entry, index)| entry.index == index)
    }
}

/// Begins the first segment of a new log.
fn begin(segment: Segment) -> Result<(Arc<Segment>, u32), Fault> {
    let at = At {
        epoch: segment.epoch,
        offset: 0,
        synced: 0,
    };
    let start = Frame::Start {
        base_index: 0,
        base_term: 0,
        before: Before::default(),
        vote: Vote::default(),
    };
    let mut bytes = Vec::new();
    frame::encode(&start, at, &mut bytes);
    segment.write(0, &bytes)?;
    segment.sync()?;
    Ok((Arc::new(segment), bytes.len() as u32))
}

impl LogReader for Log {
    fn first_index(&self) -> u64 {
        self.view.first_index()
    }

    fn last_index(&self) -> u64 {
        self.view.last_index()
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.view.term(index)
    }

    fn entries(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<LogEntry>, Fault> {
        self.view.entries(from, to, bytes_max)
    }
}

impl LogStore for Log {
    fn reader(&self) -> Arc<dyn LogReader + Send + Sync> {
        self.view.clone()
    }

    fn vote(&self) -> Vote {
        self.vote
    }

    fn append(&mut self, entries: &[LogEntry], vote: Vote) -> Result<(), Fault> {
        self.view.read().check()?;
        let mut frames: Vec<_> = entries.iter().map(Frame::of).collect();
        let promised = (vote.term, vote.vote) != (self.vote.term, self.vote.vote);
        // After the entries: a commit must never be durable without what it commits.
        if vote != self.vote {
            frames.push(Frame::Vote(vote));
        }
        if frames.is_empty() {
            return Ok(());
        }
        assert!(
            self.follow(entries),
            "entries follow each other and the log without a gap"
        );
        let durable = promised || !entries.is_empty();
        let places = self.write(&frames, durable)?;
        self.vote = vote;
        let mut view = self.view.write();
        for (entry, place) in entries.iter().zip(places) {
            view.put(entry.clone(), place);
        }
        Ok(())
    }

    fn reset(&mut self, index: u64, term: u64) -> Result<(), Fault> {
        self.view.read().check()?;
        self.write(&[Frame::Reset { index, term }], true)?;
        let mut view = self.view.write();
        view.reset(index, term);
        self.spares
            .free(view.drop_segments_before(self.segment.epoch));
        Ok(())
    }

    fn cut(&mut self, index: u64) -> Result<(), Fault> {
        let mut view = self.view.write();
        view.check()?;
        let index = index.min(view.last_index());
        self.spares.free(view.cut(index));
        Ok(())
    }
}
