//! How the text of a flag becomes a value: the rules of Go's `flag` package, which etcd's users
//! rely on (`0x10`, `1h30m`, `--bool` without a value), and etcd's own lists and URLs.

use crate::url;
use gateway::url::Url;
use std::collections::BTreeSet;
use std::time::Duration;
use zookeeper::Mount;

/// What a flag's text may look like; decides whether a bare `--flag` is complete, and what the
/// configuration file may hold for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true`, `false`, or nothing, which is true.
    Bool,
    /// A whole number.
    Number,
    /// `1h30m` on the command line, nanoseconds in a file.
    Duration,
    /// Values separated by commas; a file may hold a list.
    List,
}

/// A value that a flag can set.
pub trait FlagValue: Sized + 'static {
    /// Its kind.
    const KIND: Kind;
    /// Reads it, or says why not, in the words of Go's `flag` or of etcd.
    fn parse(text: &str) -> Result<Self, String>;
}

impl FlagValue for String {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl FlagValue for bool {
    const KIND: Kind = Kind::Bool;
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err("parse error".into()),
        }
    }
}

impl FlagValue for u64 {
    const KIND: Kind = Kind::Number;
    fn parse(text: &str) -> Result<Self, String> {
        let (digits, radix) = radix_of(text);
        u64::from_str_radix(digits, radix).map_err(|error| match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range".into(),
            _ => "parse error".into(),
        })
    }
}

impl FlagValue for u32 {
    const KIND: Kind = Kind::Number;
    fn parse(text: &str) -> Result<Self, String> {
        u64::parse(text)?
            .try_into()
            .map_err(|_| "value out of range".into())
    }
}

impl FlagValue for usize {
    const KIND: Kind = Kind::Number;
    fn parse(text: &str) -> Result<Self, String> {
        u64::parse(text)?
            .try_into()
            .map_err(|_| "value out of range".into())
    }
}

impl FlagValue for i64 {
    const KIND: Kind = Kind::Number;
    fn parse(text: &str) -> Result<Self, String> {
        let magnitude = u64::parse(text.trim_start_matches(['-', '+']))?;
        let value = i128::from(magnitude) * if text.starts_with('-') { -1 } else { 1 };
        value.try_into().map_err(|_| "value out of range".into())
    }
}

/// Go reads `0x`, `0o`, `0b` and a leading zero as C does.
fn radix_of(text: &str) -> (&str, u32) {
    let lower = text.to_ascii_lowercase();
    match lower.get(..2) {
        Some("0x") => (&text[2..], 16),
        Some("0o") => (&text[2..], 8),
        Some("0b") => (&text[2..], 2),
        Some(two) if two.starts_with('0') => (&text[1..], 8),
        Some(_) | None => (text, 10),
    }
}

impl FlagValue for Duration {
    const KIND: Kind = Kind::Duration;
    /// Go's spelling: numbers with units, added up: `1h15m30.918s`, `300ms`, `0`.
    fn parse(text: &str) -> Result<Self, String> {
        let fail = || "parse error".to_owned();
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Duration::ZERO);
        }
        if rest.is_empty() {
            return Err(fail());
        }
        let mut sum_s = 0.0f64;
        while !rest.is_empty() {
            let unit_at = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(fail)?;
            let number: f64 = rest[..unit_at].parse().map_err(|_| fail())?;
            let after = &rest[unit_at..];
            let unit_len = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            sum_s += number * unit_seconds(&after[..unit_len]).ok_or_else(fail)?;
            rest = &after[unit_len..];
        }
        // Whole nanoseconds, so that `300ms` is not a hair less.
        Duration::try_from_secs_f64((sum_s * 1e9).round() / 1e9)
            .map_err(|_| "value out of range".into())
    }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// Distinct words separated by commas, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl Words {
    /// Whether the list lets everything in, as etcd reads `cors` and `host-whitelist`: it is empty
    /// or has a `*`.
    pub fn allow(&self, word: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|w| w == "*" || w == word)
    }
}

impl FlagValue for Words {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        let words: BTreeSet<&str> = text.split(',').filter(|word| !word.is_empty()).collect();
        Ok(Words(words.into_iter().map(str::to_owned).collect()))
    }
}

/// Distinct URLs separated by commas, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urls(pub Vec<Url>);

impl Urls {
    /// As the protocol shows them.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(Url::to_string).collect()
    }
}

impl std::fmt::Display for Urls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.texts().join(","))
    }
}

impl FlagValue for Urls {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        distinct_urls(text, url::parse)
    }
}

fn distinct_urls(text: &str, parse: fn(&str) -> Result<Url, String>) -> Result<Urls, String> {
    if text.is_empty() {
        return Ok(Urls::default());
    }
    let urls: BTreeSet<Url> = text
        .split(',')
        .map(|one| parse(one.trim()))
        .collect::<Result<_, _>>()?;
    Ok(Urls(urls.into_iter().collect()))
}

/// The same of a protocol that is not HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamUrls(pub Urls);

impl FlagValue for StreamUrls {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        distinct_urls(text, url::parse_stream).map(StreamUrls)
    }
}

impl FlagValue for Mount {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        Mount::at(if text.is_empty() { "/" } else { text })
            .ok_or_else(|| format!("{text:?} is not a path as ZooKeeper's are"))
    }
}

impl FlagValue for etcd_v2::Root {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        etcd_v2::Root::at(if text.is_empty() { "/" } else { text })
            .ok_or_else(|| format!("{text:?} is not a path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected_ms) in [
            ("0", 0),
            ("300ms", 300),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2h0m0s", 7_200_000),
        ] {
            assert_eq!(
                Duration::parse(text),
                Ok(Duration::from_millis(expected_ms)),
                "{text}"
            );
        }
        for text in ["", "5", "ms", "5x", "-5s", "1..5s", "1e400h"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!(u64::parse("0x10"), Ok(16));
        assert_eq!(u64::parse("010"), Ok(8));
        assert_eq!(u64::parse("0"), Ok(0));
        assert_eq!(i64::parse("-1"), Ok(-1));
        assert_eq!(u32::parse("4294967296"), Err("value out of range".into()));
        assert_eq!(u64::parse("-1"), Err("parse error".into()));
        assert_eq!(i64::parse(""), Err("parse error".into()));
    }

    #[test]
    fn lists_are_distinct_and_sorted() {
        assert_eq!(
            Words::parse("b,a,,b").map(|w| w.0),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(
            Urls::parse("http://b:2, http://a:1,http://b:2").map(|urls| urls.to_string()),
            Ok("http://a:1,http://b:2".into())
        );
    }
}
