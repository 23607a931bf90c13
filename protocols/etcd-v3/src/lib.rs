//! etcd v3 over gRPC.
//!
//! It knows etcd's messages, rules, error texts and order of checks, and turns them into the
//! gateway's words. It must never know how anything is stored or replicated, nor another protocol.
//!
//! [`ops`] is what the calls do, in plain messages; [`errors`] is what goes wrong, in etcd's words;
//! [`grpc`] is how they travel, and the only part that knows tonic. Start with [`service`].

pub mod calls;
pub mod errors;
pub mod grpc;
mod hash;
pub mod ops;
pub mod reply;
#[cfg(test)]
mod testing;
pub mod wire;

pub use calls::{Calls, Method};
pub use grpc::{EtcdV3, service};
pub use ops::{ETCD_VERSION, Ops, Options};
