//! Slices in turns: the measurement itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::{LoadArgs, MeasureArgs};
use crate::contender::Contender;
use crate::generator::{Counted, Generator, Plan};
use crate::process::usage_of;
use crate::protocol::{Protocol, Workload};
use crate::statistics::{Ratio, first_of_round, median};
use crate::tally::Tally;

/// How keys are filled in before they are read.
const FILL_CLIENTS: usize = 64;
const FILL_CONNECTIONS: usize = 4;

/// One slice against one contender.
#[derive(Debug, Clone, Serialize)]
pub struct SliceFigures {
    /// Successful operations, or delivered events.
    pub operations: u64,
    /// Operations per second.
    pub per_second: f64,
    /// Latencies of the slice.
    pub latencies: Latencies,
    /// The server's CPU time per operation, if its processes are known.
    pub cpu_us_per_operation: Option<f64>,
    /// The server's resident memory after the slice.
    pub rss_bytes: Option<u64>,
    /// The generator's own CPU time per operation.
    pub generator_cpu_us_per_operation: f64,
}

/// All slices against one contender.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// The contender's name.
    pub contender: &'static str,
    /// Its version, as it says.
    pub version: String,
    /// The slices in order, without the warm-up.
    pub slices: Vec<SliceFigures>,
    /// The most resident memory its processes had.
    pub rss_peak_bytes: Option<u64>,
    /// Failures of all slices by what the server said.
    pub failures: BTreeMap<String, u64>,
    /// Answers that did not say what they must.
    pub misses: u64,
    /// Operations that were due but could not be sent.
    pub unsent: u64,
    /// Latencies of all slices together.
    pub latencies: Latencies,
    #[serde(skip)]
    total: Tally,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latencies {
    /// The median.
    pub p50_ms: f64,
    /// 99 % stayed within it.
    pub p99_ms: f64,
    /// 99.9 % stayed within it.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latencies {
    fn of(tally: &Tally) -> Self {
        Self {
            p50_ms: tally.latency_ms(0.5),
            p99_ms: tally.latency_ms(0.99),
            p999_ms: tally.latency_ms(0.999),
            max_ms: tally.latency_ms(1.0),
        }
    }
}

impl Series {
    fn new<P>(contender: &Contender<P>) -> Self {
        Self {
            contender: contender.name,
            version: contender.version.clone(),
            slices: Vec::new(),
            rss_peak_bytes: None,
            failures: BTreeMap::new(),
            misses: 0,
            unsent: 0,
            latencies: Latencies::default(),
            total: Tally::new(),
        }
    }

    /// The median of a figure over the slices; none when a slice lacks it.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        median(&self.values(figure)?)
    }

    fn values(&self, figure: Figure) -> Option<Vec<f64>> {
        self.slices.iter().map(|slice| figure.of(slice)).collect()
    }
}

/// A figure that contenders are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Operations per second.
    PerSecond,
    /// Median latency.
    P50,
    /// 99th percentile of latency.
    P99,
    /// 99.9th percentile of latency.
    P999,
    /// The server's CPU time per operation.
    Cpu,
    /// Resident memory.
    Memory,
    /// The generator's CPU time per operation.
    GeneratorCpu,
}

impl Figure {
    fn of(self, slice: &SliceFigures) -> Option<f64> {
        match self {
            Self::PerSecond => Some(slice.per_second),
            Self::P50 => Some(slice.latencies.p50_ms),
            Self::P99 => Some(slice.latencies.p99_ms),
            Self::P999 => Some(slice.latencies.p999_ms),
            Self::Cpu => slice.cpu_us_per_operation,
            Self::Memory => slice
                .rss_bytes
                .map(|bytes| bytes as f64 / f64::from(1 << 20)),
            Self::GeneratorCpu => Some(slice.generator_cpu_us_per_operation),
        }
    }
}

