//! One client connection of HTTP/1.1 that is kept alive, without a socket: one request at a time.
//!
//! It knows how answers are told apart; it must never know what they mean.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use httparse::Status;

use crate::protocol::Wire;

/// The largest head of an answer, or line of a chunk, that we accept.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;
/// The largest answer we accept: a list of a million keys with their values fits.
const BODY_BYTES_MAX: usize = 1 << 30;
/// What a chunk ends with.
const CHUNK_END: &[u8] = b"\r\n";

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// GET or PUT.
    pub method: &'static str,
    /// What is asked for, without escapes.
    pub path: &'a [&'a [u8]],
    /// What stands behind the path: nothing, or from the question mark on.
    pub query: &'a str,
    /// A form, encoded; none is no body.
    pub form: Option<&'a [u8]>,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The store's index, where the answer tells it.
    pub index: Option<u64>,
    /// What was asked for, or why it is not there.
    pub body: Bytes,
}

/// What is known of an answer whose body is still to come.
#[derive(Debug)]
struct Head {
    status: u16,
    index: Option<u64>,
    body: Framing,
}

/// How a body ends.
#[derive(Debug, Clone, Copy)]
enum Framing {
    /// After so many bytes.
    Length(usize),
    /// With an empty chunk.
    Chunked,
}

/// The state of one connection.
pub struct Http1 {
    inbound: BytesMut,
    outbound: BytesMut,
    host: String,
    waits: bool,
    head: Option<Head>,
    /// The chunks of a body so far.
    chunks: BytesMut,
}

impl Http1 {
    /// A new connection to `host`.
    pub fn new(host: &str) -> Self {
        Self {
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            host: host.to_owned(),
            waits: false,
            head: None,
            chunks: BytesMut::new(),
        }
    }

    /// Sends a request. The one before must be answered.
    pub fn ask(&mut self, request: Request<'_>) {
        assert!(!self.waits, "HTTP/1.1 answers one request at a time");
        self.waits = true;
        let out = &mut self.outbound;
        out.put_slice(request.method.as_bytes());
        out.put_u8(b' ');
        for part in request.path {
            out.put_slice(part);
        }
        out.put_slice(request.query.as_bytes());
        out.put_slice(b" HTTP/1.1\r\nHost: ");
        out.put_slice(self.host.as_bytes());
        if let Some(form) = request.form {
            let length = form.len();
            let headers = format!(
                "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}"
            );
            out.put_slice(headers.as_bytes());
        }
        out.put_slice(b"\r\n\r\n");
        out.put_slice(request.form.unwrap_or_default());
    }

