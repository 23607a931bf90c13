//! Threads that hold a server's connections and put them under load, one slice at a time.
//!
//! Connections, leases and watchers are made once and then rest between slices, so that slices
//! against two servers can take turns. Each thread runs its connections on a runtime of its own:
//! the generator's cost stays small and does not depend on whoever calls it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use crate::connection::Connection;
use crate::keys::{KeySpace, Order};
use crate::load::{Exchange, Load, Slice};
use crate::requests::{Operation, Put, Requests, path};
use crate::tally::Tally;
use crate::watch::{FanOut, Watch, share_of};

/// What all connections together do.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// Unary calls.
    Unary(Operation),
    /// Keep-alives, each client with a lease and a stream of its own.
    KeepAlive {
        /// The leases' time to live in seconds.
        ttl_s: i64,
    },
    /// Watchers of one key on `connections`; the clients, on one more connection, put it.
    Watch {
        /// Streams in all.
        streams: usize,
        /// Watchers in all.
        watchers: usize,
        /// Ask for previous key-value pairs.
        prev_kv: bool,
    },
}

/// How a workload is spread.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is done.
    pub workload: Workload,
    /// Where to (`host:port`), connections taking turns.
    pub endpoints: Vec<String>,
    /// etcd's authentication token.
    pub token: Option<String>,
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
}

#[derive(Debug, Clone)]
enum Role {
    Unary(Requests),
    KeepAlive { ttl_s: i64 },
    Watch { streams: usize, watchers: usize },
    Writer(Requests),
}

/// What a thread needs to make one member.
#[derive(Debug, Clone)]
struct MemberSpec {
    role: Role,
    endpoint: String,
    clients: usize,
    per_second: Option<f64>,
}

/// One connection and what it is driven by.
struct Member {
    connection: Connection,
    client: Client,
}

enum Client {
    Load(Load),
    Writer(Load),
    Watch(Watch),
}

struct Job {
    duration: Duration,
    answer: oneshot::Sender<anyhow::Result<Counted>>,
}

/// The load on one server.
pub struct Generator {
    threads: Vec<mpsc::Sender<Job>>,
    writers: usize,
    shared: Arc<FanOut>,
}

impl Generator {
    /// Connects, makes leases and watchers, and returns when all is ready.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let specs = member_specs(plan);
        let writers = specs
            .iter()
            .filter(|spec| matches!(spec.role, Role::Writer(_)))
            .count();
        let shared = Arc::new(FanOut::default());
        let count = plan.threads.clamp(1, specs.len());
        let mut threads = Vec::new();
        for number in 0..count {
            let own: Vec<_> = specs.iter().skip(number).step_by(count).cloned().collect();
            let (sender, receiver) = mpsc::channel(1);
            let (ready, is_ready) = oneshot::channel();
            let (plan, shared) = (plan.clone(), shared.clone());
            std::thread::Builder::new()
                .name(format!("bench-{number}"))
                .spawn(move || run_thread(&plan, &own, &shared, ready, receiver))
                .context("starting a generator thread")?;
            is_ready.await.unwrap_or_else(|_| Err(thread_died()))?;
            threads.push(sender);
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
            thread.send(job).await.map_err(|_| thread_died())?;
            answers.push(receiver);
        }
        let mut counted = Counted::new();
        for answer in answers {
            counted.add(&answer.await.unwrap_or_else(|_| Err(thread_died()))?);
        }
        Ok(counted)
    }
}

fn thread_died() -> anyhow::Error {
    anyhow!("a generator thread stopped")
}

fn member_specs(plan: &Plan) -> Vec<MemberSpec> {
    let spec = |role, number: usize, clients, per_second| MemberSpec {
        role,
        endpoint: plan.endpoints[number % plan.endpoints.len()].clone(),
        clients,
        per_second,
    };
    let requests = |operation, order, number| {
        let seed = plan.seed.wrapping_add(number as u64);
        Requests::new(operation, plan.keys.clone(), order, plan.value_bytes, seed)
    };
    let connections = match plan.workload {
        Workload::Unary(_) | Workload::KeepAlive { .. } => plan.connections.min(plan.clients),
        Workload::Watch { watchers, .. } => plan.connections.min(watchers),
    };
    let share = |number| share_of(plan.clients, connections, number);
    let rate = plan.per_second.map(|rate| rate / connections as f64);
    let members = (0..connections).map(|number| match plan.workload {
        Workload::Unary(operation) => {
            let order = order_of(plan, operation, number, connections);
            let role = Role::Unary(requests(operation, order, number));
            spec(role, number, share(number), rate)
        }
        Workload::KeepAlive { ttl_s } => {
            spec(Role::KeepAlive { ttl_s }, number, share(number), rate)
        }
        Workload::Watch {
            streams, watchers, ..
        } => {
            let role = Role::Watch {
                streams: share_of(streams, connections, number).max(1),
                watchers: share_of(watchers, connections, number),
            };
            spec(role, number, 0, None)
        }
    });
    let mut members: Vec<_> = members.collect();
    if let Workload::Watch { prev_kv, .. } = plan.workload {
        let put = Operation::Put(Put {
            stamped: true,
            prev_kv,
        });
        let one_key = Order::Sequential { next: 0, step: 0 };
        let role = Role::Writer(requests(put, one_key, connections));
        members.push(spec(role, 0, plan.clients, plan.per_second));
    }
    members
}

