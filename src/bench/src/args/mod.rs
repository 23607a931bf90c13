//! The command line of `triglot bench`: what all protocols take; what one of them takes is in
//! [`etcd`], [`etcd_v2`] and [`zookeeper`].

pub mod etcd;
pub mod etcd_v2;
pub mod zookeeper;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::keys::KeySpace;
use crate::protocol::Protocol;
use crate::suite::Entry;
use crate::task::{Task, What};

/// Put a server under load, alone or in turns with another one: in etcd's v3 API, in its v2 API with
/// `etcd-v2`, or in ZooKeeper's protocol with `zookeeper`.
///
/// With --against, short slices against the two servers take turns over standing connections, and
/// the table ends with their ratios: the median of the rounds, and the spread. Slices that are
/// neighbours in time are compared, so the machine's noise hits both. After each slice with writes
/// the server's revision (v2's index, the zxid) must have moved by exactly what it acknowledged.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// etcd's workloads.
    #[command(flatten)]
    Etcd(etcd::Command),
    /// The same in etcd's v2 API.
    EtcdV2(etcd_v2::EtcdV2Args),
    /// The same in ZooKeeper's protocol.
    Zookeeper(zookeeper::ZookeeperArgs),
}

/// Which servers are measured.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// Members of the server to measure, as HOST:PORT or http://HOST:PORT [default: localhost with
    /// the protocol's usual port, 2379 or 2181].
    #[arg(long, value_delimiter = ',')]
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

/// What is read and written, and how often.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
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
    /// What every key begins with [default: nothing, or /bench/ in etcd's v2 API and
    /// ZooKeeper's protocol].
    #[arg(long)]
    pub key_prefix: Option<String>,
    /// Walk the keys in order instead of at random.
    #[arg(long)]
    pub sequential_keys: bool,
}

/// What every workload takes.
#[derive(Debug, Clone, Args)]
pub struct WorkloadArgs {
    /// Which servers.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How measured.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// What data.
    #[command(flatten)]
    pub data: DataArgs,
}

impl WorkloadArgs {
    /// Measures `what`.
    fn task<P: Protocol>(&self, credentials: P::Credentials, what: What<P::Workload>) -> Task<P> {
        Task {
            target: self.target.clone(),
            measure: self.measure.clone(),
            credentials,
            what,
        }
    }
}

/// How much load.
#[derive(Debug, Clone, Serialize)]
pub struct LoadArgs {
    /// Requests in flight; each client asks again when it was answered.
    pub clients: usize,
    /// Connections that the clients share.
    pub connections: usize,
    /// Requests per second in all; none is as fast as answers come.
    pub rate: Option<f64>,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub val_size: usize,
    /// How many different keys there are.
    pub key_space_size: u64,
    /// What every key begins with.
    pub key_prefix: String,
    /// Walk the keys in order instead of at random.
    pub sequential_keys: bool,
}

impl LoadArgs {
    /// `clients` on `connections`; keys begin with `prefix` unless another one is asked for.
    pub fn new(
        clients: usize,
        connections: usize,
        data: &DataArgs,
        prefix: &str,
    ) -> anyhow::Result<Self> {
        ensure!(
            (1..=CLIENTS_MAX).contains(&clients),
            "there must be from 1 to {CLIENTS_MAX} requests in flight"
        );
        ensure!(connections > 0, "there must be at least one connection");
        ensure!(
            data.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "--rate must be above 0"
        );
        let prefix = data.key_prefix.as_deref().unwrap_or(prefix);
        Ok(Self {
            clients,
            connections,
            rate: data.rate,
            key_size: data.key_size,
            val_size: data.val_size,
            key_space_size: data.key_space_size,
            key_prefix: prefix.to_owned(),
            sequential_keys: data.sequential_keys,
        })
    }

    /// At a steady rate, for a workload of latencies.
    fn steady(self) -> Self {
        Self {
            rate: self.rate.or(Some(LATENCY_RATE)),
            ..self
        }
    }

    /// The key space these arguments describe.
    pub fn keys(&self) -> anyhow::Result<KeySpace> {
        KeySpace::new(&self.key_prefix, self.key_size, self.key_space_size)
    }
}

/// More clients than this are a mistake rather than a load.
const CLIENTS_MAX: usize = 1_000_000;
/// The rate of a workload of latencies when none is given: that of etcd's own benchmark.
const LATENCY_RATE: f64 = 100.0;

/// A suite.
#[derive(Debug, Clone, Args)]
pub struct SuiteArgs {
    /// Which servers.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How measured.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Also fill in this many keys (a million takes a minute) and measure memory and reads among
    /// all of them; they stay on the servers.
    #[arg(long, value_name = "KEYS")]
    pub keys: Option<u64>,
    /// Only the measurements whose names contain one of these words.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
}

impl SuiteArgs {
    /// Measures the wanted part of a protocol's list.
    fn task<P: Protocol>(
        &self,
        credentials: P::Credentials,
        entries: fn(cluster: bool) -> Vec<Entry<P::Workload>>,
        among: fn(keys: u64) -> Vec<Entry<P::Workload>>,
    ) -> Task<P> {
        Task {
            target: self.target.clone(),
            measure: self.measure.clone(),
            credentials,
            what: What::Suite(self.suite(entries, among)),
        }
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

/// Reads among 1,000 operations, from a share between 0 and 1.
fn per_mille(read_ratio: f64) -> anyhow::Result<u32> {
    ensure!(
        (0.0..=1.0).contains(&read_ratio),
        "--read-ratio must be from 0 to 1"
    );
    Ok((read_ratio * 1_000.0).round() as u32)
}
