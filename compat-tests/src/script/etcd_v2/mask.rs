//! Makes replies comparable: indexes become relative to the script's first (`i3`), and ids, ports
//! and times, which differ from run to run, become names. Every other byte of a body stays as it is,
//! and where it is; only the order of a listing that nobody asked to be sorted is chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::http::Answer;
use crate::oracle::Cluster;

/// A number so far beyond the script's first index was not counted by the server.
const INDEX_SPAN: u64 = 1 << 32;
/// How long a run of one character must be to be shown as its length.
const RUN_CHARS_MAX: usize = 40;
/// Digits of a name that the server makes of an index.
const SEQUENCE_DIGITS: usize = 20;
/// By how many seconds less than was asked for a time may be shown: machines stall.
const TTL_SLACK_S: i64 = 3;

/// What the names of one script's run stand for.
pub struct Mask {
    /// The index before the script's first command.
    pub first_index: u64,
    /// The times to live that the script has asked for, in seconds.
    pub ttls: BTreeSet<i64>,
    cluster: String,
    /// Names of member ids, in hexadecimal.
    members: BTreeMap<String, String>,
    /// Names of URLs.
    urls: BTreeMap<String, String>,
}

impl Mask {
    /// For a script that speaks to `cluster`.
    pub fn new(cluster: &Cluster) -> Self {
        let (mut members, mut urls) = (BTreeMap::new(), BTreeMap::new());
        for member in &cluster.members {
            let name = &member.name;
            members.insert(format!("{:x}", member.id), name.clone());
            urls.insert(member.client_url(), format!("client-url-{name}"));
            urls.insert(member.peer_url(), format!("peer-url-{name}"));
        }
        Self {
            first_index: 0,
            ttls: BTreeSet::new(),
            cluster: format!("{:x}", cluster.id),
            members,
            urls,
        }
    }

    /// `i3` for the third index after the script's first; 0 stays 0; older ones are `old`.
    fn index(&self, index: u64) -> String {
        match index.checked_sub(self.first_index) {
            _ if index == 0 => "0".to_owned(),
            None => "old".to_owned(),
            Some(since) if since < INDEX_SPAN => format!("i{since}"),
            Some(_) => index.to_string(),
        }
    }

