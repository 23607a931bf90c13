//! gRPC's messages in HTTP/2's data, and how its calls end.

use bytes::{BufMut, BytesMut};
use prost::Message;

use super::frame::read_u32;
use super::{Error, broken};
use crate::etcd::headers::Answer;

/// Before a message: a compression flag and a length.
pub const PREFIX_BYTES: usize = 5;
/// The largest answer we accept: a million keys with their values fit.
const BYTES_MAX: usize = 1 << 30;

/// Puts a message behind its prefix, which says how long it is.
pub fn put(out: &mut BytesMut, prefix: u32, message: &impl Message) {
    out.put_u8(0);
    out.put_u32(prefix);
    message
        .encode(out)
        .expect("a growing buffer has room for every message");
}

/// The length of the message that `data` begins with, once its prefix is whole.
pub fn length(data: &[u8]) -> Result<Option<usize>, Error> {
    let Some(prefix) = data.get(..PREFIX_BYTES) else {
        return Ok(None);
    };
    if prefix[0] != 0 {
        return Err(broken(
            "a compressed message, which we did not ask for".into(),
        ));
    }
    let bytes = read_u32(&prefix[1..])? as usize;
    if bytes > BYTES_MAX {
        return Err(broken(format!("a message of {bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// What became of a call, as far as headers say.
pub fn outcome(answer: &Answer, ends_stream: bool) -> Result<(), String> {
    match (answer.http_status, answer.grpc_status) {
        (Some(status), _) if status != 200 => Err(format!("HTTP status {status}")),
        (_, Some(0)) => Ok(()),
        (_, Some(code)) => Err(format!("grpc-status {code}: {}", answer.grpc_message)),
        (_, None) if ends_stream => Err("ended without a grpc-status".into()),
        (_, None) => Ok(()),
    }
}
