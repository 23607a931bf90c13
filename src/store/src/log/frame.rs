//! Frames: the log's bytes, to and fro. Pure.
//!
//! ```text
//! 0  header check   CRC32C of the frame's offset and of bytes 4..40
//! 4  data check     CRC32C of the data
//! 8  data length
//! 12 epoch          of the segment
//! 16 synced         up to this offset the segment was durable before the frame was written
//! 20 index
//! 28 term
//! 36 tag, kind, 0, 0
//! 40 data, then zeros up to the next multiple of 8
//! ```
//!
//! Little-endian throughout. The epoch keeps what a recycled segment held before from passing for
//! new, and the offset keeps a frame inside a client's data from doing so.

use crate::{LogEntry, Vote};

/// A frame without data.
pub(super) const HEADER_BYTES: u32 = 40;
/// Frames begin at multiples of this.
pub(super) const ALIGN_BYTES: u32 = 8;

/// Begins every segment: what this is, and the version of its format.
const MAGIC: [u8; 8] = *b"rlog\0\0\0\x01";
const START_BYTES: usize = 40;
const VOTE_BYTES: usize = 8;

/// A segment's beginning, with room for nothing else.
pub(super) const START_FRAME_BYTES: u32 = HEADER_BYTES + START_BYTES as u32;

/// Where the frames before a segment end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// The segment they are in; 0 when there is none.
    pub epoch: u32,
    /// One past the last of them.
    pub end: u32,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// Begins a segment, with what holds there, so that the segments before it can go.
    Start {
        base_index: u64,
        base_term: u64,
        before: Before,
        vote: Vote,
    },
    Entry {
        index: u64,
        term: u64,
        kind: u8,
        data: &'a [u8],
    },
    Vote(Vote),
    /// Everything before is void; the log goes on after this entry.
    Reset {
        index: u64,
        term: u64,
    },
}

impl<'a> Frame<'a> {
    pub(super) fn of(entry: &'a LogEntry) -> Frame<'a> {
        Frame::Entry {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            data: &entry.data,
        }
    }

    pub(super) fn data_bytes(&self) -> usize {
        match self {
            Frame::Start { .. } => START_BYTES,
            Frame::Entry { data, .. } => data.len(),
            Frame::Vote(_) => VOTE_BYTES,
            Frame::Reset { .. } => 0,
        }
    }
}

const TAG_START: u8 = 1;
const TAG_ENTRY: u8 = 2;
const TAG_VOTE: u8 = 3;
const TAG_RESET: u8 = 4;

/// Where a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub epoch: u32,
    pub offset: u32,
    pub synced: u32,
}

/// A frame read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    pub frame: Frame<'a>,
    pub synced: u32,
    /// How far the next frame is.
    pub bytes: u32,
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Never written, written for another epoch, torn or damaged.
    NoFrame,
    /// Whole, but not of a kind known here: a newer version wrote it.
    Unknown,
}

/// A frame's header, whole as far as its check goes.
pub(super) struct Header {
    data_check: u32,
    data_bytes: u32,
    pub synced: u32,
    index: u64,
    term: u64,
    tag: u8,
    kind: u8,
}

impl Header {
    /// Reads the header at the start of `bytes`, which are a segment's from `offset` on.
    pub(super) fn decode(bytes: &[u8], epoch: u32, offset: u32) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES as usize)?;
        if u32_at(bytes, 12) != epoch || u32_at(bytes, 0) != header_check(bytes, offset) {
            return None;
        }
        Some(Header {
            data_check: u32_at(bytes, 4),
            data_bytes: u32_at(bytes, 8),
            synced: u32_at(bytes, 16),
            index: u64_at(bytes, 20),
            term: u64_at(bytes, 28),
            tag: bytes[36],
            kind: bytes[37],
        })
    }

    /// How far the next frame is.
    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.data_bytes))
    }
}

/// What a frame with so much data takes.
pub(super) fn frame_bytes(data_bytes: u64) -> u64 {
    (u64::from(HEADER_BYTES) + data_bytes).next_multiple_of(u64::from(ALIGN_BYTES))
}

/// Adds a frame to `out`. Its data must be shorter than a segment.
pub(super) fn encode(frame: &Frame<'_>, at: At, out: &mut Vec<u8>) {
    let mut own = [0; START_BYTES];
    let (tag, index, term, kind, data): (_, _, _, _, &[u8]) = match *frame {
        Frame::Start {
            base_index,
            base_term,
            before,
            vote,
        } => {
            own[..8].copy_from_slice(&MAGIC);
            own[8..12].copy_from_slice(&before.epoch.to_le_bytes());
            own[12..16].copy_from_slice(&before.end.to_le_bytes());
            own[16..24].copy_from_slice(&vote.term.to_le_bytes());
            own[24..32].copy_from_slice(&vote.vote.to_le_bytes());
            own[32..40].copy_from_slice(&vote.commit.to_le_bytes());
            (TAG_START, base_index, base_term, 0, &own)
        }
        Frame::Entry {
            index,
            term,
            kind,
            data,
        } => (TAG_ENTRY, index, term, kind, data),
        Frame::Vote(vote) => {
            own[..VOTE_BYTES].copy_from_slice(&vote.vote.to_le_bytes());
            (TAG_VOTE, vote.commit, vote.term, 0, &own[..VOTE_BYTES])
        }
        Frame::Reset { index, term } => (TAG_RESET, index, term, 0, &[]),
    };
    let data_bytes = u32::try_from(data.len()).expect("it is shorter than a segment");
    let mut header = [0; HEADER_BYTES as usize];
    header[4..8].copy_from_slice(&crc32c::crc32c(data).to_le_bytes());
    header[8..12].copy_from_slice(&data_bytes.to_le_bytes());
    header[12..16].copy_from_slice(&at.epoch.to_le_bytes());
    header[16..20].copy_from_slice(&at.synced.to_le_bytes());
    header[20..28].copy_from_slice(&index.to_le_bytes());
    header[28..36].copy_from_slice(&term.to_le_bytes());
    header[36] = tag;
    header[37] = kind;
    let check = header_check(&header, at.offset);
    header[0..4].copy_from_slice(&check.to_le_bytes());
    let end = out.len() + frame_bytes(data.len() as u64) as usize;
    out.extend_from_slice(&header);
    out.extend_from_slice(data);
    out.resize(end, 0);
}

