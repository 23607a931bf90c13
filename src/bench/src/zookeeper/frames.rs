//! One session's connection without a socket: requests become frames, frames answers and events.
//!
//! It knows frames, headers and the handshake, and renews its session while nothing else does; it
//! must never know what an answer means.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::protocol::Wire;

/// The largest answer we accept: the names of a million children fit.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// How long a session is to outlive silence: longer than other servers' slices take.
const SESSION_TIMEOUT_MS: i32 = 30_000;
const PASSWORD_BYTES: usize = 16;
/// A Stat, and where in it the number of children is.
pub const STAT_BYTES: usize = 68;
const STAT_CHILDREN_AT: usize = 56;
/// The bits of all permissions.
const EVERYTHING: i32 = 31;

const EVENT_XID: i32 = -1;
const PING_XID: i32 = -2;

/// What is asked for.
pub mod opcode {
    /// Makes a node.
    pub const CREATE: i32 = 1;
    /// Deletes a node.
    pub const DELETE: i32 = 2;
    /// Stat of a node.
    pub const EXISTS: i32 = 3;
    /// Data and Stat of a node.
    pub const GET_DATA: i32 = 4;
    /// Sets a node's data.
    pub const SET_DATA: i32 = 5;
    /// Names of children.
    pub const GET_CHILDREN: i32 = 8;
    /// Awaits that a member is up to date.
    pub const SYNC: i32 = 9;
    /// Renews the session.
    pub const PING: i32 = 11;
    /// Checks a node's version.
    pub const CHECK: i32 = 13;
    /// Several of the others at once.
    pub const MULTI: i32 = 14;
    /// Adds a watch that stays.
    pub const ADD_WATCH: i32 = 106;
    /// Ends the session.
    pub const CLOSE_SESSION: i32 = -11;
}

/// What goes wrong.
pub mod error {
    /// There is no such node.
    pub const NO_NODE: i32 = -101;
    /// There is such a node.
    pub const NODE_EXISTS: i32 = -110;
}

/// What kind of node a create makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It stays.
    Persistent = 0,
    /// It goes with its session.
    Ephemeral = 1,
}

/// How records are written.
pub trait Put {
    /// Bytes behind their length; strings travel alike.
    fn string(&mut self, bytes: &[u8]);
    /// One byte.
    fn boolean(&mut self, value: bool);
}

impl Put for BytesMut {
    fn string(&mut self, bytes: &[u8]) {
        self.put_i32(i32::try_from(bytes.len()).expect("our values are below 2 GiB"));
        self.put_slice(bytes);
    }

    fn boolean(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }
}

/// The record of a create, with everything allowed to everyone.
pub fn create(out: &mut BytesMut, path: &[u8], data: &[u8], kind: Kind) {
    out.string(path);
    out.string(data);
    out.put_i32(1);
    out.put_i32(EVERYTHING);
    out.string(b"world");
    out.string(b"anyone");
    out.put_i32(kind as i32);
}

/// How many children a Stat says there are.
pub fn children_of_stat(stat: &[u8]) -> Option<u64> {
    let bytes = stat.get(STAT_CHILDREN_AT..STAT_CHILDREN_AT + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?).into())
}

/// What a server says of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// How long it outlives silence.
    pub timeout: Duration,
    /// Its number.
    pub session: i64,
    /// What it is resumed with.
    pub password: [u8; PASSWORD_BYTES],
}

impl Welcome {
    fn parse(mut frame: Bytes) -> anyhow::Result<Self> {
        let mut parse = || {
            let _version = frame.try_get_i32()?;
            let timeout_ms = frame.try_get_i32()?;
            let session = frame.try_get_i64()?;
            let _password_length = frame.try_get_i32()?;
            let mut password = [0; PASSWORD_BYTES];
            frame.try_copy_to_slice(&mut password)?;
            Ok::<_, bytes::TryGetError>((timeout_ms, session, password))
        };
        let (timeout_ms, session, password) = parse().context("a handshake too short")?;
        ensure!(session != 0, "the session is over");
        let timeout = Duration::from_millis(timeout_ms.max(0).unsigned_abs().into());
        Ok(Self {
            timeout,
            session,
            password,
        })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request's number.
    pub xid: i32,
    /// The state that the server had reached.
    pub zxid: i64,
    /// 0, or what went wrong.
    pub error: i32,
    /// What was asked for.
    pub body: Bytes,
}

impl Reply {
    /// Fails unless the request went well.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.error == 0, "error {}", self.error);
        Ok(())
    }
}

