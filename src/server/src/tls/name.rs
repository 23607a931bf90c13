//! The subject of a certificate, spelled as Java does by RFC 2253: access lists hold it as text, so it
//! has to be the same to the letter.

use std::fmt::Write;

/// The types of attributes that have a name, by their identifiers in DER; others are shown as numbers.
const NAMES: [(&[u8], &str); 9] = [
    (&[85, 4, 3], "CN"),
    (&[85, 4, 6], "C"),
    (&[85, 4, 7], "L"),
    (&[85, 4, 8], "ST"),
    (&[85, 4, 10], "O"),
    (&[85, 4, 11], "OU"),
    (&[85, 4, 9], "STREET"),
    (&[9, 146, 38, 137, 147, 242, 44, 100, 1, 25], "DC"),
    (&[9, 146, 38, 137, 147, 242, 44, 100, 1, 1], "UID"),
];

/// Tags of DER.
const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const GENERAL_STRING: u8 = 0x1b;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// What a certificate in DER calls its owner; none if it is no certificate.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let mut outer = Der(certificate);
    let mut signed = Der(outer.expect(SEQUENCE)?);
    let mut fields = Der(signed.expect(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    fields.expect(INTEGER)?; // serial number
    fields.expect(SEQUENCE)?; // signature's algorithm
    fields.expect(SEQUENCE)?; // issuer
    fields.expect(SEQUENCE)?; // validity
    let mut name = Der(fields.expect(SEQUENCE)?);
    let mut parts = Vec::new();
    while !name.0.is_empty() {
        parts.push(part(name.expect(SET)?)?);
    }
    // The most general part comes first in a certificate, and last in text.
    parts.reverse();
    Some(parts.join(","))
}

/// A part of a name: mostly one attribute.
fn part(set: &[u8]) -> Option<String> {
    let mut set = Der(set);
    let mut attributes = Vec::new();
    while !set.0.is_empty() {
        attributes.push(attribute(set.expect(SEQUENCE)?)?);
    }
    Some(attributes.join("+"))
}

fn attribute(pair: &[u8]) -> Option<String> {
    let mut pair = Der(pair);
    let kind = pair.expect(OBJECT_IDENTIFIER)?;
    let value = pair.next()?;
    let name = NAMES.iter().find(|(known, _)| *known == kind);
    Some(match (name, value.text()) {
        (Some((_, name)), Some(text)) => format!("{name}={}", escaped(&text)),
        (Some((_, name)), None) => format!("{name}=#{}", hex(value.whole)),
        (None, _) => format!("{}=#{}", dotted(kind), hex(value.whole)),
    })
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

/// One value.
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    /// With its tag and length.
    whole: &'a [u8],
}

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (len, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                let len = len
                    .iter()
                    .fold(0, |len, byte| len << 8 | usize::from(*byte));
                (len, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Value {
            tag,
            content,
            whole,
        })
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|value| value.tag == tag)
            .map(|value| value.content)
    }
}

impl Value<'_> {
    /// The text; none where it is of a kind that is shown as bytes.
    fn text(&self) -> Option<String> {
        let latin = || self.content.iter().map(|byte| char::from(*byte)).collect();
        match self.tag {
            UTF8_STRING => Some(String::from_utf8_lossy(self.content).into_owned()),
            PRINTABLE_STRING | T61_STRING | IA5_STRING | GENERAL_STRING => Some(latin()),
            BMP_STRING => {
                let units = self.content.chunks_exact(2);
                let units: Vec<u16> = units
                    .map(|unit| u16::from_be_bytes([unit[0], unit[1]]))
                    .collect();
                Some(String::from_utf16_lossy(&units))
            }
            _ => None,
        }
    }
}

/// An object identifier as numbers with points.
fn dotted(identifier: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number: u64 = 0;
    for byte in identifier {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                // The first two share one: there are no more than three of the first kind.
                let first = (number / 40).min(2);
                numbers.extend([first, number - first * 40]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    texts.join(".")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A value's text with what has a meaning in names marked: their signs, and space at either end.
fn escaped(text: &str) -> String {
    let is_space = |character: char| matches!(character, ' ' | '\r');
    let inner = text.trim_matches(is_space);
    let lead = text.len() - text.trim_start_matches(is_space).len();
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        match character {
            '\0' => out.push_str("\\00"),
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            _ if at < lead || at >= lead + inner.len() => {
                out.push('\\');
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u8::try_from(content.len()).expect("short");
        let head: &[u8] = if len < 0x80 {
            &[tag, len]
        } else {
            &[tag, 0x81, len]
        };
        [head, content].concat()
    }

    fn attribute(kind: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        let pair = [der(OBJECT_IDENTIFIER, kind), der(tag, value)].concat();
        der(SEQUENCE, &pair)
    }

    /// The part of a certificate that matters, with this name.
    fn certificate(name: &[Vec<u8>]) -> Vec<u8> {
        let fields = [
            der(VERSION, &[2, 1, 2]),
            der(INTEGER, &[1]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &name.concat()),
        ];
        der(SEQUENCE, &der(SEQUENCE, &fields.concat()))
    }

    fn one(attribute: Vec<u8>) -> Vec<u8> {
        der(SET, &attribute)
    }

    #[test]
    fn names_are_spelled_as_java_spells_them() {
        let both = [
            attribute(&[85, 4, 11], PRINTABLE_STRING, b"Ops"),
            attribute(&[85, 4, 3], UTF8_STRING, " a,b=\u{fc}#\\c ".as_bytes()),
        ];
        let name = [
            one(attribute(&[85, 4, 6], PRINTABLE_STRING, b"DE")),
            one(attribute(&[85, 4, 10], BMP_STRING, &[0, b'X', 0, b'Y'])),
            der(SET, &both.concat()),
            one(attribute(
                &[42, 134, 72, 134, 247, 13, 1, 9, 1],
                IA5_STRING,
                b"a@b",
            )),
        ];
        assert_eq!(
            subject(&certificate(&name)).as_deref(),
            Some(
                "1.2.840.113549.1.9.1=#1603614062,OU=Ops+CN=\\ a\\,b\\=\u{fc}\\#\\\\c\\ ,O=XY,C=DE"
            )
        );
        assert_eq!(subject(&certificate(&[])).as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        let sound = certificate(&[one(attribute(&[85, 4, 3], UTF8_STRING, b"a"))]);
        for end in 0..sound.len() {
            assert_eq!(subject(&sound[..end]), None, "{end}");
        }
        assert_eq!(subject(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
