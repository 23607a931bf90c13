//! What a run can fail with.

use crate::ledger::Disagreement;
use checker::{nodes, turns, watch};
use thiserror::Error;

/// A promise that was broken.
#[derive(Debug, Error)]
pub enum Failure {
    /// Members do not agree with each other.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// No order explains what clients were answered.
    #[error("not linearizable: nothing explains {stuck}\nafter\n{before}")]
    NotLinearizable {
        /// The operation that nothing explains.
        stuck: String,
        /// The last ones that were explained.
        before: String,
    },
    /// The search for an order took too long.
    #[error("the search for an order was given up")]
    Undecided,
    /// A watcher was not sent what it was promised.
    #[error("watcher {watcher}: {violation}")]
    Watch {
        /// Which.
        watcher: usize,
        /// What was broken.
        violation: Box<watch::Violation>,
    },
    /// A lease ended before its time.
    #[error("lease {lease} of {ttl_ms} ms lived {lived_ms} ms")]
    LeaseTooShort {
        /// Which.
        lease: i64,
        /// Granted time.
        ttl_ms: u64,
        /// From its last renewal to its end.
        lived_ms: u64,
    },
    /// Leases live on long after nobody renews them.
    #[error("leases {0:?} never end")]
    LeasesImmortal(Vec<i64>),
    /// A session's writes did not take effect as promised.
    #[error("session {session}: {violation}")]
    Turns {
        /// Which.
        session: i64,
        /// What was broken.
        violation: turns::Violation,
    },
    /// A session ended though its client gave signs of life all the time.
    #[error("session {0} ended though its client was heard of")]
    SessionLost(i64),
    /// A connection was not told of nodes what it was promised.
    #[error("node watcher: {0}")]
    Nodes(#[from] nodes::Violation),
    /// A read was refused that was possible.
    #[error("member {member} refused to read revision {revision:?}: {reason}")]
    WronglyRefused {
        /// Which member.
        member: u64,
        /// What was asked for.
        revision: Option<u64>,
        /// What it said.
        reason: String,
    },
    /// A member stopped though nothing was wrong with its disk.
    #[error("member {member} stopped: {reason}")]
    Stopped {
        /// Which.
        member: u64,
        /// What it said.
        reason: String,
    },
    /// The cluster does not recover though nothing is broken any more.
    #[error("stuck {after_ms} ms after the last fault: {state}")]
    Stuck {
        /// How long it had.
        after_ms: u64,
        /// What each member says.
        state: String,
    },
    /// Something panicked.
    #[error("panic: {0}")]
    Panic(String),
}