    /// Puts what the names stand for in place of `{i3}`, `{seq3}`, `{m1}`, `{client-url-m1}` and
    /// such; other braces stay.
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let named = after.split_once('}');
            if let Some((value, after)) = named.and_then(|(n, rest)| Some((self.meaning(n)?, rest)))
            {
                out.push_str(&value);
                rest = after;
            } else {
                out.push('{');
                rest = after;
            }
        }
        out + rest
    }

    fn meaning(&self, name: &str) -> Option<String> {
        let index = |digits: &str| Some(self.first_index + digits.parse::<u64>().ok()?);
        if let Some(index) = name.strip_prefix('i').and_then(index) {
            return Some(index.to_string());
        }
        if let Some(index) = name.strip_prefix("seq").and_then(index) {
            return Some(format!("{index:020}"));
        }
        let mut all = self.members.iter().chain(&self.urls);
        let found = all.find(|(_, known)| *known == name);
        found.map(|(value, _)| value.clone())
    }

    /// The status and what the headers say.
    pub fn head(&self, answer: &Answer, with_cors: bool) -> String {
        let (code, _) = answer
            .status
            .split_once(' ')
            .unwrap_or((&answer.status, ""));
        let mut head = code.to_owned();
        head += match answer.header("content-type") {
            None => " untyped",
            Some("application/json") => " json",
            Some("text/plain; charset=utf-8") => " text",
            Some("text/html; charset=utf-8") => " html",
            Some(_) => " other-type",
        };
        if let Some(index) = answer.header("x-etcd-index") {
            let index = index
                .parse()
                .map_or_else(|_| "bad".to_owned(), |i| self.index(i));
            let _ = write!(head, " index={index}");
        }
        head += match answer.header("x-etcd-cluster-id") {
            None => "",
            Some(id) if id == self.cluster => " cluster",
            Some(_) => " wrong-cluster",
        };
        let counts = |name: &str| {
            answer
                .header(name)
                .map(|n| n.parse::<u64>().is_ok_and(|n| n > 0))
        };
        head += match (counts("x-raft-index"), counts("x-raft-term")) {
            (None, None) => "",
            (Some(true), Some(true)) => " raft",
            _ => " odd-raft",
        };
        for name in ["allow", "location"] {
            if let Some(value) = answer.header(name) {
                let _ = write!(head, " {name}={}", value.replace(' ', ""));
            }
        }
        if with_cors {
            for name in ["origin", "methods", "headers"] {
                let value = answer.header(&format!("access-control-allow-{name}"));
                let _ = write!(head, " {name}={:?}", value.unwrap_or_default());
            }
        }
        head
    }

    /// A body, or a line of it.
    pub fn body(&mut self, body: &str, is_sorted: bool) -> String {
        let mut text = shorten_runs(body);
        for name in ["modifiedIndex", "createdIndex", "index"] {
            text = replace_after(&text, &format!("\"{name}\":"), is_digit, |digits| {
                digits
                    .parse()
                    .map_or_else(|_| digits.to_owned(), |i| self.index(i))
            });
        }
        text = replace_after(&without_overdue(&text), "\"ttl\":", is_number, |ttl| {
            self.ttl(ttl)
        });
        text = replace_after(&text, "\"expiration\":\"", is_no_quote, time);
        text = replace_after(&text, "\"startTime\":\"", is_no_quote, |_| {
            "time".to_owned()
        });
        text = replace_after(&text, "\"uptime\":\"", is_no_quote, |_| "time".to_owned());
        for name in ["etcdserver", "etcdcluster", "storage"] {
            text = replace_after(&text, &format!("\"{name}\":\""), is_no_quote, version);
        }
        text = replace_after(&text, "\"cause\":\"", is_no_quote, |cause| {
            self.cause(cause)
        });
        text = self.sequences(&text);
        self.learn_members(&text);
        for (known, name) in self.members.iter().chain(&self.urls) {
            text = text.replace(known, name);
        }
        if is_sorted { text } else { sort_lists(&text) }
    }

    /// The time to live that was asked for, if a little less than it is left.
    fn ttl(&self, text: &str) -> String {
        let Ok(ttl) = text.parse::<i64>() else {
            return text.to_owned();
        };
        let asked = self.ttls.range(ttl..=ttl + TTL_SLACK_S).next();
        asked.copied().unwrap_or(ttl).to_string()
    }

    /// The indexes in `[7 != 3]` and `[7/3]`.
    fn cause(&self, cause: &str) -> String {
        let numbers = |part: &str| {
            let (separator, (left, right)) = [" != ", "/"]
                .into_iter()
                .find_map(|by| Some((by, part.split_once(by)?)))?;
            let (left, right) = (left.parse().ok()?, right.parse().ok()?);
            Some(format!(
                "{}{separator}{}",
                self.index(left),
                self.index(right)
            ))
        };
        let show = |part: &str| numbers(part).unwrap_or_else(|| part.to_owned());
        replace_after(cause, "[", |c| c != ']', show)
    }

    /// Names that the server made of an index.
    fn sequences(&self, text: &str) -> String {
        replace_after(text, "/", is_digit, |digits| match digits.parse::<u64>() {
            Ok(index) if digits.len() == SEQUENCE_DIGITS && index >= self.first_index => {
                format!("seq{}", index - self.first_index)
            }
            _ => digits.to_owned(),
        })
    }

    /// A member that no one knew is `new1`, the next `new2`.
    fn learn_members(&mut self, text: &str) {
        for (at, marker) in text.match_indices("\"id\":\"") {
            let id: String = text[at + marker.len()..]
                .chars()
                .take_while(char::is_ascii_hexdigit)
                .collect();
            let number = 1 + self
                .members
                .values()
                .filter(|n| n.starts_with("new"))
                .count();
            if !id.is_empty() {
                self.members.entry(id).or_insert(format!("new{number}"));
            }
        }
    }
}

/// The same without its figures.
pub fn shape(text: &str) -> String {
    let show = |number: &str| if number.is_empty() { "" } else { "N" }.to_owned();
    replace_after(text, ":", is_number, show)
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_number(c: char) -> bool {
    c.is_ascii_digit() || "-+.eE".contains(c)
}

fn is_no_quote(c: char) -> bool {
    c != '"'
}

/// Shows what follows each `marker`, as far as `is_part`, with `show`.
fn replace_after(
    text: &str,
    marker: &str,
    is_part: impl Fn(char) -> bool,
    show: impl Fn(&str) -> String,
) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(marker) {
        let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
        out = out + before + marker + &show(&after[..end]);
        rest = &after[end..];
    }
    out + rest
}

/// Without times to live below zero: a time that is over is shown as none, and when a member came to
/// it more than a second late, as the seconds since.
fn without_overdue(text: &str) -> String {
    let mut parts = text.split("\"ttl\":-");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += part.trim_start_matches(is_digit).trim_start_matches(',');
    }
    out
}

