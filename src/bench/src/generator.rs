//! Threads that hold a server's connections and put them under load, one slice at a time.
//!
//! Connections, leases and watchers are made once and then rest between slices, so that slices
//! against two servers can take turns. Each thread runs its connections on a runtime of its own:
//! the generator's cost stays small and does not depend on whoever calls it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use crate::fan_out::{FanOut, share_of};
use crate::keys::{KeySpace, Order};
use crate::load::Slice;
use crate::protocol::{Member, Protocol};
use crate::tally::Tally;

/// How often resting connections are looked after.
const KEEP_MS: u64 = 500;

/// How a workload is spread.
#[derive(Debug, Clone)]
pub struct Plan<P: Protocol> {
    /// How the server is spoken to.
    pub protocol: P,
    /// What is done.
    pub workload: P::Workload,
    /// Where to (`host:port`), connections taking turns.
    pub endpoints: Vec<String>,
    /// Requests in flight.
    pub clients: usize,
    /// Connections they share.
    pub connections: usize,
    /// Generator threads.
    pub threads: usize,
    /// Requests per second in all; none is a closed loop.
    pub per_second: Option<f64>,
    /// The keys.
    pub keys: KeySpace,
    /// Walk the keys in order instead of at random.
    pub sequential: bool,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// For values and choices.
    pub seed: u64,
}

impl<P: Protocol> Plan<P> {
    /// Connection `number` of `connections`, with its share of the requests.
    pub fn asking<R>(&self, role: R, number: usize, connections: usize) -> MemberSpec<R> {
        MemberSpec {
            clients: share_of(self.clients, connections, number),
            per_second: self.per_second.map(|rate| rate / connections as f64),
            ..self.silent(role, number)
        }
    }

    /// Connection `number`, which has no part in the requests: it watches, for example.
    pub fn silent<R>(&self, role: R, number: usize) -> MemberSpec<R> {
        MemberSpec {
            role,
            endpoint: self.endpoints[number % self.endpoints.len()].clone(),
            clients: 0,
            per_second: None,
            writes_for_watchers: false,
        }
    }

    /// One more connection, with all requests: it writes what the others watch.
    pub fn writing<R>(&self, role: R) -> MemberSpec<R> {
        MemberSpec {
            writes_for_watchers: true,
            ..self.asking(role, 0, 1)
        }
    }

    /// In which order connection `number` of `connections` walks the keys.
    pub fn order(&self, number: usize, connections: usize) -> Order {
        let (number, connections) = (number as u64, connections as u64);
        if self.sequential {
            Order::Sequential {
                next: number,
                step: connections,
            }
        } else {
            Order::Random(SmallRng::seed_from_u64(!self.seed ^ number))
        }
    }

    /// The share of connection `number` of `connections` in the key space, each key once.
    pub fn order_once(&self, number: usize, connections: usize) -> Order {
        let (number, connections) = (number as u64, connections as u64);
        let from = |n: u64| {
            (u128::from(self.keys.count()) * u128::from(n) / u128::from(connections)) as u64
        };
        Order::Once(from(number)..from(number + 1))
    }

    /// The seed of connection `number`.
    pub fn seed_of(&self, number: usize) -> u64 {
        self.seed.wrapping_add(number as u64)
    }
}

/// What a slice counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The operations that the workload is about: calls, keep-alives, delivered events.
    pub main: Tally,
    /// The puts that a watch workload's events come from.
    pub writers: Tally,
}

impl Counted {
    fn new() -> Self {
        Self {
            main: Tally::new(),
            writers: Tally::new(),
        }
    }

    /// Adds another thread's count.
    pub fn add(&mut self, other: &Self) {
        self.main.add(&other.main);
        self.writers.add(&other.writers);
    }

    /// How many operations were tried.
    pub fn tried(&self) -> u64 {
        self.main.operations + self.main.failure_count()
    }
}

/// What a thread needs to make one member.
#[derive(Debug, Clone)]
pub struct MemberSpec<R> {
    /// What it does.
    pub role: R,
    /// Where it connects (`host:port`).
    pub endpoint: String,
    /// Requests in flight.
    pub clients: usize,
    /// Requests per second; none is a closed loop.
    pub per_second: Option<f64>,
    /// Whether it only makes events for watchers, whose count is the workload's.
    pub writes_for_watchers: bool,
}

struct Running {
    member: Box<dyn Member>,
    writes_for_watchers: bool,
}

struct Job {
    duration: Duration,
    answer: oneshot::Sender<anyhow::Result<Counted>>,
}

