//! `triglot bench`: a load generator for servers of etcd's v3 API, and their comparison.
//!
//! It knows the wire alone, so that it measures any such server alike; it must never link a part
//! of the server. The generator shares the machine with what it measures, so it is built to cost
//! a fraction of it: an HTTP/2 client of its own ([`http2`]) batches what a real pipelining client
//! would, and answers are checked without being decoded ([`wire`]).
//!
//! Start with [`compare`], the measurement: slices against the contenders take turns. A slice is
//! run by [`generator`], whose connections are driven by [`load`] (calls and keep-alives) and
//! [`watch`]. [`suite`] is the fixed list of workloads with goals, [`report`] the tables.

mod args;
mod compare;
mod connection;
mod contender;
mod generator;
mod headers;
mod http2;
mod keys;
mod load;
mod pace;
mod process;
mod report;
mod requests;
mod statistics;
mod suite;
mod tally;
mod watch;
mod wire;

pub use args::BenchArgs;

use args::{Command, FillArgs, TargetArgs};
use compare::{Outcome, compare, fill};
use contender::Contender;
use report::Report;

/// Runs the benchmark and prints its results.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    let (report, json) = match &args.command {
        Command::Suite(suite_args) => {
            let contenders = meet(&suite_args.target).await?;
            let report = suite::run(suite_args, &contenders).await?;
            (report, suite_args.measure.json.clone())
        }
        Command::Fill(fill_args) => (
            run_fill(fill_args).await?,
            fill_args.common.measure.json.clone(),
        ),
        command => {
            let (workload, common) = command
                .workload()?
                .expect("every command but suite and fill is one workload");
            let contenders = meet(&common.target).await?;
            let (load, measure) = (&common.load, &common.measure);
            let name = format!("{} {}/{}", command.name(), load.clients, load.connections);
            let outcome = compare(&name, &contenders, workload, load, measure).await?;
            (Report::new(vec![outcome], Vec::new()), measure.json.clone())
        }
    };
    report.publish(json.as_deref())
}

async fn run_fill(args: &FillArgs) -> anyhow::Result<Report> {
    args.common.check()?;
    let (load, measure) = (&args.common.load, &args.common.measure);
    let mut series = Vec::new();
    for contender in meet(&args.common.target).await? {
        series.push(fill(&contender, load, measure, args.txn_ops.max(1)).await?);
    }
    let outcome = Outcome {
        name: format!("fill {}/{}", load.clients, load.connections),
        load: load.clone(),
        slice_ms: measure.slice_ms,
        series,
    };
    Ok(Report::new(vec![outcome], Vec::new()))
}

/// The measured server, and the one it is compared to, if any.
async fn meet(args: &TargetArgs) -> anyhow::Result<Vec<Contender>> {
    let user = args.user.as_deref();
    let subject = Contender::meet("subject", &args.endpoints, &args.pid, args.target, user).await?;
    let mut contenders = vec![subject];
    if !args.against.is_empty() {
        let (endpoints, pids) = (&args.against, &args.against_pid);
        contenders.push(Contender::meet("baseline", endpoints, pids, args.target, user).await?);
    }
    Ok(contenders)
}
