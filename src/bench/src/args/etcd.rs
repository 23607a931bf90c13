//! What is said about etcd's workloads.

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};

use super::{LoadArgs, SuiteArgs, WorkloadArgs, per_mille};
use crate::etcd::{Etcd, Operation, Put, Range, STAMP_BYTES, Txn, Workload, suite};
use crate::task::{Task, What};

/// The workloads.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Put keys.
    Put(PutArgs),
    /// Read keys: one at random, or with --all the whole key space.
    Range(RangeArgs),
    /// Transactions of guards that hold and puts.
    Txn(TxnArgs),
    /// Reads and puts mixed.
    Mixed(MixedArgs),
    /// One key, many watchers: events per second and CPU per delivered event.
    WatchFanout(WatchArgs),
    /// One key put at a steady rate: from the start of a put to the arrival of its event.
    WatchLatency(WatchArgs),
    /// Keep leases alive, each client its own on a standing stream.
    LeaseKeepalive(LeaseArgs),
    /// Grant leases.
    LeaseGrant(LeaseArgs),
    /// Put every key of the key space once, as fast as possible.
    Fill(FillArgs),
    /// The whole comparison: all workloads at several sizes, and the goals they must reach.
    Suite(EtcdSuiteArgs),
}

/// What all workloads take.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// What every protocol's workloads take.
    #[command(flatten)]
    pub shared: WorkloadArgs,
    /// NAME:PASSWORD to authenticate with, on both servers.
    #[arg(long)]
    pub user: Option<String>,
    /// Requests in flight; each client asks again when it was answered.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Connections that the clients share.
    #[arg(long, visible_alias = "conns", default_value_t = 1)]
    pub connections: usize,
}

/// `bench put`.
#[derive(Debug, Clone, Args)]
pub struct PutArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Ask for the previous key-value pair.
    #[arg(long)]
    pub prev_kv: bool,
}

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// Linearizable: a quorum confirms it.
    L,
    /// Serializable: the asked member answers from its own state.
    S,
}

/// `bench range`.
#[derive(Debug, Clone, Args)]
pub struct RangeArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Read the whole key space instead of one key.
    #[arg(long)]
    pub all: bool,
    /// l for linearizable, s for serializable reads.
    #[arg(long, value_enum, default_value = "l")]
    pub consistency: Consistency,
    /// With --all, at most so many keys; 0 is all of them.
    #[arg(long, default_value_t = 0)]
    pub limit: i64,
    /// Keys without values.
    #[arg(long)]
    pub keys_only: bool,
    /// Only how many there are.
    #[arg(long)]
    pub count_only: bool,
}

/// `bench txn`.
#[derive(Debug, Clone, Args)]
pub struct TxnArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Puts in a transaction.
    #[arg(long, default_value_t = 1)]
    pub txn_ops: usize,
    /// Guards of a transaction.
    #[arg(long, default_value_t = 1)]
    pub guards: usize,
}

/// `bench mixed`.
#[derive(Debug, Clone, Args)]
pub struct MixedArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Share of reads, from 0 to 1.
    #[arg(long, default_value_t = 0.9)]
    pub read_ratio: f64,
    /// l for linearizable, s for serializable reads.
    #[arg(long, value_enum, default_value = "l")]
    pub consistency: Consistency,
}

/// `bench watch-fanout` and `bench watch-latency`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// What all workloads take. --connections are the watchers'; the --clients put on one more.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Watch streams in all.
    #[arg(long, default_value_t = 8)]
    pub streams: usize,
    /// Watchers in all.
    #[arg(long, default_value_t = 100)]
    pub watchers: usize,
    /// Ask for the previous key-value pair in each event.
    #[arg(long)]
    pub prev_kv: bool,
}

/// `bench lease-keepalive` and `bench lease-grant`.
#[derive(Debug, Clone, Args)]
pub struct LeaseArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Time to live of the leases.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub ttl: i64,
}

/// `bench fill`.
#[derive(Debug, Clone, Args)]
pub struct FillArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Puts in a transaction; etcd allows 128 unless told otherwise. 1 means plain puts.
    #[arg(long, default_value_t = 100)]
    pub txn_ops: u64,
}

