//! Sockets: binding them, accepting connections, and speaking HTTP/1.1 and HTTP/2 (without TLS, by
//! the preface) on each until the server stops.

use crate::config::Config;
use crate::greeting::Greeted;
use crate::http::Content;
use crate::url;
use crate::workers::Workers;
use anyhow::{Context, anyhow};
use gateway::url::Url;
use hyper::service::Service;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Connections that the kernel completes before we accept them.
const BACKLOG: u32 = 4096;
/// File descriptors left for the log, checkpoints and our connections to peers (etcd's figure);
/// accepted connections get the rest of what the process may open, ...
const RESERVED_FDS: u64 = 150;
/// ... and peers this part of it, but not more than any cluster needs.
const PEERS_PART: u64 = 8;
const PEER_CONNECTIONS_MAX: u64 = 256;
/// How long to wait before accepting again when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the log repeats that connections cannot be accepted.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// The most streams on a connection where the operator names no figure. Each costs memory before
/// anything is asked on it, and nobody has more calls under way at a time.
const STREAMS_MAX: u32 = 16_384;
/// How long a client may take to send an HTTP/1 request's head (etcd's figure).
const HEAD_READ_MAX: Duration = Duration::from_secs(5 * 60);
/// The most that a request's headers may take, in HTTP/1 and (uncompressed) in HTTP/2.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// What a client may send on a stream, and on all streams of a connection together, before we have
/// read it: one request of the default size fits.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long requests under way may go on once the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// A connection that is silent for this long is asked by the kernel whether it still lives.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Answers requests.
pub trait Handler:
    Service<
        Request<Incoming>,
        Response = Response<Content>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Content>, Infallible>> + Send + 'static,
    > + Send
    + Sync
    + 'static
{
    /// One for a new connection.
    fn for_connection(&self) -> Self;
}

/// A bound socket.
pub enum Listener {
    /// `http://`
    Tcp(TcpListener),
    /// `unix://`
    Unix(UnixListener),
}

/// Binds where a URL says. Whether TLS is spoken there is for those to see to who serve it.
pub fn bind(url: &Url, config: &Config) -> anyhow::Result<Listener> {
    if url.is_unix() {
        return bind_unix(&url.address).with_context(|| format!("listen on {url}"));
    }
    bind_tcp(url, config).with_context(|| format!("listen on {url}"))
}

fn bind_tcp(url: &Url, config: &Config) -> anyhow::Result<Listener> {
    let addresses = url::resolve(url)?;
    // A name with both kinds of addresses means the first IPv4 one, as in Go.
    let address = addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or(addresses.first())
        .ok_or_else(|| anyhow!("no address"))?;
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Always, as in Go: without it a restart waits for the old connections' ends.
    socket.set_reuseaddr(true)?;
    if config.reuse_port {
        socket.set_reuseport(true)?;
    }
    socket.bind(*address)?;
    Ok(Listener::Tcp(socket.listen(BACKLOG)?))
}

/// A socket's file outlives its process; one that nobody answers on is replaced, as etcd does.
fn bind_unix(path: &str) -> io::Result<Listener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    Ok(Listener::Unix(UnixListener::bind(path)?))
}

impl Listener {
    /// The port it is bound to, if it has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Listener::Tcp(listener) => Some(listener.local_addr().ok()?.port()),
            Listener::Unix(_) => None,
        }
    }

    /// Where it is bound, for the log.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|error| error.to_string(), |address| address.to_string()),
            Listener::Unix(listener) => listener
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.display().to_string()))
                .unwrap_or_default(),
        }
    }
}

/// The connections of all listeners, until they stop together.
#[derive(Clone)]
pub struct Connections {
    http: Arc<auto::Builder<TokioExecutor>>,
    slots: Arc<Semaphore>,
    workers: Workers,
    /// How long a peer may take nothing of what it is sent; none for as long as it wants.
    patience: Option<Duration>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Who connects.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Clients, probes and browsers.
    Clients,
    /// Other members.
    Peers,
}

