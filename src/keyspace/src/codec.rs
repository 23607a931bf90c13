//! How commands become bytes for the log: CBOR with numbered fields, so that a newer member can add
//! fields and an older one still reads what it knows.

use crate::command::Command;
use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};

/// Transactions inside transactions that a command may hold. No client protocol lets more through
/// (a gRPC message nests at most 100 deep, and a transaction is two levels of it), and decoding
/// needs stack for each.
pub const NESTING_MAX: usize = 64;

/// CBOR containers around the innermost field of the deepest command allowed: four for each
/// transaction, and some for what surrounds and fills it.
const DEPTH_MAX: usize = 4 * NESTING_MAX + 12;

/// The bytes are not those of a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a command: {0}")]
pub struct Malformed(String);

impl Command {
    /// Appends the command's bytes to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        minicbor::encode(self, out).expect("writing to memory cannot fail");
    }

    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out
    }

    /// Reads back what [`Command::encode`] wrote: all of `bytes`, no more and no less. Takes space
    /// in proportion to `bytes` whatever they hold.
    pub fn decode(bytes: &[u8]) -> Result<Command, Malformed> {
        let malformed = |error: Error| Malformed(error.to_string());
        check_depth(bytes).map_err(malformed)?;
        let mut decoder = Decoder::new(bytes);
        let command = decoder.decode().map_err(malformed)?;
        if decoder.position() < bytes.len() {
            return Err(Malformed("bytes follow its end".to_owned()));
        }
        Ok(command)
    }
}

/// Refuses what would need too much stack to decode. Walks the first item without recursion.
fn check_depth(bytes: &[u8]) -> Result<(), Error> {
    let mut decoder = Decoder::new(bytes);
    // Items still to come in each container that is open.
    let mut open: Vec<u64> = Vec::new();
    loop {
        let inside = match decoder.datatype()? {
            Type::Array => decoder.array()?,
            Type::Bytes => decoder.bytes().map(|_| None)?,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64().map(|_| None)?,
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64().map(|_| None)?,
            Type::String => decoder.str().map(|_| None)?,
            Type::Bool => decoder.bool().map(|_| None)?,
            Type::Null => decoder.null().map(|()| None)?,
            other => return Err(Error::type_mismatch(other)),
        };
        if let Some(items) = inside.filter(|items| *items > 0) {
            open.push(items);
            if open.len() > DEPTH_MAX {
                return Err(Error::message("it is nested too deep"));
            }
            continue;
        }
        loop {
            let Some(items) = open.last_mut() else {
                return Ok(());
            };
            *items -= 1;
            if *items > 0 {
                break;
            }
            open.pop();
        }
    }
}

/// Byte strings as CBOR byte strings.
pub mod bytes {
    use ::bytes::Bytes;
    use minicbor::{Decoder, decode::Error};
    use minicbor::{Encoder, encode::Write};

    /// Writes `value` as one CBOR byte string.
    pub fn encode<C, W: Write>(
        value: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(value)?.ok()
    }

    /// Reads one CBOR byte string.
    pub fn decode<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<Bytes, Error> {
        Ok(Bytes::copy_from_slice(d.bytes()?))
    }
}

/// Optional byte strings: CBOR null or a byte string.
pub mod maybe_bytes {
    use ::bytes::Bytes;
    use minicbor::data::Type;
    use minicbor::{Decoder, decode::Error};
    use minicbor::{Encoder, encode::Write};

    /// Writes null or one byte string.
    pub fn encode<C, W: Write>(
        value: &Option<Bytes>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match value {
            Some(value) => e.bytes(value)?.ok(),
            None => e.null()?.ok(),
        }
    }

    /// Reads null or one byte string.
    pub fn decode<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<Option<Bytes>, Error> {
        if d.datatype()? == Type::Null {
            d.null()?;
            return Ok(None);
        }
        Ok(Some(Bytes::copy_from_slice(d.bytes()?)))
    }
}

/// Optional shared lists: CBOR null or an array.
pub mod maybe_shared {
    use minicbor::data::Type;
    use minicbor::{Decode, Decoder, decode::Error};
    use minicbor::{Encode, Encoder, encode::Write};
    use std::sync::Arc;

    /// Writes null or an array.
    pub fn encode<C, W: Write, T: Encode<C>>(
        value: &Option<Arc<[T]>>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match value {
            Some(value) => value.encode(e, ctx),
            None => e.null()?.ok(),
        }
    }

    /// Reads null or an array.
    pub fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Option<Arc<[T]>>, Error> {
        if d.datatype()? == Type::Null {
            d.null()?;
            return Ok(None);
        }
        let items: Vec<T> = d.decode_with(ctx)?;
        Ok(Some(items.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Op, Put, Txn};

    fn nested(levels: usize) -> Command {
        let mut txn = Txn::unconditional(vec![Op::Put(Put::new("k", "v"))]);
        for _ in 1..levels {
            txn = Txn {
                otherwise: vec![Op::Txn(txn)],
                ..Txn::default()
            };
        }
        Command::Txn(txn)
    }

    /// A log entry made of nothing but opening brackets must not take the stack of who reads it.
    #[test]
    fn nesting_is_bounded() {
        let deepest = nested(NESTING_MAX);
        assert_eq!(Command::decode(&deepest.encode()), Ok(deepest));
        assert!(Command::decode(&nested(NESTING_MAX + 3).encode()).is_err());
        assert!(Command::decode(&[0x81].repeat(1_000_000)).is_err());
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        let bytes = nested(2).encode();
        for end in 0..bytes.len() {
            assert!(Command::decode(&bytes[..end]).is_err());
        }
        assert!(Command::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
