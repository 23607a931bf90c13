//! The subject of a certificate, spelled as Java does by RFC 2253: access lists hold it as text, so it
//! has to be the same to the letter.

use std::fmt::Write;
use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What a certificate in DER calls its owner; none if it is no certificate.
pub fn subject(certificate: &[u8]) -> Option<String> {
    // Extensions are for who decides whether to trust it.
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let (_, certificate) = parser.parse(certificate).ok()?;
    spelled(certificate.subject())
}

fn spelled(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let attributes: Option<Vec<String>> = part.iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    // The most general part comes first in a certificate, and last in text.
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let kind = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    Some(match (keyword(&kind), text(value)) {
        (Some(keyword), Some(text)) => format!("{keyword}={}", escaped(&text)),
        (keyword, _) => format!("{}=#{}", keyword.unwrap_or(&kind), hex(value)?),
    })
}

/// The name of a type of attribute; those without are shown by their numbers, and their values as
/// bytes.
fn keyword(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

/// A value's text; none where it is of a kind that is shown as bytes.
fn text(value: &Any<'_>) -> Option<String> {
    let bytes = value.as_bytes();
    match value.tag() {
        Tag::Utf8String => Some(String::from_utf8_lossy(bytes).into_owned()),
        Tag::PrintableString | Tag::T61String | Tag::Ia5String | Tag::GeneralString => {
            Some(bytes.iter().copied().map(char::from).collect())
        }
        Tag::BmpString => {
            let units = bytes.chunks_exact(2);
            let units: Vec<u16> = units
                .map(|unit| u16::from_be_bytes([unit[0], unit[1]]))
                .collect();
            Some(String::from_utf16_lossy(&units))
        }
        _ => None,
    }
}

/// A value in DER, as digits.
fn hex(value: &Any<'_>) -> Option<String> {
    let mut digits = String::new();
    for byte in value.to_der_vec().ok()? {
        write!(digits, "{byte:02x}").ok()?;
    }
    Some(digits)
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
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::asn1_rs::Oid;
    use x509_parser::x509::RelativeDistinguishedName;

    fn part<'a>(attributes: &[(&[u64], Tag, &'a [u8])]) -> RelativeDistinguishedName<'a> {
        let attributes = attributes.iter().map(|(kind, tag, value)| {
            let kind = Oid::from(kind).expect("an identifier");
            AttributeTypeAndValue::new(kind, Any::from_tag_and_data(*tag, value))
        });
        attributes.collect()
    }

    #[test]
    fn names_are_spelled_as_java_spells_them() {
        let name = [
            part(&[(&[2, 5, 4, 6], Tag::PrintableString, b"DE")]),
            part(&[(&[2, 5, 4, 10], Tag::BmpString, &[0, b'X', 0, b'Y'])]),
            part(&[
                (&[2, 5, 4, 11], Tag::PrintableString, b"Ops"),
                (
                    &[2, 5, 4, 3],
                    Tag::Utf8String,
                    " a,b=\u{fc}#\\c ".as_bytes(),
                ),
            ]),
            part(&[(&[1, 2, 840, 113_549, 1, 9, 1], Tag::Ia5String, b"a@b")]),
        ];
        assert_eq!(
            spelled(&name.into_iter().collect()).as_deref(),
            Some(
                "1.2.840.113549.1.9.1=#1603614062,OU=Ops+CN=\\ a\\,b\\=\u{fc}\\#\\\\c\\ ,O=XY,C=DE"
            )
        );
        assert_eq!(
            spelled(&X509Name::new(Vec::new(), &[])).as_deref(),
            Some("")
        );
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, DnValue::Utf8String("DE".into()));
        name.push(DnType::CommonName, "a");
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        let key = KeyPair::generate().expect("a key");
        let sound = params.self_signed(&key).expect("a certificate");
        let sound: &[u8] = sound.der();
        assert_eq!(subject(sound).as_deref(), Some("CN=a,C=DE"));
        for end in 0..sound.len() {
            assert_eq!(subject(&sound[..end]), None, "{end}");
        }
        assert_eq!(subject(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
