//! What the four-letter words and metrics tell: counts of the server and of each connection.

use crate::config::Options;
use crate::tally::{Op, Tally};
use dashmap::DashMap;
use gateway::keyspace::Revision;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long requests took, in milliseconds.
#[derive(Debug)]
pub struct Latency {
    sum: AtomicU64,
    count: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Notes that so many requests took so long.
    pub fn note(&self, took_ms: u64, requests: u64) {
        self.sum.fetch_add(took_ms * requests, Relaxed);
        self.count.fetch_add(requests, Relaxed);
        self.min.fetch_min(took_ms, Relaxed);
        self.max.fetch_max(took_ms, Relaxed);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.sum.store(0, Relaxed);
        self.count.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }

    /// The shortest; 0 before the first.
    pub fn min_ms(&self) -> u64 {
        match self.min.load(Relaxed) {
            u64::MAX => 0,
            min => min,
        }
    }

    /// The mean; 0 before the first.
    #[expect(clippy::cast_precision_loss, reason = "a mean is no count")]
    pub fn mean_ms(&self) -> f64 {
        match self.count.load(Relaxed) {
            0 => 0.0,
            count => self.sum.load(Relaxed) as f64 / count as f64,
        }
    }

    /// All together.
    pub fn sum_ms(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// The longest.
    pub fn max_ms(&self) -> u64 {
        self.max.load(Relaxed)
    }
}

/// Packets and how long they took.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets that came.
    pub received: AtomicU64,
    /// Packets that went.
    pub sent: AtomicU64,
    /// How long those took that were answered.
    pub latency: Latency,
}

impl Traffic {
    fn note(&self, batch: &Batch) {
        self.received.fetch_add(batch.requests, Relaxed);
        self.sent.fetch_add(batch.requests + batch.events, Relaxed);
        if batch.requests > 0 {
            self.latency.note(batch.took_ms(), batch.requests);
        }
    }

    /// Counts from 0 again.
    pub fn reset(&self) {
        self.received.store(0, Relaxed);
        self.sent.store(0, Relaxed);
        self.latency.reset();
    }
}

/// What was answered with one write.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// When the requests came.
    pub began: Instant,
    /// How many.
    pub requests: u64,
    /// Events among the answers.
    pub events: u64,
    /// What the client calls the last of the requests.
    pub last_xid: i32,
    /// Of which kind that was.
    pub last_op: Option<Op>,
    /// The state it was answered from.
    pub revision: Revision,
}

impl Batch {
    /// How long it took so far.
    pub fn took_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its session; 0 until it has one.
    pub session: AtomicI64,
    /// That session's time to live.
    pub timeout_ms: AtomicU64,
    /// When it came, in milliseconds since 1970.
    pub established_ms: u64,
    /// Its packets.
    pub traffic: Traffic,
    /// Whether it came by TLS.
    pub secure: bool,
    /// What it calls its last request.
    pub last_xid: AtomicI64,
    /// Of which kind that was; that of [`Op::ALL`], none if it is no number of them.
    last_op: AtomicU8,
    /// The last state that it was answered from.
    pub last_revision: AtomicU64,
    /// When it was last answered, in milliseconds since 1970.
    pub last_response_ms: AtomicU64,
    /// How long the last answer took.
    pub last_latency_ms: AtomicU64,
}

impl Client {
    fn new(peer: SocketAddr, secure: bool) -> Client {
        Client {
            peer,
            secure,
            session: AtomicI64::new(0),
            timeout_ms: AtomicU64::new(0),
            established_ms: wall_ms(),
            traffic: Traffic::default(),
            last_xid: AtomicI64::new(-1),
            last_op: AtomicU8::new(u8::MAX),
            last_revision: AtomicU64::new(0),
            last_response_ms: AtomicU64::new(0),
            last_latency_ms: AtomicU64::new(0),
        }
    }

    /// The kind of its last request.
    pub fn last_op(&self) -> Option<Op> {
        Op::ALL
            .get(usize::from(self.last_op.load(Relaxed)))
            .copied()
    }

    /// Counts from 0 again.
    pub fn reset(&self) {
        self.traffic.reset();
        self.last_op.store(u8::MAX, Relaxed);
        self.last_xid.store(-1, Relaxed);
        self.last_revision.store(0, Relaxed);
        self.last_response_ms.store(0, Relaxed);
        self.last_latency_ms.store(0, Relaxed);
    }
}

