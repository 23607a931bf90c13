//! Everything that compares us with the originals, speaking only sockets.
//!
//! One scenario is one text file under `scripts/`: requests above `---`, replies below, recorded
//! from the newest etcd or ZooKeeper (etcd v2's from 3.4) and run unchanged against every target that
//! speaks the protocol (Debian's package, the newest, `triglot`), alone and in a cluster of three. If
//! a scenario does not pass on the original, the scenario is wrong. What differs on purpose stands in
//! `known_differences.toml`, with its reason.
//!
//! This crate must never link anything of ours but the generated wire types, and `checker`, which
//! judges histories and knows nothing of who made them.
//!
//! Start with `script/mod.rs` (what a script may say), then `oracle.rs` (the servers), `run.rs`
//! (which script runs where), `matrix.rs` (COMPATIBILITY.md), `rounds/` (kill -9 under load),
//! `abuse/` (clients that mean harm) and `discovery.rs` (members that find each other).

pub mod abuse;
pub mod discovery;
pub mod matrix;
pub mod oracle;
pub mod rounds;
pub mod run;
pub mod script;
