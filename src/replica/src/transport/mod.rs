//! How members reach each other: gRPC over HTTP/2 on the peer URLs. It carries bytes and knows
//! neither Raft nor keys. Messages may be lost, never reordered on one connection, and nobody waits
//! for a slow peer: its queue is bounded and what does not fit is dropped.

mod client;
mod server;

pub use client::{call, fetch_members};
pub use server::PeerService;

use crate::core::{MessageKind, Outgoing};
use crate::roster::Roster;
use crate::shell::Shared;
use crate::shell::inbox::Order;
use crate::shell::raft_thread::REMOVED_LINGER;
use crate::stats::{PeerStats, PeersStats};
use client::Client;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest gRPC message between members. An entry of the largest request that can be configured
/// must fit; a chunk or an envelope closes long before.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
/// Where an envelope or a snapshot's chunk closes.
const CHUNK_BYTES: usize = 1 << 20;
/// Messages waiting for one peer.
const QUEUE_MESSAGES_MAX: usize = 4096;
/// Their bytes. One message fits whatever its size.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How often a peer is asked whether it is there. It must answer within an election timeout.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Said to a member that was removed.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// The other members, as far as this one speaks to them.
#[derive(Default)]
pub struct Peers {
    clients: RwLock<BTreeMap<u64, Arc<Client>>>,
    stats: Mutex<PeersStats>,
}

impl Peers {
    /// Speaks to exactly the roster's other members from now on, and to those who were removed for as
    /// long as they stay.
    pub fn update(&self, roster: &Roster, shared: &Arc<Shared>) {
        let mut clients = self.clients.write();
        clients.retain(|id, client| {
            let stays = roster.get(*id).is_some();
            if !stays {
                // That it was removed is still on its way to it.
                let client = Arc::clone(client);
                shared.runtime.spawn(async move {
                    tokio::time::sleep(REMOVED_LINGER).await;
                    client.close();
                });
            }
            stays
        });
        for member in roster.members().filter(|member| member.id != shared.member) {
            match clients.get(&member.id) {
                Some(client) => client.move_to(&member.peer_urls),
                None => {
                    let client = Client::start(member, self.stats_of(member.id), shared);
                    clients.insert(member.id, client);
                }
            }
        }
    }

    /// Ends every connection.
    pub fn close(&self) {
        let clients = std::mem::take(&mut *self.clients.write());
        clients.values().for_each(|client| client.close());
    }

    fn client(&self, member: u64) -> Option<Arc<Client>> {
        self.clients.read().get(&member).cloned()
    }

    /// Queues a message, or drops it.
    pub fn send(&self, message: Outgoing, shared: &Arc<Shared>) {
        let (to, kind) = (message.to, message.kind);
        let sent = match self.client(to) {
            None => false,
            Some(client) => match kind {
                MessageKind::Ordinary | MessageKind::Heartbeat => client.send(message),
                MessageKind::Snapshot => {
                    client.send_snapshot(message, Arc::clone(shared));
                    true
                }
            },
        };
        if sent {
            return;
        }
        self.stats_of(to).sent_failures.add(1);
        shared.inbox.order(match kind {
            MessageKind::Snapshot => Order::SnapshotSent { to, arrived: false },
            MessageKind::Ordinary | MessageKind::Heartbeat => Order::Unreachable(to),
        });
        if kind == MessageKind::Heartbeat {
            shared.stats.heartbeat_failures.add(1);
        }
    }

    /// Since when this member and that one have been connected without a break.
    pub fn active_since(&self, member: u64) -> Option<Instant> {
        self.client(member)?.active_since()
    }

    /// Whether that has been so since `moment`.
    pub fn connected_since(&self, member: u64, moment: Instant) -> bool {
        self.active_since(member)
            .is_some_and(|since| since < moment)
    }

    /// Where that member is reached now, for calls.
    fn channel(&self, member: u64) -> Option<tonic::transport::Channel> {
        self.client(member)?.channel()
    }

    /// The counts of one connection.
    fn stats_of(&self, member: u64) -> Arc<PeerStats> {
        Arc::clone(self.stats.lock().entry(member).or_default())
    }

    /// The counts of every connection there ever was.
    pub fn stats(&self) -> PeersStats {
        self.stats.lock().clone()
    }
}
