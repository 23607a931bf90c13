//! `/v2/stats`: what this member counted of requests for keys, and where it stands.

use crate::answer::{message, not_allowed, plain_json};
use crate::{Shared, json, time};
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use gateway::Gate;
use gateway::keyspace::WallMs;
use gateway::keyspace::change::Cause;
use gateway::stats::{PeerStats, PeersStats};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What requests for keys came to.
pub struct Stats {
    started: WallMs,
    gets: Tally,
    recursive_gets: Tally,
    waits: AtomicU64,
    sets: Tally,
    deletes: Tally,
    updates: Tally,
    creates: Tally,
    swaps: Tally,
    comparing_deletes: Tally,
}

/// One kind of requests.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn count(&self, done: bool) {
        let counter = if done { &self.done } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            started: time::now(),
            gets: Tally::default(),
            recursive_gets: Tally::default(),
            waits: AtomicU64::default(),
            sets: Tally::default(),
            deletes: Tally::default(),
            updates: Tally::default(),
            creates: Tally::default(),
            swaps: Tally::default(),
            comparing_deletes: Tally::default(),
        }
    }
}

impl Stats {
    /// Counts a read.
    pub fn read(&self, recursive: bool, done: bool) {
        let tally = if recursive {
            &self.recursive_gets
        } else {
            &self.gets
        };
        tally.count(done);
    }

    /// Counts one who waits.
    pub fn waited(&self) {
        self.waits.fetch_add(1, Relaxed);
    }

    /// Counts a write, by what it would be told as.
    pub fn wrote(&self, cause: Cause, done: bool) {
        match cause {
            Cause::Set => self.sets.count(done),
            Cause::Create => self.creates.count(done),
            Cause::Update => self.updates.count(done),
            Cause::CompareAndSwap => self.swaps.count(done),
            Cause::Delete => self.deletes.count(done),
            Cause::CompareAndDelete => self.comparing_deletes.count(done),
            // Nobody asks for that.
            Cause::Expire => {}
        }
    }
}

/// What was counted, under etcd's words.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Reads, by kind.
    pub reads: Vec<Count>,
    /// Writes, by kind.
    pub writes: Vec<Count>,
    /// Nodes that went since their time was over.
    pub expired: u64,
    /// Requests to wait.
    pub waits: u64,
    /// How many wait.
    pub waiting: u64,
}

/// What requests of one kind came to.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// The kind.
    pub action: &'static str,
    /// How many did what was asked for.
    pub done: u64,
    /// How many did not.
    pub failed: u64,
}

impl Count {
    fn of(action: &'static str, tally: &Tally) -> Count {
        Count {
            action,
            done: tally.done.load(Relaxed),
            failed: tally.failed.load(Relaxed),
        }
    }
}

impl Shared {
    /// What was counted so far.
    pub(crate) fn figures(&self) -> Figures {
        let stats = &self.stats;
        let events = self.gate.hub().events();
        Figures {
            reads: vec![
                Count::of("get", &stats.gets),
                Count::of("getRecursive", &stats.recursive_gets),
            ],
            writes: vec![
                Count::of("set", &stats.sets),
                Count::of("delete", &stats.deletes),
                Count::of("update", &stats.updates),
                Count::of("create", &stats.creates),
                Count::of("compareAndSwap", &stats.swaps),
                Count::of("compareAndDelete", &stats.comparing_deletes),
            ],
            expired: events.expired(),
            waits: stats.waits.load(Relaxed),
            waiting: events.waiting(),
        }
    }
}

impl Figures {
    /// As `/v2/stats/store` spells and orders them.
    fn encode(&self) -> Vec<u8> {
        let done: u64 = self.reads.iter().map(|count| count.done).sum();
        let failed: u64 = self.reads.iter().map(|count| count.failed).sum();
        let mut out = format!("{{\"getsSuccess\":{done},\"getsFail\":{failed}");
        for count in &self.writes {
            let name = if count.action == "set" {
                "sets"
            } else {
                count.action
            };
            let (done, failed) = (count.done, count.failed);
            out += &format!(",\"{name}Success\":{done},\"{name}Fail\":{failed}");
        }
        let (expired, waiting) = (self.expired, self.waiting);
        out += &format!(",\"expireCount\":{expired},\"watchers\":{waiting}}}");
        out.into()
    }
}

