//! Deterministic simulator of whole clusters: the replica's core, the keyspace and the stores, as
//! they run in production, in one thread, under virtual time and planned misfortune.
//!
//! It knows the replica's core, the keyspace's commands and the stores' traits. It must never know a
//! protocol, nor touch the real clock, disk or network: one seed replays everything.
//!
//! Start with [`checker`], the judges of a run.

pub mod checker;