impl Connections {
    /// None yet; they will run on these threads.
    pub fn new(config: &Config, workers: Workers, side: Side) -> Connections {
        Connections {
            workers,
            http: Arc::new(http_settings(config)),
            slots: Arc::new(Semaphore::new(connections_max(side))),
            patience: ping_interval(config).map(|_| config.keepalive_timeout),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Accepts until the stop, in the background.
    pub fn serve(&self, listener: Listener, handler: impl Handler) {
        let connections = self.clone();
        self.tasks.spawn(async move {
            let address = listener.address();
            tokio::select! {
                () = connections.stop.cancelled() => {}
                () = connections.accept(&listener, handler) => {}
            }
            info!(address, "stopped listening");
        });
    }

    /// Stops accepting, lets requests under way finish within a bound, and closes everything.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn accept(&self, listener: &Listener, handler: impl Handler) {
        let mut complaint = Complaint::default();
        while let Some(slot) = self.slot(&mut complaint).await {
            let accepted = match listener {
                Listener::Tcp(tcp) => tcp.accept().await.and_then(|(stream, _)| {
                    self.prepare(&stream);
                    let stream = stream.into_std()?;
                    self.spawn(
                        || TcpStream::from_std(stream),
                        handler.for_connection(),
                        slot,
                    );
                    Ok(())
                }),
                Listener::Unix(unix) => unix.accept().await.and_then(|(stream, _)| {
                    let stream = stream.into_std()?;
                    self.spawn(
                        || UnixStream::from_std(stream),
                        handler.for_connection(),
                        slot,
                    );
                    Ok(())
                }),
            };
            if let Err(error) = accepted {
                complaint.pause_after(&error).await;
            }
        }
    }

    /// Accepts connections of a protocol that is not HTTP until the stop, in the background. Each
    /// ends with the stop.
    pub fn serve_streams<F>(
        &self,
        listener: Listener,
        converse: impl Fn(TcpStream, SocketAddr) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let connections = self.clone();
        self.tasks.spawn(async move {
            let address = listener.address();
            tokio::select! {
                () = connections.stop.cancelled() => {}
                () = connections.accept_streams(&listener, converse) => {}
            }
            info!(address, "stopped listening");
        });
    }

    async fn accept_streams<F>(
        &self,
        listener: &Listener,
        converse: impl Fn(TcpStream, SocketAddr) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Listener::Tcp(tcp) = listener else {
            return;
        };
        let mut complaint = Complaint::default();
        while let Some(slot) = self.slot(&mut complaint).await {
            let accepted = tcp.accept().await.and_then(|(stream, peer)| {
                self.prepare(&stream);
                let (stream, converse, stop) =
                    (stream.into_std()?, converse.clone(), self.stop.clone());
                self.workers.spawn(self.tasks.track_future(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => tokio::select! {
                            () = stop.cancelled() => {}
                            () = converse(stream, peer) => {}
                        },
                        Err(error) => warn!(%error, "cannot open a connection"),
                    }
                    drop(slot);
                }));
                Ok(())
            });
            if let Err(error) = accepted {
                complaint.pause_after(&error).await;
            }
        }
    }

    /// A place for one more connection. Beyond the bound, clients wait in the kernel's queue.
    async fn slot(&self, complaint: &mut Complaint) -> Option<OwnedSemaphorePermit> {
        if self.slots.available_permits() == 0 {
            complaint.make(&"as many as the process may open");
        }
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Answers are small and wanted at once; a client that vanished, or that takes nothing off the
    /// wire any more, must not hold its slot and its answers for ever.
    fn prepare(&self, stream: &TcpStream) {
        let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE);
        let socket = SockRef::from(stream);
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&keepalive))
            // Linux counts a window that stays shut as well. gRPC in Go sets the same.
            .and_then(|()| socket.set_tcp_user_timeout(self.patience));
        if let Err(error) = prepared {
            debug!(%error, "cannot set socket options");
        }
    }

    /// Gives a connection to a worker, which opens it: a socket belongs to the runtime it was
    /// opened in.
    fn spawn<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        open: impl FnOnce() -> io::Result<S> + Send + 'static,
        handler: impl Handler,
        slot: OwnedSemaphorePermit,
    ) {
        let (http, stop) = (self.http.clone(), self.stop.clone());
        self.workers.spawn(self.tasks.track_future(async move {
            match open() {
                Ok(stream) => converse(&http, stream, handler, &stop).await,
                Err(error) => warn!(%error, "cannot open a connection"),
            }
            drop(slot);
        }));
    }
}

/// Answers a connection's requests until either side ends it.
async fn converse(
    http: &auto::Builder<TokioExecutor>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: impl Handler,
    stop: &CancellationToken,
) {
    let stream = TokioIo::new(Greeted::new(stream));
    let connection = http.serve_connection(stream, handler);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_MAX, connection).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// Says that connections are not accepted, but not for each of them.
#[derive(Default)]
struct Complaint {
    made: Option<Instant>,
}

impl Complaint {
    fn make(&mut self, why: &dyn Display) {
        let recent = |made: Instant| made.elapsed() < COMPLAINT_PAUSE;
        if !self.made.is_some_and(recent) {
            warn!(%why, "cannot accept more connections for now");
            self.made = Some(Instant::now());
        }
    }

    /// A connection that died before it was accepted is its own affair; any other failure (no more
    /// descriptors, no memory) would come again at once, so it waits.
    async fn pause_after(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted => {}
            _ => {
                self.make(error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How many of them may be open at a time.
fn connections_max(side: Side) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.unwrap_or(u64::MAX);
    let free = files.saturating_sub(RESERVED_FDS).max(2);
    let peers = (free / PEERS_PART).clamp(1, PEER_CONNECTIONS_MAX);
    let connections = match side {
        Side::Clients => free - peers,
        Side::Peers => peers,
    };
    usize::try_from(connections)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
}

/// How often clients are asked whether they still live, if they are.
fn ping_interval(config: &Config) -> Option<Duration> {
    Some(config.keepalive_interval).filter(|every| !every.is_zero())
}

fn http_settings(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // Go spells `Content-Type`, and some scripts look for that.
    http = http.title_case_headers(true);
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    let streams_max = match config.max_concurrent_streams {
        u32::MAX => STREAMS_MAX,
        named => named,
    };
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ping_interval(config))
        .keep_alive_timeout(config.keepalive_timeout)
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX);
    http
}