/// Answers what requests for keys came to.
pub(crate) async fn serve_store(State(shared): State<Arc<Shared>>, method: Method) -> Response {
    if method != Method::GET {
        return not_allowed("GET");
    }
    plain_json(shared.figures().encode())
}

/// Answers who this member is and whom it follows.
pub(crate) async fn serve_self(State(shared): State<Arc<Shared>>, method: Method) -> Response {
    if method != Method::GET {
        return not_allowed("GET");
    }
    plain_json(of_self(&shared.gate, shared.stats.started))
}

fn of_self(gate: &Gate, started: WallMs) -> Vec<u8> {
    let status = gate.status();
    let members = gate.members();
    let own = members.iter().find(|member| member.id == status.member);
    let leads = status.leader == status.member;
    let led_ms = gate.led_for().map_or(0, |led_for| led_for.as_millis());
    let led_ms = u64::try_from(led_ms).unwrap_or(u64::MAX);
    let led_since = WallMs(time::now().0.saturating_sub(led_ms));
    let leader = match status.leader {
        0 => String::new(),
        leader => format!("{leader:x}"),
    };
    let peers = gate.peers();
    let sum = |count: fn(&PeerStats) -> u64| peers.values().map(|peer| count(peer)).sum::<u64>();
    let mut out = Vec::new();
    let mut text = |before: &str, text: &[u8]| {
        out.extend_from_slice(before.as_bytes());
        json::string(&mut out, text);
    };
    text("{\"name\":", own.map_or("", |own| &own.name).as_bytes());
    text(",\"id\":", format!("{:x}", status.member).as_bytes());
    let state = if leads {
        "StateLeader"
    } else {
        "StateFollower"
    };
    text(",\"state\":", state.as_bytes());
    text(",\"startTime\":", time::rfc_3339(started).as_bytes());
    text(",\"leaderInfo\":{\"leader\":", leader.as_bytes());
    text(",\"uptime\":", time::duration(led_ms).as_bytes());
    text(",\"startTime\":", time::rfc_3339(led_since).as_bytes());
    let counts = format!(
        "}},\"recvAppendRequestCnt\":{},\"sendAppendRequestCnt\":{}}}",
        sum(|peer| peer.received_messages.get()),
        sum(|peer| peer.sent_messages.get()),
    );
    out.extend_from_slice(counts.as_bytes());
    out
}

/// Answers how this member, if it leads, reaches those that follow it.
pub(crate) async fn serve_leader(State(shared): State<Arc<Shared>>, method: Method) -> Response {
    if method != Method::GET {
        return not_allowed("GET");
    }
    let status = shared.gate.status();
    if status.leader != status.member {
        let text = message("not current leader");
        return (StatusCode::FORBIDDEN, plain_json(text)).into_response();
    }
    plain_json(of_leader(status.member, &shared.gate.peers()))
}

fn of_leader(leader: u64, peers: &PeersStats) -> Vec<u8> {
    let followers: Vec<String> = peers
        .iter()
        .map(|(id, peer)| {
            let trips = peer.round_trip.summary();
            format!(
                "\"{id:x}\":{{\"latency\":{{\"current\":{},\"average\":{},\
                 \"standardDeviation\":{},\"minimum\":{},\"maximum\":{}}},\
                 \"counts\":{{\"fail\":{},\"success\":{}}}}}",
                trips.last_ms,
                trips.mean_ms(),
                trips.deviation_ms(),
                trips.min_ms,
                trips.max_ms,
                peer.sent_failures.get(),
                peer.sent_messages.get(),
            )
        })
        .collect();
    let followers = followers.join(",");
    format!("{{\"leader\":\"{leader:x}\",\"followers\":{{{followers}}}}}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_in_etcds_order() {
        let count = |action, done, failed| Count {
            action,
            done,
            failed,
        };
        let figures = Figures {
            reads: vec![count("get", 1, 2), count("getRecursive", 3, 4)],
            writes: vec![count("set", 5, 0), count("delete", 0, 6)],
            expired: 7,
            waits: 0,
            waiting: 8,
        };
        let encoded = String::from_utf8(figures.encode()).expect("text");
        assert_eq!(
            encoded,
            "{\"getsSuccess\":4,\"getsFail\":6,\"setsSuccess\":5,\"setsFail\":0,\
             \"deleteSuccess\":0,\"deleteFail\":6,\"expireCount\":7,\"watchers\":8}"
        );
    }
}
