//! The connection against bytes that a server might send.

use super::frame::{HEADER_BYTES, PADDED};
use super::message::PREFIX_BYTES;
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
    let whole = request.encoded_len() + PREFIX_BYTES;
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
        vec![0xff; HEADER_BYTES],
    ] {
        let got = feed(&mut connection(1), &bytes);
        assert!(got.is_err(), "{bytes:?}: {got:?}");
    }
}