struct Thread {
    jobs: mpsc::Sender<Job>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

/// The load on one server.
pub struct Generator {
    threads: Vec<Thread>,
    writers: usize,
    shared: Arc<FanOut>,
}

impl Generator {
    /// Connects, makes leases and watchers, and returns when all is ready.
    pub async fn start<P: Protocol>(plan: &Plan<P>) -> anyhow::Result<Self> {
        let specs = P::members(plan);
        let writers = specs.iter().filter(|spec| spec.writes_for_watchers).count();
        let shared = Arc::new(FanOut::default());
        let count = plan.threads.clamp(1, specs.len());
        let mut threads = Vec::new();
        for number in 0..count {
            let own: Vec<_> = specs.iter().skip(number).step_by(count).cloned().collect();
            let (jobs, receiver) = mpsc::channel(1);
            let (ready, is_ready) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let (plan, shared) = (plan.clone(), shared.clone());
            std::thread::Builder::new()
                .name(format!("bench-{number}"))
                .spawn(move || {
                    // Whoever asked may be gone, and then nobody is left to tell.
                    end.send(run_thread(&plan, &own, &shared, ready, receiver))
                        .ok();
                })
                .context("starting a generator thread")?;
            is_ready.await.unwrap_or_else(|_| Err(thread_died()))?;
            threads.push(Thread { jobs, ended });
        }
        Ok(Self {
            threads,
            writers,
            shared,
        })
    }

    /// Loads the server for `duration`, then awaits all answers.
    pub async fn slice(&self, duration: Duration) -> anyhow::Result<Counted> {
        self.shared.begin(self.writers);
        let mut answers = Vec::new();
        for thread in &self.threads {
            let (answer, receiver) = oneshot::channel();
            let job = Job { duration, answer };
            thread.jobs.send(job).await.map_err(|_| thread_died())?;
            answers.push(receiver);
        }
        let mut counted = Counted::new();
        for answer in answers {
            counted.add(&answer.await.unwrap_or_else(|_| Err(thread_died()))?);
        }
        Ok(counted)
    }

    /// Ends all connections in order: what they leave behind must not fall into somebody else's
    /// slice.
    pub async fn stop(self) -> anyhow::Result<()> {
        for Thread { jobs, ended } in self.threads {
            drop(jobs);
            ended.await.unwrap_or_else(|_| Err(thread_died()))?;
        }
        Ok(())
    }
}

fn thread_died() -> anyhow::Error {
    anyhow!("a generator thread stopped")
}

fn run_thread<P: Protocol>(
    plan: &Plan<P>,
    specs: &[MemberSpec<P::Role>],
    shared: &Arc<FanOut>,
    ready: oneshot::Sender<anyhow::Result<()>>,
    mut jobs: mpsc::Receiver<Job>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            ready.send(Err(error.into())).ok();
            return Ok(());
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let mut members = match connect_all(plan, specs, shared).await {
            Ok(members) => members,
            Err(error) => {
                ready.send(Err(error)).ok();
                return Ok(());
            }
        };
        ready.send(Ok(())).ok();
        loop {
            let rest = Duration::from_millis(KEEP_MS);
            match tokio::time::timeout(rest, jobs.recv()).await {
                Ok(Some(job)) => {
                    let counted = run_slice(&mut members, job.duration).await;
                    job.answer.send(counted).ok();
                }
                Ok(None) => break,
                Err(_elapsed) => {
                    for running in &mut members {
                        running.member.keep().await?;
                    }
                }
            }
        }
        for running in members {
            running.member.part().await?;
        }
        Ok(())
    })
}

async fn connect_all<P: Protocol>(
    plan: &Plan<P>,
    specs: &[MemberSpec<P::Role>],
    shared: &Arc<FanOut>,
) -> anyhow::Result<Vec<Running>> {
    let mut members = Vec::with_capacity(specs.len());
    for spec in specs {
        members.push(Running {
            member: P::connect(plan, spec, shared, Slice::rest()).await?,
            writes_for_watchers: spec.writes_for_watchers,
        });
    }
    Ok(members)
}

async fn run_slice(members: &mut Vec<Running>, duration: Duration) -> anyhow::Result<Counted> {
    let main = Slice::begin(duration);
    let writers = Slice {
        tally: Rc::default(),
        ..main.clone()
    };
    let mut running = JoinSet::new();
    for mut one in members.drain(..) {
        let slice = if one.writes_for_watchers {
            &writers
        } else {
            &main
        };
        one.member.begin(slice.clone());
        running.spawn_local(async move { one.member.run().await.map(|()| one) });
    }
    while let Some(one) = running.join_next().await {
        members.push(one.context("a connection's task died")??);
    }
    let taken = |slice: Slice| slice.tally.borrow().clone();
    Ok(Counted {
        main: taken(main),
        writers: taken(writers),
    })
}
