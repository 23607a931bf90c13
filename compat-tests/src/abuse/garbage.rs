//! Bytes that are no protocol, and HTTP/2 against its rules.

use anyhow::{Result, ensure};
use rand::RngCore as _;

use super::Scene;
use super::frames::{END_HEADERS, END_STREAM, PREFACE, Raw, Sent, call, field, frame, head, kind};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// What a server may take of something endless before it must have had enough.
const ENDLESS_BYTES_MAX: usize = 16 << 20;
/// Control frames sent in one write, and how many writes.
const FLOOD: (usize, usize) = (1000, 1000);
/// Streams opened in one write, and how many writes: 2^20 in all.
const STREAMS: (u32, u32) = (1 << 10, 1 << 10);
/// Connections that say half of something.
const SILENT: usize = 100;

/// What is neither HTTP nor HTTP/2, and a TLS greeting where there is no TLS, closes the connection.
pub async fn noise(scene: &Scene) -> Result<String> {
    let mut random = vec![0; 1 << 20];
    rand::rng().fill_bytes(&mut random);
    let after_preface = [PREFACE, &random].concat();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let settings = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat();
    let after_settings = [settings.as_slice(), &[0xff; 64]].concat();
    for port in scene.ports() {
        for noise in [
            &random,
            tls,
            b"\0\0\0\x2d\0\0\0\0",
            &after_preface,
            &after_settings,
        ] {
            let mut raw = Raw::connect(port).await?;
            raw.send(noise).await;
            raw.closes().await?;
        }
    }
    Ok(String::new())
}

/// Headers, a path, or a header block without an end: cut off long before memory is.
pub async fn endless(scene: &Scene) -> Result<String> {
    let line = format!("X-Endless: {}\r\n", "x".repeat(1000));
    let opening = frame(kind::HEADERS, 0, 1, &call(STATUS, &[]));
    let mut fields = Vec::new();
    field("x-endless", &"x".repeat(1000), &mut fields);
    let preface = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &opening].concat();
    let endless: [(&[u8], Vec<u8>); 3] = [
        (b"GET / HTTP/1.1\r\n", line.into_bytes()),
        (b"GET /", vec![b'x'; 1000]),
        (&preface, frame(kind::CONTINUATION, 0, 1, &fields)),
    ];
    for port in scene.ports() {
        for (first, again) in &endless {
            let mut raw = Raw::connect(port).await?;
            raw.send(first).await;
            let sent = raw.flood(again, ENDLESS_BYTES_MAX / again.len()).await;
            ensure!(sent != Sent::All, "something endless was taken");
            raw.closes().await?;
        }
    }
    Ok(String::new())
}