/// Reads the frame at the start of `bytes`, which are a segment's from `offset` on.
pub(super) fn decode(bytes: &[u8], epoch: u32, offset: u32) -> Result<Decoded<'_>, Bad> {
    let header = Header::decode(bytes, epoch, offset).ok_or(Bad::NoFrame)?;
    let end = HEADER_BYTES as usize + header.data_bytes as usize;
    let data = bytes.get(HEADER_BYTES as usize..end).ok_or(Bad::NoFrame)?;
    if crc32c::crc32c(data) != header.data_check {
        return Err(Bad::NoFrame);
    }
    let frame = meaning(&header, data).ok_or(Bad::Unknown)?;
    Ok(Decoded {
        frame,
        synced: header.synced,
        // The data lies within a segment, and so does its padding: segments end at a multiple.
        bytes: header.frame_bytes() as u32,
    })
}

fn meaning<'a>(header: &Header, data: &'a [u8]) -> Option<Frame<'a>> {
    let (index, term) = (header.index, header.term);
    match (header.tag, data.len()) {
        (TAG_START, START_BYTES) if data[..8] == MAGIC => Some(Frame::Start {
            base_index: index,
            base_term: term,
            before: Before {
                epoch: u32_at(data, 8),
                end: u32_at(data, 12),
            },
            vote: Vote {
                term: u64_at(data, 16),
                vote: u64_at(data, 24),
                commit: u64_at(data, 32),
            },
        }),
        (TAG_ENTRY, _) => Some(Frame::Entry {
            index,
            term,
            kind: header.kind,
            data,
        }),
        (TAG_VOTE, VOTE_BYTES) => Some(Frame::Vote(Vote {
            term,
            vote: u64_at(data, 0),
            commit: index,
        })),
        (TAG_RESET, 0) => Some(Frame::Reset { index, term }),
        _ => None,
    }
}

fn header_check(header: &[u8], offset: u32) -> u32 {
    let check = crc32c::crc32c(&offset.to_le_bytes());
    crc32c::crc32c_append(check, &header[4..HEADER_BYTES as usize])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice is 4 long"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice is 8 long"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: At = At {
        epoch: 7,
        offset: 4096,
        synced: 80,
    };

    fn vote() -> impl Strategy<Value = Vote> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, vote, commit)| Vote {
            term,
            vote,
            commit,
        })
    }

    proptest! {
        #[test]
        fn garbage_is_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode(&bytes, AT.epoch, AT.offset), Err(Bad::NoFrame));
        }

        #[test]
        fn frame_comes_back_only_where_it_was_written(
            index: u64, term: u64, kind: u8, vote in vote(),
            data in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let before = Before { epoch: 3, end: 9 };
            for frame in [
                Frame::Start { base_index: index, base_term: term, before, vote },
                Frame::Entry { index, term, kind, data: &data },
                Frame::Vote(vote),
                Frame::Reset { index, term },
            ] {
                let mut bytes = Vec::new();
                encode(&frame, AT, &mut bytes);
                prop_assert_eq!(bytes.len() as u64, frame_bytes(frame.data_bytes() as u64));
                let whole = Decoded { frame, synced: AT.synced, bytes: bytes.len() as u32 };
                prop_assert_eq!(decode(&bytes, AT.epoch, AT.offset), Ok(whole));
                let elsewhere = decode(&bytes, AT.epoch, AT.offset + ALIGN_BYTES);
                prop_assert_eq!(elsewhere, Err(Bad::NoFrame));
                let later = decode(&bytes, AT.epoch + 1, AT.offset);
                prop_assert_eq!(later, Err(Bad::NoFrame));
            }
        }
    }

    #[test]
    fn whole_frame_of_an_unknown_kind_is_not_taken_for_a_torn_one() {
        let mut bytes = Vec::new();
        encode(&Frame::Reset { index: 1, term: 1 }, AT, &mut bytes);
        bytes[36] = 99;
        let check = header_check(&bytes, AT.offset);
        bytes[..4].copy_from_slice(&check.to_le_bytes());
        assert_eq!(decode(&bytes, AT.epoch, AT.offset), Err(Bad::Unknown));
    }
}
