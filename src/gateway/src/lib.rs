//! What an adapter sees of the rest: propose, read, watch, leases, members, limits.
//!
//! It knows the replica's handle and the keyspace's vocabulary, which it re-exports. It must never
//! know a protocol: neither its messages nor its error texts.
//!
//! Start with [`Gate`], the one thing an adapter holds; then [`watch`], where keys' events come from,
//! and [`nodes`], where those of the path tree do.

pub mod gate;
pub mod limits;
pub mod nodes;
pub mod sessions;
pub mod space;
#[cfg(test)]
mod testing;
pub mod watch;

pub use gate::{Accepted, Answered, Error, Gate, Principal};
pub use keyspace;
pub use limits::Limits;
pub use nodes::{NodeEvent, NodeHub, NodeWatcher};
pub use replica::roster::{Description, Member, NewMember, Version};
pub use replica::stats;
pub use replica::{MemberError, MemberRefusal, Status, Unavailable};
pub use sessions::SessionKey;
pub use watch::{Delivery, Hub, WatchStream};
