//! What an adapter sees of the rest: propose, query, watch, sessions, limits.
//!
//! It knows the replica's handle and the keyspace's vocabulary, which it re-exports. It must never
//! know a protocol.

pub use keyspace;
