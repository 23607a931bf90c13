//! Header blocks: ours, encoded as real clients do, and the server's, reduced to a status.
//!
//! A request's headers hardly change, so each field is put into the peer's dynamic table once and
//! is one byte from then on, as gRPC clients do. A server's blocks are remembered whole: while
//! nothing changes the table, equal bytes mean equal headers, and the common answer costs one
//! comparison instead of a decoding.

use bytes::{BufMut, BytesMut};
use loona_hpack::Decoder;
use percent_encoding::percent_decode;

/// The first index of HPACK's dynamic table; below are the 61 static fields.
const DYNAMIC_BASE: usize = 62;
/// What HPACK counts for a dynamic entry beside its name and value.
const ENTRY_OVERHEAD: usize = 32;
/// The table size we fill at most: HPACK's default, which every peer starts with.
const TABLE_BYTES_MAX: usize = 4096;
/// How many distinct header blocks of a server are remembered; a unary answer has two.
const REMEMBERED_MAX: usize = 8;

const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;
/// Static indices of the names that our literals use.
const STATIC_AUTHORITY: usize = 1;
const STATIC_PATH: usize = 4;
const STATIC_CONTENT_TYPE: usize = 31;
const STATIC_USER_AGENT: usize = 58;

/// Encodes the header block of a gRPC request.
#[derive(Debug)]
pub struct RequestHeaders {
    authority: String,
    token: Option<String>,
    /// Fields in the peer's dynamic table, oldest first. Never evicted: see [`TABLE_BYTES_MAX`].
    table: Vec<(String, String)>,
    table_bytes: usize,
    table_bytes_max: usize,
}

impl RequestHeaders {
    /// `authority` is what `:authority` says; `token` is etcd's authentication token, if any.
    pub fn new(authority: &str, token: Option<String>) -> Self {
        Self {
            authority: authority.to_owned(),
            token,
            table: Vec::new(),
            table_bytes: 0,
            table_bytes_max: TABLE_BYTES_MAX,
        }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. A peer that wants less than the default gets no
    /// indexed fields at all, which saves us the size updates.
    pub fn limit_table(&mut self, bytes: u32) {
        if (bytes as usize) < TABLE_BYTES_MAX {
            self.table_bytes_max = 0;
        }
    }

    /// Appends the header block of a call of `path` to `out`.
    pub fn encode(&mut self, path: &str, out: &mut BytesMut) {
        out.put_u8(METHOD_POST);
        out.put_u8(SCHEME_HTTP);
        self.field(Some(STATIC_PATH), ":path", path, out);
        let authority = std::mem::take(&mut self.authority);
        self.field(Some(STATIC_AUTHORITY), ":authority", &authority, out);
        self.authority = authority;
        self.field(
            Some(STATIC_CONTENT_TYPE),
            "content-type",
            "application/grpc",
            out,
        );
        self.field(
            Some(STATIC_USER_AGENT),
            "user-agent",
            concat!("triglot-bench/", env!("CARGO_PKG_VERSION")),
            out,
        );
        self.field(None, "te", "trailers", out);
        if let Some(token) = self.token.take() {
            self.field(None, "token", &token, out);
            self.token = Some(token);
        }
    }

    fn field(&mut self, name_index: Option<usize>, name: &str, value: &str, out: &mut BytesMut) {
        if let Some(at) = self.table.iter().position(|(n, v)| n == name && v == value) {
            let index = DYNAMIC_BASE + (self.table.len() - 1 - at);
            put_integer(out, 0x80, 7, index);
            return;
        }
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD;
        let indexed = self.table_bytes + bytes <= self.table_bytes_max;
        let (pattern, prefix_bits) = if indexed { (0x40, 6) } else { (0x00, 4) };
        put_integer(out, pattern, prefix_bits, name_index.unwrap_or(0));
        if name_index.is_none() {
            put_string(out, name);
        }
        put_string(out, value);
        if indexed {
            self.table.push((name.to_owned(), value.to_owned()));
            self.table_bytes += bytes;
        }
    }
}

fn put_integer(out: &mut BytesMut, pattern: u8, prefix_bits: u8, value: usize) {
    let max = (1usize << prefix_bits) - 1;
    if value < max {
        out.put_u8(pattern | value as u8);
        return;
    }
    out.put_u8(pattern | max as u8);
    let mut rest = value - max;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A string without Huffman coding: cheaper for both sides on loopback.
fn put_string(out: &mut BytesMut, value: &str) {
    put_integer(out, 0x00, 7, value.len());
    out.put_slice(value.as_bytes());
}

/// What a header block of the server says that matters to a load generator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// `:status`, when the block has one.
    pub http_status: Option<u16>,
    /// `grpc-status`, when the block has one.
    pub grpc_status: Option<u32>,
    /// `grpc-message`, decoded.
    pub grpc_message: String,
}

/// Decodes the server's header blocks.
pub struct AnswerHeaders {
    decoder: Decoder<'static>,
    remembered: Vec<(Box<[u8]>, Answer)>,
    /// The last block that may mean something else the next time.
    latest: Answer,
}

impl AnswerHeaders {
    /// A decoder with HPACK's default table.
    pub fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_BYTES_MAX);
        Self {
            decoder,
            remembered: Vec::new(),
            latest: Answer::default(),
        }
    }

    /// Decodes one whole block. The error says what is wrong with it.
    pub fn decode(&mut self, block: &[u8]) -> Result<&Answer, String> {
        if let Some(at) = self.remembered.iter().position(|(b, _)| **b == *block) {
            return Ok(&self.remembered[at].1);
        }
        let mut answer = Answer::default();
        self.decoder
            .decode_with_cb(block, |name, value| note(&mut answer, &name, &value))
            .map_err(|error| format!("malformed header block: {error}"))?;
        // Only fields taken from the table leave it as it is; anything else may have changed
        // what the remembered blocks mean.
        let only_indexed = block.iter().all(|&byte| byte > 0x80 && byte < 0xff);
        if !only_indexed || self.remembered.len() == REMEMBERED_MAX {
            self.remembered.clear();
        }
        if only_indexed {
            self.remembered.push((block.into(), answer));
            return Ok(&self.remembered[self.remembered.len() - 1].1);
        }
        self.latest = answer;
        Ok(&self.latest)
    }
}

