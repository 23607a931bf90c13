//! A server, or a cluster, that is measured: where it listens, which processes it is, and the few
//! questions asked of it outside the measurement.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use proto::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse, StatusRequest,
    StatusResponse,
};

use crate::args::Target;
use crate::connection::Connection;
use crate::keys::KeySpace;
use crate::process::{Usage, usage_of};
use crate::requests::path;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub struct Contender {
    /// How tables call it.
    pub name: &'static str,
    /// All its members, as `host:port`.
    pub members: Vec<String>,
    /// Those that take the load.
    pub targets: Vec<String>,
    /// Its processes, if they run here.
    pub pids: Vec<u32>,
    /// etcd's authentication token.
    pub token: Option<String>,
    /// What it says its version is.
    pub version: String,
}

impl Contender {
    /// Finds out what must be known of the server at `endpoints` before it is measured.
    pub async fn meet(
        name: &'static str,
        endpoints: &[String],
        pids: &[u32],
        target: Target,
        user: Option<&str>,
    ) -> anyhow::Result<Self> {
        let members = endpoints
            .iter()
            .map(|endpoint| host_and_port(endpoint))
            .collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!members.is_empty(), "{name} has no endpoint");
        let mut contender = Self {
            name,
            targets: members.clone(),
            members,
            pids: pids.to_vec(),
            token: None,
            version: String::new(),
        };
        if let Some(user) = user {
            contender.token = Some(contender.authenticate(user).await?);
        }
        let mut leaders = Vec::new();
        for member in &contender.members {
            let status: StatusResponse = contender
                .call(member, path::STATUS, &StatusRequest::default())
                .await?;
            let id = status
                .header
                .context("a status without a header")?
                .member_id;
            if status.leader == id {
                leaders.push(member.clone());
            }
            contender.version = status.version;
        }
        match target {
            Target::All => {}
            Target::Leader => {
                ensure!(!leaders.is_empty(), "no endpoint of {name} is the leader");
                contender.targets = leaders;
            }
        }
        Ok(contender)
    }

    async fn authenticate(&self, user: &str) -> anyhow::Result<String> {
        let Some((name, password)) = user.split_once(':') else {
            bail!("--user must be NAME:PASSWORD");
        };
        let request = AuthenticateRequest {
            name: name.into(),
            password: password.into(),
        };
        let answer: AuthenticateResponse = self
            .call(&self.members[0], path::AUTHENTICATE, &request)
            .await?;
        Ok(answer.token)
    }

    async fn call<A: prost::Message + Default>(
        &self,
        member: &str,
        path: &str,
        request: &impl prost::Message,
    ) -> anyhow::Result<A> {
        Connection::open(member, self.token.clone())
            .await?
            .call(path, request)
            .await
    }

    /// The revision that every acknowledged write is at or below.
    pub async fn revision(&self) -> anyhow::Result<i64> {
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            count_only: true,
            ..Default::default()
        };
        let answer: RangeResponse = self.call(&self.targets[0], path::RANGE, &request).await?;
        Ok(answer.header.context("a range without a header")?.revision)
    }

    /// How many keys there are from the key space's first to its last.
    pub async fn count(&self, keys: &KeySpace) -> anyhow::Result<u64> {
        let request = RangeRequest {
            key: keys.key(0),
            range_end: keys.end(),
            count_only: true,
            ..Default::default()
        };
        let answer: RangeResponse = self.call(&self.targets[0], path::RANGE, &request).await?;
        u64::try_from(answer.count).context("a negative count")
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
