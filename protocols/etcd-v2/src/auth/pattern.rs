//! v2's patterns: a key, or with a star at its end all keys that begin so.
//!
//! They are compared with paths as requests spell them: `/a/*` does not mean `/a`, but does mean `/a/`.

use crate::root::Root;
use bytes::Bytes;
use gateway::keyspace::{End, Span};

/// What no path begins with.
const NO_PATH: &str = "//";

/// What everything that has a path is: `/*`.
pub fn everything(root: &Root) -> Span {
    span("/*", root)
}

/// The keys that a pattern means. Outside of v2's root it means none.
pub fn span(pattern: &str, root: &Root) -> Span {
    if !root.prefix().is_empty() && !pattern.starts_with('/') {
        return match pattern {
            "*" => everything(root),
            // What begins with a path's own name would be next to it; no path has this one.
            _ => Span::single(key(format!("{NO_PATH}{pattern}").as_bytes(), root)),
        };
    }
    match pattern.strip_suffix('*') {
        Some(start) => beginning_with(key(start.as_bytes(), root)),
        None => Span::single(key(pattern.as_bytes(), root)),
    }
}

/// The pattern that means just these keys; none if there is none, as of those outside of v2's root.
pub fn pattern(span: &Span, root: &Root) -> Option<String> {
    let start = span.start.strip_prefix(root.prefix())?;
    let start = match start.strip_prefix(NO_PATH.as_bytes()) {
        Some(name) if !root.prefix().is_empty() => name,
        Some(_) | None => start,
    };
    let star = match &span.end {
        End::Single => "",
        End::Before(_) | End::Unbounded if *span == beginning_with(span.start.clone()) => "*",
        End::Before(_) | End::Unbounded => return None,
    };
    Some(format!("{}{star}", String::from_utf8_lossy(start)))
}

/// The key that stands for a path as it was spelled. Not every such key can be one.
pub fn key(spelled: &[u8], root: &Root) -> Bytes {
    [root.prefix(), spelled].concat().into()
}

/// All keys that begin so.
pub fn beginning_with(start: Bytes) -> Span {
    let last = start.iter().rposition(|byte| *byte != u8::MAX);
    let end = match last {
        None => End::Unbounded,
        Some(last) => {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            End::Before(end.into())
        }
    };
    Span { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pattern: &str, root: &Root) -> String {
        let Span { start, end } = span(pattern, root);
        let start = start.escape_ascii();
        match end {
            End::Single => start.to_string(),
            End::Before(end) => format!("[{start},{})", end.escape_ascii()),
            End::Unbounded => format!("[{start},)"),
        }
    }

    #[test]
    fn patterns_are_spans_and_back() {
        let apps = Root::at("/apps").expect("a path");
        for (root, spelled, keys) in [
            (&Root::default(), "/*", "[/,0)"),
            (&Root::default(), "/a/*", "[/a/,/a0)"),
            (&Root::default(), "/a*", "[/a,/b)"),
            (&Root::default(), "/a", "/a"),
            (&Root::default(), "/a/", "/a/"),
            (&Root::default(), "*", "[,)"),
            (&Root::default(), "", ""),
            (&Root::default(), "/*/b", "/*/b"),
            (&apps, "/*", "[/apps/,/apps0)"),
            (&apps, "/a", "/apps/a"),
            (&apps, "/a*", "[/apps/a,/apps/b)"),
        ] {
            assert_eq!(shown(spelled, root), keys, "{spelled}");
            let back = pattern(&span(spelled, root), root);
            assert_eq!(back.as_deref(), Some(spelled));
        }
    }

    #[test]
    fn patterns_reach_no_further_than_the_root() {
        let apps = Root::at("/apps").expect("a path");
        for (spelled, keys, told) in [
            ("*", "[/apps/,/apps0)", "/*"),
            ("2*", "/apps//2*", "2*"),
            ("2", "/apps//2", "2"),
            ("", "/apps//", ""),
        ] {
            assert_eq!(shown(spelled, &apps), keys, "{spelled}");
            let back = pattern(&span(spelled, &apps), &apps);
            assert_eq!(back.as_deref(), Some(told), "{spelled}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_not_shown_as_one() {
        let ends = |start: &'static str, end: &'static str| Span {
            start: start.into(),
            end: End::Before(end.into()),
        };
        let root = Root::default();
        assert_eq!(pattern(&ends("/a", "/c"), &root), None);
        assert_eq!(pattern(&ends("/a", "/b"), &root).as_deref(), Some("/a*"));
        let open = Span {
            start: "/a".into(),
            end: End::Unbounded,
        };
        assert_eq!(pattern(&open, &root), None);
        let apps = Root::at("/apps").expect("a path");
        assert_eq!(pattern(&ends("/a/", "/a0"), &apps), None);
    }
}
