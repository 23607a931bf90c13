//! etcd's v2 API: HTTP/1.1, each client on a connection of its own.

mod call;
mod http1;
mod requests;
pub mod suite;
mod watch;

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::fan_out::FanOut;
use crate::generator::{MemberSpec, Plan};
use crate::keys::{KeySpace, Order, parent_of};
use crate::load::{Load, Slice};
use crate::protocol::{self, Driven, Member, Met, Protocol};
use call::{KEYS, QUORUM};
pub use requests::Operation;
use requests::Requests;
use watch::Watch;

/// A key that nobody sets: an answer that there is none tells the store's index as well.
const NO_KEY: &[u8] = b"/_bench_reads_no_key";
/// What is answered when a key is not there.
const NOT_FOUND: u16 = 404;

/// etcd's v2 API.
#[derive(Debug, Clone, Copy)]
pub struct EtcdV2;

/// What all connections together do.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// Requests, of each client on a connection of its own.
    Requests(Operation),
    /// Clients that wait for changes of one key; one more sets it.
    Watch,
}

impl protocol::Workload for Workload {
    fn needs_keys(&self) -> bool {
        match self {
            Self::Requests(operation) => operation.reads(),
            Self::Watch => false,
        }
    }

    fn is_accounted(&self) -> bool {
        true
    }
}

/// What one connection does.
#[derive(Debug, Clone)]
pub enum Role {
    /// Requests.
    Requests {
        /// Which.
        operation: Operation,
        /// On which keys.
        order: Order,
        /// The connection's number.
        number: usize,
    },
    /// Waits.
    Watch,
}

/// The answer of `/version`.
#[derive(Deserialize)]
struct Version {
    etcdserver: String,
}

/// The answer of `/v2/stats/self`.
#[derive(Deserialize)]
struct Stats {
    state: String,
}

/// A list of keys.
#[derive(Deserialize)]
struct Listing {
    node: Directory,
}

/// The keys of a directory; an empty one names none.
#[derive(Deserialize)]
struct Directory {
    #[serde(default)]
    nodes: Vec<IgnoredAny>,
}

impl Protocol for EtcdV2 {
    type Workload = Workload;
    type Role = Role;
    type Credentials = ();
    const ENDPOINT: &str = "localhost:2379";

    async fn meet(members: &[String], (): &()) -> anyhow::Result<Met<Self>> {
        let (mut leaders, mut version) = (Vec::new(), String::new());
        for member in members {
            let mut connection = call::open(member).await?;
            let answer = connection.get(&[b"/version"], "").await?;
            version = answer.read::<Version>()?.etcdserver;
            let stats = connection.get(&[b"/v2/stats/self"], "").await?;
            if stats
                .read::<Stats>()
                .is_ok_and(|it| it.state == "StateLeader")
            {
                leaders.push(member.clone());
            }
        }
        Ok(Met {
            protocol: Self,
            version,
            leaders,
        })
    }

    async fn revision(&self, members: &[String]) -> anyhow::Result<i64> {
        let mut connection = call::open(&members[0]).await?;
        let answer = connection.get(&[KEYS, NO_KEY], QUORUM).await?;
        ensure!(answer.status == NOT_FOUND, "{}", answer.failure());
        Ok(i64::try_from(answer.index()?)?)
    }

    async fn count(&self, member: &str, keys: &KeySpace) -> anyhow::Result<u64> {
        let mut connection = call::open(member).await?;
        let first = keys.key(0);
        let answer = connection.get(&[KEYS, parent_of(&first)], QUORUM).await?;
        if answer.status == NOT_FOUND {
            return Ok(0);
        }
        Ok(answer.read::<Listing>()?.node.nodes.len() as u64)
    }

    async fn prepare(&self, _: &str, keys: &KeySpace) -> anyhow::Result<()> {
        let first = keys.key(0);
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
        ensure!(
            first.starts_with(b"/") && first.iter().all(is_plain),
            "--key-prefix must be a path of plain letters: it begins with /"
        );
        Ok(())
    }

    fn filling() -> Workload {
        Workload::Requests(Operation::Fill)
    }

    fn members(plan: &Plan<Self>) -> Vec<MemberSpec<Role>> {
        match plan.workload {
            Workload::Requests(operation) => {
                let clients = plan.clients;
                let members = (0..clients).map(|number| {
                    let order = match operation {
                        Operation::Fill => plan.order_once(number, clients),
                        Operation::Set | Operation::Get { .. } | Operation::Mixed { .. } => {
                            plan.order(number, clients)
                        }
                    };
                    let role = Role::Requests {
                        operation,
                        order,
                        number,
                    };
                    plan.asking(role, number, clients)
                });
                members.collect()
            }
            Workload::Watch => {
                let watchers = plan.connections;
                let members = (0..watchers).map(|number| plan.silent(Role::Watch, number));
                let writer = plan.writing(Role::Requests {
                    operation: Operation::Set,
                    order: Order::one_key(),
                    number: watchers,
                });
                members.chain([writer]).collect()
            }
        }
    }

    async fn connect(
        plan: &Plan<Self>,
        spec: &MemberSpec<Role>,
        shared: &Arc<FanOut>,
        rest: Slice,
    ) -> anyhow::Result<Box<dyn Member>> {
        let mut connection = call::open(&spec.endpoint).await?;
        Ok(match &spec.role {
            Role::Requests {
                operation,
                order,
                number,
            } => {
                let requests = Requests::new(*operation, order.clone(), plan, *number);
                Driven::by(Load::new(requests, spec, shared, rest), connection)
            }
            Role::Watch => {
                let mut session = Watch::new(plan.keys.key(0), shared.clone(), rest);
                let begun = connection.drive(&mut session).await;
                begun.context("beginning to wait")?;
                Driven::by(session, connection)
            }
        })
    }
}
