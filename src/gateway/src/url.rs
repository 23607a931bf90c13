//! Where members are reached: `http://host:port`, `https://host:port`, `unix://path`, `unixs://path`;
//! and, by protocols that have no URLs of their own, `tcp://host:port`, `tls://host:port`.

use std::fmt;
use thiserror::Error;

/// How a listener or a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// TCP.
    Http,
    /// TCP with TLS.
    Https,
    /// A Unix socket.
    Unix,
    /// A Unix socket with TLS.
    Unixs,
    /// TCP, for what is not HTTP.
    Tcp,
    /// The same with TLS.
    Tls,
}

/// One URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How.
    pub scheme: Scheme,
    /// Where: `host:port`, or for Unix sockets the path.
    pub address: String,
}

// By their text: member ids are made from the sorted list.
impl Ord for Url {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// Why a text is no URL of a member.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadUrl {
    /// What stands before the first colon is no scheme.
    #[error("parse {0:?}: first path segment in URL cannot contain colon")]
    NoScheme(String),
    /// Another scheme.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// Another scheme, where it is not HTTP that is spoken.
    #[error("URL scheme must be tcp or tls: {0}")]
    StreamScheme(String),
    /// A character that no host has.
    #[error("parse {url:?}: invalid character {:?} in host name", found.to_string())]
    Host {
        /// The text.
        url: String,
        /// The character.
        found: char,
    },
    /// A port that is none.
    #[error("parse {url:?}: invalid port {:?} after host", format!(":{port}"))]
    Port {
        /// The text.
        url: String,
        /// What stands in the port's place.
        port: String,
    },
    /// No host and port.
    #[error("URL address does not have the form \"host:port\": {0}")]
    Address(String),
    /// Something behind host and port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

/// A member's peer URLs as the members' list keeps them: sorted by their text, as in etcd.
pub fn sorted(texts: &[String]) -> Result<Vec<String>, BadUrl> {
    let urls = texts.iter().map(|text| Ok(Url::parse(text)?.to_string()));
    let mut urls: Vec<String> = urls.collect::<Result<_, _>>()?;
    urls.sort_unstable();
    Ok(urls)
}

impl Url {
    /// Reads one. Spaces around it do not count.
    pub fn parse(text: &str) -> Result<Url, BadUrl> {
        let text = text.trim();
        let bad_scheme = || BadUrl::Scheme(text.to_owned());
        let (scheme, rest) = text.split_once(':').ok_or_else(bad_scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            name if name.is_empty() || name.contains('/') || is_scheme(name) => {
                return Err(bad_scheme());
            }
            _ => return Err(BadUrl::NoScheme(text.to_owned())),
        };
        match scheme {
            Scheme::Unix | Scheme::Unixs => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(BadUrl::Address(text.to_owned())),
                path => Ok(Url {
                    scheme,
                    address: path.to_owned(),
                }),
            },
            Scheme::Http | Scheme::Https | Scheme::Tcp | Scheme::Tls => {
                Url::of_host(scheme, rest, text)
            }
        }
    }

    /// Reads one of a protocol that is not HTTP.
    pub fn parse_stream(text: &str) -> Result<Url, BadUrl> {
        match text.split_once(':') {
            Some(("tcp", rest)) => Url::of_host(Scheme::Tcp, rest, text),
            Some(("tls", rest)) => Url::of_host(Scheme::Tls, rest, text),
            Some(_) | None => Err(BadUrl::StreamScheme(text.to_owned())),
        }
    }

