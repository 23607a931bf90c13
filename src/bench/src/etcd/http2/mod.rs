//! One client connection of HTTP/2 carrying gRPC calls, without a socket: bytes in, events out.
//!
//! It exists so that the generator costs a fraction of the server it measures: a whole batch of
//! requests becomes one buffer, a whole read becomes events. It knows flow control, [`frame`]s and
//! gRPC's [`message`]s; it must never know what a message means, nor what time it is.
//! [`Http2::open`] and [`Http2::take_event`] are where to start.

mod frame;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::headers::{AnswerHeaders, RequestHeaders};
use crate::protocol::Wire;
use frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, SETTINGS_ENABLE_PUSH, SETTINGS_HEADER_TABLE_SIZE, SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_MAX_FRAME_SIZE, STREAM_ID_MAX, WINDOW_UPDATE,
    read_u32, unpadded,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest header block we accept.
const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// The receive window we grant, the protocol's maximum: the generator never holds a server back.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
const WINDOW_BYTES_DEFAULT: u32 = 65_535;
/// Consumed bytes are given back to the peer in portions of this size.
const CREDIT_BYTES: u32 = 1 << 28;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server broke a rule of HTTP/2 or gRPC.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The server asked us to leave.
    #[error("the server closed the connection (code {code}): {reason}")]
    GoAway {
        /// HTTP/2's error code.
        code: u32,
        /// The debug data.
        reason: String,
    },
    /// All stream ids of the connection are used up.
    #[error("the connection has used all its stream ids")]
    Exhausted,
}

/// What the server did. `tag` is what the caller gave when it opened the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole gRPC message arrived.
    Message {
        /// The caller's own number for the stream.
        tag: u32,
        /// The message, without gRPC's prefix.
        payload: Bytes,
    },
    /// The call ended, well or not; the stream is gone.
    End {
        /// The caller's own number for the stream.
        tag: u32,
        /// In failure, what to count it under.
        outcome: Result<(), String>,
    },
}

/// Whether more messages follow on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calling {
    /// One request, one answer: the stream is half closed at once.
    Unary,
    /// More messages may follow with [`Http2::send`].
    Streaming,
}

#[derive(Debug)]
struct Stream {
    tag: u32,
    send_window: i64,
    /// Framed messages that wait for the peer's window.
    unsent: BytesMut,
    half_closes: bool,
    /// The beginning of a message whose end has not arrived.
    partial: BytesMut,
    consumed: u32,
}

/// The header block that CONTINUATION frames are still to complete.
#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    ends_stream: bool,
    block: BytesMut,
}

/// The state of one connection.
pub struct Http2 {
    inbound: BytesMut,
    outbound: BytesMut,
    request_headers: RequestHeaders,
    answer_headers: AnswerHeaders,
    open_block: Option<OpenBlock>,
    streams: HashMap<u32, Stream>,
    events: VecDeque<Event>,
    next_stream: u32,
    greeted: bool,
    send_window: i64,
    stream_window: i64,
    frame_bytes_max: usize,
    streams_max: usize,
    consumed: u32,
    /// Streams with `unsent` bytes, in order.
    blocked: VecDeque<u32>,
}

impl Wire for Http2 {
    type Event = Event;

    fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        Ok(self.take_event()?)
    }

    fn inbound_mut(&mut self) -> &mut BytesMut {
        &mut self.inbound
    }

    fn outbound_mut(&mut self) -> &mut BytesMut {
        &mut self.outbound
    }

    fn takes_requests(&self) -> bool {
        self.may_open()
    }

    fn keep(&mut self, _: Instant) -> Option<Instant> {
        // A silent connection is kept.
        None
    }

    fn part(&mut self) -> bool {
        false
    }
}

impl Http2 {
    /// A new connection; its preface is already waiting in the outbound buffer.
    pub fn new(request_headers: RequestHeaders) -> Self {
        let mut http2 = Self {
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            request_headers,
            answer_headers: AnswerHeaders::new(),
            open_block: None,
            streams: HashMap::new(),
            events: VecDeque::new(),
            next_stream: 1,
            greeted: false,
            send_window: i64::from(WINDOW_BYTES_DEFAULT),
            stream_window: i64::from(WINDOW_BYTES_DEFAULT),
            frame_bytes_max: frame::PAYLOAD_BYTES_MAX,
            streams_max: usize::MAX,
            consumed: 0,
            blocked: VecDeque::new(),
        };
        http2.outbound.put_slice(PREFACE);
        http2.frame_header(12, SETTINGS, 0, 0);
        http2.outbound.put_u16(SETTINGS_ENABLE_PUSH);
        http2.outbound.put_u32(0);
        http2.outbound.put_u16(SETTINGS_INITIAL_WINDOW_SIZE);
        http2.outbound.put_u32(WINDOW_BYTES);
        http2.window_update(0, WINDOW_BYTES - WINDOW_BYTES_DEFAULT);
        http2
    }

    /// Whether the server's settings are known, so that calls keep to its limits.
    pub fn greeted(&self) -> bool {
        self.greeted
    }

