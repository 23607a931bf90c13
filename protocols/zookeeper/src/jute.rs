//! Jute, ZooKeeper's serialization: big-endian integers, and lengths before what is long, where -1
//! stands for null. The reading side borrows from the frame; the writing side appends to a buffer.
//! A length is believed only as far as the frame reaches, so nothing is allocated on its word.

use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::combinator::map;
use nom::error::ErrorKind;
use nom::number::complete::{be_i32, be_i64, u8 as byte};

/// The rest of the input and what was read from its front.
pub type Parsed<'a, T> = IResult<&'a [u8], T>;

/// What bytes that are no UTF-8 are read as. Java reads each as this character, which no path may
/// contain and no scheme has.
const NOT_TEXT: &str = "\u{fffd}";

/// A 32-bit integer.
pub fn int(input: &[u8]) -> Parsed<'_, i32> {
    be_i32(input)
}

/// A 64-bit integer.
pub fn long(input: &[u8]) -> Parsed<'_, i64> {
    be_i64(input)
}

/// A truth value: a byte, anything but 0 being true.
pub fn boolean(input: &[u8]) -> Parsed<'_, bool> {
    map(byte, |byte| byte != 0).parse(input)
}

/// Bytes, or null.
pub fn buffer(input: &[u8]) -> Parsed<'_, Option<&[u8]>> {
    let (rest, len) = int(input)?;
    if len == -1 {
        return Ok((rest, None));
    }
    let len = usize::try_from(len).map_err(|_| malformed(input))?;
    map(take(len), Some).parse(rest)
}

/// Text, or null.
pub fn maybe_text(input: &[u8]) -> Parsed<'_, Option<&str>> {
    map(buffer, |bytes| {
        bytes.map(|bytes| std::str::from_utf8(bytes).unwrap_or(NOT_TEXT))
    })
    .parse(input)
}

/// Text where null makes no sense.
pub fn text(input: &[u8]) -> Parsed<'_, &str> {
    let (rest, text) = maybe_text(input)?;
    Ok((rest, text.ok_or_else(|| malformed(input))?))
}

/// Several of a kind; null is none.
pub fn vector<'a, T>(
    input: &'a [u8],
    item: impl Fn(&'a [u8]) -> Parsed<'a, T>,
) -> Parsed<'a, Vec<T>> {
    let (mut rest, count) = int(input)?;
    let mut items = Vec::new();
    for _ in 0..count {
        let (after, next) = item(rest)?;
        items.push(next);
        rest = after;
    }
    Ok((rest, items))
}

/// The error of input that is not what it should be.
pub fn malformed(input: &[u8]) -> nom::Err<nom::error::Error<&[u8]>> {
    nom::Err::Error(nom::error::Error::new(input, ErrorKind::Verify))
}

/// Appends jute to a buffer.
pub trait Write {
    /// A 32-bit integer.
    fn int(&mut self, value: i32);
    /// A 64-bit integer.
    fn long(&mut self, value: i64);
    /// A truth value.
    fn boolean(&mut self, value: bool);
    /// Bytes, or null.
    fn buffer(&mut self, value: Option<&[u8]>);
    /// Text.
    fn text(&mut self, value: &str) {
        self.buffer(Some(value.as_bytes()));
    }
    /// The number of items of a vector, which the caller appends after it.
    fn count(&mut self, count: usize) {
        self.int(length(count));
    }
}

impl Write for Vec<u8> {
    fn int(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn long(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn boolean(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.int(-1),
            Some(bytes) => {
                self.int(length(bytes.len()));
                self.extend_from_slice(bytes);
            }
        }
    }
}

/// A length on the wire.
pub fn length(len: usize) -> i32 {
    i32::try_from(len).expect("what is kept in memory as one value is shorter than 2 GiB")
}