/// `time` for a moment in UTC as Go writes it: to the nanosecond, without zeros at the end.
fn time(text: &str) -> String {
    const FORM: &str = "0000-00-00T00:00:00";
    const FRACTION_DIGITS_MAX: usize = 9;
    let is_moment = |text: &str| {
        let (moment, fraction) = text.strip_suffix('Z')?.split_at_checked(FORM.len())?;
        let same = |(c, form): (char, char)| c == form || c.is_ascii_digit() && form == '0';
        let digits = match fraction {
            "" => "1",
            fraction => fraction.strip_prefix('.')?,
        };
        let is_fraction = digits.chars().all(is_digit)
            && (1..=FRACTION_DIGITS_MAX).contains(&digits.len())
            && !digits.ends_with('0');
        Some(moment.chars().zip(FORM.chars()).all(same) && is_fraction)
    };
    if is_moment(text) == Some(true) {
        "time"
    } else {
        text
    }
    .to_owned()
}

fn version(text: &str) -> String {
    let is_version = text.split('.').count() == 3 && text.starts_with(is_digit);
    if is_version { "version" } else { text }.to_owned()
}

/// A long run of one character as `[x 1024 times]`.
fn shorten_runs(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| c != first).unwrap_or(rest.len());
        let count = end / first.len_utf8();
        if count > RUN_CHARS_MAX {
            let _ = write!(out, "[{first} {count} times]");
        } else {
            out.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out
}

/// The same JSON with the objects of every list in the order of their text.
fn sort_lists(text: &str) -> String {
    let marks = marks(text);
    let mut out = String::new();
    let mut done = 0;
    let mut at = 0;
    while let Some(&(open, mark)) = marks.get(at) {
        at += 1;
        if mark != b'[' {
            continue;
        }
        let mut depth = 1;
        let mut items = Vec::new();
        let mut begin = open + 1;
        while let Some(&(place, mark)) = marks.get(at) {
            at += 1;
            match mark {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || depth == 1 && mark == b',' {
                items.push(sort_lists(&text[begin..place]));
                begin = place + 1;
            }
            if depth == 0 {
                break;
            }
        }
        if depth > 0 {
            break;
        }
        if items.iter().all(|item| item.starts_with('{')) {
            items.sort_unstable();
        }
        out = out + &text[done..=open] + &items.join(",") + "]";
        done = begin;
    }
    out + &text[done..]
}

/// Where brackets, braces and commas are, outside of strings.
fn marks(text: &str) -> Vec<(usize, u8)> {
    let (mut in_string, mut is_escaped) = (false, false);
    let mut marks = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b']' | b'{' | b'}' | b',' if !in_string => marks.push((at, byte)),
            _ => {}
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        Mask {
            first_index: 10,
            ttls: BTreeSet::from([100]),
            cluster: String::new(),
            members: BTreeMap::from([("8e9e".to_owned(), "m1".to_owned())]),
            urls: BTreeMap::new(),
        }
    }

    #[test]
    fn only_what_is_chance_is_named() {
        let body = r#"{"key":"/q/00000000000000000012","value":"\"index\":12","expiration":"2026-01-02T03:04:05.12Z","ttl":99,"modifiedIndex":12,"createdIndex":9}"#;
        let named = r#"{"key":"/q/seq2","value":"\"index\":12","expiration":"time","ttl":100,"modifiedIndex":i2,"createdIndex":old}"#;
        assert_eq!(mask().body(body, true), named);
        let body = r#"{"errorCode":101,"cause":"[zz != one] [9 != 11]","index":0}"#;
        let named = r#"{"errorCode":101,"cause":"[zz != one] [old != i1]","index":0}"#;
        assert_eq!(mask().body(body, true), named);
        let body = r#"{"expiration":"2026-01-02T03:04:05.120Z","ttl":50}"#;
        assert_eq!(mask().body(body, true), body);
        let late =
            r#"{"key":"/a","expiration":"2026-01-02T03:04:05Z","ttl":-2,"modifiedIndex":11}"#;
        let named = r#"{"key":"/a","expiration":"time","modifiedIndex":i1}"#;
        assert_eq!(mask().body(late, true), named);
    }

    #[test]
    fn lists_are_sorted_and_strings_are_not() {
        let body = r#"{"nodes":[{"key":"/b","nodes":[{"key":"2"},{"key":"1,]["}]},{"key":"/a"}]}"#;
        let sorted =
            r#"{"nodes":[{"key":"/a"},{"key":"/b","nodes":[{"key":"1,]["},{"key":"2"}]}]}"#;
        assert_eq!(sort_lists(body), sorted);
        assert_eq!(sort_lists("[{"), "[{");
        assert_eq!(sort_lists(r#"["b","a"]"#), r#"["b","a"]"#);
    }

    #[test]
    fn requests_name_what_replies_name() {
        assert_eq!(
            mask().expand(r#"{"a":"{m1}"} {i2} {seq2} {"#),
            r#"{"a":"8e9e"} 12 00000000000000000012 {"#
        );
    }
}
