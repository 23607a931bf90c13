//! etcd's v3 API: gRPC over an HTTP/2 client of its own.

mod call;
mod exchange;
mod headers;
mod http2;
mod requests;
pub mod suite;
mod watch;
mod wire;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use proto::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse, StatusRequest,
    StatusResponse,
};

use crate::fan_out::{FanOut, share_of};
use crate::generator::{MemberSpec, Plan};
use crate::keys::{KeySpace, Order};
use crate::load::{Load, Slice};
use crate::protocol::{self, Driven, Member, Met, Protocol};
use exchange::{Calls, KeepAlives};
use requests::path;
pub use requests::{Operation, Put, Range, Requests, STAMP_BYTES, Txn};
use watch::Watch;

/// Keys of a transaction that fills keys in.
const FILL_PER_TXN: u64 = 100;

/// etcd's v3 API.
#[derive(Debug, Clone, Default)]
pub struct Etcd {
    /// The authentication token.
    token: Option<String>,
}

/// What all connections together do.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// Unary calls.
    Unary(Operation),
    /// Keep-alives, each client with a lease and a stream of its own.
    KeepAlive {
        /// The leases' time to live in seconds.
        ttl_s: i64,
    },
    /// Watchers of one key on `connections`; the clients, on one more connection, put it.
    Watch {
        /// Streams in all.
        streams: usize,
        /// Watchers in all.
        watchers: usize,
        /// Ask for previous key-value pairs.
        prev_kv: bool,
    },
}

impl protocol::Workload for Workload {
    fn needs_keys(&self) -> bool {
        match self {
            Self::Unary(operation) => operation.reads(),
            Self::KeepAlive { .. } | Self::Watch { .. } => false,
        }
    }

    fn is_accounted(&self) -> bool {
        true
    }
}

/// What one connection does.
#[derive(Debug, Clone)]
pub enum Role {
    /// Calls.
    Unary(Requests),
    /// Keep-alives of leases with this time to live.
    KeepAlive {
        /// In seconds.
        ttl_s: i64,
    },
    /// Watchers.
    Watch {
        /// On so many streams.
        streams: usize,
        /// So many of them.
        watchers: usize,
        /// Whether they ask for previous key-value pairs.
        prev_kv: bool,
    },
}

impl Etcd {
    async fn call<A: prost::Message + Default>(
        &self,
        member: &str,
        path: &str,
        request: &impl prost::Message,
    ) -> anyhow::Result<A> {
        call::open(member, self.token.clone())
            .await?
            .call(path, request)
            .await
    }

    async fn authenticate(member: &str, user: &str) -> anyhow::Result<Self> {
        let Some((name, password)) = user.split_once(':') else {
            bail!("--user must be NAME:PASSWORD");
        };
        let request = AuthenticateRequest {
            name: name.into(),
            password: password.into(),
        };
        let nobody = Self::default();
        let answer: AuthenticateResponse =
            nobody.call(member, path::AUTHENTICATE, &request).await?;
        Ok(Self {
            token: Some(answer.token),
        })
    }
}

impl Protocol for Etcd {
    type Workload = Workload;
    type Role = Role;
    /// `NAME:PASSWORD`
    type Credentials = Option<String>;
    const ENDPOINT: &str = "localhost:2379";

    async fn meet(members: &[String], user: &Option<String>) -> anyhow::Result<Met<Self>> {
        let protocol = match user {
            Some(user) => Self::authenticate(&members[0], user).await?,
            None => Self::default(),
        };
        let (mut leaders, mut version) = (Vec::new(), String::new());
        for member in members {
            let status: StatusResponse = protocol
                .call(member, path::STATUS, &StatusRequest::default())
                .await?;
            let id = status
                .header
                .context("a status without a header")?
                .member_id;
            if status.leader == id {
                leaders.push(member.clone());
            }
            version = status.version;
        }
        Ok(Met {
            protocol,
            version,
            leaders,
        })
    }