/// What the server did.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It answered.
    Reply(Reply),
    /// A watch fired: with this type, then the path.
    Fired(i32),
}

/// The state of one connection.
pub struct Frames {
    inbound: BytesMut,
    outbound: BytesMut,
    xid: i32,
    welcome: Option<Welcome>,
    /// Whether something was asked since the session was last seen to.
    asked: bool,
    ping_at: Option<Instant>,
}

impl Frames {
    /// A new connection, to open a session or to resume one; the handshake is already waiting in
    /// the outbound buffer.
    pub fn new(resumed: Option<&Welcome>) -> Self {
        let mut frames = Self {
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            xid: 0,
            welcome: None,
            asked: false,
            ping_at: None,
        };
        let out = &mut frames.outbound;
        framed(out, |out| {
            out.put_i32(0); // the version
            out.put_i64(0); // the newest zxid we have seen
            out.put_i32(SESSION_TIMEOUT_MS);
            out.put_i64(resumed.map_or(0, |welcome| welcome.session));
            out.string(&resumed.map_or([0; PASSWORD_BYTES], |welcome| welcome.password));
            out.boolean(false); // a server that cannot write will not do
        });
        frames
    }

    /// The session, once the server has said so.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// Sends a request and returns its number.
    pub fn ask(&mut self, opcode: i32, body: impl FnOnce(&mut BytesMut)) -> i32 {
        // Numbers below 0 have meanings of their own.
        self.xid = self.xid.wrapping_add(1) & i32::MAX;
        self.asked = true;
        self.send(self.xid, opcode, body);
        self.xid
    }

    fn send(&mut self, xid: i32, opcode: i32, body: impl FnOnce(&mut BytesMut)) {
        framed(&mut self.outbound, |out| {
            out.put_i32(xid);
            out.put_i32(opcode);
            body(out);
        });
    }

    fn take_frame(&mut self) -> anyhow::Result<Option<Bytes>> {
        let Some(head) = self.inbound.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*head);
        let length = usize::try_from(length).context("a frame of negative length")?;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        if self.inbound.len() < 4 + length {
            self.inbound.reserve(4 + length - self.inbound.len());
            return Ok(None);
        }
        self.inbound.advance(4);
        Ok(Some(self.inbound.split_to(length).freeze()))
    }
}

fn framed(out: &mut BytesMut, payload: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_i32(0);
    payload(out);
    let length = i32::try_from(out.len() - at - 4).expect("our requests are below 2 GiB");
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

impl Wire for Frames {
    type Event = Event;

    fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        while let Some(mut frame) = self.take_frame()? {
            if self.welcome.is_none() {
                self.welcome = Some(Welcome::parse(frame)?);
                continue;
            }
            let mut header = || {
                let xid = frame.try_get_i32()?;
                let zxid = frame.try_get_i64()?;
                Ok::<_, bytes::TryGetError>((xid, zxid, frame.try_get_i32()?))
            };
            let (xid, zxid, error) = header().context("a header too short")?;
            match xid {
                PING_XID => {}
                EVENT_XID => {
                    let kind = frame.try_get_i32().context("an event too short")?;
                    return Ok(Some(Event::Fired(kind)));
                }
                xid => {
                    return Ok(Some(Event::Reply(Reply {
                        xid,
                        zxid,
                        error,
                        body: frame,
                    })));
                }
            }
        }
        Ok(None)
    }

    fn inbound_mut(&mut self) -> &mut BytesMut {
        &mut self.inbound
    }

    fn outbound_mut(&mut self) -> &mut BytesMut {
        &mut self.outbound
    }

    fn takes_requests(&self) -> bool {
        true
    }

    fn keep(&mut self, now: Instant) -> Option<Instant> {
        let every = self.welcome?.timeout / 3;
        let asked = std::mem::take(&mut self.asked);
        let ping_at = self.ping_at.filter(|_| !asked).unwrap_or(now + every);
        if now < ping_at {
            self.ping_at = Some(ping_at);
        } else {
            self.send(PING_XID, opcode::PING, |_| {});
            self.ping_at = Some(now + every);
        }
        self.ping_at
    }

    fn part(&mut self) -> bool {
        self.ask(opcode::CLOSE_SESSION, |_| {});
        true
    }
}

