//! ZooKeeper's protocol: frames in order, on sessions that pipeline.

mod call;
mod frames;
mod requests;
mod storm;
pub mod suite;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::connection::CONNECT_MS_MAX;
use crate::fan_out::FanOut;
use crate::generator::{MemberSpec, Plan};
use crate::keys::{KeySpace, Order, parent_of};
use crate::load::{Load, Slice};
use crate::protocol::{self, Driven, Member, Met, Protocol};
use frames::{Put as _, error, opcode};
use requests::Requests;
pub use requests::{Create, Multi, Operation};
use storm::Storm;
use watch::Watch;

/// The longest answer to a four-letter word.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// ZooKeeper's protocol.
#[derive(Debug, Clone, Copy)]
pub struct ZooKeeper;

/// What all sessions together do.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// Requests.
    Requests(Operation),
    /// Sessions that watch one node; the clients, on one more session, set it.
    Watch {
        /// Watchers that fire once and are set again by a read, instead of ones that stay.
        one_shot: bool,
    },
    /// Every client connects again and again.
    Connect {
        /// To its own session, instead of opening one and closing it.
        resume: bool,
    },
}

impl protocol::Workload for Workload {
    fn needs_keys(&self) -> bool {
        match self {
            Self::Requests(operation) => operation.needs_keys(),
            Self::Watch { .. } => true,
            Self::Connect { .. } => false,
        }
    }

    fn is_accounted(&self) -> bool {
        match self {
            Self::Requests(_) | Self::Watch { .. } => true,
            // Where sessions are part of the history, they move the zxid.
            Self::Connect { .. } => false,
        }
    }
}

/// What one session does.
#[derive(Debug, Clone)]
pub enum Role {
    /// Requests.
    Requests {
        /// Which.
        operation: Operation,
        /// On which nodes.
        order: Order,
        /// The session's number.
        number: usize,
    },
    /// A watcher.
    Watch {
        /// Whether it fires once.
        one_shot: bool,
    },
    /// Connects.
    Connect {
        /// To the same session.
        resume: bool,
    },
}

impl Protocol for ZooKeeper {
    type Workload = Workload;
    type Role = Role;
    type Credentials = ();
    const ENDPOINT: &str = "localhost:2181";

    async fn meet(members: &[String], (): &()) -> anyhow::Result<Met<Self>> {
        let (mut leaders, mut version) = (Vec::new(), String::new());
        for member in members {
            let report = serve_report(member).await?;
            let mode = line_of(&report, "Mode: ")?;
            if mode == "leader" || mode == "standalone" {
                leaders.push(member.clone());
            }
            let text = line_of(&report, "Zookeeper version: ")?;
            let end = text.find(['-', ',']).unwrap_or(text.len());
            text[..end].clone_into(&mut version);
        }
        Ok(Met {
            protocol: Self,
            version,
            leaders,
        })
    }

    async fn revision(&self, members: &[String]) -> anyhow::Result<i64> {
        // Not through a session: opening it would move the zxid.
        let mut newest = 0;
        for member in members {
            let report = serve_report(member).await?;
            let zxid = line_of(&report, "Zxid: ")?;
            let digits = zxid.trim_start_matches("0x");
            let zxid = i64::from_str_radix(digits, 16).with_context(|| format!("zxid {zxid:?}"))?;
            newest = newest.max(zxid);
        }
        Ok(newest)
    }

    async fn count(&self, member: &str, keys: &KeySpace) -> anyhow::Result<u64> {
        let mut connection = call::open(member).await?;
        let first = keys.key(0);
        let mut count = 0;
        for path in [&first[..], parent_of(&first)] {
            let exists = |out: &mut BytesMut| {
                out.string(path);
                out.boolean(false);
            };
            let reply = connection.call(opcode::EXISTS, exists).await?;
            if reply.error == error::NO_NODE {
                count = 0;
                break;
            }
            reply.check()?;
            count = frames::children_of_stat(&reply.body).context("a Stat too short")?;
        }
        connection.part().await?;
        Ok(count)
    }

    async fn prepare(&self, member: &str, keys: &KeySpace) -> anyhow::Result<()> {
        let first = keys.key(0);
        ensure!(
            first.starts_with(b"/"),
            "--key-prefix must be a path: it begins with /"
        );
        let mut connection = call::open(member).await?;
        let parent = parent_of(&first);
        let ends = (2..=parent.len()).filter(|&at| at == parent.len() || parent[at] == b'/');
        for end in ends {
            let create = |out: &mut BytesMut| {
                frames::create(out, &parent[..end], b"", frames::Kind::Persistent);
            };
            let reply = connection.call(opcode::CREATE, create).await?;
            if reply.error != error::NODE_EXISTS {
                reply.check()?;
            }
        }
        connection.part().await
    }

    fn filling() -> Workload {
        Workload::Requests(Operation::Fill)
    }

    fn members(plan: &Plan<Self>) -> Vec<MemberSpec<Role>> {
        let sessions = plan.connections;
        let members = (0..sessions).map(|number| match plan.workload {
            Workload::Requests(operation) => {
                let order = match operation {
                    Operation::Fill => plan.order_once(number, sessions),
                    Operation::Create(_) => Order::Sequential {
                        next: number as u64,
                        step: sessions as u64,
                    },
                    Operation::Set
                    | Operation::Get { .. }
                    | Operation::Children
                    | Operation::Multi(_)
                    | Operation::Mixed { .. } => plan.order(number, sessions),
                };
                let role = Role::Requests {
                    operation,
                    order,
                    number,
                };
                plan.asking(role, number, sessions)
            }
            Workload::Watch { one_shot } => plan.silent(Role::Watch { one_shot }, number),
            Workload::Connect { resume } => plan.silent(Role::Connect { resume }, number),
        });
        let mut members: Vec<_> = members.collect();
        if let Workload::Watch { .. } = plan.workload {
            let role = Role::Requests {
                operation: Operation::Set,
                order: Order::one_key(),
                number: sessions,
            };
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
        Ok(match &spec.role {
            Role::Requests {
                operation,
                order,
                number,
            } => {
                let connection = call::open(&spec.endpoint).await?;
                let clients = spec.clients;
                let requests = Requests::new(*operation, order.clone(), clients, plan, *number)?;
                Driven::by(Load::new(requests, spec, shared, rest), connection)
            }
            Role::Watch { one_shot } => {
                let mut connection = call::open(&spec.endpoint).await?;
                let mut session = Watch::new(plan.keys.key(0), *one_shot, shared.clone(), rest);
                connection.drive(&mut session).await?;
                Driven::by(session, connection)
            }
            Role::Connect { resume } => {
                Box::new(Storm::new(spec.endpoint.clone(), *resume, rest).await?)
            }
        })
    }
}

/// The answer to `srvr`, the one four-letter word that ZooKeeper allows unless told otherwise.
async fn serve_report(member: &str) -> anyhow::Result<String> {
    let asking = async {
        let mut socket = TcpStream::connect(member).await?;
        socket.write_all(b"srvr").await?;
        let mut answer = String::new();
        let mut limited = socket.take(ANSWER_BYTES_MAX);
        limited.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), asking)
        .await
        .with_context(|| format!("{member} does not answer srvr"))?
        .with_context(|| format!("asking {member} for srvr"))
}

fn line_of<'a>(report: &'a str, start: &str) -> anyhow::Result<&'a str> {
    report
        .lines()
        .find_map(|line| line.strip_prefix(start))
        .with_context(|| format!("srvr says no {start:?}: {report:?}"))
}

/// A key of the plan's key space, as the path of a node.
type Path = Bytes;
