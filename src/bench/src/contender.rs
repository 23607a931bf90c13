//! A server, or a cluster, that is measured: where it listens, which processes it is, and how it
//! is spoken to.

use anyhow::{bail, ensure};

use crate::args::Target;
use crate::process::{Usage, usage_of};
use crate::protocol::Protocol;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub struct Contender<P> {
    /// How tables call it.
    pub name: &'static str,
    /// The members that take the load, as `host:port`.
    pub targets: Vec<String>,
    /// Its processes, if they run here.
    pub pids: Vec<u32>,
    /// How it is spoken to.
    pub protocol: P,
    /// What it says its version is.
    pub version: String,
}

impl<P: Protocol> Contender<P> {
    /// Finds out what must be known of the server at `endpoints` before it is measured.
    pub async fn meet(
        name: &'static str,
        endpoints: &[String],
        pids: &[u32],
        target: Target,
        credentials: &P::Credentials,
    ) -> anyhow::Result<Self> {
        let members = endpoints
            .iter()
            .map(|endpoint| host_and_port(endpoint))
            .collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!members.is_empty(), "{name} has no endpoint");
        let met = P::meet(&members, credentials).await?;
        let targets = match target {
            Target::All => members,
            Target::Leader => {
                ensure!(
                    !met.leaders.is_empty(),
                    "no endpoint of {name} is the leader"
                );
                met.leaders
            }
        };
        Ok(Self {
            name,
            targets,
            pids: pids.to_vec(),
            protocol: met.protocol,
            version: met.version,
        })
    }

    /// The revision that every write acknowledged by the targets is at or below.
    pub async fn revision(&self) -> anyhow::Result<i64> {
        self.protocol.revision(&self.targets).await
    }

    /// CPU and memory of its processes so far, if they are known.
    pub fn usage(&self) -> anyhow::Result<Option<Usage>> {
        usage_of(&self.pids)
    }
}

/// `http://host:port`, or the same without its scheme, as `host:port`.
fn host_and_port(endpoint: &str) -> anyhow::Result<String> {
    if endpoint.starts_with("https://") {
        bail!("{endpoint}: the load generator does not speak TLS");
    }
    let rest = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let rest = rest.trim_end_matches('/');
    ensure!(
        rest.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
        "{endpoint}: an endpoint is HOST:PORT or http://HOST:PORT"
    );
    Ok(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_accepted_as_etcd_clients_accept_them() {
        for endpoint in ["http://[::1]:2379", "[::1]:2379", "http://[::1]:2379/"] {
            assert_eq!(host_and_port(endpoint).expect("valid"), "[::1]:2379");
        }
        for endpoint in ["https://a:1", "a", "a:b", ":1", "http://", ""] {
            assert!(host_and_port(endpoint).is_err(), "{endpoint}");
        }
    }
}
