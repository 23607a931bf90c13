//! What an adapter sees of the rest: propose, read, watch, leases, members, limits.
//!
//! It knows the replica's handle and the keyspace's vocabulary, which it re-exports. It must never
//! know a protocol: neither its messages nor its error texts.
//!
//! Start with [`Gate`], the one thing an adapter holds; then [`watch`], the only source of events.

pub mod gate;
pub mod limits;
pub mod space;
pub mod watch;

pub use gate::{Accepted, Error, Gate, Principal};
pub use keyspace;
pub use limits::Limits;
pub use replica::{Member, MemberError, MemberRefusal, Status, Unavailable};
pub use watch::{Delivery, Hub, WatchStream};
