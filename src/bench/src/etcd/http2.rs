//! One client connection of HTTP/2 carrying gRPC calls, without a socket: bytes in, events out.
//!
//! It exists so that the generator costs a fraction of the server it measures: a whole batch of
//! requests becomes one buffer, a whole read becomes events. It knows frames, flow control and
//! gRPC's message framing; it must never know what a message means, nor what time it is.
//! [`Http2::open`] and [`Http2::take_event`] are where to start.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::headers::{Answer, AnswerHeaders, RequestHeaders};
use crate::protocol::Wire;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// gRPC's prefix of a message: a compression flag and a length.
const MESSAGE_PREFIX_BYTES: usize = 5;
/// The largest frame we accept: HTTP/2's default, which we do not raise.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// The largest header block we accept.
const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// The largest answer we accept: a million keys with their values fit.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// The receive window we grant, the protocol's maximum: the generator never holds a server back.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
const WINDOW_BYTES_DEFAULT: u32 = 65_535;
/// Consumed bytes are given back to the peer in portions of this size.
const CREDIT_BYTES: u32 = 1 << 28;
/// Stream ids are 31 bits.
const STREAM_ID_MAX: u32 = (1 << 31) - 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
const SETTINGS_MAX_FRAME_SIZE: u16 = 5;

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

