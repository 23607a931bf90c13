//! From a configuration to a member that serves, and back to a stopped process.

use crate::compaction::{self, Compactor};
use crate::config::{ClusterState, Config};
use crate::flags::value::Urls;
use crate::health::{self, Subject};
use crate::http::{self, Front, Held};
use crate::listen::{Connections, Listener, Side, bind};
use crate::metrics::process::open_files;
use crate::metrics::{Metrics, page};
use crate::tls::{self, Tls};
use crate::workers::Workers;
use crate::{ETCD_VERSION, admin, data, discovery, members};
use anyhow::{Context, anyhow};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::any;
use etcd_v2::EtcdV2;
use etcd_v3::EtcdV3;
use gateway::keyspace::command::Alarm;
use gateway::url::Url;
use gateway::{Gate, Hub, Limits};
use replica::{Failure, Handle};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use zookeeper::{Arrival, ZooKeeper};

/// How long handing leadership over and closing the stores may take before the process ends anyway;
/// the log is durable at every moment.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Serves until a signal or a failure. The log runs already.
pub fn run(config: &Config, remarks: &[String]) -> anyhow::Result<()> {
    for remark in remarks {
        warn!("{remark}");
    }
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let served = runtime.block_on(serve(config));
    // What still runs then is past its bound.
    runtime.shutdown_background();
    served
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    info!(
        etcd_version = ETCD_VERSION,
        version = env!("CARGO_PKG_VERSION"),
        name = config.name,
        data_dir = config.data_dir,
        listen_peer_urls = config.listen_peer_urls.to_string(),
        listen_client_urls = config.listen_client_urls.to_string(),
        advertise_client_urls = config.advertise_client_urls.to_string(),
        initial_cluster = config.initial_cluster,
        "starting an etcd server"
    );
    let mut signals = Signals::new()?;
    let sockets = Sockets::bind(config)?;
    let hub = Hub::new();
    let handle = tokio::select! {
        started = start_replica(config, &hub) => started?,
        name = signals.first() => {
            info!(signal = name, "stopped before the start");
            return Ok(());
        }
    };
    let workers = Workers::start().context("start the connections' threads")?;
    let options = sockets.zookeeper_options(config);
    let member = Member::new(config, options, handle, hub, &workers);
    let served = member.serve(sockets, &mut signals).await;
    let stopped = tokio::time::timeout(STOP_MAX, member.stop());
    tokio::select! {
        finished = stopped => if finished.is_err() {
            warn!("stopping takes too long; ending without");
        },
        name = signals.first() => warn!(signal = name, "second signal; ending at once"),
    }
    served
}

/// Opens the stores and starts the replica over them.
async fn start_replica(config: &Config, hub: &Hub) -> anyhow::Result<Handle> {
    let initialized = data::initialized(config)?;
    let initial = initial_members(config, initialized).await?;
    data::prepare(config)?;
    info!(
        data_dir = config.data_dir,
        initialized, "opening the stores"
    );
    let log_options = store::log::LogOptions {
        unsafe_no_sync: config.no_fsync,
        ..Default::default()
    };
    let log = store::log::Log::open(&config.log_dir(), log_options)?;
    let checkpoints = store::checkpoint::Checkpoints::open(&config.checkpoint_dir())?;
    let replica = replica::Config {
        name: config.name.clone(),
        peer_urls: config.advertise_peer_urls.texts(),
        client_urls: config.advertise_client_urls.texts(),
        stream_urls: config.reachable_zookeeper_urls().texts(),
        initial_cluster: initial
            .into_iter()
            .map(|(name, urls): (String, Urls)| (name, urls.texts()))
            .collect(),
        cluster_token: config.cluster_token().to_owned(),
        join: config.initial_cluster_state == ClusterState::Existing,
        // ZooKeeper's joiners are started first and added then, etcd's the other way round.
        await_membership: config.zookeeper.reconfig,
        force_new_cluster: config.force_new_cluster,
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        election: Duration::from_millis(config.election_ms),
        pre_vote: config.pre_vote,
        advance_first_election: config.advance_first_election,
        strict_reconfig: config.strict_reconfig_check,
        learners_max: config.max_learners,
        checkpoint_entries: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        seed: rand::random(),
        ..replica::Config::default()
    };
    Ok(replica::start(replica, Box::new(log), Box::new(checkpoints), hub.sink()).await?)
}

