//! What is said about ZooKeeper's workloads.

use anyhow::ensure;
use clap::{Args, Subcommand};

use super::{LoadArgs, SuiteArgs, WorkloadArgs, per_mille};
use crate::task::{Task, What};
use crate::zookeeper::{Create, Multi, Operation, Workload, ZooKeeper, suite};

/// Where nodes are unless said otherwise.
const PREFIX: &str = "/bench/";

/// `bench zookeeper`.
#[derive(Debug, Clone, Args)]
pub struct ZookeeperArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// The workloads.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Create nodes, each client deleting its own with its next request; both count.
    Create(CreateArgs),
    /// Set nodes' data.
    Set(CommonArgs),
    /// Read nodes' data.
    Get(GetArgs),
    /// List the whole key space.
    Children(CommonArgs),
    /// Multis of checks that hold and sets.
    Multi(MultiArgs),
    /// Reads and sets mixed.
    Mixed(MixedArgs),
    /// One node, watched by every session: events per second and CPU per delivered event.
    WatchFanout(WatchArgs),
    /// One node set at a steady rate: from the start of a set to the arrival of its event.
    WatchLatency(WatchArgs),
    /// Every session connects, and connects again, as fast as it is let in.
    Connect(ConnectArgs),
    /// Create every node of the key space, as fast as possible; they stay.
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
    /// Sessions, each on a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub sessions: usize,
    /// Requests that each session has in flight; it asks again when one was answered.
    #[arg(long, default_value_t = 1)]
    pub outstanding: usize,
}

/// `bench zookeeper create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Nodes that go with their session.
    #[arg(long)]
    pub ephemeral: bool,
    /// Do not delete them again.
    #[arg(long)]
    pub keep: bool,
    /// Fill the key space in first, so that they have that many siblings.
    #[arg(long)]
    pub among_keys: bool,
}

/// `bench zookeeper get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Send a sync before each, so that what is read is not older than the request; both together
    /// count as one.
    #[arg(long)]
    pub sync: bool,
}

/// `bench zookeeper multi`.
#[derive(Debug, Clone, Args)]
pub struct MultiArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Sets in a multi.
    #[arg(long, default_value_t = 1)]
    pub sets: usize,
    /// Checks in a multi.
    #[arg(long, default_value_t = 1)]
    pub checks: usize,
}

/// `bench zookeeper mixed`.
#[derive(Debug, Clone, Args)]
pub struct MixedArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Share of reads, from 0 to 1.
    #[arg(long, default_value_t = 0.9)]
    pub read_ratio: f64,
}

/// `bench zookeeper watch-fanout` and `watch-latency`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// What all workloads take. --sessions are the watchers'; one more sets, --outstanding at a
    /// time.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Watches that fire once and are set again by a read, instead of persistent ones (which
    /// ZooKeeper has since 3.6). Events are then fewer than sets.
    #[arg(long)]
    pub one_shot: bool,
}

/// `bench zookeeper connect`.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// What all workloads take.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Resume the same session each time, as after a member's death, instead of opening one and
    /// closing it.
    #[arg(long)]
    pub resume: bool,
}

impl Command {
    /// What is to be done.
    pub(crate) fn task(&self) -> anyhow::Result<Task<ZooKeeper>> {
        let requests = Workload::Requests;
        let (workload, common) = match self {
            Self::Create(args) => (requests(args.operation()), &args.common),
            Self::Set(common) => (requests(Operation::Set), common),
            Self::Get(args) => {
                let get = Operation::Get { sync: args.sync };
                (requests(get), &args.common)
            }
            Self::Children(common) => (requests(Operation::Children), common),
            Self::Multi(args) => (requests(args.operation()?), &args.common),
            Self::Mixed(args) => {
                let reads_per_mille = per_mille(args.read_ratio)?;
                let mixed = Operation::Mixed { reads_per_mille };
                (requests(mixed), &args.common)
            }
            Self::WatchFanout(args) | Self::WatchLatency(args) => {
                let one_shot = args.one_shot;
                (Workload::Watch { one_shot }, &args.common)
            }
            Self::Connect(args) => {
                ensure!(
                    args.common.shared.data.rate.is_none(),
                    "--rate does not apply to connect"
                );
                let resume = args.resume;
                (Workload::Connect { resume }, &args.common)
            }
            Self::Fill(common) => (requests(Operation::Fill), common),
            Self::Suite(args) => {
                return Ok(args.task((), suite::entries, suite::entries_among));
            }
        };
        let load = self.load(common)?;
        let what = if matches!(self, Self::Fill(_)) {
            What::Fill { workload, load }
        } else if matches!(self, Self::WatchLatency(_)) {
            What::named(self.name(), workload, load.steady())
        } else {
            What::named(self.name(), workload, load)
        };
        Ok(common.shared.task((), what))
    }

    fn load(&self, common: &CommonArgs) -> anyhow::Result<LoadArgs> {
        let clients = match self {
            // Watchers ask nothing, and one more session sets.
            Self::WatchFanout(_) | Self::WatchLatency(_) => common.outstanding,
            Self::Connect(_) => common.sessions,
            Self::Create(_)
            | Self::Set(_)
            | Self::Get(_)
            | Self::Children(_)
            | Self::Multi(_)
            | Self::Mixed(_)
            | Self::Fill(_)
            | Self::Suite(_) => common.sessions.saturating_mul(common.outstanding),
        };
        LoadArgs::new(clients, common.sessions, &common.shared.data, PREFIX)
    }

    /// The name in tables.
    fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Set(_) => "set",
            Self::Get(_) => "get",
            Self::Children(_) => "children",
            Self::Multi(_) => "multi",
            Self::Mixed(_) => "mixed",
            Self::WatchFanout(args) if args.one_shot => "watch-fanout once",
            Self::WatchFanout(_) => "watch-fanout",
            Self::WatchLatency(args) if args.one_shot => "watch-latency once",
            Self::WatchLatency(_) => "watch-latency",
            Self::Connect(args) if args.resume => "reconnect",
            Self::Connect(_) => "connect",
            Self::Fill(_) => "fill",
            Self::Suite(_) => "suite",
        }
    }
}

impl CreateArgs {
    fn operation(&self) -> Operation {
        Operation::Create(Create {
            ephemeral: self.ephemeral,
            keep: self.keep,
            among_keys: self.among_keys,
        })
    }
}

impl MultiArgs {
    fn operation(&self) -> anyhow::Result<Operation> {
        ensure!(
            self.sets > 0 && self.sets as u64 <= self.common.shared.data.key_space_size,
            "--sets must be at least 1 and at most the key space"
        );
        Ok(Operation::Multi(Multi {
            sets: self.sets,
            checks: self.checks,
        }))
    }
}
