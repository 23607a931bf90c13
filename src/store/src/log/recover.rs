//! Reading a log back: the frames of its segments in order, and what to make of the place where
//! they end.
//!
//! The last segment ends with bytes that are no frame: zeros, what a recycled file held before, or
//! what a crash left of the last write. If a frame behind that place says that the place was
//! durable when it was written, something durable is damaged, and the log is refused. If none does,
//! only writes that were never acknowledged are lost. What is behind is erased then, so that it
//! cannot pass for a part of what is written next.
//!
//! What the last frames say may be in the kernel's memory only: the process may have ended before
//! its sync, or because of a sync that failed. So everything from the last place vouched for is
//! written and synced again before anyone relies on it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::RECOVERY;
use super::frame::{self, ALIGN_BYTES, Bad, Before, Decoded, Frame, HEADER_BYTES, Header};
use super::segment::{self, Segment};
use super::view::{InUse, Place, View};
use crate::disk::refused;
use crate::{Fault, LogEntry, Vote};

/// Segments are read in pieces of this size.
const WINDOW_BYTES: u32 = 1 << 20;
/// Zeros are skipped in pieces of this size.
const BLANK: [u8; 4096] = [0; 4096];
const ACTION: &str = "read back the log segment";

/// A log as it was left.
pub(super) struct Recovered {
    pub(super) view: View,
    pub(super) vote: Vote,
    /// The segment to go on writing, and from where; `None` when the log is new.
    pub(super) last: Option<(Arc<Segment>, u32)>,
    /// Epochs of segments that never began.
    pub(super) unused: Vec<u32>,
    /// Above any epoch in the directory.
    pub(super) next_epoch: u32,
}

/// Where a segment's frames end.
struct End {
    offset: u32,
    /// Up to where the last of them says the segment was durable.
    synced: u32,
}

/// Reads the log in `dir`.
pub(super) fn recover(dir: &Path, cache_bytes: usize) -> Result<Recovered, Fault> {
    let epochs = segment::list(dir)?;
    let mut segments = Vec::new();
    for &epoch in &epochs {
        let segment = Arc::new(Segment::open(dir, epoch)?);
        let before = before(&segment)?;
        segments.push((segment, before));
    }
    let begun = segments.iter().rposition(|(_, before)| before.is_some());
    let unused = segments.split_off(begun.map_or(0, |last| last + 1));
    // Segments are begun in order: of those that seem not to have begun, only the oldest can have.
    if let Some((segment, _)) = unused.first() {
        leftovers(&mut Window::new(segment), 0)?;
    }
    let mut recovered = Recovered {
        view: View::new(cache_bytes),
        vote: Vote::default(),
        last: None,
        unused: unused.iter().map(|(segment, _)| segment.epoch).collect(),
        next_epoch: epochs.last().map_or(1, |last| last + 1),
    };
    let mut befores = segments.iter().skip(1).map(|&(_, before)| before);
    let mut end = None;
    for (segment, _) in &segments {
        end = Some(recovered.replay(segment, befores.next())?);
    }
    if let (Some((segment, _)), Some(end)) = (segments.pop(), end) {
        settle(&segment, &end)?;
        recovered.last = Some((segment, end.offset));
    }
    let (commit, last) = (recovered.vote.commit, recovered.view.last_index());
    if commit > last {
        let cause = format!("entry {commit} is committed, but the last is {last}; {RECOVERY}");
        return Err(refused("read back the log in", dir, cause));
    }
    Ok(recovered)
}

/// What a segment says about the one before it; `None` when it did not begin.
fn before(segment: &Segment) -> Result<Option<Before>, Fault> {
    match Window::new(segment).frame(0)? {
        Ok(Decoded {
            frame: Frame::Start { before, .. },
            ..
        }) => Ok(Some(before)),
        Ok(_) | Err(Bad::Unknown) => Err(newer(segment, 0)),
        Err(Bad::NoFrame) => Ok(None),
    }
}

/// Looks for frames behind the place where a segment's frames end. Answers where the last of them
/// ends, or `from`.
fn leftovers(window: &mut Window<'_>, from: u32) -> Result<u32, Fault> {
    let (epoch, capacity) = (window.segment.epoch, window.segment.capacity);
    let mut offset = from;
    let mut end = from;
    while offset < capacity {
        if window
            .bytes(offset, BLANK.len() as u32)?
            .is_some_and(|bytes| bytes == BLANK)
        {
            offset += BLANK.len() as u32;
            continue;
        }
        let header = window.bytes(offset, HEADER_BYTES)?;
        if let Some(header) = header.and_then(|bytes| Header::decode(bytes, epoch, offset)) {
            if header.synced > from {
                return Err(damaged(window.segment, from));
            }
            let frame_end = u64::from(offset) + header.frame_bytes();
            end = u32::try_from(frame_end).unwrap_or(capacity).min(capacity);
        }
        offset += ALIGN_BYTES;
    }
    Ok(end)
}