/// Frames longer than the limit, on the wrong stream, of the wrong size, in the wrong order.
pub async fn broken(scene: &Scene) -> Result<String> {
    let open = frame(kind::HEADERS, END_HEADERS, 1, &call(WATCH, &[]));
    let broken = [
        head((1 << 24) - 1, kind::DATA, 0, 1),
        head((1 << 24) - 1, kind::SETTINGS, 0, 0),
        frame(kind::SETTINGS, 0, 0, &[0; 5]),
        frame(kind::PING, 0, 0, &[0; 7]),
        frame(kind::PING, 0, 1, &[0; 8]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        frame(kind::HEADERS, END_HEADERS, 2, &call(WATCH, &[])),
        frame(
            kind::HEADERS,
            END_HEADERS,
            3,
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        frame(kind::CONTINUATION, END_HEADERS, 1, &[]),
        frame(kind::DATA, 0, 5, b"on a stream that was never opened"),
    ];
    for port in scene.ports() {
        for frame in &broken {
            let mut raw = Raw::http2(port, 1 << 16).await?;
            raw.send(&open).await;
            raw.send(frame).await;
            raw.closes().await?;
        }
    }
    Ok(String::new())
}

/// A megabyte of metadata in one call: refused, and neither the call nor the connection is worth
/// more than that.
pub async fn metadata(scene: &Scene) -> Result<String> {
    let mut block = call(STATUS, &[]);
    while block.len() < 1 << 20 {
        field("x-metadata", &"x".repeat(1000), &mut block);
    }
    for port in scene.ports() {
        for round in 0..20 {
            let mut raw = Raw::http2(port, 1 << 16).await?;
            let mut parts = block.chunks(16 << 10);
            let first = parts.next().unwrap_or_default();
            let mut frames = frame(kind::HEADERS, END_STREAM, 1, first);
            for part in parts {
                frames.extend(frame(kind::CONTINUATION, 0, 1, part));
            }
            frames.extend(frame(kind::CONTINUATION, END_HEADERS, 1, &[]));
            let sent = raw.send(&frames).await;
            ensure!(sent != Sent::Stalled, "it stopped reading in round {round}");
        }
    }
    Ok(String::new())
}

/// Pings, settings, windows and empty frames, each by the million, their answers never read.
pub async fn control_flood(scene: &Scene) -> Result<String> {
    let (frames, writes) = FLOOD;
    let open = frame(kind::HEADERS, END_HEADERS, 1, &call(WATCH, &[]));
    let floods = [
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::SETTINGS, 0, 0, &[]),
        frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(kind::DATA, 0, 1, &[]),
        frame(0xfe, 0, 0, b"of an unknown type"),
    ];
    let mut told = Vec::new();
    for frame in floods {
        let mut raw = Raw::http2(scene.client_port(), 1 << 16).await?;
        raw.send(&open).await;
        let name = frame[3];
        let sent = raw.flood(&frame.repeat(frames), writes).await;
        told.push(format!("type {name}: {sent:?}"));
    }
    Ok(told.join(", "))
}

/// Each stream costs its sender nothing and a server its work: one that does this is cut off.
pub async fn rapid_reset(scene: &Scene) -> Result<String> {
    let (streams, writes) = STREAMS;
    let mut raw = Raw::http2(scene.client_port(), 1 << 16).await?;
    let block = call(WATCH, &[]);
    let mut sent = Sent::All;
    for write in 0..writes / 8 {
        let mut frames = Vec::new();
        for stream in 0..streams {
            let id = 2 * (write * streams + stream) + 1;
            frames.extend(frame(kind::HEADERS, END_HEADERS, id, &block));
            frames.extend(frame(kind::RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        }
        sent = raw.send(&frames).await;
        if sent != Sent::All {
            break;
        }
    }
    ensure!(sent == Sent::Closed, "it went along: {sent:?}");
    Ok(String::new())
}

/// Streams are opened and left open, far beyond what a connection may have.
pub async fn streams(scene: &Scene) -> Result<String> {
    let (streams, writes) = STREAMS;
    let mut raw = Raw::http2(scene.client_port(), 1 << 16).await?;
    let block = call(WATCH, &[]);
    let mut sent = Sent::All;
    for write in 0..writes {
        let mut frames = Vec::new();
        for stream in 0..streams {
            let id = 2 * (write * streams + stream) + 1;
            frames.extend(frame(kind::HEADERS, END_HEADERS, id, &block));
        }
        sent = raw.send(&frames).await;
        if sent != Sent::All {
            break;
        }
    }
    Ok(format!("{sent:?}"))
}

/// Connections that say half of something and then nothing stay the only ones that wait.
pub async fn silence(scene: &Scene) -> Result<String> {
    let half_head = head(100, kind::HEADERS, 0, 1);
    let half_frame = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &half_head].concat();
    let beginnings: [&[u8]; 5] = [b"", b"P", &PREFACE[..20], b"GET / HT", &half_frame];
    let mut held = Vec::new();
    for port in scene.ports() {
        for beginning in beginnings.iter().cycle().take(SILENT) {
            let mut raw = Raw::connect(port).await?;
            raw.send(beginning).await;
            held.push(raw);
        }
    }
    // One more byte each, as slowly as that.
    for _ in 0..3 {
        for raw in &mut held {
            raw.send(b"x").await;
        }
    }
    Ok(String::new())
}
