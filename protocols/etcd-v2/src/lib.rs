//! etcd v2 over HTTP and JSON.
//!
//! It knows etcd v2's paths, forms, order of checks, answers and error texts, and turns them into the
//! gateway's words. It must never know how anything is stored or replicated, nor another protocol.
//!
//! Start with [`EtcdV2::routes`]. From the outside in: `keys` (what becomes of a request for keys),
//! `read` and `watch` (what is answered at once, and what later), `members` and [`stats`] (what is told
//! of the cluster and of this member), `auth` (users and roles, and who asks), then what is pure:
//! [`form`] and [`query`] (what is asked for), [`ops`] (what that means in the keyspace), [`node`] and
//! [`json`] (how it is told), [`errors`] and [`root`] (whose paths are which keys).

mod answer;
mod auth;
pub mod errors;
pub mod form;
pub mod json;
mod keys;
mod members;
pub mod node;
pub mod ops;
pub mod query;
mod read;
pub mod root;
pub mod stats;
mod time;
mod watch;

pub use root::Root;

use axum::Router;
use axum::http::HeaderValue;
use axum::routing::any;
use gateway::Gate;
use stats::{Figures, Stats};
use std::sync::{Arc, OnceLock};

/// What an operator may set.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where v2's `/` lies in the shared keyspace.
    pub root: Root,
    /// Refuse changes of members that would cost the quorum \[strict-reconfig-check\].
    pub strict_reconfig: bool,
}

/// What all requests share.
struct Shared {
    gate: Gate,
    options: Options,
    stats: Stats,
    cluster_id: OnceLock<HeaderValue>,
}

/// etcd v2's protocol over a gate. Cheap to clone.
#[derive(Clone)]
pub struct EtcdV2 {
    shared: Arc<Shared>,
}

impl EtcdV2 {
    /// The protocol over `gate`.
    pub fn new(gate: Gate, options: Options) -> EtcdV2 {
        EtcdV2 {
            shared: Arc::new(Shared {
                gate,
                options,
                stats: Stats::default(),
                cluster_id: OnceLock::new(),
            }),
        }
    }

    /// Everything below `/v2`.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/v2/keys", any(keys::serve))
            .route("/v2/keys/", any(keys::serve))
            .route("/v2/keys/{*key}", any(keys::serve))
            .route("/v2/auth/enable", any(auth::enable))
            .route("/v2/auth/users", any(auth::manage))
            .route("/v2/auth/users/", any(auth::manage))
            .route("/v2/auth/users/{*name}", any(auth::manage))
            .route("/v2/auth/roles", any(auth::manage))
            .route("/v2/auth/roles/", any(auth::manage))
            .route("/v2/auth/roles/{*name}", any(auth::manage))
            .route("/v2/members", any(members::serve))
            .route("/v2/members/", any(members::serve))
            .route("/v2/members/{*id}", any(members::serve))
            .route("/v2/machines", any(members::serve_machines))
            .route("/v2/stats/store", any(stats::serve_store))
            .route("/v2/stats/self", any(stats::serve_self))
            .route("/v2/stats/leader", any(stats::serve_leader))
            .with_state(Arc::clone(&self.shared))
    }

    /// What was counted so far.
    pub fn figures(&self) -> Figures {
        self.shared.figures()
    }
}