/// The error of the first step of a multi that was not done.
pub fn check_steps(mut body: &[u8]) -> anyhow::Result<()> {
    let kind = body.try_get_i32().context("a multi without steps")?;
    if kind == -1 {
        let _done = body.try_get_u8().context("a step too short")?;
        let mut code = body.try_get_i32().context("a step too short")?;
        // Steps before the one that fails say 0.
        while code == 0 && body.len() >= 13 {
            body.advance(4 + 4 + 1);
            code = body.get_i32();
        }
        bail!("error {code} in a multi");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcomed() -> Frames {
        let mut frames = Frames::new(None);
        frames.outbound.clear();
        framed(&mut frames.inbound, |out| {
            out.put_i32(0);
            out.put_i32(9_000);
            out.put_i64(7);
            out.string(&[1; PASSWORD_BYTES]);
            out.boolean(false);
        });
        assert_eq!(frames.next_event().expect("a handshake"), None);
        frames
    }

    #[test]
    fn handshakes_are_taken_apart() {
        let frames = welcomed();
        let welcome = frames.welcome().expect("a session");
        assert_eq!((welcome.session, welcome.password), (7, [1; 16]));
        assert_eq!(welcome.timeout, Duration::from_secs(9));
    }

    #[test]
    fn frames_may_come_in_pieces() {
        let mut frames = welcomed();
        let mut bytes = BytesMut::new();
        framed(&mut bytes, |out| {
            out.put_i32(3);
            out.put_i64(5);
            out.put_i32(0);
            out.put_slice(b"body");
        });
        let (last, before) = bytes.split_last().expect("bytes");
        for byte in before {
            frames.inbound.put_u8(*byte);
            assert_eq!(frames.next_event().expect("no end"), None);
        }
        frames.inbound.put_u8(*last);
        let reply = Reply {
            xid: 3,
            zxid: 5,
            error: 0,
            body: Bytes::from_static(b"body"),
        };
        let event = frames.next_event().expect("a reply");
        assert_eq!(event, Some(Event::Reply(reply)));
    }

    /// Sessions must live while others are measured, and pings must not disturb busy ones.
    #[test]
    fn only_silent_sessions_ping() {
        let mut frames = welcomed();
        let start = Instant::now();
        let third = Duration::from_secs(3);
        assert_eq!(frames.keep(start), Some(start + third));
        assert!(frames.outbound.is_empty());
        frames.ask(opcode::SYNC, |_| {});
        frames.outbound.clear();
        let at = start + third;
        assert_eq!(frames.keep(at), Some(at + third));
        assert!(frames.outbound.is_empty());
        assert_eq!(frames.keep(at + third), Some(at + third * 2));
        assert_eq!(frames.outbound.len(), 12);
    }

    #[test]
    fn an_ended_session_and_garbage_are_errors() {
        let mut frames = Frames::new(None);
        framed(&mut frames.inbound, |out| out.put_slice(&[0; 36]));
        assert!(frames.next_event().is_err());
        let mut frames = welcomed();
        frames.inbound.put_i32(-5);
        assert!(frames.next_event().is_err());
        let mut frames = welcomed();
        framed(&mut frames.inbound, |out| out.put_i32(1));
        assert!(frames.next_event().is_err());
    }

    #[test]
    fn the_error_of_a_multi_is_that_of_the_step_that_failed() {
        let mut body = BytesMut::new();
        for code in [0, -103, -2] {
            body.put_i32(-1);
            body.boolean(false);
            body.put_i32(code);
            body.put_i32(code);
        }
        let error = check_steps(&body).expect_err("it failed");
        assert_eq!(error.to_string(), "error -103 in a multi");
        assert!(check_steps(&13_i32.to_be_bytes()).is_ok());
    }
}
