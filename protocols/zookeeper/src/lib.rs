//! ZooKeeper's wire protocol.
//!
//! It knows ZooKeeper's records, error codes, order of checks, watches and four-letter words, and turns
//! them into the gateway's words. It must never know how anything is stored or replicated, nor another
//! protocol.
//!
//! Start with [`ZooKeeper::serve`]. From the outside in: `connection` (how one begins), `session` (the
//! engine: one read, one submission, one write), `request` (what becomes of each request), then what
//! is pure: [`ops`] and [`read`] (what requests mean in the keyspace), [`record`], [`jute`] and
//! [`reply`] (how they travel), [`acl`], [`path`] and [`system`] (ZooKeeper's rules), [`words`].

pub mod acl;
pub mod config;
mod connection;
pub mod errors;
pub mod frame;
pub mod handshake;
pub mod jute;
pub mod ops;
pub mod path;
pub mod read;
pub mod record;
pub mod reply;
mod request;
mod session;
pub mod stat;
pub mod stats;
pub mod system;
pub mod words;

pub use config::Options;
pub use stats::Stats;

use gateway::Gate;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

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
}

impl ZooKeeper {
    /// The protocol over `gate`.
    pub fn new(gate: Gate, options: Options) -> ZooKeeper {
        ZooKeeper {
            shared: Arc::new(Shared {
                gate,
                options,
                stats: Stats::default(),
            }),
        }
    }

    /// The counts, for metrics.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Serves a connection from `peer`, which came to `port`, until either side ends it. Dropping
    /// the future ends it, too.
    pub async fn serve<S>(&self, stream: S, peer: SocketAddr, port: u16)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stats = &self.shared.stats;
        let Some(entered) = stats.enter(peer, self.shared.options.connections_per_address_max)
        else {
            tracing::warn!(%peer, "too many connections from this address");
            return;
        };
        connection::converse(&self.shared, stream, peer, port, entered).await;
    }
}
