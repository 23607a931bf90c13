//! HTTP/2's frames: what kinds there are, and how they are told apart.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Error, broken};

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 9;
/// The largest frame we accept: HTTP/2's default, which we do not raise.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// Stream ids are 31 bits.
pub const STREAM_ID_MAX: u32 = (1 << 31) - 1;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY: u8 = 0x20;

pub const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
pub const SETTINGS_ENABLE_PUSH: u16 = 2;
pub const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
pub const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
pub const SETTINGS_MAX_FRAME_SIZE: u16 = 5;

/// What a frame's header says.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Bytes of the payload.
    pub length: usize,
    /// What it is.
    pub kind: u8,
    /// What the kind makes of them.
    pub flags: u8,
    /// The stream it belongs to; 0 is the connection.
    pub stream: u32,
}

impl Header {
    /// Puts the header of a frame before its payload.
    pub fn put(self, out: &mut BytesMut) {
        out.put_uint(self.length as u64, 3);
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_u32(self.stream);
    }
}

/// The next frame, once `inbound` has all of it.
pub fn take(inbound: &mut BytesMut) -> Result<Option<(Header, Bytes)>, Error> {
    let Some(head) = inbound.get(..HEADER_BYTES) else {
        return Ok(None);
    };
    let header = Header {
        length: u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & STREAM_ID_MAX,
    };
    if header.length > PAYLOAD_BYTES_MAX {
        return Err(broken(format!("a frame of {} bytes", header.length)));
    }
    if inbound.len() < HEADER_BYTES + header.length {
        return Ok(None);
    }
    inbound.advance(HEADER_BYTES);
    Ok(Some((header, inbound.split_to(header.length).freeze())))
}

/// A payload without its padding, if it has some.
pub fn unpadded(flags: u8, mut payload: Bytes) -> Result<Bytes, Error> {
    if flags & PADDED != 0 {
        let padding = usize::from(payload.first().copied().unwrap_or(0));
        let end = payload
            .len()
            .checked_sub(padding)
            .filter(|&end| end >= 1)
            .ok_or_else(|| broken("more padding than frame".into()))?;
        payload.truncate(end);
        payload.advance(1);
    }
    Ok(payload)
}

/// The number that a payload begins with.
pub fn read_u32(bytes: &[u8]) -> Result<u32, Error> {
    let four = bytes
        .first_chunk()
        .ok_or_else(|| broken("a short frame".into()))?;
    Ok(u32::from_be_bytes(*four))
}
