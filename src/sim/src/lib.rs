//! Deterministic simulator of whole clusters: the replica's core, the keyspace, the stores and the
//! hub of node watchers, as they run in production, in one thread, under virtual time and planned
//! misfortune.
//!
//! It knows the replica's core, the keyspace's commands, the stores' traits and the gateway's hub. It
//! must never know a protocol, nor touch the real clock, disk or network: one seed replays everything.
//!
//! Start with [`run::run`], the three parts of a run; then [`world`], where everything that happens is
//! an event; then the crate `checker`, the judges of what is left behind.

pub mod agenda;
pub mod clients;
pub mod failure;
pub mod faults;
pub mod host;
pub mod ledger;
pub mod member;
mod misfortune;
pub mod net;
pub mod nodes;
pub mod plant;
pub mod rng;
pub mod run;
pub mod sessions;
pub mod trace;
pub mod translate;
pub mod watcher;
pub mod workload;
pub mod world;
