//! A server of one member in memory, over a real replica.

#![allow(dead_code, reason = "each test program uses its own part")]

use etcd_v3::{EtcdV3, Options};
use gateway::{Gate, Hub, Limits};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use replica::{Config, Handle};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// How long anything awaited may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// etcd's calls over a member of its own.
pub struct Server {
    pub etcd: EtcdV3,
    pub replica: Handle,
    listening: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// A member that leads.
pub async fn alone(limits: Limits) -> Server {
    alone_with(limits, Options::default()).await
}

/// A member that leads, with options.
pub async fn alone_with(limits: Limits, options: Options) -> Server {
    let server = start(Config::default(), limits, options).await;
    let mut status = server.replica.status_changes();
    let leads = status.wait_for(|status| status.leader != 0);
    timely(leads).await.expect("the replica runs");
    server
}

/// A member whose peers never come, so that it has no leader.
pub async fn leaderless(limits: Limits) -> Server {
    let url = |port| vec![format!("http://localhost:{port}")];
    let config = Config {
        initial_cluster: vec![
            ("default".to_owned(), url(2380)),
            ("b".to_owned(), url(1)),
            ("c".to_owned(), url(2)),
        ],
        ..Config::default()
    };
    start(config, limits, Options::default()).await
}

async fn start(config: Config, limits: Limits, options: Options) -> Server {
    let config = Config {
        heartbeat: Duration::from_millis(10),
        election: Duration::from_millis(100),
        ..config
    };
    let hub = Hub::new();
    let replica = replica::start_in_memory(config, hub.sink()).await;
    let replica = replica.expect("nothing is on the disk that could be wrong");
    let gate = Gate::new(replica.clone(), hub, limits);
    Server {
        etcd: etcd_v3::service(gate, options),
        replica,
        listening: None,
    }
}

/// Limits as etcd has them, but a tenth of its election timeout.
pub fn limits() -> Limits {
    Limits {
        election_timeout: Duration::from_millis(100),
        ..Limits::default()
    }
}

impl Server {
    /// Serves on the loopback, and connects.
    pub async fn connect(&mut self) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let service = TowerToHyperService::new(self.etcd.clone());
        self.listening = Some(tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(socket), service));
            }
        }));
        let channel = Channel::from_shared(format!("http://{address}")).expect("a valid address");
        channel.connect().await.expect("the server listens")
    }
}

/// Fails rather than hangs.
pub async fn timely<T>(future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.expect("what is awaited happens")
}