    /// Whether the server lets us open one more stream.
    pub fn may_open(&self) -> bool {
        self.streams.len() < self.streams_max
    }

    /// Starts a call of `path` with its first message. Returns the stream for [`Http2::send`].
    pub fn open(
        &mut self,
        tag: u32,
        path: &str,
        message: &impl Message,
        calling: Calling,
    ) -> Result<u32, Error> {
        let id = self.next_stream;
        if id > STREAM_ID_MAX {
            return Err(Error::Exhausted);
        }
        self.next_stream += 2;
        let header_at = self.outbound.len();
        self.frame_header(0, HEADERS, END_HEADERS, id);
        self.request_headers.encode(path, &mut self.outbound);
        let length = self.outbound.len() - header_at - frame::HEADER_BYTES;
        let length = u32::try_from(length).expect("our header blocks are small");
        self.outbound[header_at..header_at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        let stream = Stream {
            tag,
            send_window: self.stream_window,
            unsent: BytesMut::new(),
            half_closes: calling == Calling::Unary,
            partial: BytesMut::new(),
            consumed: 0,
        };
        self.streams.insert(id, stream);
        self.send(id, message);
        Ok(id)
    }

    /// Sends one more message on a stream. Does nothing when the server has ended it meanwhile.
    pub fn send(&mut self, id: u32, message: &impl Message) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let message_bytes = message.encoded_len();
        let bytes = message::PREFIX_BYTES + message_bytes;
        let prefix = u32::try_from(message_bytes).expect("a message is below 4 GiB");
        let fits = bytes <= self.frame_bytes_max
            && bytes as i64 <= self.send_window.min(stream.send_window)
            && stream.unsent.is_empty();
        if fits {
            stream.send_window -= bytes as i64;
            self.send_window -= bytes as i64;
            let flags = if stream.half_closes { END_STREAM } else { 0 };
            self.frame_header(bytes, DATA, flags, id);
            message::put(&mut self.outbound, prefix, message);
        } else {
            message::put(&mut stream.unsent, prefix, message);
            self.blocked.push_back(id);
            self.send_unsent();
        }
    }

