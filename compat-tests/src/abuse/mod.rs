//! Clients that mean harm, or that are broken: bytes that are no protocol, frames and messages
//! beyond every limit, thousands of idle connections, clients that never read what they asked for.
//! Each trial has a fresh server, must find its error or be cut off, and passes only if the
//! server's memory stayed within the trial's bound while another client was served all the time.
//!
//! Start with [`TRIALS`]; `process.rs` measures, `frames.rs` speaks HTTP/2 against its rules.

mod crowd;
mod deaf;
mod etcd_v2;
mod frames;
mod garbage;
mod greedy;
mod limits;
mod process;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::oracle::{Cluster, Kind};
use crate::run::Tally;
use process::{Process, Witness};
use tonic::transport::{Channel, Endpoint};

/// Of a hundred calls of another client all but the slowest must be answered within this: what a
/// server needs that is compiled without optimisations, on a machine that has other work.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
/// How often a condition of a foreign process is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long such a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

const MIB: u64 = 1 << 20;
/// The processor's time is looked at while another client is served so many times.
const CALLS_WATCHED: usize = 300;
/// A server that has nothing else to do may take so much time for these calls.
const IDLE_CPU_MAX: Duration = Duration::from_millis(1500);
/// Lines of log that one lack may be worth.
const LINES_MAX: usize = 5;

type Course<'a> = Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

/// One way to do harm.
struct Trial {
    name: &'static str,
    flags: &'static [&'static str],
    /// What the server may open, if that matters.
    files_max: Option<u64>,
    /// How much the server's memory may grow meanwhile.
    growth_mib_max: u64,
    /// Does the harm, and answers what is worth telling.
    run: for<'a> fn(&'a Scene) -> Course<'a>,
}

impl Trial {
    const fn new(
        name: &'static str,
        growth_mib_max: u64,
        run: for<'a> fn(&'a Scene) -> Course<'a>,
    ) -> Trial {
        Trial {
            name,
            flags: &[],
            files_max: None,
            growth_mib_max,
            run,
        }
    }
}

/// Every trial. Bounds are for a server compiled without optimisations.
const TRIALS: &[Trial] = &[
    Trial::new("noise on both ports", 32, |it| Box::pin(garbage::noise(it))),
    Trial::new("endless headers", 32, |it| Box::pin(garbage::endless(it))),
    Trial::new("broken frames", 32, |it| Box::pin(garbage::broken(it))),
    Trial::new("huge metadata", 64, |it| Box::pin(garbage::metadata(it))),
    Trial::new(
        "control frames that nobody reads the answers to",
        64,
        |it| Box::pin(garbage::control_flood(it)),
    ),
    Trial::new("streams opened and reset", 64, |it| {
        Box::pin(garbage::rapid_reset(it))
    }),
    Trial::new("a million streams", 400, |it| {
        Box::pin(garbage::streams(it))
    }),
    Trial::new("half a greeting, then silence", 64, |it| {
        Box::pin(garbage::silence(it))
    }),
    Trial::new("messages beyond their limits", 64, |it| {
        Box::pin(limits::messages(it))
    }),
    Trial::new("watchers beyond reason", 128, |it| {
        Box::pin(limits::watches(it))
    }),
    Trial::new("more writes at once than may wait", 768, |it| {
        Box::pin(greedy::writes(it))
    }),
    Trial::new("a member of forty thousand addresses", 128, |it| {
        Box::pin(greedy::addresses(it))
    }),
    Trial::new("ten thousand idle connections", 400, |it| {
        Box::pin(crowd::idle(it))
    }),
    Trial {
        files_max: Some(crowd::FILES),
        ..Trial::new("more connections than files", 64, |it| {
            Box::pin(crowd::beyond_files(it))
        })
    },
    Trial::new("no file descriptor left", 64, |it| {
        Box::pin(crowd::files_exhausted(it))
    }),
    Trial::new("a watcher that stops reading and goes on", 256, |it| {
        Box::pin(deaf::watcher_that_returns(it))
    }),
    Trial::new("a watcher that is compacted away", 128, |it| {
        Box::pin(deaf::watcher_compacted(it))
    }),
    Trial::new(
        "a thousand streams of events that no window lets out",
        256,
        |it| Box::pin(deaf::watch_streams(it)),
    ),
    Trial::new("answers that no window lets out", 256, |it| {
        Box::pin(deaf::answers_without_window(it))
    }),
    Trial {
        flags: &["--grpc-keepalive-timeout=2s"],
        ..Trial::new("answers that nobody takes off the wire", 256, |it| {
            Box::pin(deaf::answers_on_a_full_wire(it))
        })
    },
    Trial::new("five thousand clients that wait", 400, |it| {
        Box::pin(etcd_v2::waiting(it))
    }),
    Trial::new("listings of a hundred thousand keys", 400, |it| {
        Box::pin(etcd_v2::listings(it))
    }),
    Trial::new("a thousand keys that end at the same time", 64, |it| {
        Box::pin(etcd_v2::expiring(it))
    }),
    Trial::new(
        "a stream of ten thousand events that nobody reads",
        256,
        |it| Box::pin(etcd_v2::backlog(it)),
    ),
];

