//! HTTP/2 written by hand, so that its rules can be broken: frames as bytes, header blocks without
//! compression, and sockets that are read only when a trial wants to.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// How a client introduces itself.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window there is.
pub const WINDOW_MAX: u32 = (1 << 31) - 1;
/// What a connection may send before its window is raised.
const WINDOW_DEFAULT: u32 = 65_535;
/// A server that takes no more bytes for so long has stopped reading.
const STALLED: Duration = Duration::from_secs(2);
/// How long a server may take to close a connection that it should close at once.
const CLOSED_WITHIN: Duration = Duration::from_secs(20);

const FORGOTTEN: &str = "its answers are not looked at";

/// Frame types and flags of RFC 9113.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u8 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a trial's frames are short");
    let mut frame = head(length, kind, flags, stream);
    frame.extend_from_slice(payload);
    frame
}

/// The head of a frame whose payload need not follow.
pub fn head(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut head = length.to_be_bytes()[1..].to_vec();
    head.extend([kind, flags]);
    head.extend(stream.to_be_bytes());
    head
}

/// The header block of a gRPC call, with more fields after the usual ones.
pub fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // The static table's `:method: POST` and `:scheme: http`.
    let mut block = vec![0x83, 0x86];
    let usual = [
        (":path", path),
        (":authority", "abuse"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in usual.iter().chain(more) {
        field(name, value, &mut block);
    }
    block
}

/// A field as a literal that enters no table.
pub fn field(name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        length(text.len(), block);
        block.extend_from_slice(text.as_bytes());
    }
}

/// HPACK's integer with a prefix of seven bits.
fn length(mut length: usize, out: &mut Vec<u8>) {
    if length < 0x7f {
        out.push(length as u8);
        return;
    }
    out.push(0x7f);
    length -= 0x7f;
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A gRPC message.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a trial's messages are short");
    let mut message = vec![0];
    message.extend(length.to_be_bytes());
    message.extend_from_slice(bytes);
    message
}

/// What became of bytes that a server need not take.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// It took them all.
    All,
    /// It closed the connection before.
    Closed,
    /// It stopped reading before.
    Stalled,
}

/// A connection.
pub struct Raw {
    read: Option<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Raw {
    /// A connection on which nothing was said.
    ///
    /// # Errors
    /// When the server does not accept it.
    pub async fn connect(port: u16) -> Result<Raw> {
        let connect = TcpStream::connect(("127.0.0.1", port));
        let socket = tokio::time::timeout(CLOSED_WITHIN, connect).await;
        let (read, write) = socket.context("connecting takes too long")??.into_split();
        Ok(Raw {
            read: Some(read),
            write,
        })
    }

    /// One that speaks HTTP/2 and grants the server this much on the connection and each stream.
    ///
    /// # Errors
    /// When the server does not accept it.
    pub async fn http2(port: u16, window: u32) -> Result<Raw> {
        let mut raw = Raw::connect(port).await?;
        let mut hello = PREFACE.to_vec();
        let mut setting = vec![0, INITIAL_WINDOW_SIZE];
        setting.extend(window.to_be_bytes());
        hello.extend(frame(kind::SETTINGS, 0, 0, &setting));
        if let Some(more) = window.checked_sub(WINDOW_DEFAULT).filter(|more| *more > 0) {
            hello.extend(frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
        }
        raw.write.write_all(&hello).await?;
        Ok(raw)
    }

    /// Sends as much as the server takes.
    pub async fn send(&mut self, bytes: &[u8]) -> Sent {
        match tokio::time::timeout(STALLED, self.write.write_all(bytes)).await {
            Ok(Ok(())) => Sent::All,
            Ok(Err(_)) => Sent::Closed,
            Err(_) => Sent::Stalled,
        }
    }

    /// Sends it again and again, and reads nothing.
    pub async fn flood(&mut self, bytes: &[u8], times: usize) -> Sent {
        for _ in 0..times {
            match self.send(bytes).await {
                Sent::All => {}
                stopped @ (Sent::Closed | Sent::Stalled) => return stopped,
            }
        }
        Sent::All
    }

    /// Reads until a call is answered, be it with an error.
    ///
    /// # Errors
    /// When it is not, or the connection ends.
    pub async fn answers(&mut self, stream: u32) -> Result<()> {
        let socket = self.read.as_mut().context(FORGOTTEN)?;
        let read = async {
            loop {
                let mut head = [0; 9];
                socket.read_exact(&mut head).await?;
                let [a, b, c, kind, _, id @ ..] = head;
                let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                socket.read_exact(&mut payload).await?;
                let ends = kind == kind::HEADERS || kind == kind::RST_STREAM;
                if ends && u32::from_be_bytes(id) == stream {
                    return Ok(());
                }
            }
        };
        let answered = tokio::time::timeout(CLOSED_WITHIN, read).await;
        answered.context("no answer")?
    }

    /// Takes everything off the wire from now on, and looks at nothing.
    pub fn read_and_forget(&mut self) {
        if let Some(mut read) = self.read.take() {
            tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        }
    }

    /// Reads until the server closes, and answers what it had to say.
    ///
    /// # Errors
    /// When it does not close.
    pub async fn closes(&mut self) -> Result<Vec<u8>> {
        let socket = self.read.as_mut().context(FORGOTTEN)?;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(CLOSED_WITHIN, socket.read_to_end(&mut answer)).await;
        // A reset closes as well as an end does.
        let _ = end.context("the connection stays open")?;
        Ok(answer)
    }
}
