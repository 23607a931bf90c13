//! The URLs of etcd's flags: `http://host:port`, `https://host:port`, `unix://path`, `unixs://path`;
//! and those of protocols that have no URLs of their own: `tcp://host:port`, `tls://host:port`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

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

// etcd sorts URLs by their text, and member ids are made from the sorted list.
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

impl Url {
    /// Reads one, with etcd's refusals.
    pub fn parse(text: &str) -> Result<Url, String> {
        let bad_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
        let (scheme, rest) = text.split_once(':').ok_or_else(bad_scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(bad_scheme()),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            Scheme::Unix | Scheme::Unixs => Ok(Url {
                scheme,
                address: rest.to_owned(),
            }),
            Scheme::Http | Scheme::Https | Scheme::Tcp | Scheme::Tls => {
                Url::of_host(scheme, rest, text)
            }
        }
    }

    /// Reads one of a protocol that is not HTTP.
    pub fn parse_stream(text: &str) -> Result<Url, String> {
        match text.split_once("://") {
            Some(("tcp", rest)) => Url::of_host(Scheme::Tcp, rest, text),
            Some(("tls", rest)) => Url::of_host(Scheme::Tls, rest, text),
            Some(_) | None => Err(format!("URL scheme must be tcp or tls: {text}")),
        }
    }

    fn of_host(scheme: Scheme, rest: &str, text: &str) -> Result<Url, String> {
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if split_host_port(address).is_none() {
            return Err(format!(
                "URL address does not have the form \"host:port\": {text}"
            ));
        }
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
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

    /// etcd binds to addresses, not to names, `localhost` excepted.
    pub fn check_bindable(&self) -> Result<(), String> {
        match self.host_port() {
            None => Ok(()),
            Some((host, _)) if host == "localhost" || host.parse::<IpAddr>().is_ok() => Ok(()),
            Some(_) => Err(format!("expected IP in URL for binding ({self})")),
        }
    }

    /// What is advertised must name a host.
    pub fn check_advertisable(&self) -> Result<(), String> {
        match self.host_port() {
            Some(("", _)) => Err(format!("unexpected empty host ({self})")),
            Some(_) | None => Ok(()),
        }
    }

    /// The socket addresses it stands for. May ask the system's resolver, and so may block.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let Some((host, port)) = self.host_port() else {
            return Ok(Vec::new());
        };
        let port: u16 = port
            .parse()
            .map_err(|_| std::io::Error::other(format!("bad port in {self}")))?;
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// Splits `host:port` and `[v6]:port`; a bare v6 address is ambiguous and refused, as in Go.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(bracketed) => Some((bracketed.strip_suffix(']')?, port)),
        None if host.contains(':') => None,
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
    }

    #[test]
    fn schemes_stay_with_their_protocols() {
        assert!(Url::parse("tcp://localhost:2181").is_err());
        assert_eq!(
            Url::parse_stream("http://localhost:2181"),
            Err("URL scheme must be tcp or tls: http://localhost:2181".into())
        );
    }

    #[test]
    fn refusals_are_etcds() {
        for (text, refusal) in [
            (
                "ftp://a:1",
                "URL scheme must be http, https, unix, or unixs: ftp://a:1",
            ),
            ("a:1", "URL scheme must be http, https, unix, or unixs: a:1"),
            (
                "http://a",
                "URL address does not have the form \"host:port\": http://a",
            ),
            (
                "http://::1:5",
                "URL address does not have the form \"host:port\": http://::1:5",
            ),
            ("http://a:1/p", "URL must not contain a path: http://a:1/p"),
        ] {
            assert_eq!(Url::parse(text), Err(refusal.into()));
        }
    }

    #[test]
    fn only_addresses_are_bound() {
        let check = |text| Url::parse(text).and_then(|url| url.check_bindable());
        assert_eq!(check("http://localhost:1"), Ok(()));
        assert_eq!(check("http://[::]:1"), Ok(()));
        assert_eq!(check("unix://a"), Ok(()));
        assert_eq!(
            check("http://example.com:1"),
            Err("expected IP in URL for binding (http://example.com:1)".into())
        );
    }
}