/// A server that is done harm to.
struct Scene {
    cluster: Cluster,
    process: Process,
    witness: Witness,
}

impl Scene {
    fn client_port(&self) -> u16 {
        self.cluster.members[0].client_port
    }

    /// Clients' and peers'.
    fn ports(&self) -> [u16; 2] {
        [self.client_port(), self.cluster.members[0].peer_port]
    }

    /// A connection of its own to the clients' port.
    async fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.cluster.endpoints())?;
        Ok(endpoint.connect().await?)
    }
}

/// Runs the trials whose name contains `filter`.
///
/// # Errors
/// When a server cannot be started; harm done is a failed tally.
pub async fn run(kind: Kind, filter: &str) -> Result<Tally> {
    crowd::allow_files()?;
    let mut tally = Tally::default();
    for trial in TRIALS.iter().filter(|trial| trial.name.contains(filter)) {
        let flags: Vec<String> = trial.flags.iter().map(|&flag| flag.to_owned()).collect();
        let cluster = Cluster::start_bounded(kind, 1, &flags, trial.files_max).await?;
        let process = Process::of(cluster.members[0].process_id().context("it runs")?);
        let channel = Endpoint::from_shared(cluster.endpoints())?
            .connect()
            .await?;
        let mut scene = Scene {
            witness: Witness::start(channel),
            cluster,
            process,
        };
        match run_one(trial, &mut scene).await {
            Ok(told) => {
                println!("ok   {}: {}: {told}", kind.name(), trial.name);
                tally.passed += 1;
            }
            Err(error) => {
                let logs = scene.cluster.keep_logs();
                println!(
                    "FAIL {}: {}: {error:#}\nlogs are in {}",
                    kind.name(),
                    trial.name,
                    logs.display()
                );
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

async fn run_one(trial: &Trial, scene: &mut Scene) -> Result<String> {
    let began = Instant::now();
    scene.process.forget_peak()?;
    let before = scene.process.memory_bytes()?;
    let told = (trial.run)(scene).await;
    let running = scene.cluster.members[0].is_running();
    ensure!(running, "the server ended ({told:?})");
    let growth_mib = scene.process.peak_bytes()?.saturating_sub(before) / MIB;
    let measured = format!("memory grew by {growth_mib} MiB");
    let told = told.context(measured.clone())?;
    let slow = scene.witness.finish().await.context(measured.clone())?;
    let measured = format!(
        "{measured}, 99 of 100 calls of another client took up to {} ms, {:.1} s",
        slow.as_millis(),
        began.elapsed().as_secs_f64()
    );
    ensure!(
        growth_mib <= trial.growth_mib_max,
        "{measured}: more than {} MiB",
        trial.growth_mib_max
    );
    ensure!(slow <= SERVED_WITHIN, "{measured}: too slow");
    Ok(match told.is_empty() {
        true => measured,
        false => format!("{told}; {measured}"),
    })
}

/// Awaits a condition of a foreign process.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await? {
        ensure!(Instant::now() < deadline, "{what} does not come about");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The server does not spin: how much of the processor's time it takes while another client is served.
async fn idles(scene: &Scene) -> Result<String> {
    let began = scene.process.cpu()?;
    scene.witness.served(CALLS_WATCHED).await?;
    let used = scene.process.cpu()?.saturating_sub(began);
    let told = format!(
        "{} ms of processor for {CALLS_WATCHED} calls",
        used.as_millis()
    );
    ensure!(used < IDLE_CPU_MAX, "{told}");
    Ok(told)
}

/// The server neither spins nor fills its log.
async fn calm(scene: &Scene) -> Result<String> {
    let lines = scene.cluster.members[0].log_lines()?;
    let told = idles(scene).await?;
    let logged = scene.cluster.members[0].log_lines()? - lines;
    ensure!(logged <= LINES_MAX, "{logged} lines logged meanwhile");
    Ok(told)
}