#[derive(Debug, Clone, Copy)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
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
            frame_bytes_max: FRAME_BYTES_MAX,
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
        let length = self.outbound.len() - header_at - FRAME_HEADER_BYTES;
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
        let bytes = MESSAGE_PREFIX_BYTES + message_bytes;
        let prefix = u32::try_from(message_bytes).expect("a message is below 4 GiB");
        let fits = bytes <= self.frame_bytes_max
            && bytes as i64 <= self.send_window.min(stream.send_window)
            && stream.unsent.is_empty();
        if fits {
            stream.send_window -= bytes as i64;
            self.send_window -= bytes as i64;
            let flags = if stream.half_closes { END_STREAM } else { 0 };
            self.frame_header(bytes, DATA, flags, id);
            put_message(&mut self.outbound, prefix, message);
        } else {
            put_message(&mut stream.unsent, prefix, message);
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
            let Some(head) = self.inbound.get(..FRAME_HEADER_BYTES) else {
                return Ok(None);
            };
            let frame = FrameHeader {
                length: u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & STREAM_ID_MAX,
            };
            if frame.length > FRAME_BYTES_MAX {
                return Err(broken(format!("a frame of {} bytes", frame.length)));
            }
            if self.inbound.len() < FRAME_HEADER_BYTES + frame.length {
                return Ok(None);
            }
            self.inbound.advance(FRAME_HEADER_BYTES);
            let payload = self.inbound.split_to(frame.length).freeze();
            self.receive(frame, payload)?;
        }
    }

    fn receive(&mut self, frame: FrameHeader, payload: Bytes) -> Result<(), Error> {
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

    fn receive_data(&mut self, frame: FrameHeader, payload: Bytes) -> Result<(), Error> {
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
            let whole = message_bytes(&stream.partial)?
                .is_some_and(|bytes| stream.partial.len() >= MESSAGE_PREFIX_BYTES + bytes);
            data = if whole {
                std::mem::take(&mut stream.partial).freeze()
            } else {
                Bytes::new()
            };
        }
        while let Some(bytes) = message_bytes(&data)? {
            let Some(rest) = (data.len() - MESSAGE_PREFIX_BYTES).checked_sub(bytes) else {
                break;
            };
            data.advance(MESSAGE_PREFIX_BYTES);
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
        let outcome = outcome(answer, open.ends_stream);
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
        if self.frame_bytes_max < FRAME_BYTES_MAX {
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

    fn frame_header(&mut self, length: usize, kind: u8, flags: u8, id: u32) {
        self.outbound.put_uint(length as u64, 3);
        self.outbound.put_u8(kind);
        self.outbound.put_u8(flags);
        self.outbound.put_u32(id);
    }
}

fn put_message(out: &mut BytesMut, prefix: u32, message: &impl Message) {
    out.put_u8(0);
    out.put_u32(prefix);
    message
        .encode(out)
        .expect("a growing buffer has room for every message");
}

/// The length of the message that `data` begins with, once its prefix is whole.
fn message_bytes(data: &[u8]) -> Result<Option<usize>, Error> {
    let Some(prefix) = data.get(..MESSAGE_PREFIX_BYTES) else {
        return Ok(None);
    };
    if prefix[0] != 0 {
        return Err(broken(
            "a compressed message, which we did not ask for".into(),
        ));
    }
    let bytes = read_u32(&prefix[1..])? as usize;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(broken(format!("a message of {bytes} bytes")));
    }
    Ok(Some(bytes))
}

fn outcome(answer: &Answer, ends_stream: bool) -> Result<(), String> {
    match (answer.http_status, answer.grpc_status) {
        (Some(status), _) if status != 200 => Err(format!("HTTP status {status}")),
        (_, Some(0)) => Ok(()),
        (_, Some(code)) => Err(format!("grpc-status {code}: {}", answer.grpc_message)),
        (_, None) if ends_stream => Err("ended without a grpc-status".into()),
        (_, None) => Ok(()),
    }
}

fn unpadded(flags: u8, mut payload: Bytes) -> Result<Bytes, Error> {
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

fn read_u32(bytes: &[u8]) -> Result<u32, Error> {
    let four = bytes
        .first_chunk()
        .ok_or_else(|| broken("a short frame".into()))?;
    Ok(u32::from_be_bytes(*four))
}

fn broken(what: String) -> Error {
    Error::Protocol(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::etcdserverpb::PutRequest;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        frame.put_uint(payload.len() as u64, 3);
        frame.put_u8(kind);
        frame.put_u8(flags);
        frame.put_u32(stream);
        frame.put_slice(payload);
        frame.to_vec()
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0];
        message.extend((payload.len() as u32).to_be_bytes());
        message.extend(payload);
        message
    }

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut field = vec![0x00, name.len() as u8];
        field.extend(name.bytes());
        field.push(value.len() as u8);
        field.extend(value.bytes());
        field
    }

    fn trailers(stream: u32, status: &str) -> Vec<u8> {
        let block = literal("grpc-status", status);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    }

    /// A connection that has opened streams 1, 3, 5… with tags 0, 1, 2…
    fn connection(streams: u32) -> Http2 {
        let mut http2 = Http2::new(RequestHeaders::new("h", None));
        for tag in 0..streams {
            http2
                .open(tag, "/p", &PutRequest::default(), Calling::Unary)
                .expect("ids are left");
        }
        http2.outbound_mut().clear();
        http2
    }

    fn events(http2: &mut Http2) -> Result<Vec<Event>, Error> {
        std::iter::from_fn(|| http2.take_event().transpose()).collect()
    }

    fn feed(http2: &mut Http2, bytes: &[u8]) -> Result<Vec<Event>, Error> {
        http2.inbound_mut().extend_from_slice(bytes);
        events(http2)
    }

    /// The frames (kind, flags, stream, length) that wait to be written.
    fn written(http2: &mut Http2) -> Vec<(u8, u8, u32, usize)> {
        let mut out = http2.outbound_mut().split();
        let mut frames = Vec::new();
        while out.has_remaining() {
            let length = out.get_uint(3) as usize;
            frames.push((out.get_u8(), out.get_u8(), out.get_u32(), length));
            out.advance(length);
        }
        frames
    }

    /// Settings, two answers on one stream split over frames and with padding, trailers split by
    /// a CONTINUATION, a failure and a reset.
    fn session() -> Vec<u8> {
        let mut bytes = frame(SETTINGS, 0, 0, &[]);
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &[0x88]));
        let mut data = message(b"first");
        data.extend(message(b"second"));
        bytes.extend(frame(DATA, 0, 1, &data[..3]));
        let mut padded = vec![2];
        padded.extend(&data[3..12]);
        padded.extend([0, 0]);
        bytes.extend(frame(DATA, PADDED, 1, &padded));
        bytes.extend(frame(DATA, 0, 1, &data[12..]));
        let block = literal("grpc-status", "0");
        bytes.extend(frame(HEADERS, END_STREAM, 1, &block[..4]));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &block[4..]));
        let mut refusal = literal("grpc-status", "8");
        refusal.extend(literal("grpc-message", "too%20many"));
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 3, &refusal));
        bytes.extend(frame(RST_STREAM, 0, 5, &7u32.to_be_bytes()));
        bytes
    }

    fn session_events() -> Vec<Event> {
        let message = |payload: &'static [u8]| Event::Message {
            tag: 0,
            payload: Bytes::from_static(payload),
        };
        let end = |tag, outcome: Result<(), &str>| Event::End {
            tag,
            outcome: outcome.map_err(str::to_owned),
        };
        vec![
            message(b"first"),
            message(b"second"),
            end(0, Ok(())),
            end(1, Err("grpc-status 8: too many")),
            end(2, Err("stream reset with code 7")),
        ]
    }

    proptest! {
        /// A socket cuts the stream wherever it likes.
        #[test]
        fn events_do_not_depend_on_how_reads_cut_the_stream(cuts in prop::collection::vec(1usize..20, 0..40)) {
            let mut http2 = connection(3);
            let bytes = session();
            let mut rest = &bytes[..];
            let mut seen = Vec::new();
            for cut in cuts {
                let (read, behind) = rest.split_at(cut.min(rest.len()));
                seen.extend(feed(&mut http2, read).expect("a valid session"));
                rest = behind;
            }
            seen.extend(feed(&mut http2, rest).expect("a valid session"));
            prop_assert_eq!(seen, session_events());
            prop_assert!(http2.greeted());
        }

        /// Whatever listens on the other side, the generator reports it instead of dying.
        #[test]
        fn garbage_is_an_error_or_nothing(
            kind in 0u8..12, flags: u8, stream in 0u32..8,
            payload in prop::collection::vec(any::<u8>(), 0..64), tail: Vec<u8>
        ) {
            let mut bytes = frame(kind, flags, stream, &payload);
            bytes.extend(tail);
            // An error is as good as silence: only a panic fails.
            feed(&mut connection(3), &bytes).ok();
        }
    }

    #[test]
    fn a_message_beyond_the_window_waits_for_it() {
        let mut http2 = connection(0);
        let request = PutRequest {
            value: vec![7; 100_000].into(),
            ..Default::default()
        };
        http2
            .open(0, "/p", &request, Calling::Unary)
            .expect("ids are left");
        let data_of = |frames: &[(u8, u8, u32, usize)]| -> usize {
            let data = frames.iter().filter(|frame| frame.0 == DATA);
            data.map(|frame| frame.3).sum()
        };
        let first = written(&mut http2);
        assert_eq!(data_of(&first), WINDOW_BYTES_DEFAULT as usize);
        assert!(first.iter().all(|frame| frame.0 != DATA || frame.1 == 0));
        let more = 1_000_000u32.to_be_bytes();
        feed(&mut http2, &frame(WINDOW_UPDATE, 0, 0, &more)).expect("valid");
        assert_eq!(
            written(&mut http2),
            [],
            "the stream's own window is still used up"
        );
        feed(&mut http2, &frame(WINDOW_UPDATE, 0, 1, &more)).expect("valid");
        let rest = written(&mut http2);
        let whole = request.encoded_len() + MESSAGE_PREFIX_BYTES;
        assert_eq!(data_of(&first) + data_of(&rest), whole);
        assert_eq!(rest.last().map(|frame| frame.1), Some(END_STREAM));
    }

    #[test]
    fn pings_and_settings_are_acknowledged_once() {
        let mut http2 = connection(0);
        let mut bytes = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
        bytes.extend(frame(SETTINGS, ACK, 0, &[]));
        bytes.extend(frame(PING, 0, 0, &[1; 8]));
        bytes.extend(frame(PING, ACK, 0, &[1; 8]));
        feed(&mut http2, &bytes).expect("valid");
        assert_eq!(
            written(&mut http2),
            [(SETTINGS, ACK, 0, 0), (PING, ACK, 0, 8)]
        );
        assert!(http2.may_open());
        http2
            .open(0, "/p", &PutRequest::default(), Calling::Unary)
            .expect("ids are left");
        assert!(!http2.may_open(), "the server allows one stream");
        feed(&mut http2, &trailers(1, "0")).expect("valid");
        assert!(http2.may_open());
    }

    #[test]
    fn broken_rules_end_the_connection() {
        let mut huge = message(b"");
        huge[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        let compressed = [1, 0, 0, 0, 0];
        for bytes in [
            frame(DATA, 0, 1, &huge),
            frame(DATA, 0, 1, &compressed),
            frame(DATA, PADDED, 1, &[9, 0]),
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            [frame(HEADERS, 0, 1, &[]), frame(PING, 0, 0, &[0; 8])].concat(),
            frame(GOAWAY, 0, 0, &[0; 8]),
            vec![0xff; FRAME_HEADER_BYTES],
        ] {
            let got = feed(&mut connection(1), &bytes);
            assert!(got.is_err(), "{bytes:?}: {got:?}");
        }
    }
}
