//! Durable bytes: the Raft log in our own segments, and the checkpoint of the applied state (a flat
//! image, and increments in sled).
//!
//! It knows files, checksums and syncs. It must never know keys, commands, Raft's rules or the time
//! of day.
//!
//! Start with [`LogStore`] and [`CheckpointStore`]; then [`log`] and [`checkpoint`], which keep them
//! in files and say why nothing acknowledged is lost. [`mem`] has both in memory, with the faults
//! that tests want.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

pub mod checkpoint;
mod disk;
pub mod log;
pub mod mem;
mod merge;
#[cfg(feature = "testing")]
pub mod small_disk;

/// One entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place, from 1.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it is for; the log does not look inside.
    pub kind: u8,
    /// Its content.
    pub data: Bytes,
}

/// What Raft must remember beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The newest term seen.
    pub term: u64,
    /// Whom this member voted for in it; 0 is nobody.
    pub vote: u64,
    /// Everything up to here is known to be committed.
    pub commit: u64,
}

/// The disk failed, or what is on it cannot be trusted. The member stops: it never guesses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot {action} {path}: {cause}")]
pub struct Fault {
    /// What was being done ("sync the log segment").
    pub action: &'static str,
    /// To which file.
    pub path: String,
    /// Why it failed, and what to do.
    pub cause: String,
}

/// What can be read of a Raft log.
pub trait LogReader {
    /// The index of the oldest entry still held (one past the last when there is none).
    fn first_index(&self) -> u64;
    /// The index of the newest entry; where the log was cut when there is none.
    fn last_index(&self) -> u64;
    /// The term of an entry that is held, or of the one just before the first.
    fn term(&self, index: u64) -> Option<u64>;
    /// Entries `from..to`, stopping early once `bytes_max` is passed, but at least one.
    fn entries(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<LogEntry>, Fault>;
}

/// The Raft log. What `append` returned for is durable; nothing else is.
///
/// A call that failed to write or to sync makes every later one fail the same way: what a failed
/// sync left behind is unknown, and trying again would report as durable what is not.
pub trait LogStore: LogReader + Send {
    /// A reader for other threads. It sees an append once that is durable, and never waits for one
    /// that is under way.
    fn reader(&self) -> Arc<dyn LogReader + Send + Sync>;
    /// The last vote appended.
    fn vote(&self) -> Vote;
    /// Writes entries (replacing any with the same or a greater index) and the vote, with one write
    /// and at most one sync. A change of the vote's `commit` alone asks for no sync.
    ///
    /// Entries follow each other and the log without a gap; anything else is a bug and panics.
    fn append(&mut self, entries: &[LogEntry], vote: Vote) -> Result<(), Fault>;
    /// Forgets everything and continues after this entry: a snapshot took the log's place.
    fn reset(&mut self, index: u64, term: u64) -> Result<(), Fault>;
    /// Entries up to and including `index` are needed no more. May keep them.
    fn cut(&mut self, index: u64) -> Result<(), Fault>;
}

/// How many images a [`CheckpointStore`] keeps, so that one damaged image costs nothing.
pub const IMAGES_KEPT: usize = 2;

/// Where a checkpoint stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last log entry whose effects are in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// What the replica keeps beside the keyspace (members and the like), opaque here.
    pub meta: Bytes,
}

/// One record of a checkpoint; opaque, ordered by key, unique by key. One that is loaded may share
/// its memory with a thousand others: copy what is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it belongs.
    pub key: Bytes,
    /// What it holds.
    pub value: Bytes,
}

/// A checkpoint being read back.
pub struct Loaded {
    /// Where it stands.
    pub mark: Mark,
    /// Its records in key order, increments already laid over the image; the size hint's lower
    /// bound is theirs if all is well. They are a state only if the end came without an error.
    /// After one [`CheckpointStore::load`] gives the checkpoint before this one.
    pub records: Box<dyn Iterator<Item = Result<Record, Fault>> + Send>,
}

/// Copies of the applied state, so that the log can be cut and a restart is short.
pub trait CheckpointStore: Send {
    /// The newest checkpoint that was not found damaged: the newest image with its increments,
    /// else the one before it. `None` on a new member. To be read before anything is written, so
    /// that no increment is laid over what cannot be read.
    fn load(&mut self) -> Result<Option<Loaded>, Fault>;
    /// Starts a whole image. Nothing counts until [`ImageSink::finish`].
    fn begin_image(&mut self, mark: Mark) -> Result<Box<dyn ImageSink>, Fault>;
    /// Where the newest checkpoint stands, image and increments together.
    fn newest(&self) -> Option<Mark>;
    /// Lays an increment over the newest checkpoint, atomically with its mark, and makes it durable.
    ///
    /// `records` are all that changed after `since`, the index of [`CheckpointStore::newest`] when
    /// they were collected. Answers `false`, and lays nothing, when that is no longer the newest
    /// (an image was finished meanwhile, over which these records would leave a gap), or when the
    /// increment is too large or could not be kept: write an image then.
    fn increment(&mut self, since: u64, mark: Mark, records: Vec<Record>) -> Result<bool, Fault>;
    /// The log entry up to which the log may be cut: that of the older of the two images kept (0
    /// while there are fewer), so that one damaged image costs nothing.
    fn log_needed_from(&self) -> u64;
}

/// An image being written.
pub trait ImageSink: Send {
    /// Adds the next record; keys strictly ascend.
    fn push(&mut self, record: Record) -> Result<(), Fault>;
    /// Makes the image durable and the newest one; drops increments and images it supersedes.
    fn finish(self: Box<Self>) -> Result<(), Fault>;
}
