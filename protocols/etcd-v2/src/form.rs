//! Forms and query strings, as Go's `net/http` and `net/url` read them.

use bytes::Bytes;
use thiserror::Error;

/// The most that a form may have (Go's figure).
pub const FORM_BYTES_MAX: usize = 10 << 20;

/// The most fields that it may have (that of Go's later versions).
const FIELDS_MAX: usize = 10_000;

/// The fields that mean something for keys. Others are not kept, so that a form takes no more room than
/// it has bytes.
const KNOWN: [&str; 14] = [
    "dir",
    "noValueOnSuccess",
    "prevExist",
    "prevIndex",
    "prevValue",
    "quorum",
    "recursive",
    "refresh",
    "sorted",
    "stream",
    "ttl",
    "value",
    "wait",
    "waitIndex",
];

/// What was given, of each field the first.
#[derive(Debug, Default)]
pub struct Form {
    fields: Vec<(&'static str, Bytes)>,
}

/// Why a form cannot be read, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A percent sign that no hexadecimal number follows.
    #[error("invalid URL escape {}", quoted(.0))]
    Escape(Vec<u8>),
    /// Go takes semicolons for separators no more, nor for anything else.
    #[error("invalid semicolon separator in query")]
    Semicolon,
    /// More than [`FIELDS_MAX`] fields.
    #[error("number of URL query parameters exceeded limit")]
    TooMany,
    /// A body above [`FORM_BYTES_MAX`].
    #[error("http: POST too large")]
    TooLarge,
    /// A body that ended before its end.
    #[error("unexpected EOF")]
    Truncated,
}

/// Text in quotes, as Go's `strconv.Quote` spells ASCII.
fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

impl Form {
    /// Reads a request's body, if it has a form there, and its query. The body's fields come first.
    pub fn parse(body: &[u8], query: &[u8]) -> Result<Form, Malformed> {
        let mut form = Form::default();
        let of_body = form.add(body);
        of_body.and(form.add(query))?;
        Ok(form)
    }

    /// A field's value.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        let found = self.fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    fn add(&mut self, text: &[u8]) -> Result<(), Malformed> {
        if text.iter().filter(|byte| **byte == b'&').count() >= FIELDS_MAX {
            return Err(Malformed::TooMany);
        }
        let mut result = Ok(());
        for pair in text.split(|byte| *byte == b'&').filter(|it| !it.is_empty()) {
            if pair.contains(&b';') {
                // Told rather than what was wrong before it.
                result = Err(Malformed::Semicolon);
                continue;
            }
            result = result.and(self.add_pair(pair));
        }
        result
    }

    fn add_pair(&mut self, pair: &[u8]) -> Result<(), Malformed> {
        let end = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair.split_at(end.unwrap_or(pair.len()));
        let value = value.strip_prefix(b"=").unwrap_or_default();
        check_escapes(name)?;
        check_escapes(value)?;
        let known = KNOWN.iter().find(|known| unescaped(name).eq(known.bytes()));
        if let Some(known) = known.filter(|known| self.get(known).is_none()) {
            let mut found = Vec::with_capacity(value.len());
            found.extend(unescaped(value));
            self.fields.push((known, found.into()));
        }
        Ok(())
    }
}

/// Refuses what Go's `url.QueryUnescape` refuses.
fn check_escapes(text: &[u8]) -> Result<(), Malformed> {
    let mut rest = text;
    while let Some(percent) = rest.iter().position(|byte| *byte == b'%') {
        rest = match &rest[percent..] {
            [_, high, low, after @ ..] if is_hex(*high) && is_hex(*low) => after,
            bad => return Err(Malformed::Escape(bad[..bad.len().min(3)].to_vec())),
        };
    }
    Ok(())
}

/// What `url.QueryUnescape` makes of text whose escapes were checked.
fn unescaped(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text.iter().copied();
    std::iter::from_fn(move || {
        Some(match rest.next()? {
            b'+' => b' ',
            b'%' => hex(rest.next()?) << 4 | hex(rest.next()?),
            byte => byte,
        })
    })
}

fn is_hex(digit: u8) -> bool {
    digit.is_ascii_hexdigit()
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Whether a body of this type is a form.
pub fn is_form(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|byte| *byte == b';');
    let kind = &content_type[..end.unwrap_or(content_type.len())];
    kind.trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(body: &str, query: &str) -> Option<String> {
        let form = Form::parse(body.as_bytes(), query.as_bytes()).expect("a form");
        let value = form.get("value")?;
        Some(value.escape_ascii().to_string())
    }

    fn refusal(body: &str, query: &str) -> String {
        let form = Form::parse(body.as_bytes(), query.as_bytes());
        form.err().map_or_else(String::new, |why| why.to_string())
    }

    #[test]
    fn the_first_value_counts_and_the_body_comes_first() {
        for (body, query, expected) in [
            ("value=a&value=b", "", Some("a")),
            ("value=form", "value=query", Some("form")),
            ("ttl=5", "value=query", Some("query")),
            ("value", "", Some("")),
            ("VALUE=a&&x=y", "", None),
            ("value=a+b%2Bc%25d%26e%3Df", "", Some("a b+c%d&e=f")),
            ("value=a=b", "", Some("a=b")),
            ("v%61lue=%ff", "", Some("\\xff")),
        ] {
            assert_eq!(value(body, query).as_deref(), expected, "{body} {query}");
        }
    }

    #[test]
    fn refusals_are_gos() {
        for (body, query, expected) in [
            ("value=%zz", "", "invalid URL escape \"%zz\""),
            ("value=1", "%zz", "invalid URL escape \"%zz\""),
            ("", "recursive=%", "invalid URL escape \"%\""),
            ("value=%4", "%zz", "invalid URL escape \"%4\""),
            ("", "a=1;b=2", "invalid semicolon separator in query"),
            ("", "%zz&a;b", "invalid semicolon separator in query"),
            ("", "a;b&%zz", "invalid semicolon separator in query"),
        ] {
            assert_eq!(refusal(body, query), expected, "{body} {query}");
        }
    }

    #[test]
    fn what_means_nothing_takes_no_room() {
        let body = "x&".repeat(1000);
        let form = Form::parse(body.as_bytes(), b"").expect("a form");
        assert!(form.fields.is_empty());
    }

    #[test]
    fn a_form_has_so_many_fields_and_no_more() {
        let fields = |count: usize| vec!["x"; count].join("&");
        assert_eq!(refusal(&fields(FIELDS_MAX), ""), "");
        let refused = "number of URL query parameters exceeded limit";
        assert_eq!(refusal(&fields(FIELDS_MAX + 1), ""), refused);
    }

    #[test]
    fn forms_are_told_by_their_type() {
        for (kind, expected) in [
            ("application/x-www-form-urlencoded", true),
            ("Application/X-www-form-urlencoded; charset=utf-8", true),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_form(kind.as_bytes()), expected, "{kind}");
        }
    }
}
