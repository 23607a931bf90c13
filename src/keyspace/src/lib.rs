//! The keyspace: a pure, deterministic state machine over ordered keys, with history.
//!
//! It knows keys, revisions, leases, the path tree, transactions and compaction. It must never know
//! a clock, a disk, a socket, a thread, randomness, an async runtime, or any protocol's words.
//!
//! Start with [`Command`] (what can be asked), [`Applied`] (what comes of it), then
//! [`Keyspace::apply`] and [`Reader`]. Beneath: `slot` (one key), `index` (all keys in order),
//! `history` (what changed when), `shared` (how a revision becomes visible), `read` and `write`.
//! Over them lies the path tree: [`node`] (what can be asked of it), `tree` (what it knows beside
//! values), `nodes` (how it follows what is written), `nodes::steps` (what is done to nodes
//! themselves), [`access`] (who may), [`aside`] (nodes that are no keys, and quotas), `session` (whose
//! turn it is). [`auth`] has the users and roles that may touch any of this.

pub mod access;
pub mod aside;
pub mod auth;
pub mod change;
mod children;
pub mod codec;
pub mod command;
mod cut;
mod history;
mod index;
pub mod invariants;
mod keyspace;
mod lease;
pub mod node;
mod nodes;
mod past;
mod read;
pub mod reader;
mod record;
mod restore;
mod ring;
mod session;
mod shared;
pub mod slot;
mod tree;
pub mod types;
mod write;

pub use access::{AccessEntry, AccessList, Identity, Permissions};
pub use auth::{Auth, Principal};
pub use change::{Answer, Applied, Cause, Change, Outcome, RangeAnswer, Refusal, TxnOutcome};
pub use codec::Malformed;
pub use command::Command;
pub use cut::Cut;
pub use keyspace::Keyspace;
pub use node::{NodeOp, NodeView};
pub use reader::{EventsFound, LeaseView, Moment, Reader};
pub use record::{Damaged, Record};
pub use restore::{Restoring, Run};
pub use slot::Entry;
pub use types::{End, LeaseId, Revision, Span, Stamp, WallMs};
