//! What a command line asks for, whatever the protocol.

use crate::args::{LoadArgs, MeasureArgs, TargetArgs};
use crate::compare::{Outcome, compare, fill};
use crate::contender::Contender;
use crate::protocol::Protocol;
use crate::report::Report;
use crate::suite::{self, Suite};

/// A measurement.
pub struct Task<P: Protocol> {
    /// On which servers.
    pub target: TargetArgs,
    /// How.
    pub measure: MeasureArgs,
    /// Who asks them.
    pub credentials: P::Credentials,
    /// What is measured.
    pub what: What<P::Workload>,
}

/// What is measured.
pub enum What<W> {
    /// One workload.
    Workload {
        /// Its name in tables, with its sizes.
        name: String,
        /// What is done.
        workload: W,
        /// How much.
        load: LoadArgs,
    },
    /// How fast a workload that ends by itself makes all keys.
    Fill {
        /// What is done.
        workload: W,
        /// How much.
        load: LoadArgs,
    },
    /// A list of workloads.
    Suite(Suite<W>),
}

impl<W> What<W> {
    /// A workload that tables call `name`, with its sizes.
    pub fn named(name: &str, workload: W, load: LoadArgs) -> Self {
        Self::Workload {
            name: format!("{name} {}/{}", load.clients, load.connections),
            workload,
            load,
        }
    }
}

impl<P: Protocol> Task<P> {
    /// Measures, and prints the results.
    pub async fn run(&self) -> anyhow::Result<()> {
        self.measure.check()?;
        let contenders = self.meet().await?;
        let report = match &self.what {
            What::Suite(suite) => suite::run(suite, &contenders, &self.measure).await?,
            What::Workload {
                name,
                workload,
                load,
            } => {
                let outcome = compare(name, &contenders, *workload, load, &self.measure).await?;
                Report::new(vec![outcome], Vec::new())
            }
            What::Fill { workload, load } => self.fill(&contenders, *workload, load).await?,
        };
        report.publish(self.measure.json.as_deref())
    }

    async fn fill(
        &self,
        contenders: &[Contender<P>],
        workload: P::Workload,
        load: &LoadArgs,
    ) -> anyhow::Result<Report> {
        let mut series = Vec::new();
        for contender in contenders {
            series.push(fill(contender, load, &self.measure, workload).await?);
        }
        let outcome = Outcome {
            name: format!("fill {}/{}", load.clients, load.connections),
            load: load.clone(),
            slice_ms: self.measure.slice_ms,
            series,
        };
        Ok(Report::new(vec![outcome], Vec::new()))
    }

    /// The measured server, and the one it is compared to, if any.
    async fn meet(&self) -> anyhow::Result<Vec<Contender<P>>> {
        let args = &self.target;
        let usual = [P::ENDPOINT.to_owned()];
        let endpoints = match &args.endpoints[..] {
            [] => &usual,
            given => given,
        };
        let (target, credentials) = (args.target, &self.credentials);
        let subject = Contender::meet("subject", endpoints, &args.pid, target, credentials);
        let mut contenders = vec![subject.await?];
        if !args.against.is_empty() {
            let (endpoints, pids) = (&args.against, &args.against_pid);
            let baseline = Contender::meet("baseline", endpoints, pids, target, credentials);
            contenders.push(baseline.await?);
        }
        Ok(contenders)
    }
}