/// `bench suite`.
#[derive(Debug, Clone, Args)]
pub struct EtcdSuiteArgs {
    /// What all suites take.
    #[command(flatten)]
    pub suite: SuiteArgs,
    /// NAME:PASSWORD to authenticate with, on both servers.
    #[arg(long)]
    pub user: Option<String>,
}

impl Command {
    /// What is to be done.
    pub(crate) fn task(&self) -> anyhow::Result<Task<Etcd>> {
        let (workload, common) = match self {
            Self::Put(args) => {
                let put = Put {
                    prev_kv: args.prev_kv,
                    stamped: false,
                };
                (Workload::Unary(Operation::Put(put)), &args.common)
            }
            Self::Range(args) => (Workload::Unary(args.operation()), &args.common),
            Self::Txn(args) => (Workload::Unary(args.operation()?), &args.common),
            Self::Mixed(args) => (Workload::Unary(args.operation()?), &args.common),
            Self::WatchFanout(args) | Self::WatchLatency(args) => (args.workload()?, &args.common),
            Self::LeaseKeepalive(args) => (Workload::KeepAlive { ttl_s: args.ttl }, &args.common),
            Self::LeaseGrant(args) => {
                let grant = Operation::LeaseGrant { ttl_s: args.ttl };
                (Workload::Unary(grant), &args.common)
            }
            Self::Fill(args) => {
                let fill = Operation::Fill {
                    per_txn: args.txn_ops.max(1),
                };
                (Workload::Unary(fill), &args.common)
            }
            Self::Suite(args) => {
                let user = args.user.clone();
                return Ok(args.suite.task(user, suite::entries, suite::entries_among));
            }
        };
        let (clients, connections) = (common.clients, common.connections);
        let load = LoadArgs::new(clients, connections, &common.shared.data, "")?;
        let what = if matches!(self, Self::Fill(_)) {
            What::Fill { workload, load }
        } else if matches!(self, Self::WatchLatency(_)) {
            What::named(self.name(), workload, load.steady())
        } else {
            What::named(self.name(), workload, load)
        };
        Ok(common.shared.task(common.user.clone(), what))
    }

    /// The name in tables.
    fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::Range(_) => "range",
            Self::Txn(_) => "txn",
            Self::Mixed(_) => "mixed",
            Self::WatchFanout(_) => "watch-fanout",
            Self::WatchLatency(_) => "watch-latency",
            Self::LeaseKeepalive(_) => "lease-keepalive",
            Self::LeaseGrant(_) => "lease-grant",
            Self::Fill(_) => "fill",
            Self::Suite(_) => "suite",
        }
    }
}

impl RangeArgs {
    fn operation(&self) -> Operation {
        Operation::Range(Range {
            all: self.all,
            serializable: self.consistency == Consistency::S,
            limit: self.limit,
            keys_only: self.keys_only,
            count_only: self.count_only,
        })
    }
}

impl TxnArgs {
    fn operation(&self) -> anyhow::Result<Operation> {
        ensure!(
            self.txn_ops > 0 && self.txn_ops as u64 <= self.common.shared.data.key_space_size,
            "--txn-ops must be at least 1 and at most the key space"
        );
        Ok(Operation::Txn(Txn {
            puts: self.txn_ops,
            guards: self.guards,
        }))
    }
}

impl MixedArgs {
    fn operation(&self) -> anyhow::Result<Operation> {
        Ok(Operation::Mixed {
            range: Range {
                serializable: self.consistency == Consistency::S,
                ..Range::default()
            },
            put: Put::default(),
            reads_per_mille: per_mille(self.read_ratio)?,
        })
    }
}

impl WatchArgs {
    fn workload(&self) -> anyhow::Result<Workload> {
        ensure!(
            self.common.shared.data.val_size >= STAMP_BYTES,
            "watch workloads need a --val-size of at least {STAMP_BYTES}"
        );
        ensure!(
            self.watchers > 0 && self.streams > 0,
            "--watchers and --streams must be at least 1"
        );
        Ok(Workload::Watch {
            streams: self.streams,
            watchers: self.watchers,
            prev_kv: self.prev_kv,
        })
    }
}
