//! Founding a cluster whose members do not know each other yet: etcd's v2 discovery protocol, as
//! etcd 3.4 speaks it.
//!
//! The registry is any server of etcd v2's keys. Below the path of `--discovery` lie `_config/size`
//! and one key for each member that came, named by its id; the first `size` of them found the
//! cluster. A member looks whether there is room, registers itself, looks again, and waits for the
//! rest. Who may found it is decided in pure functions here; [`client`] is where sockets enter.

mod client;

use crate::config::{Config, initial_cluster_of, parse_initial_cluster};
use crate::flags::value::Urls;
use anyhow::{anyhow, bail};
use client::{CallError, Client, KEY_EXISTS, KEY_NOT_FOUND, Listing, Node};
pub use client::{Place, Proxy};
use replica::identity::member_id;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thiserror::Error;
use tracing::{info, warn};

/// The most members that a cluster is founded with here. etcd takes any number, and waits for ever.
const SIZE_MAX: usize = 1000;
/// The pause before another attempt doubles until it is 2 to the power of this, in seconds.
const DOUBLINGS_MAX: u32 = 8;
/// Lies beside the members' keys; hidden, where the registry hides such names.
const CONFIG: &str = "_config";

/// Why no cluster came of it, in etcd's words.
#[derive(Debug, Error)]
enum Failure {
    #[error("discovery: bad discovery endpoint")]
    NoRegistry,
    // etcd 3.4 means to say so, but overlooks the error and shows that of the key.
    #[error("discovery: size key not found")]
    NoSize,
    #[error("discovery: size key is bad")]
    BadSize,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: found duplicate id")]
    DuplicateId,
    #[error("discovery: found duplicate name")]
    DuplicateName,
    #[error("discovery: invalid URL")]
    InvalidUrl,
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Registers this member at `place`, and returns who founds the cluster, by name, once all are known.
///
/// Drop the future to give up; what was registered stays so.
pub async fn join(config: &Config, place: &Place) -> anyhow::Result<BTreeMap<String, Urls>> {
    let urls = &config.advertise_peer_urls;
    let id = member_id(&urls.texts(), &place.text, None);
    let mut attempt = Attempt {
        client: Client::new(place, config.discovery_proxy.as_ref()),
        id: format!("{id:x}"),
        retries: 0,
    };
    let founders = attempt.join(&initial_cluster_of(&config.name, urls)).await;
    let founders = founders.map_err(|why| {
        advise(config, place, &why);
        anyhow!("failed to join discovery cluster ({why})")
    })?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = founders
        .values()
        .flat_map(|urls| &urls.0)
        .find(|url| !seen.insert(*url))
    {
        bail!("the discovered cluster has the duplicate url {twice}");
    }
    Ok(founders)
}

/// What an operator can do, for the log.
fn advise(config: &Config, place: &Place, why: &Failure) {
    let (token, name) = (&place.text, &config.name);
    match why {
        Failure::DuplicateId => warn!(
            token,
            name,
            data_dir = config.data_dir,
            "the member has previously registered, but there is no data of it: check the data \
             directory if the cluster was founded then, or use a new discovery token"
        ),
        Failure::DuplicateName => warn!(
            token,
            name,
            "another member has registered with this name: look at the discovery URL, and use a \
             new token"
        ),
        Failure::NoRegistry | Failure::NoSize | Failure::BadSize => warn!(
            token,
            "is the discovery URL right? a token is made by setting TOKEN/_config/size"
        ),
        Failure::Full | Failure::InvalidUrl | Failure::Call(_) => warn!(
            token,
            "do not reuse a discovery token; make a new one to found a cluster"
        ),
    }
}

/// What a look at the registry shows.
struct Seen {
    /// Who has come, the first first, and no more than are wanted.
    members: Vec<Node>,
    /// How many are wanted.
    size: usize,
    /// The index of the registry that this is of.
    index: u64,
}

/// One member's attempt to be among the founders.
struct Attempt {
    client: Client,
    /// The name of its key.
    id: String,
    /// How often the registry could not be asked, in all.
    retries: u32,
}

impl Attempt {
    async fn join(&mut self, value: &str) -> Result<BTreeMap<String, Urls>, Failure> {
        // Who comes too late must not register.
        self.look().await?;
        self.register(value).await?;
        loop {
            let mut seen = self.look().await?;
            match self.await_others(&mut seen).await {
                Ok(()) => return founders(&seen),
                Err(CallError::Unavailable(why)) => {
                    self.pause("waiting for other nodes", &why).await;
                }
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Looks who has come, for as long as it takes to reach the registry.
    async fn look(&mut self) -> Result<Seen, Failure> {
        loop {
            match self.look_once().await {
                Err(Failure::Call(CallError::Unavailable(why))) => {
                    self.pause("cluster status check", &why).await;
                }
                seen => return seen,
            }
        }
    }

    async fn look_once(&self) -> Result<Seen, Failure> {
        let size = self.client.get(&format!("{CONFIG}/size")).await;
        let size = size.map_err(|why| match why {
            CallError::Refused { code, .. } if code == KEY_NOT_FOUND => Failure::NoSize,
            CallError::NoKeys => Failure::NoRegistry,
            why => why.into(),
        })?;
        let size = read_size(&size.node.value)?;
        let Listing { index, node } = self.client.get("").await?;
        let members = first_comers(node.nodes, &self.id, size)?;
        Ok(Seen {
            members,
            size,
            index,
        })
    }

    async fn register(&self, value: &str) -> Result<(), Failure> {
        let created = self.client.create(&self.id, value).await;
        let created = created.map_err(|why| match why {
            CallError::Refused { code, .. } if code == KEY_EXISTS => Failure::DuplicateId,
            why => why.into(),
        })?;
        // The registry may be a cluster, and what is read of one member follows: await it there.
        let from = created.node.created_index;
        self.client.next_event(&self.id, from).await?;
        Ok(())
    }

    /// Awaits who is missing.
    async fn await_others(&self, seen: &mut Seen) -> Result<(), CallError> {
        let Seen {
            members,
            size,
            index,
        } = seen;
        for member in members.iter() {
            match member.name() == self.id {
                true => info!(id = self.id, "found self from discovery server"),
                false => info!(peer = member.name(), "found peer from discovery server"),
            }
        }
        let mut next = index.saturating_add(1);
        while members.len() < *size {
            info!(
                found_peers = members.len(),
                needed_peers = *size - members.len(),
                "found peers from discovery server; waiting for more"
            );
            let member = self.client.next_event_below(next).await?;
            next = member.modified_index.saturating_add(1);
            info!(peer = member.name(), "found peer from discovery server");
            members.push(member);
        }
        info!(
            found_peers = members.len(),
            "found all needed peers from discovery server"
        );
        Ok(())
    }

    async fn pause(&mut self, step: &str, why: &str) {
        self.retries = self.retries.saturating_add(1);
        let backoff = backoff(self.retries);
        info!(
            reason = step,
            error = why,
            backoff_s = backoff.as_secs(),
            "retry connecting to discovery service"
        );
        tokio::time::sleep(backoff).await;
    }
}

/// How long to wait before the next attempt, after `retries` of them.
fn backoff(retries: u32) -> Duration {
    Duration::from_secs(1 << retries.min(DOUBLINGS_MAX))
}

/// How many members found the cluster. etcd crashes when there are to be none.
fn read_size(text: &str) -> Result<usize, Failure> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let size = text.parse().ok().filter(|_| is_number);
    size.filter(|size| (1..=SIZE_MAX).contains(size))
        .ok_or(Failure::BadSize)
}

/// The first `size` that have registered, the first first. It is too late for who is not among them
/// once they are all there.
fn first_comers(mut nodes: Vec<Node>, own: &str, size: usize) -> Result<Vec<Node>, Failure> {
    nodes.retain(|node| node.name() != CONFIG);
    nodes.sort_by_key(|node| node.created_index);
    nodes.truncate(size);
    if nodes.len() == size && !nodes.iter().any(|node| node.name() == own) {
        return Err(Failure::Full);
    }
    Ok(nodes)
}

/// The members by name, from what they have registered.
fn founders(seen: &Seen) -> Result<BTreeMap<String, Urls>, Failure> {
    let values: Vec<&str> = seen.members.iter().map(|node| &*node.value).collect();
    let founders = parse_initial_cluster(&values.join(",")).map_err(|_| Failure::InvalidUrl)?;
    match founders.len() == seen.size {
        true => Ok(founders),
        false => Err(Failure::DuplicateName),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, value: &str, created_index: u64) -> Node {
        Node {
            key: format!("/_etcd/registry/token/{id}"),
            value: value.into(),
            created_index,
            ..Node::default()
        }
    }

    #[test]
    fn a_size_is_a_number_of_members() {
        assert_eq!(read_size("3").ok(), Some(3));
        assert_eq!(read_size("003").ok(), Some(3));
        for bad in [
            "",
            "0",
            "-1",
            "+3",
            " 3",
            "3.0",
            "many",
            "1001",
            "99999999999999999999",
        ] {
            let refused = read_size(bad).expect_err(bad).to_string();
            assert_eq!(refused, "discovery: size key is bad", "{bad}");
        }
    }

    #[test]
    fn those_who_came_first_found_the_cluster() {
        let came = || {
            vec![
                node("c", "", 9),
                node(CONFIG, "", 2),
                node("a", "", 4),
                node("b", "", 3),
            ]
        };
        let names = |size, own| {
            let comers = first_comers(came(), own, size);
            comers.map(|nodes| {
                nodes
                    .iter()
                    .map(|node| node.name().to_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(5, "z").expect("room"), ["b", "a", "c"]);
        assert_eq!(names(3, "c").expect("among them"), ["b", "a", "c"]);
        assert_eq!(names(2, "a").expect("among them"), ["b", "a"]);
        for (size, own) in [(3, "z"), (2, "c"), (1, "z")] {
            let refused = names(size, own).expect_err("no room").to_string();
            assert_eq!(refused, "discovery: cluster is full", "{own} of {size}");
        }
    }

    #[test]
    fn founders_have_names_of_their_own() {
        let seen = |values: &[&str]| {
            let members = values.iter().map(|value| node("", value, 1)).collect();
            founders(&Seen {
                members,
                size: 2,
                index: 1,
            })
        };
        let found = seen(&["b=http://b:2", "a=http://a:2,a=http://a:1"]).expect("two members");
        let found: Vec<_> = found
            .iter()
            .map(|(name, urls)| format!("{name} {urls}"))
            .collect();
        assert_eq!(found, ["a http://a:1,http://a:2", "b http://b:2"]);
        for (values, refusal) in [
            (
                ["a=http://a:1", "a=http://b:1"],
                "discovery: found duplicate name",
            ),
            (["a=http://a:1", ""], "discovery: found duplicate name"),
            (["a=http://a:1", "b=ftp://b:1"], "discovery: invalid URL"),
        ] {
            let refused = seen(&values).expect_err("no cluster").to_string();
            assert_eq!(refused, refusal, "{values:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses: Vec<u64> = [1, 2, 8, 9, u32::MAX].map(|n| backoff(n).as_secs()).into();
        assert_eq!(pauses, [2, 4, 256, 256, 256]);
    }
}
