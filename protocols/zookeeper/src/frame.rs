//! Frames: a length and that many bytes. What comes before the first one may be a four-letter word.

use bytes::{Buf, Bytes, BytesMut};

/// The longest frame a client may send, unless configured (`jute.maxbuffer`).
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

/// A frame that cannot be: the connection is closed without a word, as ZooKeeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

/// Takes the next complete frame's payload out of what was read, if it is all there.
pub fn next(read: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, BadLength> {
    let Some(head) = read.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = usize::try_from(i32::from_be_bytes(*head)).map_err(|_| BadLength)?;
    if len > bytes_max {
        return Err(BadLength);
    }
    if read.len() < 4 + len {
        // Read the rest in one piece; the bound above is what this may take.
        read.reserve(4 + len - read.len());
        return Ok(None);
    }
    read.advance(4);
    Ok(Some(read.split_to(len).freeze()))
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
}
