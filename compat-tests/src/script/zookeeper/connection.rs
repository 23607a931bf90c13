//! One client connection: frames out, frames in, nothing understood but lengths and headers.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::jute::{Fields, Record};
use super::names::Names;
use super::print::{self, Shape};
use super::requests::{NEXT_XID, Request};

/// The xid of an event.
const EVENT_XID: i32 = -1;

/// A request that has not been answered.
struct Pending {
    xid: i32,
    shape: Shape,
    changes: bool,
}

/// A frame without its length; or, as scripts say it, `closed` by the server, or `nothing` in the time
/// allowed.
pub type Incoming = Result<Vec<u8>, &'static str>;

/// How a read went.
enum Chunk {
    More,
    Closed,
    Nothing,
}

/// A connection and what it waits for.
pub struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
    pending: VecDeque<Pending>,
    /// Bytes that wait for a `flush`, while there is a hold.
    held: Option<Vec<u8>>,
    last_xid: i32,
    last_zxid: i64,
    /// Whether events are printed with the zxid in their header.
    pub shows_event_zxids: bool,
}

impl Connection {
    /// Connects; nothing is said yet.
    pub fn open(port: u16) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            received: Vec::new(),
            pending: VecDeque::new(),
            held: None,
            last_xid: 0,
            last_zxid: 0,
            shows_event_zxids: false,
        })
    }

    /// How many requests have not been answered.
    pub fn unanswered(&self) -> usize {
        self.pending.len()
    }

    /// Keeps what is sent from now on until [`Self::flush`].
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Whether sent bytes are being kept.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Sends in one write what was kept.
    pub fn flush(&mut self) {
        if let Some(bytes) = self.held.take() {
            self.send_bytes(&bytes);
        }
    }

    /// Sends bytes as they are. A connection that the server has closed shows when it is read.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.held {
            Some(held) => held.extend(bytes),
            None => {
                let _ = self.socket.write_all(bytes);
            }
        }
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, payload: &[u8]) {
        let frame = Record::default().buffer(Some(payload)).into_bytes();
        self.send_bytes(&frame);
    }

    /// Sends a request, to be answered later.
    pub fn send(&mut self, request: &Request) {
        let xid = if request.xid == NEXT_XID {
            self.last_xid += 1;
            self.last_xid
        } else {
            request.xid
        };
        let header = Record::default().int(xid).int(request.opcode);
        self.send_frame(&header.raw(&request.body).into_bytes());
        self.pending.push_back(Pending {
            xid,
            shape: request.shape,
            changes: request.changes,
        });
    }

    /// The next frame.
    pub fn receive(&mut self, within: Duration) -> Result<Incoming> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Ok(frame));
            }
            match self.read_chunk(deadline)? {
                Chunk::More => {}
                Chunk::Closed => return Ok(Err("closed")),
                Chunk::Nothing => return Ok(Err("nothing")),
            }
        }
    }

    fn read_chunk(&mut self, deadline: Instant) -> Result<Chunk> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Chunk::Nothing);
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut chunk = [0; 16 << 10];
        Ok(match self.socket.read(&mut chunk) {
            Ok(0) => Chunk::Closed,
            Ok(read) => {
                self.received.extend(&chunk[..read]);
                Chunk::More
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Chunk::Nothing,
                ErrorKind::Interrupted => Chunk::More,
                // A reset closes the connection as well as an orderly end does.
                _ => Chunk::Closed,
            },
        })
    }

    /// Everything up to the end of the connection, or nothing if it does not end.
    pub fn receive_all(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        loop {
            match self.read_chunk(deadline)? {
                Chunk::More => {}
                Chunk::Closed => return Ok(Some(std::mem::take(&mut self.received))),
                Chunk::Nothing => return Ok(None),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.received.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let length = usize::try_from(length).context("a frame of negative length")?;
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.received.drain(..4 + length);
        Ok(Some(payload))
    }

    /// Prints a frame: an event, or the reply to the oldest request without one.
    pub fn show(&mut self, names: &mut Names, frame: &[u8]) -> String {
        let mut fields = Fields(frame);
        let header = (fields.int(), fields.long(), fields.int());
        let (Ok(xid), Ok(zxid), Ok(code)) = header else {
            return format!("no header: {}", frame.escape_ascii());
        };
        if xid == EVENT_XID {
            let mut text = print::event(fields.0);
            if self.shows_event_zxids {
                text += &format!(" {}", names.zxid(zxid));
            }
            if code != 0 {
                text += &format!(" {}", print::error(code));
            }
            return text;
        }
        let Some(pending) = self.pending.pop_front() else {
            let length = fields.0.len();
            return format!("a reply to nothing: xid {xid}, code {code}, {length} bytes");
        };
        let mut text = if code == 0 {
            let body = print::body(names, pending.shape, fields.0);
            // A multi that failed says so inside, and has changed nothing.
            if pending.changes && !body.contains("error ") {
                let space = if body.starts_with('\n') { "" } else { " " };
                format!("{}{space}{body}", names.zxid(zxid))
            } else {
                body
            }
        } else if fields.0.is_empty() {
            print::error(code)
        } else {
            format!(
                "{} with a body: {}",
                print::error(code),
                fields.0.escape_ascii()
            )
        };
        if xid != pending.xid {
            text += &format!(" (xid {xid} in place of {})", pending.xid);
        }
        // What is answered beside the queue carries 0 or -1.
        if zxid > 0 && zxid < self.last_zxid {
            text += " (the zxid went back)";
        }
        self.last_zxid = self.last_zxid.max(zxid);
        text
    }
}
