//! How commands become bytes for the log: CBOR with numbered fields, so that a newer member can add
//! fields and an older one still reads what it knows.

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