/// Makes the end of the last segment's frames certain: what is before it is written again and
/// synced, what is behind it erased.
fn settle(segment: &Segment, end: &End) -> Result<(), Fault> {
    let erase_to = leftovers(&mut Window::new(segment), end.offset)?;
    if erase_to > end.offset {
        tracing::warn!(
            path = %segment.path.display(),
            offset = end.offset,
            bytes = erase_to - end.offset,
            "erased the torn end of the log; nothing in it was acknowledged"
        );
    }
    let mut bytes = segment.read(end.synced, (end.offset - end.synced) as usize)?;
    bytes.resize((erase_to - end.synced) as usize, 0);
    segment.write(end.synced, &bytes)?;
    segment.sync()
}

impl Recovered {
    /// Takes in the frames of the next segment. `next` is what the segment after it, if there is
    /// one, says about this one.
    fn replay(
        &mut self,
        segment: &Arc<Segment>,
        next: Option<Option<Before>>,
    ) -> Result<End, Fault> {
        let until = match next {
            None => None,
            Some(Some(before)) if before.epoch == segment.epoch => Some(before.end),
            Some(_) => {
                let cause = format!("the segment after it does not follow it; {RECOVERY}");
                return Err(refused(ACTION, &segment.path, cause));
            }
        };
        let mut window = Window::new(segment);
        let mut end = End {
            offset: 0,
            synced: 0,
        };
        while until != Some(end.offset) {
            match window.frame(end.offset)? {
                Ok(decoded) => {
                    self.take(segment, end.offset, &decoded.frame)?;
                    end.offset += decoded.bytes;
                    end.synced = decoded.synced;
                }
                Err(Bad::NoFrame) if until.is_none() && end.offset > 0 => break,
                Err(Bad::NoFrame) => return Err(damaged(segment, end.offset)),
                Err(Bad::Unknown) => return Err(newer(segment, end.offset)),
            }
        }
        Ok(end)
    }

    fn take(
        &mut self,
        segment: &Arc<Segment>,
        offset: u32,
        frame: &Frame<'_>,
    ) -> Result<(), Fault> {
        let last_index = self.view.last_index();
        match *frame {
            Frame::Start {
                base_index,
                base_term,
                vote,
                ..
            } if offset == 0 => {
                if self.view.segments.is_empty() {
                    self.view.reset(base_index, base_term);
                    self.vote = vote;
                } else if last_index != base_index || self.vote != vote {
                    return Err(damaged(segment, offset));
                }
                let segment = segment.clone();
                self.view.segments.insert(
                    segment.epoch,
                    InUse {
                        segment,
                        base_index,
                    },
                );
            }
            Frame::Entry {
                index,
                term,
                kind,
                data,
            } if 0 < index && index <= last_index + 1 => {
                let entry = LogEntry {
                    index,
                    term,
                    kind,
                    data: Bytes::copy_from_slice(data),
                };
                let place = Place {
                    epoch: segment.epoch,
                    offset,
                    data_bytes: data.len() as u32,
                };
                self.view.put(entry, place);
            }
            Frame::Vote(vote) => self.vote = vote,
            Frame::Reset { index, term } => self.view.reset(index, term),
            Frame::Start { .. } | Frame::Entry { .. } => return Err(damaged(segment, offset)),
        }
        Ok(())
    }
}

fn damaged(segment: &Segment, offset: u32) -> Fault {
    let cause = format!("what was durable at offset {offset} is damaged; {RECOVERY}");
    refused(ACTION, &segment.path, cause)
}

fn newer(segment: &Segment, offset: u32) -> Fault {
    let cause = format!(
        "the frame at offset {offset} was written by a newer version; start that version again"
    );
    refused(ACTION, &segment.path, cause)
}

/// A segment read front to back, a piece at a time.
struct Window<'a> {
    segment: &'a Segment,
    start: u32,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment) -> Window<'a> {
        Window {
            segment,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// So many bytes from `offset` on; `None` where the segment is shorter.
    fn bytes(&mut self, offset: u32, count: u32) -> Result<Option<&[u8]>, Fault> {
        if self.segment.capacity.saturating_sub(offset) < count {
            return Ok(None);
        }
        let held_to = self.start + self.bytes.len() as u32;
        if offset < self.start || offset + count > held_to {
            let room = self.segment.capacity - offset;
            self.bytes = self
                .segment
                .read(offset, count.max(WINDOW_BYTES).min(room) as usize)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + count as usize]))
    }

    fn frame(&mut self, offset: u32) -> Result<Result<Decoded<'_>, Bad>, Fault> {
        let epoch = self.segment.epoch;
        let header = self.bytes(offset, HEADER_BYTES)?;
        let Some(header) = header.and_then(|bytes| Header::decode(bytes, epoch, offset)) else {
            return Ok(Err(Bad::NoFrame));
        };
        let Ok(count) = u32::try_from(header.frame_bytes()) else {
            return Ok(Err(Bad::NoFrame));
        };
        Ok(match self.bytes(offset, count)? {
            Some(bytes) => frame::decode(bytes, epoch, offset),
            None => Err(Bad::NoFrame),
        })
    }
}