/// Who founds the cluster, or is there already when this member joins it.
async fn initial_members(
    config: &Config,
    initialized: bool,
) -> anyhow::Result<BTreeMap<String, Urls>> {
    match &config.discovery {
        Some(_) if initialized => {
            warn!(
                log_dir = %config.log_dir().display(),
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
            Ok(BTreeMap::default())
        }
        Some(place) => match config.initial_cluster_state {
            ClusterState::New => discovery::join(config, place).await,
            ClusterState::Existing => Err(anyhow!(
                "discovery URL should not be set when joining existing initial cluster"
            )),
        },
        None => match config.initial_members() {
            Ok(members) => Ok(members),
            // What is on the disk counts.
            Err(_) if initialized => Ok(BTreeMap::default()),
            Err(why) => Err(anyhow!(why)),
        },
    }
}

/// Bound sockets, before anyone answers on them: a port that is taken ends the start early.
struct Sockets {
    peers: Vec<Listener>,
    clients: Vec<Listener>,
    clients_http: Vec<Listener>,
    metrics: Vec<Listener>,
    zookeeper: Vec<StreamSocket>,
    zookeeper_admin: Vec<Listener>,
}

/// Where clients connect that do not speak HTTP.
struct StreamSocket {
    listener: Listener,
    tls: Option<Tls>,
}

impl Sockets {
    fn bind(config: &Config) -> anyhow::Result<Sockets> {
        let all = |urls: &Urls| -> anyhow::Result<Vec<Listener>> {
            urls.0.iter().map(|url| bind(url, config)).collect()
        };
        Ok(Sockets {
            peers: all(&config.listen_peer_urls)?,
            clients: all(&config.listen_client_urls)?,
            clients_http: all(&config.listen_client_http_urls)?,
            metrics: all(&config.listen_metrics_urls)?,
            zookeeper: Sockets::bind_zookeeper(config)?,
            zookeeper_admin: all(&config.listen_zookeeper_admin_urls)?,
        })
    }

    fn bind_zookeeper(config: &Config) -> anyhow::Result<Vec<StreamSocket>> {
        let urls = &config.listen_zookeeper_urls.0.0;
        let tls = match urls.iter().any(Url::secure) {
            true => Some(Tls::load(&config.zookeeper_tls)?),
            false => None,
        };
        let socket = |url: &Url| -> anyhow::Result<StreamSocket> {
            Ok(StreamSocket {
                listener: bind(url, config)?,
                tls: tls.clone().filter(|_| url.secure()),
            })
        };
        urls.iter().map(socket).collect()
    }

    /// What ZooKeeper's clients find, with where they find it.
    fn zookeeper_options(&self, config: &Config) -> zookeeper::Options {
        let port = |secure: bool| {
            let sockets = self.zookeeper.iter();
            let mut sockets = sockets.filter(|socket| socket.tls.is_some() == secure);
            sockets.next()?.listener.port()
        };
        zookeeper::Options {
            client_port: port(false),
            secure_client_port: port(true),
            data_dir: config.data_dir.clone(),
            files: open_files,
            ..config.zookeeper.clone()
        }
    }
}

/// A running member with its connections.
struct Member<'a> {
    config: &'a Config,
    replica: Handle,
    gate: Gate,
    etcd: EtcdV3,
    /// None where it is switched off.
    etcd_v2: Option<EtcdV2>,
    zookeeper: ZooKeeper,
    metrics: Arc<Metrics>,
    clients: Connections,
    peers: Connections,
    /// What all clients together hold is bounded, on whichever port they came.
    held: Held,
}

