//! What etcd's calls do, in plain messages: nothing here knows how they travel.
//!
//! One file for each of etcd's services. [`check`] and [`convert`] serve them all.

pub mod check;
mod cluster;
pub mod convert;
mod kv;
mod lease;
mod maintenance;
pub mod watch;

pub use kv::RangeParts;

use crate::errors::{self, Error};
use crate::hash;
use crate::wire::Header;
use gateway::keyspace::Revision;
use gateway::{Gate, Principal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The etcd release whose behaviour this adapter has, and which it says it is: clients choose what
/// to use by it.
pub const ETCD_VERSION: &str = "3.7.1";

/// What the server may set for this protocol alone.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often a watcher that asked for it hears that nothing happened. Up to a tenth is added at
    /// random, so that clients that came together do not all hear it together.
    pub watch_progress_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            watch_progress_interval: Duration::from_secs(600),
        }
    }
}

/// etcd's calls over a gate. Cheap to clone.
#[derive(Clone)]
pub struct Ops {
    gate: Gate,
    options: Options,
    /// Who asks.
    by: Principal,
    kept_hashes: Arc<hash::Kept>,
    served: Arc<Served>,
}

/// What this member did for clients without the log.
#[derive(Debug, Default)]
pub struct Served {
    /// Ranges read, those of transactions among them.
    pub ranges: AtomicU64,
    /// Transactions of more than one range.
    pub txns: AtomicU64,
    /// Events given to watchers.
    pub events: AtomicU64,
}

impl Served {
    fn txn(&self, ranges: usize) {
        self.ranges.fetch_add(ranges as u64, Relaxed);
        if ranges > 1 {
            self.txns.fetch_add(1, Relaxed);
        }
    }
}

/// What a call's metadata and kind say about when it may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The client would rather have an error than an answer without a leader.
    pub require_leader: bool,
    /// Learners answer it too.
    pub learner_answers: bool,
}

impl Ops {
    /// etcd's calls over `gate`.
    pub fn new(gate: Gate, options: Options) -> Ops {
        Ops {
            gate,
            options,
            by: Principal::Anonymous,
            kept_hashes: Arc::default(),
            served: Arc::default(),
        }
    }

    /// What was served so far.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// What the calls stand on.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether a call may run at all. Comes before everything else.
    pub fn admit(&self, terms: Terms) -> Result<(), Error> {
        if terms.learner_answers && !terms.require_leader {
            return Ok(());
        }
        let status = self.gate.status();
        if status.learner && !terms.learner_answers {
            return Err(errors::NOT_SUPPORTED_FOR_LEARNER);
        }
        if status.leader == 0 && terms.require_leader {
            return Err(errors::NO_LEADER);
        }
        Ok(())
    }

    fn header(&self, revision: Revision) -> Header {
        let status = self.gate.status();
        Header {
            cluster: status.cluster,
            member: status.member,
            revision: revision.0,
            term: status.term,
        }
    }

    /// The header of answers that are about no revision in particular.
    fn header_now(&self) -> Header {
        self.header(self.gate.reader().revision())
    }

    /// Refuses what is too large to be replicated. etcd wraps a request with an id before it
    /// measures it.
    fn check_size(&self, request: &impl prost::Message) -> Result<(), Error> {
        const ENVELOPE_BYTES: usize = 18;
        match request.encoded_len() + ENVELOPE_BYTES > self.gate.limits().request_bytes_max {
            true => Err(errors::REQUEST_TOO_LARGE),
            false => Ok(()),
        }
    }
}
