//! What the system says of a server's process, and a client that notes how well it is served.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use super::PATIENCE;

/// The kernel counts a process's time in these.
const TICKS_PER_SECOND: u64 = 100;
/// A call that takes longer is one that was not served.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// How often the witness calls.
const PACE: Duration = Duration::from_millis(5);

/// Reads /proc for one process.
#[derive(Clone, Copy)]
pub struct Process {
    id: u32,
}

impl Process {
    /// The process of this id.
    pub fn of(id: u32) -> Process {
        Process { id }
    }

    /// Memory it holds now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory_bytes(self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory it held since [`Process::forget_peak`].
    ///
    /// # Errors
    /// When the process is gone.
    pub fn peak_bytes(self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// Measures the peak anew.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn forget_peak(self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.id), "5")?)
    }

    fn status(self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.with_context(|| format!("no {name}"))?.parse::<u64>()? << 10)
    }

    /// Processor time it has used.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id))?;
        // The name, in parentheses, may contain anything.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        // The 14th and 15th fields, the third being the first after the name.
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse().unwrap_or(0)).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// File descriptors it has open.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn files(self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.id))?.count())
    }
}

/// A client that does nothing wrong: it writes and reads all the time, and its every call must
/// succeed.
pub struct Witness {
    stop: Arc<AtomicBool>,
    calls: watch::Receiver<usize>,
    task: JoinHandle<Result<Vec<Duration>>>,
}

impl Witness {
    /// Begins.
    pub fn start(channel: Channel) -> Witness {
        let stop = Arc::default();
        let (counter, calls) = watch::channel(0);
        let task = tokio::spawn(testify(channel, Arc::clone(&stop), counter));
        Witness { stop, calls, task }
    }

    /// Awaits that it is served so many more times.
    ///
    /// # Errors
    /// When it is not, or not in time.
    pub async fn served(&self, times: usize) -> Result<()> {
        let mut calls = self.calls.clone();
        let enough = *calls.borrow() + times;
        let served = calls.wait_for(|calls| *calls >= enough);
        let served = tokio::time::timeout(PATIENCE, served).await;
        let served = served.context("another client is served too slowly")?;
        served.context("another client was not served")?;
        Ok(())
    }

    /// Ends, and answers how long the slowest of a hundred calls took at most.
    ///
    /// # Errors
    /// When a call failed.
    pub async fn finish(&mut self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = (&mut self.task).await??;
        ensure!(!took.is_empty(), "nobody else called");
        took.sort_unstable();
        Ok(took[(took.len() - 1) * 99 / 100])
    }
}

async fn testify(
    channel: Channel,
    stop: Arc<AtomicBool>,
    counter: watch::Sender<usize>,
) -> Result<Vec<Duration>> {
    let mut kv = KvClient::new(channel);
    let mut took = Vec::new();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        // Once more after the end, so that it has seen what came last.
        let last = stop.load(Ordering::Relaxed);
        let began = Instant::now();
        let served = tokio::time::timeout(SERVED_WITHIN, put_and_get(&mut kv, took.len()));
        served.await.context("another client was not served")??;
        took.push(began.elapsed());
        counter.send_replace(took.len());
        if last {
            return Ok(took);
        }
    }
}

async fn put_and_get(kv: &mut KvClient<Channel>, number: usize) -> Result<()> {
    let value = number.to_string();
    let put = PutRequest {
        key: "witness".into(),
        value: value.clone().into(),
        ..Default::default()
    };
    kv.put(put).await?;
    let range = RangeRequest {
        key: "witness".into(),
        ..Default::default()
    };
    let found = kv.range(range).await?.into_inner();
    ensure!(
        found.kvs.len() == 1 && found.kvs[0].value == value,
        "another client did not find its own write"
    );
    Ok(())
}
