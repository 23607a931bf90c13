//! Judges of histories: what clients were answered and told, held against what was promised them.
//!
//! Each is pure, and knows neither who ran the history nor any protocol: the simulator judges its
//! clusters by them, and `compat-tests` real processes. It must never know the code that it judges.
//!
//! Start with [`linear`], which finds an order for concurrent operations; then [`watch`], what
//! etcd's watchers are promised.

pub mod kv;
pub mod linear;
pub mod nodes;
pub mod turns;
pub mod watch;
