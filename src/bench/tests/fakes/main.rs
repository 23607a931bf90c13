//! The generator against servers that count what reaches them: what a report says must be what
//! happened, and a server that loses writes or answers out of order must be found out.

mod etcd;
mod etcd_v2;
mod zookeeper;

use std::fmt::Debug;

use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How a server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Acknowledges each tenth write without doing it.
    LosesWrites,
    /// Refuses each tenth write.
    RefusesWrites,
    /// Answers each pair of requests the wrong way round.
    SwapsAnswers,
    /// Finds nothing of what it is asked for.
    FindsNothing,
    /// Has forgotten each tenth event before it is asked for.
    ForgetsEvents,
}

/// What becomes of a write.
enum Fate {
    Done,
    Lost,
    Refused,
}

impl Fault {
    /// What becomes of the `nth` request, from 0, if it writes.
    fn fate(self, nth: u64) -> Fate {
        match self {
            Self::LosesWrites if nth % 10 == 9 => Fate::Lost,
            Self::RefusesWrites if nth % 10 == 9 => Fate::Refused,
            Self::None
            | Self::LosesWrites
            | Self::RefusesWrites
            | Self::SwapsAnswers
            | Self::FindsNothing
            | Self::ForgetsEvents => Fate::Done,
        }
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: bench::BenchArgs,
}

/// A free port, and how it is called.
async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    (listener, endpoint)
}

/// Runs `triglot bench` in short slices and returns the series of its one workload.
async fn bench(command: &str) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("report.json");
    let command = format!(
        "bench {command} --warmup-ms 0 --settle-ms 0 --slice-ms 60 --rounds 2 --json {}",
        json.display()
    );
    bench::run(Cli::parse_from(command.split_whitespace()).bench).await?;
    let mut report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    Ok(serde_json::from_value(
        report["outcomes"][0]["series"].take(),
    )?)
}

fn operations(series: &Value) -> u64 {
    let slices = series["slices"].as_array().expect("slices");
    slices
        .iter()
        .map(|slice| slice["operations"].as_u64().expect("a count"))
        .sum()
}

/// The first thing asked of a load generator: its count is the server's count.
fn check_counted(series: &Value, reached: u64, command: &str) {
    assert!(reached > 0, "{command}");
    assert_eq!(operations(series), reached, "{command}");
    assert_eq!(series["misses"], 0, "{command}");
    assert_eq!(series["failures"], json!({}), "{command}");
}

/// What is said when acknowledged writes are lost.
fn check_found_out(outcome: anyhow::Result<impl Debug>) {
    let error = outcome.expect_err("a tenth of the writes is lost");
    assert!(
        error.to_string().contains("its revision moved by"),
        "{error:#}"
    );
}