fn order_of(plan: &Plan, operation: Operation, number: usize, connections: usize) -> Order {
    let (number, connections) = (number as u64, connections as u64);
    if let Operation::Fill { .. } = operation {
        let from = |n: u64| {
            (u128::from(plan.keys.count()) * u128::from(n) / u128::from(connections)) as u64
        };
        Order::Once(from(number)..from(number + 1))
    } else if plan.sequential {
        Order::Sequential {
            next: number,
            step: connections,
        }
    } else {
        Order::Random(SmallRng::seed_from_u64(!plan.seed ^ number))
    }
}

fn run_thread(
    plan: &Plan,
    specs: &[MemberSpec],
    shared: &Arc<FanOut>,
    ready: oneshot::Sender<anyhow::Result<()>>,
    mut jobs: mpsc::Receiver<Job>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            // Whoever asked may be gone, and then nobody is left to tell.
            ready.send(Err(error.into())).ok();
            return;
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let mut members = match connect_all(plan, specs, shared).await {
            Ok(members) => members,
            Err(error) => {
                ready.send(Err(error)).ok();
                return;
            }
        };
        ready.send(Ok(())).ok();
        while let Some(job) = jobs.recv().await {
            let counted = run_slice(&mut members, job.duration).await;
            job.answer.send(counted).ok();
        }
    });
}

async fn connect_all(
    plan: &Plan,
    specs: &[MemberSpec],
    shared: &Arc<FanOut>,
) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::with_capacity(specs.len());
    for spec in specs {
        members.push(connect(plan, spec, shared).await?);
    }
    Ok(members)
}

async fn connect(plan: &Plan, spec: &MemberSpec, shared: &Arc<FanOut>) -> anyhow::Result<Member> {
    let mut connection = Connection::open(&spec.endpoint, plan.token.clone()).await?;
    let now = Instant::now();
    let slice = Slice {
        start: now,
        end: now,
        tally: Rc::new(RefCell::new(Tally::new())),
    };
    let load = |exchange, watched| {
        Load::new(
            exchange,
            spec.clients,
            spec.per_second,
            watched,
            slice.clone(),
        )
    };
    let client = match &spec.role {
        Role::Unary(requests) => Client::Load(load(Exchange::Unary(requests.clone()), None)),
        Role::Writer(requests) => {
            let watched = Some(shared.clone());
            Client::Writer(load(Exchange::Unary(requests.clone()), watched))
        }
        Role::KeepAlive { ttl_s } => {
            let mut leases = Vec::with_capacity(spec.clients);
            for _ in 0..spec.clients {
                let grant = LeaseGrantRequest { ttl: *ttl_s, id: 0 };
                let granted: LeaseGrantResponse =
                    connection.call(path::LEASE_GRANT, &grant).await?;
                leases.push(granted.id);
            }
            let streams = vec![None; leases.len()];
            Client::Load(load(Exchange::KeepAlive { leases, streams }, None))
        }
        Role::Watch { streams, watchers } => {
            let key = plan.keys.key(0);
            let prev_kv = matches!(plan.workload, Workload::Watch { prev_kv: true, .. });
            let shared = shared.clone();
            let mut watch = Watch::new(key, prev_kv, *streams, *watchers, shared, slice.clone());
            connection.drive(&mut watch).await?;
            Client::Watch(watch)
        }
    };
    Ok(Member { connection, client })
}

async fn run_slice(members: &mut Vec<Member>, duration: Duration) -> anyhow::Result<Counted> {
    let start = Instant::now();
    let slice = || Slice {
        start,
        end: start + duration,
        tally: Rc::new(RefCell::new(Tally::new())),
    };
    let (main, writers) = (slice(), slice());
    let mut running = JoinSet::new();
    for mut member in members.drain(..) {
        match &mut member.client {
            Client::Load(load) => load.begin(main.clone()),
            Client::Watch(watch) => watch.begin(main.clone()),
            Client::Writer(load) => load.begin(writers.clone()),
        }
        running.spawn_local(async move {
            let Member { connection, client } = &mut member;
            match client {
                Client::Load(load) | Client::Writer(load) => connection.drive(load).await,
                Client::Watch(watch) => connection.drive(watch).await,
            }
            .map(|()| member)
        });
    }
    while let Some(member) = running.join_next().await {
        members.push(member.context("a connection's task died")??);
    }
    let taken = |slice: Slice| slice.tally.borrow().clone();
    Ok(Counted {
        main: taken(main),
        writers: taken(writers),
    })
}
