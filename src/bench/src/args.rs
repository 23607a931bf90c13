//! The command line of `triglot bench`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::generator::Workload;
use crate::keys::KeySpace;
use crate::requests::{Operation, Put, Range, STAMP_BYTES, Txn};

/// Put a server of etcd's v3 API under load, alone or in turns with another one.
///
/// With --against, short slices against the two servers take turns over standing connections, and
/// the table ends with their ratios: the median of the rounds, and the spread. Slices that are
/// neighbours in time are compared, so the machine's noise hits both. After each slice with writes
/// the server's revision must have moved by exactly what it acknowledged.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

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
    Suite(SuiteArgs),
}

/// Which servers are measured.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// Members of the server to measure, as HOST:PORT or http://HOST:PORT.
    #[arg(long, value_delimiter = ',', default_value = "localhost:2379")]
    pub endpoints: Vec<String>,
    /// Members of a second server to take turns with and to compare to.
    #[arg(long, value_delimiter = ',')]
    pub against: Vec<String>,
    /// Process of the server, for CPU and memory; of each member in a cluster.
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Process of the second server; of each member in a cluster.
    #[arg(long, value_delimiter = ',', requires = "against")]
    pub against_pid: Vec<u32>,
    /// Which of the endpoints take the load.
    #[arg(long, value_enum, default_value = "all")]
    pub target: Target,
    /// NAME:PASSWORD to authenticate with, on both servers.
    #[arg(long)]
    pub user: Option<String>,
}

/// Which members take the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The one that leads when the benchmark starts.
    Leader,
    /// All endpoints, connections taking turns.
    All,
}

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct MeasureArgs {
    /// Length of a slice.
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    pub slice_ms: u64,
    /// Slices per server.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Length of the slice before the first round, which does not count.
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    pub warmup_ms: u64,
    /// Rest after a slice; what the server still does then counts as its CPU time.
    #[arg(long, default_value_t = 100, value_name = "MS")]
    pub settle_ms: u64,
    /// Threads of the generator per server.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// For keys and values: the same seed makes the same load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Also write the results as JSON to this file; `-` is standard output, without the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How much load.
#[derive(Debug, Clone, Args, Serialize)]
pub struct LoadArgs {
    /// Requests in flight; each client asks again when it was answered.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Connections that the clients share.
    #[arg(long, visible_alias = "conns", default_value_t = 1)]
    pub connections: usize,
    /// Offer this many requests per second instead of asking as fast as answers come; latencies
    /// then count from when a request was due.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Bytes of a key.
    #[arg(long, default_value_t = 16, value_name = "BYTES")]
    pub key_size: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub val_size: usize,
    /// How many different keys there are.
    #[arg(long, default_value_t = 10_000, value_name = "KEYS")]
    pub key_space_size: u64,
    /// What every key begins with.
    #[arg(long, default_value = "")]
    pub key_prefix: String,
    /// Walk the keys in order instead of at random.
    #[arg(long)]
    pub sequential_keys: bool,
}

impl LoadArgs {
    /// The key space these arguments describe.
    pub fn keys(&self) -> anyhow::Result<KeySpace> {
        KeySpace::new(&self.key_prefix, self.key_size, self.key_space_size)
    }
}

/// What all workloads take.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Which servers.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How measured.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// How much.
    #[command(flatten)]
    pub load: LoadArgs,
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
pub struct SuiteArgs {
    /// Which servers.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How measured.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Also fill in this many keys (a million takes a minute) and measure memory and ranges over
    /// all of them; they stay on the servers.
    #[arg(long, value_name = "KEYS")]
    pub keys: Option<u64>,
    /// Only the measurements whose names contain one of these words.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
}

/// The rate of `watch-latency` when none is given: etcd's own benchmark's.
const WATCH_LATENCY_RATE: f64 = 100.0;

impl Command {
    /// The workload and what all workloads take; none for those that are more than one workload.
    pub fn workload(&self) -> anyhow::Result<Option<(Workload, CommonArgs)>> {
        let (workload, common) = match self {
            Self::Put(args) => {
                let put = Put {
                    prev_kv: args.prev_kv,
                    stamped: false,
                };
                (Workload::Unary(Operation::Put(put)), &args.common)
            }
            Self::Range(args) => {
                let range = Range {
                    all: args.all,
                    serializable: args.consistency == Consistency::S,
                    limit: args.limit,
                    keys_only: args.keys_only,
                    count_only: args.count_only,
                };
                (Workload::Unary(Operation::Range(range)), &args.common)
            }
            Self::Txn(args) => {
                let txn = Txn {
                    puts: args.txn_ops,
                    guards: args.guards,
                };
                ensure!(
                    args.txn_ops > 0 && args.txn_ops as u64 <= args.common.load.key_space_size,
                    "--txn-ops must be at least 1 and at most the key space"
                );
                (Workload::Unary(Operation::Txn(txn)), &args.common)
            }
            Self::Mixed(args) => {
                ensure!(
                    (0.0..=1.0).contains(&args.read_ratio),
                    "--read-ratio must be from 0 to 1"
                );
                let mixed = Operation::Mixed {
                    range: Range {
                        serializable: args.consistency == Consistency::S,
                        ..Range::default()
                    },
                    put: Put::default(),
                    reads_per_mille: (args.read_ratio * 1_000.0).round() as u32,
                };
                (Workload::Unary(mixed), &args.common)
            }
            Self::WatchFanout(args) | Self::WatchLatency(args) => (args.workload()?, &args.common),
            Self::LeaseKeepalive(args) => (Workload::KeepAlive { ttl_s: args.ttl }, &args.common),
            Self::LeaseGrant(args) => {
                let grant = Operation::LeaseGrant { ttl_s: args.ttl };
                (Workload::Unary(grant), &args.common)
            }
            Self::Fill(_) | Self::Suite(_) => return Ok(None),
        };
        let mut common = common.clone();
        if matches!(self, Self::WatchLatency(_)) {
            common.load.rate.get_or_insert(WATCH_LATENCY_RATE);
        }
        common.check()?;
        Ok(Some((workload, common)))
    }

    /// The name in tables.
    pub fn name(&self) -> &'static str {
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

impl WatchArgs {
    fn workload(&self) -> anyhow::Result<Workload> {
        ensure!(
            self.common.load.val_size >= STAMP_BYTES,
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

/// More clients than this are a mistake rather than a load.
const CLIENTS_MAX: usize = 1_000_000;

impl CommonArgs {
    /// Refuses what cannot be measured.
    pub fn check(&self) -> anyhow::Result<()> {
        let load = &self.load;
        ensure!(
            (1..=CLIENTS_MAX).contains(&load.clients),
            "--clients must be from 1 to {CLIENTS_MAX}"
        );
        ensure!(load.connections > 0, "--connections must be at least 1");
        ensure!(
            load.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "--rate must be above 0"
        );
        self.measure.check()
    }
}

impl MeasureArgs {
    /// Refuses what cannot be measured.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        ensure!(self.slice_ms > 0, "--slice-ms must be at least 1");
        ensure!(self.threads > 0, "--threads must be at least 1");
        Ok(())
    }
}