    /// The body of an answer, once it is whole.
    fn take_body(&mut self, framing: Framing) -> Result<Option<Bytes>> {
        match framing {
            Framing::Length(bytes) if self.inbound.len() < bytes => Ok(None),
            Framing::Length(bytes) => Ok(Some(self.inbound.split_to(bytes).freeze())),
            Framing::Chunked => {
                while let Some(bytes) = self.take_chunk()? {
                    if bytes == 0 {
                        return Ok(Some(self.chunks.split().freeze()));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Takes the next chunk, once it is whole; how long it is.
    fn take_chunk(&mut self) -> Result<Option<usize>> {
        let size = httparse::parse_chunk_size(&self.inbound);
        let Ok(size) = size else {
            bail!("a chunk without a size");
        };
        let Status::Complete((start, bytes)) = size else {
            ensure!(
                self.inbound.len() <= HEAD_BYTES_MAX,
                "a chunk's line is too long"
            );
            return Ok(None);
        };
        let bytes = usize::try_from(bytes)?;
        ensure!(
            bytes <= BODY_BYTES_MAX - self.chunks.len(),
            "an answer above {BODY_BYTES_MAX} bytes"
        );
        let end = start + bytes;
        let Some(behind) = self.inbound.get(end..end + CHUNK_END.len()) else {
            return Ok(None);
        };
        ensure!(behind == CHUNK_END, "a chunk longer than its size");
        self.chunks.put_slice(&self.inbound[start..end]);
        self.inbound.advance(end + CHUNK_END.len());
        Ok(Some(bytes))
    }
}

/// The head of an answer, once it is whole.
fn take_head(inbound: &mut BytesMut) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(inbound).context("no answer of HTTP/1.1")?;
    let Status::Complete(bytes) = parsed else {
        ensure!(
            inbound.len() <= HEAD_BYTES_MAX,
            "an answer's head is too long"
        );
        return Ok(None);
    };
    let status = answer.code.context("no status")?;
    let (mut index, mut body) = (None, None);
    for header in answer.headers {
        let value = || str::from_utf8(header.value).context("a header that is no text");
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = value()?.parse()?;
            ensure!(length <= BODY_BYTES_MAX, "an answer of {length} bytes");
            body = Some(Framing::Length(length));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            ensure!(
                value()? == "chunked",
                "a transfer encoding other than chunked"
            );
            body = Some(Framing::Chunked);
        } else if header.name.eq_ignore_ascii_case("x-etcd-index") {
            index = Some(value()?.parse()?);
        }
    }
    let body = body.context("an answer without a length")?;
    inbound.advance(bytes);
    Ok(Some(Head {
        status,
        index,
        body,
    }))
}

impl Wire for Http1 {
    type Event = Answer;

    fn next_event(&mut self) -> Result<Option<Answer>> {
        if self.head.is_none() {
            self.head = take_head(&mut self.inbound)?;
        }
        let Some(framing) = self.head.as_ref().map(|head| head.body) else {
            return Ok(None);
        };
        let Some(body) = self.take_body(framing)? else {
            return Ok(None);
        };
        self.waits = false;
        let head = self.head.take();
        Ok(head.map(|Head { status, index, .. }| Answer {
            status,
            index,
            body,
        }))
    }

    fn inbound_mut(&mut self) -> &mut BytesMut {
        &mut self.inbound
    }

    fn outbound_mut(&mut self) -> &mut BytesMut {
        &mut self.outbound
    }

    fn takes_requests(&self) -> bool {
        !self.waits
    }

    fn keep(&mut self, _: Instant) -> Option<Instant> {
        // A silent connection is kept.
        None
    }

    fn part(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWERS: &[u8] =
        b"HTTP/1.1 201 Created\r\nX-Etcd-Index: 7\r\nContent-Length: 4\r\n\r\nbody\
        HTTP/1.1 200 OK\r\nx-etcd-index: 8\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nfirst\r\n6;x=y\r\nsecond\r\n0\r\n\r\n\
        HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

    fn answers() -> Vec<Answer> {
        let answer = |status, index, body: &'static [u8]| Answer {
            status,
            index,
            body: Bytes::from_static(body),
        };
        vec![
            answer(201, Some(7), b"body"),
            answer(200, Some(8), b"firstsecond"),
            answer(404, None, b""),
        ]
    }

    fn feed(http1: &mut Http1, bytes: &[u8]) -> Result<Vec<Answer>> {
        http1.inbound_mut().extend_from_slice(bytes);
        std::iter::from_fn(|| http1.next_event().transpose()).collect()
    }

    proptest! {
        /// A socket cuts the stream wherever it likes.
        #[test]
        fn answers_do_not_depend_on_how_reads_cut_the_stream(cuts in prop::collection::vec(1usize..20, 0..40)) {
            let mut http1 = Http1::new("h");
            let mut rest = ANSWERS;
            let mut seen = Vec::new();
            for cut in cuts {
                let (read, behind) = rest.split_at(cut.min(rest.len()));
                seen.extend(feed(&mut http1, read).expect("valid answers"));
                rest = behind;
            }
            seen.extend(feed(&mut http1, rest).expect("valid answers"));
            prop_assert_eq!(seen, answers());
        }

        /// Whatever listens on the other side, the generator reports it instead of dying.
        #[test]
        fn garbage_is_an_error_or_nothing(start in 0..ANSWERS.len(), tail: Vec<u8>) {
            let bytes = [&ANSWERS[..start], &tail[..]].concat();
            // An error is as good as silence: only a panic fails.
            feed(&mut Http1::new("h"), &bytes).ok();
        }
    }

    #[test]
    fn broken_rules_end_the_connection() {
        for bytes in [
            &b"SMTP ready\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            let got = feed(&mut Http1::new("h"), bytes);
            assert!(got.is_err(), "{got:?}");
        }
    }

    #[test]
    fn one_request_waits_at_a_time() {
        let mut http1 = Http1::new("host:1");
        http1.ask(Request {
            method: "PUT",
            path: &[b"/v2/keys", b"/a"],
            query: "?prevExist=false",
            form: Some(b"value=x"),
        });
        let sent = http1.outbound_mut().split();
        let wanted = "PUT /v2/keys/a?prevExist=false HTTP/1.1\r\nHost: host:1\r\n\
            Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=x";
        assert_eq!(sent, wanted);
        assert!(!http1.takes_requests());
        feed(&mut http1, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("valid");
        assert!(http1.takes_requests());
    }
}
