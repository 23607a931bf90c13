//! What Go's `ServeMux` does with a request's path before it looks for who serves it: a path that is
//! not clean is sent back clean, whatever the method, and nothing is done.

use crate::http::plain;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// What Go escapes in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// The answer to a request whose path nobody is to see; none where it is clean.
pub fn turn_back(method: &Method, uri: &Uri) -> Option<Response> {
    let path = uri.path();
    let surely_clean = !path.contains("//") && !path.contains("/.") && !path.contains('%');
    if surely_clean || method == Method::CONNECT {
        return None;
    }
    if !is_escaped_well(path.as_bytes()) {
        let mut refusal = plain(StatusCode::BAD_REQUEST, "400 Bad Request");
        let close = HeaderValue::from_static("close");
        refusal.headers_mut().insert(CONNECTION, close);
        return Some(refusal);
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let clean = clean(&decoded);
    (clean != decoded).then(|| moved(method, &clean, uri.query()))
}

fn moved(method: &Method, path: &[u8], query: Option<&str>) -> Response {
    let mut location = percent_encode(path, ESCAPED).to_string();
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        location.push('?');
        location.push_str(query);
    }
    let content = match *method {
        Method::GET => {
            let shown = location
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;")
                .replace('\'', "&#39;");
            Body::from(format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n"))
        }
        _ => Body::empty(),
    };
    // A query is made of what a header may hold.
    let Ok(location) = HeaderValue::try_from(location) else {
        return plain(StatusCode::BAD_REQUEST, "400 Bad Request");
    };
    let mut response = (StatusCode::MOVED_PERMANENTLY, content).into_response();
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.remove(CONTENT_TYPE);
    if matches!(*method, Method::GET | Method::HEAD) {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(CONTENT_TYPE, html);
    }
    response
}

/// Whether two hexadecimal digits follow each percent sign.
fn is_escaped_well(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'%');
    parts.next();
    parts.all(|part| {
        let digits = part.get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The path without empty names and dots. A slash at the end stays.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let mut clean = Vec::with_capacity(path.len());
    for name in &names {
        clean.push(b'/');
        clean.extend_from_slice(name);
    }
    if names.is_empty() || path.ends_with(b"/") {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(method: Method, uri: &'static str) -> Option<(u16, Option<String>)> {
        let response = turn_back(&method, &Uri::from_static(uri))?;
        let location = response.headers().get(LOCATION);
        let location = location.map(|it| it.to_str().expect("text").to_owned());
        Some((response.status().as_u16(), location))
    }

    #[test]
    fn paths_are_sent_back_clean() {
        for (uri, expected) in [
            ("/v2/keys/a//b", "/v2/keys/a/b"),
            (
                "/v2/keys/a/../b?recursive=true",
                "/v2/keys/b?recursive=true",
            ),
            ("/v2/keys/./b/", "/v2/keys/b/"),
            ("/v2/keys/a/%2e%2E/b%20c'", "/v2/keys/b%20c%27"),
            ("/v2/keys/a%2F%2Fb", "/v2/keys/a/b"),
            ("/../..", "/"),
            ("//", "/"),
        ] {
            let expected = Some((301, Some(expected.to_owned())));
            assert_eq!(location(Method::PUT, uri), expected, "{uri}");
        }
    }

    #[test]
    fn clean_paths_pass() {
        for uri in ["/", "/v2/keys/a.b/..c/...", "/a/", "/a%2Fb", "/%C3%BC"] {
            assert_eq!(location(Method::GET, uri), None, "{uri}");
        }
    }

    #[test]
    fn escapes_that_are_none_are_refused() {
        for uri in ["/%zz", "/a%", "/a%4"] {
            assert_eq!(location(Method::GET, uri), Some((400, None)), "{uri}");
        }
    }
}
