//! A glance into answers without decoding them: which fields a message has on its top level.
//!
//! The generator checks every answer (a get found its key, a transaction took its branch), and a
//! full decoding would cost more than the rest of its work.

/// A field of a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint: integers, booleans, enums.
    Varint(u64),
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
    /// Fixed-width numbers, which etcd's messages do not use.
    Fixed,
}

/// The fields of `message` in order. Ends early at the first malformed one.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// The bytes of the first field `number`, if there is one.
pub fn bytes_of(message: &[u8], number: u32) -> Option<&[u8]> {
    fields(message).find_map(|(n, value)| match value {
        Value::Bytes(bytes) if n == number => Some(bytes),
        Value::Bytes(_) | Value::Varint(_) | Value::Fixed => None,
    })
}

/// The varint of the first field `number`; 0, protobuf's default, when there is none.
pub fn varint_of(message: &[u8], number: u32) -> u64 {
    fields(message)
        .find_map(|(n, value)| match value {
            Value::Varint(varint) if n == number => Some(varint),
            Value::Bytes(_) | Value::Varint(_) | Value::Fixed => None,
        })
        .unwrap_or(0)
}

/// See [`fields`].
#[derive(Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let bytes = self.varint()?;
                Value::Bytes(self.take(bytes)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((number, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proto::etcdserverpb::{RangeResponse, TxnResponse};
    use proto::mvccpb::KeyValue;

    #[test]
    fn it_sees_what_prost_encodes() {
        let answer = RangeResponse {
            header: Some(proto::etcdserverpb::ResponseHeader {
                revision: 1 << 40,
                ..Default::default()
            }),
            kvs: vec![KeyValue {
                key: "k".into(),
                value: "v".into(),
                ..Default::default()
            }],
            count: 300,
            more: true,
        };
        let bytes = answer.encode_to_vec();
        let kv = bytes_of(&bytes, 2).expect("a key-value");
        assert_eq!(bytes_of(kv, 5), Some(&b"v"[..]));
        assert_eq!(varint_of(&bytes, 4), 300);
        let header = bytes_of(&bytes, 1).expect("a header");
        assert_eq!(varint_of(header, 3), 1 << 40);
        assert_eq!(varint_of(&TxnResponse::default().encode_to_vec(), 2), 0);
    }

    #[test]
    fn garbage_ends_the_walk() {
        for garbage in [&[0xff; 12][..], &[0x12, 0x7f, 1], &[0x0b], &[0x09, 1]] {
            assert_eq!(fields(garbage).count(), 0, "{garbage:?}");
        }
    }
}
