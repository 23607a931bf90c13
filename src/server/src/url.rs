//! URLs in flags and files: what may be bound to, what may be advertised, and where they lead.

use gateway::url::Url;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Reads one, or says why it is none.
pub fn parse(text: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|bad| bad.to_string())
}

/// The same of a protocol that is not HTTP.
pub fn parse_stream(text: &str) -> Result<Url, String> {
    Url::parse_stream(text).map_err(|bad| bad.to_string())
}

/// etcd binds to addresses, not to names, `localhost` excepted.
pub fn check_bindable(url: &Url) -> Result<(), String> {
    match url.host_port() {
        None => Ok(()),
        Some((host, _)) if host == "localhost" || host.parse::<IpAddr>().is_ok() => Ok(()),
        Some(_) => Err(format!("expected IP in URL for binding ({url})")),
    }
}

/// What is advertised must name a host.
pub fn check_advertisable(url: &Url) -> Result<(), String> {
    match url.host_port() {
        Some(("", _)) => Err(format!("unexpected empty host ({url})")),
        Some(_) | None => Ok(()),
    }
}

/// The socket addresses it stands for. May ask the system's resolver, and so may block.
pub fn resolve(url: &Url) -> std::io::Result<Vec<SocketAddr>> {
    let Some((host, port)) = url.host_port() else {
        return Ok(Vec::new());
    };
    let port: u16 = port.parse().expect("a URL has a port that is one");
    Ok((host, port).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_bound() {
        let check = |text| check_bindable(&parse(text).expect("a URL"));
        assert_eq!(check("http://localhost:1"), Ok(()));
        assert_eq!(check("http://[::]:1"), Ok(()));
        assert_eq!(check("unix://a"), Ok(()));
        assert_eq!(
            check("http://example.com:1"),
            Err("expected IP in URL for binding (http://example.com:1)".into())
        );
    }
}