impl<'a> Member<'a> {
    fn new(
        config: &'a Config,
        zookeeper: zookeeper::Options,
        replica: Handle,
        hub: Hub,
        workers: &Workers,
    ) -> Member<'a> {
        let limits = Limits {
            request_bytes_max: config.max_request_bytes,
            txn_ops_max: config.max_txn_ops,
            space_bytes_max: config.quota(),
            election_timeout: Duration::from_millis(config.election_ms),
            bcrypt_cost: config.bcrypt_cost(),
        };
        let gate = Gate::new(replica.clone(), hub, limits);
        let options = etcd_v3::Options {
            watch_progress_interval: config.watch_progress_interval,
        };
        let etcd = etcd_v3::service(gate.clone(), options);
        let v2 = etcd_v2::Options {
            root: config.v2_root.clone(),
            strict_reconfig: config.strict_reconfig_check,
        };
        let etcd_v2 = config.enable_v2.then(|| EtcdV2::new(gate.clone(), v2));
        let listens = !config.listen_zookeeper_urls.0.0.is_empty();
        let zookeeper = ZooKeeper::new(gate.clone(), zookeeper);
        let metrics = Arc::new(Metrics::new(
            config.metrics,
            gate.clone(),
            replica.clone(),
            etcd.clone(),
            etcd_v2.clone(),
            listens.then(|| zookeeper.clone()),
        ));
        Member {
            config,
            replica,
            gate,
            etcd,
            etcd_v2,
            zookeeper,
            metrics,
            clients: Connections::new(config, workers.clone(), Side::Clients),
            peers: Connections::new(config, workers.clone(), Side::Peers),
            held: Held::default(),
        }
    }

    /// Joins the cluster, then serves until a signal (which is no error) or a failure.
    async fn serve(&self, sockets: Sockets, signals: &mut Signals) -> anyhow::Result<()> {
        let peer_http = members::members(self.gate.clone()).merge(members::version());
        let peer_front = Front {
            grpc: Some(self.replica.peer_service()),
            http: peer_http.fallback(http::not_found),
            timings: None,
            held: Held::default(),
        };
        for listener in sockets.peers {
            info!(address = listener.address(), "serving peer traffic");
            self.peers.serve(listener, peer_front.clone());
        }
        for listener in sockets.metrics {
            info!(address = listener.address(), "serving metrics");
            self.serve_http(listener, self.observation());
        }
        for listener in sockets.zookeeper_admin {
            info!(
                address = listener.address(),
                "serving ZooKeeper's AdminServer"
            );
            let path = &self.config.zookeeper_admin_path;
            self.serve_http(listener, admin::commands(self.zookeeper.clone(), path));
        }
        let attend = self.zookeeper.attend();
        tokio::pin!(attend);
        let mut streams = sockets.zookeeper;
        // ZooKeeper's clients that only read are served even while the others are away.
        if self.config.zookeeper.read_only_mode {
            self.serve_zookeeper(std::mem::take(&mut streams));
        }
        let mut published = self.replica.published();
        tokio::select! {
            _ = published.wait_for(|published| *published) => {}
            () = &mut attend => return Ok(()),
            failure = self.replica.failed() => return outcome_of(&failure),
            name = signals.first() => {
                info!(signal = name, "received signal; shutting down");
                return Ok(());
            }
        }
        self.serve_zookeeper(streams);
        self.serve_clients(sockets.clients, sockets.clients_http);
        notify(NotifyState::Ready);
        tokio::select! {
            failure = self.replica.failed() => outcome_of(&failure),
            () = self.compact() => Ok(()),
            () = attend => Ok(()),
            name = signals.first() => {
                info!(signal = name, "received signal; shutting down");
                notify(NotifyState::Stopping);
                Ok(())
            }
        }
    }

    /// Serves nothing but HTTP.
    fn serve_http(&self, listener: Listener, http: Router) {
        let front = Front::<EtcdV3> {
            grpc: None,
            http: http.fallback(http::not_found),
            timings: None,
            held: self.held.clone(),
        };
        self.clients.serve(listener, front);
    }

    fn serve_zookeeper(&self, sockets: Vec<StreamSocket>) {
        for StreamSocket { listener, tls } in sockets {
            let address = listener.address();
            info!(address, secure = tls.is_some(), "serving ZooKeeper clients");
            let zookeeper = self.zookeeper.clone();
            self.clients.serve_streams(listener, move |stream, peer| {
                let (zookeeper, tls) = (zookeeper.clone(), tls.clone());
                async move {
                    // A connection counts from now on: who keeps silent does not escape the bounds.
                    let Some(entered) = zookeeper.admit(peer, tls.is_some()) else {
                        return;
                    };
                    let Some(tls) = tls else {
                        let arrival = Arrival::plain(peer);
                        return zookeeper.serve(stream, arrival, entered).await;
                    };
                    let Some(stream) = tls.accept(stream).await else {
                        let failed = &zookeeper.stats().handshakes_failed;
                        failed.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    let arrival = Arrival {
                        peer,
                        secure: true,
                        subject: tls::subject(&stream),
                    };
                    zookeeper.serve(stream, arrival, entered).await;
                }
            });
        }
    }

    /// gRPC and HTTP on the same ports, unless HTTP has ports of its own.
    fn serve_clients(&self, both: Vec<Listener>, http_only: Vec<Listener>) {
        let http = http::guarded(
            self.observation()
                .merge(members::version())
                .merge(members::debug_vars(self.gate.clone()))
                .merge(
                    self.etcd_v2
                        .as_ref()
                        .map(EtcdV2::routes)
                        .unwrap_or_default(),
                ),
            self.config.cors.clone(),
            self.config.host_whitelist.clone(),
        );
        let split = !http_only.is_empty();
        for listener in both {
            let (traffic, http) = match split {
                true => ("grpc", http::nothing()),
                false => ("grpc+http", http.clone()),
            };
            let front = Front {
                grpc: Some(self.etcd.clone()),
                http,
                timings: self.metrics.timings.clone(),
                held: self.held.clone(),
            };
            self.serve_client(listener, front, traffic);
        }
        for listener in http_only {
            let front = Front {
                grpc: None,
                http: http.clone(),
                timings: None,
                held: self.held.clone(),
            };
            self.serve_client(listener, front, "http");
        }
    }

    fn serve_client(&self, listener: Listener, front: Front<EtcdV3>, traffic: &str) {
        info!("ready to serve client requests");
        info!(
            traffic,
            address = listener.address(),
            "serving client traffic insecurely; this is strongly discouraged!"
        );
        self.clients.serve(listener, front);
    }

    /// Metrics and health.
    fn observation(&self) -> Router {
        let metrics = self.metrics.clone();
        let show = move || async move { ([(CONTENT_TYPE, page::CONTENT_TYPE)], metrics.page()) };
        let patient = Patient {
            gate: self.gate.clone(),
            metrics: self.metrics.clone(),
        };
        Router::new()
            .route("/metrics", any(show))
            .merge(health::routes(patient))
    }

    /// Forgets old revisions as configured, for ever.
    async fn compact(&self) {
        let retention = self.config.retention();
        let retention = retention.expect("it was checked with the rest of the configuration");
        let started = tokio::time::Instant::now();
        let revision = || self.gate.reader().revision().0;
        let compactor = Compactor::new(retention, Duration::ZERO, revision());
        compaction::drive(compactor, &self.gate, started).await
    }

    /// Lets requests finish, hands leadership over, and closes.
    async fn stop(&self) {
        self.clients.stop().await;
        self.replica.stop().await;
        self.peers.stop().await;
        info!("closed etcd server");
    }
}

