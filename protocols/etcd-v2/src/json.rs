//! JSON as Go's `encoding/json` writes it, appended to a buffer.

use std::io::Write;

/// Appends a number.
pub fn number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("a buffer takes everything");
}

/// Appends bytes as a string. What is no UTF-8 becomes replacement characters, and what could end a
/// script in a page is escaped.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        escaped(out, chunk.valid());
        // Go replaces byte by byte.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            b'&' => b"\\u0026",
            0..0x20 => b"",
            // Line and paragraph separators, which JavaScript takes for the end of a line.
            0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => b"\\u2028",
            0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(escape);
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("a buffer takes everything");
        }
        done = at + if *byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_in_go() {
        for (bytes, expected) in [
            (&b""[..], r#""""#),
            (b"plain /", r#""plain /""#),
            (
                b"a\nb\tc\r\n\x01\x1f\x7f\\\"",
                "\"a\\nb\\tc\\r\\n\\u0001\\u001f\x7f\\\\\\\"\"",
            ),
            (
                b"<a href='x'>&amp;",
                r#""\u003ca href='x'\u003e\u0026amp;""#,
            ),
            (
                "h\u{e9}\u{2028} \u{2029}\u{201c}\u{1f600}".as_bytes(),
                "\"h\u{e9}\\u2028 \\u2029\u{201c}\u{1f600}\"",
            ),
            (b"a\xff\xfeb", r#""a\ufffd\ufffdb""#),
            (b"\xed\xa0\x80", r#""\ufffd\ufffd\ufffd""#),
            (b"\xe2\x80", r#""\ufffd\ufffd""#),
        ] {
            let mut out = Vec::new();
            string(&mut out, bytes);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        }
    }
}
