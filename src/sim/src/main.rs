//! Runs seeds of the simulator. A failure prints the line that replays it.

use clap::Parser;
use sim::plant::Plant;
use sim::run::run;
use sim::world::Options;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines of the trace shown with a failure.
const TRACE_TAIL: usize = 60;

/// Simulates whole clusters, deterministically.
#[derive(Parser)]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds from A up to, not including, B.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<(u64, u64)>,
    /// Operations that clients begin in each run.
    #[arg(long, default_value_t = 1_000)]
    ops: u64,
    /// Voting members at the start; by default the seed decides between 3 and 5.
    #[arg(long)]
    members: Option<u64>,
    /// Plant a known bug, to see it found.
    #[arg(long)]
    plant: Option<Plant>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("expected A..B")?;
    let parse = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    match (parse(from)?, parse(to)?) {
        (from, to) if from < to => Ok((from, to)),
        _ => Err("expected A..B with A < B".to_owned()),
    }
}

impl Arguments {
    fn options(&self, seed: u64, trace_lines: usize) -> Options {
        Options {
            seed,
            ops: self.ops,
            members: self.members.unwrap_or(if seed % 4 == 3 { 5 } else { 3 }),
            plant: self.plant,
            trace_lines,
        }
    }

    /// The line that runs this seed again.
    fn replay(&self, seed: u64) -> String {
        let members = self
            .members
            .map_or(String::new(), |m| format!(" --members {m}"));
        let plant = self
            .plant
            .map_or(String::new(), |p| format!(" --plant {}", p.name()));
        format!(
            "cargo run --release -p sim -- --seed {seed} --ops {}{members}{plant}",
            self.ops
        )
    }

    /// Runs one seed and prints what came of it. Answers whether it was good.
    fn run(&self, seed: u64, printing: &Mutex<()>) -> bool {
        let kept = if self.trace { usize::MAX } else { 0 };
        let (outcome, trace) = run(self.options(seed, kept));
        // Equal seeds do equal things: the end of the trace comes from running it again.
        let trace = match &outcome {
            Err(_) if !self.trace => run(self.options(seed, TRACE_TAIL)).1,
            Ok(_) | Err(_) => trace,
        };
        let _one_at_a_time = printing.lock();
        print!("{trace}");
        match outcome {
            Ok(report) => {
                let (operations, unknown) = report.operations;
                println!(
                    "seed {seed}: ok, {operations} operations ({unknown} of unknown outcome), \
                     revision {}, {} ms, trace {:016x}",
                    report.revision, report.took_ms, report.trace_hash
                );
                true
            }
            Err(failure) => {
                println!("seed {seed}: FAILED: {failure}");
                println!("replay: {}", self.replay(seed));
                false
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, to) = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => (seed, seed + 1),
        (None, Some(range)) => range,
        (None, None) => (0, 200),
    };
    let next = AtomicU64::new(from);
    let failed = AtomicU64::new(0);
    let printing = Mutex::new(());
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    if !arguments.run(seed, &printing) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.load(Ordering::Relaxed);
    let took = began.elapsed().as_secs_f64();
    println!("seeds {from}..{to} took {took:.1} s");
    println!("{} passed, {failed} failed", to - from - failed);
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
