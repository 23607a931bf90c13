//! Which paths ZooKeeper takes.

use bytes::Bytes;

/// Whether a node of this path could be created: it starts with a slash and does not end with one, no
/// component is empty, `.` or `..`, and no character is one that ZooKeeper forbids. Those are control
/// characters, private ones up to U+F8FF, U+FFF0 and above; and so, as Java looks at
/// UTF-16, every character beyond the basic plane.
pub fn is_valid(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    rest.is_empty() || rest.split('/').all(is_valid_name)
}

/// Whether a node's last component could be this.
pub fn is_valid_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.chars().any(is_forbidden)
}

fn is_forbidden(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..
    )
}

/// The path above, as ZooKeeper's `create` and `delete` see it: all before the last slash.
pub fn parent(path: &str) -> Option<&str> {
    let slash = path.rfind('/')?;
    Some(&path[..slash.max(1)])
}

/// The path of a child.
pub fn join(path: &[u8], name: &[u8]) -> Bytes {
    match path {
        b"/" => [b"/", name].concat().into(),
        _ => [path, b"/", name].concat().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_what_is_none() {
        for path in [
            "/",
            "/a",
            "/a/b",
            "/a b",
            "/a.b/..c",
            "/ü",
            "/\u{f900}",
            "/\u{ffef}",
        ] {
            assert!(is_valid(path), "{path:?}");
        }
        for path in [
            "",
            "a",
            "a/b",
            "//",
            "/a/",
            "/a//b",
            "/.",
            "/a/..",
            "/a\0",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{1f600}",
        ] {
            assert!(!is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a/"), Some("/a"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), Some("/"));
        assert_eq!(parent("a"), None);
    }
}