fn note(answer: &mut Answer, name: &[u8], value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    match name {
        b":status" => answer.http_status = text.parse().ok(),
        b"grpc-status" => answer.grpc_status = text.parse().ok(),
        b"grpc-message" => {
            answer.grpc_message = percent_decode(value).decode_utf8_lossy().into_owned();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn decode(decoder: &mut Decoder<'_>, block: &[u8]) -> Fields {
        decoder.decode(block).expect("a block we encoded")
    }

    /// Servers parse every request's headers; real clients send them as table references.
    #[test]
    fn repeated_requests_shrink_to_indices_and_still_decode_alike() {
        let mut headers = RequestHeaders::new("localhost:2379", Some("secret.1".into()));
        let mut decoder = Decoder::new();
        let mut sizes = Vec::new();
        for path in ["/a.KV/Put", "/a.KV/Range", "/a.KV/Put", "/a.KV/Range"] {
            let mut block = BytesMut::new();
            headers.encode(path, &mut block);
            sizes.push(block.len());
            let fields = decode(&mut decoder, &block);
            let get = |name: &str| {
                let found = fields.iter().find(|(n, _)| n == name.as_bytes());
                String::from_utf8(found.expect(name).1.clone()).expect("text")
            };
            assert_eq!(get(":path"), path);
            assert_eq!(get(":method"), "POST");
            assert_eq!(get(":authority"), "localhost:2379");
            assert_eq!(get("content-type"), "application/grpc");
            assert_eq!(get("te"), "trailers");
            assert_eq!(get("token"), "secret.1");
        }
        assert_eq!(sizes[2], 8, "sizes: {sizes:?}");
        assert_eq!(sizes[3], 8, "sizes: {sizes:?}");
    }

    /// A peer may forbid the dynamic table.
    #[test]
    fn without_a_table_every_block_stands_alone() {
        let mut headers = RequestHeaders::new("h", None);
        headers.limit_table(0);
        for _ in 0..2 {
            let mut block = BytesMut::new();
            headers.encode("/p", &mut block);
            assert_eq!(decode(&mut Decoder::new(), &block).len(), 7);
        }
    }

    /// The shortcut must never answer with what an older table meant.
    #[test]
    fn remembered_blocks_are_forgotten_when_the_table_changes() {
        let mut answers = AnswerHeaders::new();
        let mut first = BytesMut::from(&[0x88, 0x40][..]);
        put_string(&mut first, "grpc-status");
        put_string(&mut first, "0");
        assert_eq!(answers.decode(&first).expect("valid").grpc_status, Some(0));
        for _ in 0..2 {
            assert_eq!(answers.decode(&[0xbe]).expect("valid").grpc_status, Some(0));
        }
        let mut second = BytesMut::from(&[0x40][..]);
        put_string(&mut second, "grpc-status");
        put_string(&mut second, "8");
        answers.decode(&second).expect("valid");
        assert_eq!(answers.decode(&[0xbe]).expect("valid").grpc_status, Some(8));
        assert_eq!(answers.decode(&[0xbf]).expect("valid").grpc_status, Some(0));
        assert_eq!(answers.decode(&second).expect("valid").grpc_status, Some(8));
    }

    #[test]
    fn a_malformed_block_is_an_error() {
        assert!(AnswerHeaders::new().decode(&[0xff, 0xff, 0xff]).is_err());
        assert!(AnswerHeaders::new().decode(&[0xbe]).is_err());
        assert!(AnswerHeaders::new().decode(&[0x40, 0x7f]).is_err());
    }
}
