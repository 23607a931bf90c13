//! Messages in by prost, replies out by themselves, both counted.

use crate::calls::Calls;
use crate::wire::Reply;
use bytes::Buf;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Most unary messages are small, and tonic allocates its buffers at this size for each call.
const BRIEF: (usize, usize) = (256, 32 * 1024);

/// Takes messages `M` and gives replies `R`.
pub struct Wire<M, R> {
    calls: Arc<Calls>,
    buffers: BufferSettings,
    types: PhantomData<fn(M) -> R>,
}

impl<M, R> Wire<M, R> {
    /// For streams.
    pub fn new(calls: Arc<Calls>) -> Self {
        Wire {
            calls,
            buffers: BufferSettings::default(),
            types: PhantomData,
        }
    }

    /// For calls of one message each way.
    pub fn brief(calls: Arc<Calls>) -> Self {
        let (buffer_size, yield_threshold) = BRIEF;
        Wire {
            buffers: BufferSettings::new(buffer_size, yield_threshold),
            ..Wire::new(calls)
        }
    }
}

impl<M, R> Clone for Wire<M, R> {
    fn clone(&self) -> Self {
        Wire {
            calls: self.calls.clone(),
            buffers: self.buffers,
            types: PhantomData,
        }
    }
}

impl<M: prost::Message + Default + 'static, R: Reply> Codec for Wire<M, R> {
    type Encode = R;
    type Decode = M;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl<M, R: Reply> Encoder for Wire<M, R> {
    type Item = R;
    type Error = Status;

    fn encode(&mut self, reply: R, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let size = reply.size();
        out.reserve(size);
        reply.write(out);
        let sent = &self.calls.sent_bytes;
        sent.fetch_add(size as u64, Ordering::Relaxed);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.buffers
    }
}

impl<M: prost::Message + Default, R> Decoder for Wire<M, R> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        let received = &self.calls.received_bytes;
        received.fetch_add(message.remaining() as u64, Ordering::Relaxed);
        match M::decode(message) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.buffers
    }
}
