//! What is said about etcd v2's workloads.

use anyhow::ensure;
use clap::{Args, Subcommand};

use super::{LoadArgs, SuiteArgs, WorkloadArgs, per_mille};
use crate::etcd_v2::{EtcdV2, Operation, Workload, suite};
use crate::task::{Task, What};

/// Where keys are unless said otherwise.
const PREFIX: &str = "/bench/";

/// `bench etcd-v2`.
#[derive(Debug, Clone, Args)]
pub struct EtcdV2Args {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// The workloads.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Set keys.
    Set(CommonArgs),
    /// Read keys.
    Get(GetArgs),
    /// Reads and sets mixed.
    Mixed(MixedArgs),
    /// One key, many clients that wait for its changes: events per second and CPU per event.
    WatchFanout(WatchArgs),
    /// One key set at a steady rate: from the start of a set to the arrival of its event.
    WatchLatency(WatchArgs),
    /// Set every key of the key space once, as fast as possible.
    Fill(CommonArgs),
    /// The whole comparison: all workloads at several sizes, and the goals they must reach.
    Suite(SuiteArgs),
}

/// What all workloads take.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// What every protocol's workloads take.
    #[command(flatten)]
    pub shared: WorkloadArgs,
    /// Clients, each on a connection of its own; each asks again when it was answered.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
}

/// `bench etcd-v2 get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Linearizable reads, which a quorum confirms, instead of the asked member's own state.
    #[arg(long)]
    pub quorum: bool,
}

/// `bench etcd-v2 mixed`.
#[derive(Debug, Clone, Args)]
pub struct MixedArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Share of reads, from 0 to 1.
    #[arg(long, default_value_t = 0.9)]
    pub read_ratio: f64,
    /// Linearizable reads, which a quorum confirms, instead of the asked member's own state.
    #[arg(long)]
    pub quorum: bool,
}

/// `bench etcd-v2 watch-fanout` and `watch-latency`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// What every protocol's workloads take.
    #[command(flatten)]
    pub shared: WorkloadArgs,
    /// Clients that wait, each on a connection of its own; one more sets.
    #[arg(long, default_value_t = 100)]
    pub watchers: usize,
}

impl Command {
    /// What is to be done.
    pub(crate) fn task(&self) -> anyhow::Result<Task<EtcdV2>> {
        let requests = Workload::Requests;
        let of = |common: &CommonArgs| (common.clients, common.clients);
        let (workload, shared, (clients, connections)) = match self {
            Self::Set(common) => (requests(Operation::Set), &common.shared, of(common)),
            Self::Get(GetArgs { common, quorum }) => {
                let get = Operation::Get { quorum: *quorum };
                (requests(get), &common.shared, of(common))
            }
            Self::Mixed(args) => {
                let mixed = Operation::Mixed {
                    reads_per_mille: per_mille(args.read_ratio)?,
                    quorum: args.quorum,
                };
                (requests(mixed), &args.common.shared, of(&args.common))
            }
            Self::WatchFanout(args) | Self::WatchLatency(args) => {
                ensure!(args.watchers > 0, "--watchers must be at least 1");
                (Workload::Watch, &args.shared, (1, args.watchers))
            }
            Self::Fill(common) => (requests(Operation::Fill), &common.shared, of(common)),
            Self::Suite(args) => {
                return Ok(args.task((), suite::entries, suite::entries_among));
            }
        };
        let load = LoadArgs::new(clients, connections, &shared.data, PREFIX)?;
        let what = if matches!(self, Self::Fill(_)) {
            What::Fill { workload, load }
        } else if matches!(self, Self::WatchLatency(_)) {
            What::named(self.name(), workload, load.steady())
        } else {
            What::named(self.name(), workload, load)
        };
        Ok(shared.task((), what))
    }

    /// The name in tables.
    fn name(&self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Get(args) if args.quorum => "quorum get",
            Self::Get(_) => "get",
            Self::Mixed(_) => "mixed",
            Self::WatchFanout(_) => "watch-fanout",
            Self::WatchLatency(_) => "watch-latency",
            Self::Fill(_) => "fill",
            Self::Suite(_) => "suite",
        }
    }
}