    fn of_host(scheme: Scheme, rest: &str, text: &str) -> Result<Url, BadUrl> {
        let url = || text.to_owned();
        let rest = rest
            .strip_prefix("//")
            .ok_or_else(|| BadUrl::Address(url()))?;
        let (address, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let in_host = |it: char| it.is_ascii_alphanumeric() || "-_.:[]".contains(it);
        if let Some(found) = address.chars().find(|it| !in_host(*it)) {
            return Err(BadUrl::Host { url: url(), found });
        }
        let Some((_, port)) = split_host_port(address) else {
            return Err(BadUrl::Address(url()));
        };
        if port.parse::<u16>().is_err() {
            let port = port.to_owned();
            return Err(BadUrl::Port { url: url(), port });
        }
        if !path.is_empty() {
            return Err(BadUrl::Path(url()));
        }
        Ok(Url {
            scheme,
            address: address.to_owned(),
        })
    }

    /// Whether it asks for TLS.
    pub fn secure(&self) -> bool {
        match self.scheme {
            Scheme::Https | Scheme::Unixs | Scheme::Tls => true,
            Scheme::Http | Scheme::Unix | Scheme::Tcp => false,
        }
    }

    /// Whether it names a Unix socket.
    pub fn is_unix(&self) -> bool {
        match self.scheme {
            Scheme::Unix | Scheme::Unixs => true,
            Scheme::Http | Scheme::Https | Scheme::Tcp | Scheme::Tls => false,
        }
    }

    /// The host without its brackets, and the port; nothing for a Unix socket.
    pub fn host_port(&self) -> Option<(&str, &str)> {
        if self.is_unix() {
            return None;
        }
        split_host_port(&self.address)
    }
}

fn is_scheme(name: &str) -> bool {
    let in_scheme = |it: char| it.is_ascii_alphanumeric() || "+-.".contains(it);
    name.starts_with(|it: char| it.is_ascii_alphabetic()) && name.chars().all(in_scheme)
}

/// Splits `host:port` and `[v6]:port`; a bare v6 address is ambiguous and refused.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(bracketed) => Some((bracketed.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_text() {
        for text in [
            "http://localhost:2379",
            "http://:0",
            "https://[::1]:2379",
            "unix://localhost:123450",
            "unix:///tmp/x.sock",
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()), Ok(text.into()));
        }
        for text in ["tcp://localhost:2181", "tls://[::1]:2281"] {
            let url = Url::parse_stream(text);
            assert_eq!(url.map(|url| url.to_string()), Ok(text.into()));
        }
        let shouted = Url::parse(" HTTP://A:1 ").map(|url| url.to_string());
        assert_eq!(shouted, Ok("http://A:1".into()));
    }

    #[test]
    fn schemes_stay_with_their_protocols() {
        assert!(Url::parse("tcp://localhost:2181").is_err());
        let http = "http://localhost:2181";
        assert_eq!(
            Url::parse_stream(http),
            Err(BadUrl::StreamScheme(http.into()))
        );
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (text, refusal) in [
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("a:1", "URL scheme must be http, https, unix, or unixs: a:1"),
            (
                "ftp://a:1",
                "URL scheme must be http, https, unix, or unixs: ftp://a:1",
            ),
            (
                "//a:1",
                "URL scheme must be http, https, unix, or unixs: //a:1",
            ),
            (
                "127.0.0.1:1",
                "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
            ),
            (
                "http://a",
                "URL address does not have the form \"host:port\": http://a",
            ),
            (
                "http:a:1",
                "URL address does not have the form \"host:port\": http:a:1",
            ),
            (
                "http://[::1]",
                "URL address does not have the form \"host:port\": http://[::1]",
            ),
            (
                "http://::1:5",
                "URL address does not have the form \"host:port\": http://::1:5",
            ),
            (
                "unix://",
                "URL address does not have the form \"host:port\": unix://",
            ),
            (
                "http://a b:1",
                "parse \"http://a b:1\": invalid character \" \" in host name",
            ),
            (
                "http://h:xx",
                "parse \"http://h:xx\": invalid port \":xx\" after host",
            ),
            (
                "http://h:+1",
                "parse \"http://h:+1\": invalid character \"+\" in host name",
            ),
            (
                "http://h:99999",
                "parse \"http://h:99999\": invalid port \":99999\" after host",
            ),
            ("http://a:1/p", "URL must not contain a path: http://a:1/p"),
            ("http://a:1?p", "URL must not contain a path: http://a:1?p"),
        ] {
            let refused = Url::parse(text).map_err(|bad| bad.to_string());
            assert_eq!(refused, Err(refusal.into()));
        }
    }
}
