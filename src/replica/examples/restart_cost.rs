//! What a restart costs after a kill: `cargo run --release -p replica --example restart_cost -- DIR
//! [KEYS [SECONDS]]`
//!
//! With a DIR that is missing it fills a new member there with keys of 33 bytes and values of 256,
//! rests for so many seconds, and ends as a kill would end it. After that each run starts a member over DIR, reads from it,
//! says how long that took, and ends in the same way.

use anyhow::{Context, Result};
use keyspace::command::{Op, Put, Txn};
use keyspace::{Applied, Command, Revision};
use replica::{ChangeSink, Config, Handle};
use std::path::Path;
use std::time::{Duration, Instant};
use store::checkpoint::Checkpoints;
use store::log::{Log, LogOptions};
use tokio::task::JoinSet;

/// What the server runs on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts in one proposal, and proposals under way.
const PUTS: u64 = 50;
const PROPOSALS: usize = 16;

struct Nobody;

impl ChangeSink for Nobody {
    fn publish(&mut self, _: &Command, _: &Applied) {}
    fn restored(&mut self, _: Revision) {}
    fn members_changed(&mut self) {}
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut args = std::env::args().skip(1);
    let dir = args.next().context("which directory?")?;
    let keys = args.next().map_or(Ok(1_000_000), |keys| keys.parse())?;
    let dir = Path::new(&dir);
    let is_new = !dir.exists();
    let handle = open(dir).await?;
    if is_new {
        fill(&handle, keys).await?;
        if let Some(settle_s) = args.next() {
            tokio::time::sleep(Duration::from_secs(settle_s.parse()?)).await;
        }
    }
    println!("revision {}", handle.reader().revision());
    std::process::abort()
}

async fn open(dir: &Path) -> Result<Handle> {
    let (began, cpu) = (Instant::now(), cpu_time());
    let say = |what| println!("{what:<12} {:>6.3} s", began.elapsed().as_secs_f64());
    let log = Log::open(&dir.join("wal"), LogOptions::default())?;
    say("log open");
    let checkpoints = Checkpoints::open(&dir.join("snap"))?;
    let config = Config::default();
    let handle = replica::start(
        config,
        Box::new(log),
        Box::new(checkpoints),
        Box::new(Nobody),
    );
    let handle = handle.await?;
    say("started");
    handle.read_index().await?;
    say("serves");
    println!("CPU          {:>6.3} s", (cpu_time() - cpu).as_secs_f64());
    Ok(handle)
}

async fn fill(handle: &Handle, keys: u64) -> Result<()> {
    let mut under_way = JoinSet::new();
    for first in (0..keys).step_by(PUTS as usize) {
        let commands = (first..keys.min(first + PUTS)).map(|n| put(n * 2_654_435_761 % keys));
        let commands = commands.collect();
        let handle = handle.clone();
        under_way.spawn(async move { handle.propose_all(commands).await });
        if under_way.len() == PROPOSALS {
            under_way.join_next().await.context("some are")???;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

fn put(n: u64) -> Command {
    let put = Put::new(
        format!("/registry/pods/default/{n:010}"),
        vec![n as u8; 256],
    );
    Command::Txn(Txn::unconditional(vec![Op::Put(put)]))
}

fn cpu_time() -> Duration {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spec.tv_sec as u64, spec.tv_nsec as u32)
}