    /// The next thing that happened in what has been read so far; none when more must be read.
    pub fn take_event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some((frame, payload)) = frame::take(&mut self.inbound)? else {
                return Ok(None);
            };
            self.receive(frame, payload)?;
        }
    }

    fn receive(&mut self, frame: frame::Header, payload: Bytes) -> Result<(), Error> {
        if self.open_block.is_some() && frame.kind != CONTINUATION {
            return Err(broken("a header block was interrupted".into()));
        }
        match frame.kind {
            DATA => self.receive_data(frame, payload),
            HEADERS => {
                let mut block = unpadded(frame.flags, payload)?;
                if frame.flags & PRIORITY != 0 {
                    if block.len() < 5 {
                        return Err(broken("a short HEADERS frame".into()));
                    }
                    block.advance(5);
                }
                let open = OpenBlock {
                    stream: frame.stream,
                    ends_stream: frame.flags & END_STREAM != 0,
                    block: BytesMut::new(),
                };
                self.receive_block(open, frame.flags, &block)
            }
            CONTINUATION => match self.open_block.take() {
                Some(open) if open.stream == frame.stream => {
                    self.receive_block(open, frame.flags, &payload)
                }
                Some(_) | None => Err(broken("an unexpected CONTINUATION frame".into())),
            },
            RST_STREAM => {
                let code = read_u32(&payload)?;
                self.end(frame.stream, Err(format!("stream reset with code {code}")));
                Ok(())
            }
            SETTINGS => self.receive_settings(frame.flags, payload),
            PING => {
                if frame.flags & ACK == 0 {
                    self.frame_header(payload.len(), PING, ACK, 0);
                    self.outbound.put_slice(&payload);
                }
                Ok(())
            }
            GOAWAY => {
                let code = payload.get(4..8).map_or(Ok(0), read_u32)?;
                let reason = payload.get(8..).unwrap_or_default();
                Err(Error::GoAway {
                    code,
                    reason: String::from_utf8_lossy(reason).into_owned(),
                })
            }
            WINDOW_UPDATE => self.receive_window_update(frame.stream, &payload),
            // HTTP/2: frames of unknown kinds are ignored. PRIORITY is of no use to a client,
            // and PUSH_PROMISE is forbidden by our settings.
            _ => Ok(()),
        }
    }

    fn receive_data(&mut self, frame: frame::Header, payload: Bytes) -> Result<(), Error> {
        self.consumed += frame.length as u32;
        if self.consumed >= CREDIT_BYTES {
            let credit = std::mem::take(&mut self.consumed);
            self.window_update(0, credit);
        }
        let mut data = unpadded(frame.flags, payload)?;
        let Some(stream) = self.streams.get_mut(&frame.stream) else {
            return Ok(());
        };
        stream.consumed += frame.length as u32;
        if !stream.partial.is_empty() {
            stream.partial.extend_from_slice(&data);
            let whole = message::length(&stream.partial)?
                .is_some_and(|bytes| stream.partial.len() >= message::PREFIX_BYTES + bytes);
            data = if whole {
                std::mem::take(&mut stream.partial).freeze()
            } else {
                Bytes::new()
            };
        }
        while let Some(bytes) = message::length(&data)? {
            let Some(rest) = (data.len() - message::PREFIX_BYTES).checked_sub(bytes) else {
                break;
            };
            data.advance(message::PREFIX_BYTES);
            let payload = data.split_to(data.len() - rest);
            let tag = stream.tag;
            self.events.push_back(Event::Message { tag, payload });
        }
        stream.partial.extend_from_slice(&data);
        let credit =
            (stream.consumed >= CREDIT_BYTES).then(|| std::mem::take(&mut stream.consumed));
        if let Some(credit) = credit {
            self.window_update(frame.stream, credit);
        }
        if frame.flags & END_STREAM != 0 {
            self.end(frame.stream, Err("ended without a grpc-status".into()));
        }
        Ok(())
    }

    fn receive_block(
        &mut self,
        mut open: OpenBlock,
        flags: u8,
        fragment: &Bytes,
    ) -> Result<(), Error> {
        if open.block.len() + fragment.len() > HEADER_BLOCK_BYTES_MAX {
            return Err(broken("a header block above our limit".into()));
        }
        if flags & END_HEADERS == 0 {
            open.block.extend_from_slice(fragment);
            self.open_block = Some(open);
            return Ok(());
        }
        let block: &[u8] = if open.block.is_empty() {
            fragment
        } else {
            open.block.extend_from_slice(fragment);
            &open.block
        };
        let answer = self.answer_headers.decode(block).map_err(Error::Protocol)?;
        let outcome = message::outcome(answer, open.ends_stream);
        if open.ends_stream || outcome.is_err() {
            self.end(open.stream, outcome);
        }
        Ok(())
    }

    fn receive_settings(&mut self, flags: u8, mut payload: Bytes) -> Result<(), Error> {
        if flags & ACK != 0 {
            return Ok(());
        }
        while payload.len() >= 6 {
            let (id, value) = (payload.get_u16(), payload.get_u32());
            match id {
                SETTINGS_HEADER_TABLE_SIZE => self.request_headers.limit_table(value),
                SETTINGS_MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                SETTINGS_INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.stream_window;
                    self.stream_window = i64::from(value);
                    for stream in self.streams.values_mut() {
                        stream.send_window += change;
                    }
                }
                SETTINGS_MAX_FRAME_SIZE => self.frame_bytes_max = value as usize,
                _ => {}
            }
        }
        if self.frame_bytes_max < frame::PAYLOAD_BYTES_MAX {
            return Err(broken("a maximum frame size below the protocol's".into()));
        }
        self.greeted = true;
        self.frame_header(0, SETTINGS, ACK, 0);
        self.send_unsent();
        Ok(())
    }

    fn receive_window_update(&mut self, id: u32, payload: &[u8]) -> Result<(), Error> {
        let credit = i64::from(read_u32(payload)? & STREAM_ID_MAX);
        if id == 0 {
            self.send_window += credit;
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.send_window += credit;
        }
        self.send_unsent();
        Ok(())
    }

    /// Sends what waited for a window, stream by stream, as far as the windows go now.
    fn send_unsent(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else {
                return;
            };
            while let Some((portion, last)) = self.take_unsent(id) {
                self.frame_header(portion.len(), DATA, if last { END_STREAM } else { 0 }, id);
                self.outbound.put_slice(&portion);
            }
            if self.streams.get(&id).is_some_and(|s| !s.unsent.is_empty()) {
                self.blocked.push_back(id);
            }
        }
    }

    /// The next frame's worth of a stream's unsent bytes, and whether it half closes the stream.
    fn take_unsent(&mut self, id: u32) -> Option<(BytesMut, bool)> {
        let stream = self.streams.get_mut(&id)?;
        let window = self.send_window.min(stream.send_window).max(0) as usize;
        let bytes = stream.unsent.len().min(window).min(self.frame_bytes_max);
        if bytes == 0 {
            return None;
        }
        stream.send_window -= bytes as i64;
        self.send_window -= bytes as i64;
        let portion = stream.unsent.split_to(bytes);
        Some((portion, stream.half_closes && stream.unsent.is_empty()))
    }

    fn end(&mut self, id: u32, outcome: Result<(), String>) {
        if let Some(stream) = self.streams.remove(&id) {
            let tag = stream.tag;
            self.events.push_back(Event::End { tag, outcome });
        }
    }

    fn window_update(&mut self, id: u32, credit: u32) {
        self.frame_header(4, WINDOW_UPDATE, 0, id);
        self.outbound.put_u32(credit);
    }

    fn frame_header(&mut self, length: usize, kind: u8, flags: u8, stream: u32) {
        frame::Header {
            length,
            kind,
            flags,
            stream,
        }
        .put(&mut self.outbound);
    }
}

fn broken(what: String) -> Error {
    Error::Protocol(what)
}