/// What a workload came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The workload's name, with its sizes.
    pub name: String,
    /// How much load it was.
    pub load: LoadArgs,
    /// The length of a slice.
    pub slice_ms: u64,
    /// The measured server, and then the one it is compared to.
    pub series: Vec<Series>,
}

impl Outcome {
    /// How the first contender relates to the second; none without a second, or without the
    /// figure.
    pub fn ratio(&self, figure: Figure) -> Option<Ratio> {
        let [subject, baseline] = &self.series[..] else {
            return None;
        };
        Ratio::of_pairs(&subject.values(figure)?, &baseline.values(figure)?)
    }
}

/// Measures `workload` on all contenders in turns.
pub async fn compare<P: Protocol>(
    name: &str,
    contenders: &[Contender<P>],
    workload: P::Workload,
    load: &LoadArgs,
    measure: &MeasureArgs,
) -> anyhow::Result<Outcome> {
    let progress = progress_bar(name, contenders.len() * (measure.rounds + 1));
    if workload.needs_keys() {
        for contender in contenders {
            ensure_keys(contender, load, measure).await?;
        }
    }
    let mut sides = Vec::new();
    for contender in contenders {
        let mut side = Side::new(contender, workload, load, measure).await?;
        if measure.warmup_ms > 0 {
            side.run(Duration::from_millis(measure.warmup_ms)).await?;
            side.series = Series::new(contender);
        }
        progress.inc(1);
        sides.push(side);
    }
    let slice = Duration::from_millis(measure.slice_ms);
    for round in 0..measure.rounds {
        for turn in 0..sides.len() {
            let at = (first_of_round(round) + turn) % sides.len();
            sides[at].run(slice).await?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let mut series = Vec::new();
    for side in sides {
        series.push(side.end().await?);
    }
    Ok(Outcome {
        name: name.to_owned(),
        load: load.clone(),
        slice_ms: measure.slice_ms,
        series,
    })
}

/// A contender under load.
struct Side<'a, P: Protocol> {
    contender: &'a Contender<P>,
    generator: Generator,
    workload: P::Workload,
    settle: Duration,
    series: Series,
}

impl<'a, P: Protocol> Side<'a, P> {
    async fn new(
        contender: &'a Contender<P>,
        workload: P::Workload,
        load: &LoadArgs,
        measure: &MeasureArgs,
    ) -> anyhow::Result<Self> {
        let keys = load.keys()?;
        contender
            .protocol
            .prepare(&contender.targets[0], &keys)
            .await?;
        let plan = Plan {
            protocol: contender.protocol.clone(),
            workload,
            endpoints: contender.targets.clone(),
            clients: load.clients,
            connections: load.connections,
            threads: measure.threads,
            per_second: load.rate,
            keys,
            sequential: load.sequential_keys,
            value_bytes: load.val_size,
            seed: measure.seed,
        };
        Ok(Self {
            contender,
            generator: Generator::start(&plan).await?,
            workload,
            settle: Duration::from_millis(measure.settle_ms),
            series: Series::new(contender),
        })
    }

    /// One slice, added to the series; returns how many operations were tried.
    async fn run(&mut self, duration: Duration) -> anyhow::Result<u64> {
        let contender = self.contender;
        let revision = contender.revision().await?;
        let before = contender.usage()?;
        let own_before = own_cpu_us()?;
        let counted = self.generator.slice(duration).await?;
        let own_after = own_cpu_us()?;
        tokio::time::sleep(self.settle).await;
        let after = contender.usage()?;
        let moved = contender.revision().await? - revision;
        if self.workload.is_accounted() {
            check_revision(contender.name, &self.workload, &counted, moved)?;
        }

        let main = &counted.main;
        let operations = main.operations.max(1) as f64;
        let cpu_us = before
            .zip(after)
            .map(|(before, after)| after.cpu_us - before.cpu_us);
        let series = &mut self.series;
        series.slices.push(SliceFigures {
            operations: main.operations,
            per_second: main.per_second(),
            latencies: Latencies::of(main),
            cpu_us_per_operation: cpu_us.map(|cpu_us| cpu_us / operations),
            rss_bytes: after.map(|usage| usage.rss_bytes),
            generator_cpu_us_per_operation: (own_after - own_before) / operations,
        });
        series.rss_peak_bytes = after.map(|usage| usage.rss_peak_bytes);
        series.misses += main.misses;
        series.unsent += main.unsent + counted.writers.unsent;
        for tally in [main, &counted.writers] {
            for (reason, count) in &tally.failures {
                *series.failures.entry(reason.clone()).or_default() += count;
            }
        }
        series.total.add(main);
        series.latencies = Latencies::of(&series.total);
        Ok(counted.tried())
    }

    /// Ends the load, and hands over what there was of it.
    async fn end(self) -> anyhow::Result<Series> {
        self.generator.stop().await?;
        Ok(self.series)
    }
}

/// The generator's own CPU time so far.
fn own_cpu_us() -> anyhow::Result<f64> {
    let usage = usage_of(&[std::process::id()])?;
    Ok(usage.map_or(0.0, |usage| usage.cpu_us))
}

/// Every acknowledged write moves the revision by one; one that failed may have happened.
fn check_revision(
    contender: &str,
    workload: &impl Workload,
    counted: &Counted,
    moved: i64,
) -> anyhow::Result<()> {
    let acknowledged = i64::try_from(counted.main.writes + counted.writers.writes)?;
    let failed = i64::try_from(counted.main.failure_count() + counted.writers.failure_count())?;
    ensure!(
        (acknowledged..=acknowledged + failed).contains(&moved),
        "{contender} acknowledged {acknowledged} writes ({failed} operations failed) but its revision \
         moved by {moved} during {workload:?}: somebody else writes, or the server lies"
    );
    Ok(())
}

/// Fills the key space in unless it is.
pub async fn ensure_keys<P: Protocol>(
    contender: &Contender<P>,
    load: &LoadArgs,
    measure: &MeasureArgs,
) -> anyhow::Result<()> {
    let (protocol, member) = (&contender.protocol, &contender.targets[0]);
    if protocol.count(member, &load.keys()?).await? >= load.key_space_size {
        return Ok(());
    }
    let load = LoadArgs {
        clients: FILL_CLIENTS,
        connections: FILL_CONNECTIONS,
        rate: None,
        ..load.clone()
    };
    fill(contender, &load, measure, P::filling()).await?;
    Ok(())
}

/// Makes every key once with `workload`, which ends by itself. A slice of the series is what was
/// written within about the slice's length.
pub async fn fill<P: Protocol>(
    contender: &Contender<P>,
    load: &LoadArgs,
    measure: &MeasureArgs,
    workload: P::Workload,
) -> anyhow::Result<Series> {
    let keys = load.keys()?;
    let (protocol, member) = (&contender.protocol, &contender.targets[0]);
    let mut side = Side::new(contender, workload, load, measure).await?;
    let progress = progress_bar("fill", usize::try_from(keys.count())?);
    let slice = Duration::from_millis(measure.slice_ms);
    while side.run(slice).await? > 0 {
        progress.set_position(protocol.count(member, &keys).await?);
    }
    side.series.slices.pop();
    progress.finish_and_clear();
    let series = side.end().await?;
    let count = protocol.count(member, &keys).await?;
    ensure!(
        count >= keys.count(),
        "{} has {count} of {} keys after filling them in: {:?}",
        contender.name,
        keys.count(),
        series.failures
    );
    Ok(series)
}

/// Shown on a terminal only, on standard error.
fn progress_bar(name: &str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {eta}")
        .expect("the template is a constant");
    ProgressBar::new(steps as u64)
        .with_style(style)
        .with_message(name.to_owned())
}
