//! What an adapter sees of the rest: propose, read, watch, leases, members, logins, limits.
//!
//! It knows the replica's handle and the keyspace's vocabulary, which it re-exports. It must never
//! know a protocol: neither its messages nor its error texts.
//!
//! Start with [`Gate`], the one thing an adapter holds; then [`watch`], where keys' events come from,
//! [`nodes`], where what happens to nodes of the path tree does, and [`events`], where their numbered
//! events do.

pub mod events;
pub mod gate;
pub mod limits;
mod logins;
pub mod nodes;
pub mod sessions;
pub mod space;
#[cfg(test)]
mod testing;
mod toil;
pub mod url;
pub mod watch;

pub use events::{EventHub, EventStream, Interest, News, Unwaited};
pub use gate::{Accepted, Error, Gate};
pub use keyspace::{self, Principal};
pub use limits::Limits;
pub use nodes::{NodeEvent, NodeHub, NodeWatcher};
pub use replica::roster::{Description, Member, NewMember, Version};
pub use replica::stats;
pub use replica::{Answered, HEALTHY_AFTER, MemberError, MemberRefusal, Status, Unavailable};
pub use sessions::SessionKey;
pub use watch::{Delivery, Hub, WatchStream};