/// A member that was removed has done what it was told; every other end is a failure.
fn outcome_of(failure: &Failure) -> anyhow::Result<()> {
    match failure {
        Failure::Removed => {
            warn!("{failure}; ending");
            Ok(())
        }
        Failure::Fault(_)
        | Failure::Unreadable(_)
        | Failure::LogLost(_)
        | Failure::Panicked { .. } => Err(anyhow!("{failure}")),
    }
}

/// What health checks look at.
#[derive(Clone)]
struct Patient {
    gate: Gate,
    metrics: Arc<Metrics>,
}

impl Subject for Patient {
    fn alarms(&self) -> Vec<&'static str> {
        let alarms = self.gate.reader().alarms().into_iter();
        let name = |(_, alarm)| match alarm {
            Alarm::NoSpace => "NOSPACE",
            Alarm::Corrupt => "CORRUPT",
        };
        alarms.map(name).collect()
    }

    fn has_leader(&self) -> bool {
        self.gate.status().leader != 0
    }

    fn is_learner(&self) -> bool {
        self.gate.status().learner
    }

    async fn read(&self, linearizable: bool) -> Result<(), String> {
        if !linearizable {
            return Ok(());
        }
        let read = self.gate.linearize().await;
        read.map_err(|error| etcd_v3::errors::Error::from(error).message.into())
    }

    fn checked(&self, endpoint: &'static str, check: &'static str, passed: bool) {
        self.metrics.checked(endpoint, check, passed);
    }
}

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("listen for signals")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for signals")?,
        })
    }

    /// The next one's name, in Go's words.
    async fn first(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
        }
    }
}

/// Tells systemd, if it started us.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "cannot notify systemd");
    }
}