    async fn revision(&self, members: &[String]) -> anyhow::Result<i64> {
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            count_only: true,
            ..Default::default()
        };
        let answer: RangeResponse = self.call(&members[0], path::RANGE, &request).await?;
        Ok(answer.header.context("a range without a header")?.revision)
    }

    async fn count(&self, member: &str, keys: &KeySpace) -> anyhow::Result<u64> {
        let request = RangeRequest {
            key: keys.key(0),
            range_end: keys.end(),
            count_only: true,
            ..Default::default()
        };
        let answer: RangeResponse = self.call(member, path::RANGE, &request).await?;
        u64::try_from(answer.count).context("a negative count")
    }

    async fn prepare(&self, _: &str, _: &KeySpace) -> anyhow::Result<()> {
        // Keys stand for themselves.
        Ok(())
    }

    fn filling() -> Workload {
        Workload::Unary(Operation::Fill {
            per_txn: FILL_PER_TXN,
        })
    }

    fn members(plan: &Plan<Self>) -> Vec<MemberSpec<Role>> {
        let connections = match plan.workload {
            Workload::Unary(_) | Workload::KeepAlive { .. } => plan.connections.min(plan.clients),
            Workload::Watch { watchers, .. } => plan.connections.min(watchers),
        };
        let members = (0..connections).map(|number| match plan.workload {
            Workload::Unary(operation) => {
                let order = match operation {
                    Operation::Fill { .. } => plan.order_once(number, connections),
                    Operation::Put(_)
                    | Operation::Range(_)
                    | Operation::Txn(_)
                    | Operation::Mixed { .. }
                    | Operation::LeaseGrant { .. } => plan.order(number, connections),
                };
                let role = Role::Unary(requests(plan, operation, order, number));
                plan.asking(role, number, connections)
            }
            Workload::KeepAlive { ttl_s } => {
                plan.asking(Role::KeepAlive { ttl_s }, number, connections)
            }
            Workload::Watch {
                streams,
                watchers,
                prev_kv,
            } => {
                let role = Role::Watch {
                    streams: share_of(streams, connections, number).max(1),
                    watchers: share_of(watchers, connections, number),
                    prev_kv,
                };
                plan.silent(role, number)
            }
        });
        let mut members: Vec<_> = members.collect();
        if let Workload::Watch { prev_kv, .. } = plan.workload {
            let put = Operation::Put(Put {
                stamped: true,
                prev_kv,
            });
            let role = Role::Unary(requests(plan, put, Order::one_key(), connections));
            members.push(plan.writing(role));
        }
        members
    }

    async fn connect(
        plan: &Plan<Self>,
        spec: &MemberSpec<Role>,
        shared: &Arc<FanOut>,
        rest: Slice,
    ) -> anyhow::Result<Box<dyn Member>> {
        let mut connection = call::open(&spec.endpoint, plan.protocol.token.clone()).await?;
        Ok(match &spec.role {
            Role::Unary(requests) => {
                let calls = Calls::new(requests.clone(), spec.clients);
                Driven::by(Load::new(calls, spec, shared, rest), connection)
            }
            Role::KeepAlive { ttl_s } => {
                let keep_alives = KeepAlives::grant(&mut connection, *ttl_s, spec.clients).await?;
                Driven::by(Load::new(keep_alives, spec, shared, rest), connection)
            }
            Role::Watch {
                streams,
                watchers,
                prev_kv,
            } => {
                let key = plan.keys.key(0);
                let mut session =
                    Watch::new(key, *prev_kv, *streams, *watchers, shared.clone(), rest);
                connection.drive(&mut session).await?;
                Driven::by(session, connection)
            }
        })
    }
}

fn requests(plan: &Plan<Etcd>, operation: Operation, order: Order, number: usize) -> Requests {
    let (keys, bytes) = (plan.keys.clone(), plan.value_bytes);
    Requests::new(operation, keys, order, bytes, plan.seed_of(number))
}