/// The counts of a server.
#[derive(Debug)]
pub struct Stats {
    /// When the server began.
    pub began: Instant,
    /// Packets of all connections, those that are gone included.
    pub traffic: Traffic,
    /// Requests by kind.
    pub tally: Tally,
    /// Connections that were refused, as there were too many.
    pub rejected: AtomicU64,
    /// Proofs of identity that were none.
    pub auth_failed: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed: AtomicU64,
    serials: AtomicU64,
    /// In which second it was last warned of a quota.
    warned_s: AtomicU64,
    clients: DashMap<u64, Arc<Client>>,
    addresses: DashMap<IpAddr, usize>,
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            began: Instant::now(),
            traffic: Traffic::default(),
            tally: Tally::default(),
            rejected: AtomicU64::new(0),
            auth_failed: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            serials: AtomicU64::new(0),
            warned_s: AtomicU64::new(0),
            clients: DashMap::new(),
            addresses: DashMap::new(),
        }
    }
}

impl Stats {
    /// Whether to warn of a quota now: not more than once in a second.
    pub fn may_warn(&self) -> bool {
        let now_s = self.began.elapsed().as_secs() + 1;
        self.warned_s.fetch_max(now_s, Relaxed) < now_s
    }

    /// Enters a connection; none if there are too many, in all or from its address.
    pub fn enter(&self, peer: SocketAddr, secure: bool, options: &Options) -> Option<Entered<'_>> {
        let within = |max: usize, count: usize| max == 0 || count < max;
        if !within(options.connections_max, self.clients.len()) {
            self.rejected.fetch_add(1, Relaxed);
            return None;
        }
        {
            let mut from_here = self.addresses.entry(peer.ip()).or_insert(0);
            if !within(options.connections_per_address_max, *from_here) {
                self.rejected.fetch_add(1, Relaxed);
                return None;
            }
            *from_here += 1;
        }
        let serial = self.serials.fetch_add(1, Relaxed);
        let client = Arc::new(Client::new(peer, secure));
        self.clients.insert(serial, Arc::clone(&client));
        Some(Entered {
            stats: self,
            serial,
            client,
        })
    }

    /// Counts from 0 again, but what only grows.
    pub fn reset(&self) {
        self.traffic.reset();
        self.tally.reads.reset();
        self.tally.updates.reset();
    }

    /// The connections, longest standing first.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self
            .clients
            .iter()
            .map(|entry| (*entry.key(), Arc::clone(entry.value())))
            .collect();
        clients.sort_unstable_by_key(|(serial, _)| *serial);
        clients.into_iter().map(|(_, client)| client).collect()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.clients.len()
    }
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Entered<'a> {
    stats: &'a Stats,
    serial: u64,
    /// Its own counts.
    pub client: Arc<Client>,
}

impl Entered<'_> {
    /// Notes what was answered.
    pub fn note(&self, batch: &Batch) {
        self.stats.traffic.note(batch);
        let client = &self.client;
        client.traffic.note(batch);
        client.last_response_ms.store(wall_ms(), Relaxed);
        client.last_revision.store(batch.revision.0, Relaxed);
        if batch.requests > 0 {
            client.last_xid.store(batch.last_xid.into(), Relaxed);
            let last_op = batch.last_op.map_or(u8::MAX, |op| op as u8);
            client.last_op.store(last_op, Relaxed);
            client.last_latency_ms.store(batch.took_ms(), Relaxed);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.stats.clients.remove(&self.serial);
        let address = self.client.peer.ip();
        if let Some(mut from_there) = self.stats.addresses.get_mut(&address) {
            *from_there -= 1;
        }
        self.stats
            .addresses
            .remove_if(&address, |_, left| *left == 0);
    }
}

/// The wall clock, for people.
fn wall_ms() -> u64 {
    millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_address_are_bounded() {
        let stats = Stats::default();
        let options = Options {
            connections_per_address_max: 2,
            connections_max: 3,
            ..Options::default()
        };
        let enter = |host, port| {
            let peer = SocketAddr::from(([127, 0, 0, host], port));
            stats.enter(peer, false, &options)
        };
        let first = enter(1, 1).expect("there is room");
        let second = enter(1, 2);
        assert!(second.is_some() && enter(1, 3).is_none());
        assert_eq!((stats.connections(), stats.rejected.load(Relaxed)), (2, 1));
        let third = enter(2, 1);
        assert!(third.is_some() && enter(3, 1).is_none());
        drop(first);
        assert!(enter(1, 3).is_some());
        drop((second, third));
        assert!(stats.addresses.is_empty() && stats.clients.is_empty());
    }

    #[test]
    fn latency_before_the_first_request_is_zero() {
        let latency = Latency::default();
        assert_eq!((latency.min_ms(), latency.max_ms()), (0, 0));
        latency.note(4, 1);
        latency.note(1, 2);
        assert_eq!((latency.min_ms(), latency.max_ms()), (1, 4));
        assert!((latency.mean_ms() - 2.0).abs() < f64::EPSILON);
    }
}
