//! `triglot bench`: a load generator for servers of etcd's APIs or of ZooKeeper's protocol, and their
//! comparison.
//!
//! It knows the wire alone, so that it measures any such server alike; it must never link a part
//! of the server. The generator shares the machine with what it measures, so it is built to cost
//! a fraction of it: clients of its own ([`etcd`], [`etcd_v2`], [`zookeeper`]) batch what real
//! pipelining clients would, and answers are checked without being decoded.
//!
//! Start with [`compare`], the measurement: slices against the contenders take turns. A slice is
//! run by [`generator`], whose connections are driven by [`load`] (requests in flight) or by a
//! protocol's watchers. [`protocol`] says what a protocol brings along, [`suite`] what has goals,
//! [`report`] how results look.

mod args;
mod compare;
mod connection;
mod contender;
mod etcd;
mod etcd_v2;
mod fan_out;
mod generator;
mod keys;
mod load;
mod pace;
mod process;
mod protocol;
mod report;
mod statistics;
mod suite;
mod tally;
mod task;
mod zookeeper;

pub use args::BenchArgs;

use args::Command;

/// Runs the benchmark and prints its results.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    match &args.command {
        Command::Etcd(command) => command.task()?.run().await,
        Command::EtcdV2(args) => args.command.task()?.run().await,
        Command::Zookeeper(args) => args.command.task()?.run().await,
    }
}
