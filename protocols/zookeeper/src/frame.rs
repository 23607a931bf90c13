//! Frames: a length and that many bytes. What comes before the first one may be a four-letter word.

use bytes::{Buf, Bytes, BytesMut};

/// The longest frame a client may send, unless configured (`jute.maxbuffer`).
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

/// Bytes of a frame's head: the payload's length.
const HEAD_BYTES: usize = 4;

/// A frame that cannot be: the connection is closed without a word, as ZooKeeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

/// Up to so many bytes of frames are copied out of the buffer they were read into, which then serves
/// for the next read: what is written may keep them for long, on other threads.
const COPY_BYTES_MAX: usize = 16 << 10;

/// How long the next frame's payload is, if its head is there.
fn payload_len(read: &[u8], bytes_max: usize) -> Result<Option<usize>, BadLength> {
    let Some(head) = read.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let len = usize::try_from(i32::from_be_bytes(*head)).map_err(|_| BadLength)?;
    if len > bytes_max {
        return Err(BadLength);
    }
    Ok(Some(len))
}

/// Takes the next frame's payload out of what was read, if it is all there.
pub fn next(read: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, BadLength> {
    let Some(len) = payload_len(read, bytes_max)? else {
        return Ok(None);
    };
    if read.len() < HEAD_BYTES + len {
        return Ok(None);
    }
    read.advance(HEAD_BYTES);
    Ok(Some(read.split_to(len).freeze()))
}

/// Takes all frames that are there as a whole out of what was read, heads included.
pub fn complete(read: &mut BytesMut, bytes_max: usize) -> Result<Bytes, BadLength> {
    let mut end = 0;
    while let Some(len) = payload_len(&read[end..], bytes_max)? {
        let next = end + HEAD_BYTES + len;
        if next > read.len() {
            // Read the rest in one piece; the bound above is what this may take.
            read.reserve(next - read.len());
            break;
        }
        end = next;
    }
    if end > COPY_BYTES_MAX {
        return Ok(read.split_to(end).freeze());
    }
    let frames = Bytes::copy_from_slice(&read[..end]);
    read.advance(end);
    Ok(frames)
}

/// The payloads of complete frames.
pub fn payloads(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = frames.split_first_chunk::<HEAD_BYTES>()?;
        let len = usize::try_from(i32::from_be_bytes(*head)).ok()?;
        let (payload, rest) = rest.split_at_checked(len)?;
        frames = rest;
        Some(payload)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(bytes: &[u8]) -> Result<Option<Bytes>, BadLength> {
        next(&mut BytesMut::from(bytes), 4)
    }

    #[test]
    fn frames_are_taken_once_they_are_complete() {
        assert_eq!(next_of(b""), Ok(None));
        assert_eq!(next_of(b"\0\0\0"), Ok(None));
        assert_eq!(next_of(b"\0\0\0\x02a"), Ok(None));
        assert_eq!(next_of(b"\0\0\0\x02ab"), Ok(Some(Bytes::from("ab"))));
        assert_eq!(next_of(b"\0\0\0\0"), Ok(Some(Bytes::new())));
    }

    #[test]
    fn lengths_beyond_the_bound_are_refused_at_once() {
        assert_eq!(next_of(b"\0\0\0\x05"), Err(BadLength));
        assert_eq!(next_of(b"\xff\xff\xff\xff"), Err(BadLength));
        assert_eq!(next_of(b"\x7f\xff\xff\xff"), Err(BadLength));
    }

    #[test]
    fn the_rest_stays_for_the_next_time() {
        let mut read = BytesMut::from(&b"\0\0\0\x01a\0\0\0\x01b\0"[..]);
        assert_eq!(next(&mut read, 4), Ok(Some(Bytes::from("a"))));
        assert_eq!(next(&mut read, 4), Ok(Some(Bytes::from("b"))));
        assert_eq!(next(&mut read, 4), Ok(None));
        assert_eq!(&read[..], b"\0");
    }

    #[test]
    fn all_complete_frames_are_taken_at_once() {
        let mut read = BytesMut::from(&b"\0\0\0\x01a\0\0\0\0\0\0\0\x02b"[..]);
        let frames = complete(&mut read, 4).expect("lengths within the bound");
        let found: Vec<&[u8]> = payloads(&frames).collect();
        assert_eq!(found, [&b"a"[..], b""]);
        assert_eq!(&read[..], b"\0\0\0\x02b");
        assert_eq!(complete(&mut read, 4), Ok(Bytes::new()));
        assert_eq!(complete(&mut read, 1), Err(BadLength));
    }

    #[test]
    fn long_frames_are_taken_without_a_copy() {
        let payload = vec![b'x'; COPY_BYTES_MAX];
        let frame = [&(COPY_BYTES_MAX as u32).to_be_bytes()[..], &payload].concat();
        let mut read = BytesMut::from(&frame[..]);
        let place = read.as_ptr();
        let frames = complete(&mut read, COPY_BYTES_MAX).expect("a length within the bound");
        assert_eq!(
            (frames.as_ptr(), payloads(&frames).next()),
            (place, Some(&payload[..]))
        );
    }
}
