//! ZooKeeper's wire protocol.
//!
//! It knows ZooKeeper's records, error codes, order of checks, watches and four-letter words, and turns
//! them into the gateway's words. It must never know how anything is stored or replicated, nor another
//! protocol.
//!
//! Start with [`ZooKeeper::serve`]. From the outside in: `connection` (how one begins), `session` (the
//! engine: one read, one submission, one write), `request` (what becomes of each request), then what
//! is pure: [`ops`], [`read`] and `watches` (what requests mean in the keyspace), [`record`], [`jute`]
//! and [`reply`] (how they travel), [`acl`], [`path`], [`system`], [`ensemble`], [`sasl`] and [`jaas`]
//! (ZooKeeper's rules), [`mount`] (whose paths are which keys), and last what operators ask: [`words`],
//! [`admin`] and [`figures`].

pub mod acl;
pub mod admin;
pub mod config;
mod connection;
pub mod ensemble;
pub mod errors;
pub mod figures;
pub mod frame;
pub mod handshake;
pub mod jaas;
pub mod jute;
pub mod mount;
pub mod ops;
pub mod path;
pub mod read;
pub mod record;
pub mod reply;
mod request;
pub mod sasl;
mod session;
pub mod stat;
pub mod stats;
pub mod system;
pub mod tally;
mod watches;
pub mod words;

pub use config::{DigestAlgorithm, OpenFiles, Options};
pub use mount::Mount;
pub use stats::{Entered, Stats};
pub use words::Office;

use gateway::Gate;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long there is no leader, at least, before only clients are served that only read.
const READ_ONLY_GRACE: Duration = Duration::from_secs(2);

/// ZooKeeper's protocol over a gate. Cheap to clone.
#[derive(Clone)]
pub struct ZooKeeper {
    shared: Arc<Shared>,
}

/// What all connections share.
pub(crate) struct Shared {
    gate: Gate,
    options: Options,
    stats: Stats,
    /// Whether it only serves clients that only read, since there is no leader to write through.
    read_only: AtomicBool,
}

impl ZooKeeper {
    /// The protocol over `gate`.
    pub fn new(gate: Gate, options: Options) -> ZooKeeper {
        let config = options.mount.key(system::CONFIG.as_bytes());
        gate.hub().nodes().show_members_at(&config);
        ZooKeeper {
            shared: Arc::new(Shared {
                gate,
                options,
                stats: Stats::default(),
                read_only: AtomicBool::new(false),
            }),
        }
    }

    /// Does what no connection does, as long as the server runs.
    pub async fn attend(&self) {
        let Shared { gate, options, .. } = &*self.shared;
        if !options.read_only_mode {
            return std::future::pending().await;
        }
        // It turns to clients that only read while there is no leader, and back.
        loop {
            gate.leaderless(options.tick.max(READ_ONLY_GRACE)).await;
            tracing::warn!("no leader; serving clients that only read");
            self.shared.read_only.store(true, Ordering::Relaxed);
            gate.led().await;
            tracing::info!("found a leader; serving all clients");
            self.shared.read_only.store(false, Ordering::Relaxed);
        }
    }

    /// What is counted.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What operators ask.
    pub fn office(&self) -> Office<'_> {
        self.shared.office()
    }

    /// Takes a connection in, which counts until it has been served or what is returned is dropped;
    /// none if there are too many, in all or from its address.
    pub fn admit(&self, peer: SocketAddr, secure: bool) -> Option<Entered<'_>> {
        let (stats, options) = (&self.shared.stats, &self.shared.options);
        let entered = stats.enter(peer, secure, options);
        if entered.is_none() {
            tracing::warn!(%peer, "too many connections");
        }
        entered
    }

    /// Serves a connection that was taken in until either side ends it. Dropping the future ends it,
    /// too.
    pub async fn serve<S>(&self, stream: S, arrival: Arrival, entered: Entered<'_>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        connection::converse(&self.shared, stream, &arrival, entered).await;
    }
}

impl Shared {
    pub(crate) fn office(&self) -> Office<'_> {
        Office {
            gate: &self.gate,
            options: &self.options,
            stats: &self.stats,
            read_only: self.read_only.load(Ordering::Relaxed),
        }
    }
}

/// How a connection came.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// From where.
    pub peer: SocketAddr,
    /// By TLS.
    pub secure: bool,
    /// Whose certificate the client has shown, as Java spells names; none if it has shown none.
    pub subject: Option<String>,
}

impl Arrival {
    /// One without TLS.
    pub fn plain(peer: SocketAddr) -> Arrival {
        Arrival {
            peer,
            secure: false,
            subject: None,
        }
    }
}
