//! The raft thread's inbox: filled by anyone, emptied all at once, so that what arrives during a
//! round makes the next one.

use super::{Reply, Snapshot};
use crate::Unavailable;
use crate::core::Match;
use crate::machine::Place;
use crate::proposals::Proposal;
use crate::roster::MemberChange;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

/// Messages of peers that wait for the raft thread, in bytes. More are dropped; Raft repeats them.
const MESSAGES_BYTES_MAX: usize = 128 << 20;

/// Who waits for a read.
pub type ReadReply = oneshot::Sender<Result<(), Unavailable>>;

/// Everything that arrived.
#[derive(Default)]
pub struct Work {
    pub proposals: Vec<Proposal<Reply>>,
    pub messages: Vec<Bytes>,
    pub reads: Vec<ReadReply>,
    pub orders: Vec<Order>,
}

/// What is rarer than messages, proposals and reads.
pub enum Order {
    /// Propose a change of members.
    Change(MemberChange, Reply),
    /// The machine took in everything up to an entry that changed the members.
    Changed(Place, Option<MemberChange>),
    /// Another member has applied that this one was removed.
    Removed,
    /// Hand leadership over.
    Transfer(u64),
    /// Messages to a member were lost.
    Unreachable(u64),
    /// A snapshot was sent to a member, or could not be.
    SnapshotSent { to: u64, arrived: bool },
    /// A snapshot arrived and is read.
    SnapshotRead(Box<Snapshot>),
    /// The log is needed from after this entry only.
    CutLog(u64),
    /// How far are the others?
    Matches(oneshot::Sender<Vec<Match>>),
    /// The end.
    Stop,
}

#[derive(Default)]
struct State {
    work: Work,
    messages_bytes: usize,
    /// The raft thread sleeps.
    sleeping: bool,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Inbox {
    fn put(&self, put: impl FnOnce(&mut State)) -> Result<(), Unavailable> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Unavailable::Stopped);
        }
        put(&mut state);
        if std::mem::take(&mut state.sleeping) {
            drop(state);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// A proposal; its number is bounded by the permits that proposers hold.
    pub fn propose(&self, proposal: Proposal<Reply>) -> Result<(), Unavailable> {
        self.put(|state| state.work.proposals.push(proposal))
    }

    /// A read.
    pub fn read(&self, reply: ReadReply) -> Result<(), Unavailable> {
        self.put(|state| state.work.reads.push(reply))
    }

    /// Messages of one peer; those that do not fit are dropped.
    pub fn receive(&self, messages: Vec<Bytes>) -> Result<(), Unavailable> {
        self.put(|state| {
            for message in messages {
                if state.messages_bytes + message.len() <= MESSAGES_BYTES_MAX {
                    state.messages_bytes += message.len();
                    state.work.messages.push(message);
                }
            }
        })
    }

    /// Anything else. After the end it is dropped: nobody is left to be told.
    pub fn order(&self, order: Order) {
        self.put(|state| state.work.orders.push(order)).ok();
    }

    /// Takes everything, waiting for something until `deadline`.
    pub fn take(&self, deadline: Instant) -> Work {
        let mut state = self.state.lock();
        while state.work.is_empty() {
            state.sleeping = true;
            let timed_out = self.arrived.wait_until(&mut state, deadline).timed_out();
            if timed_out {
                break;
            }
        }
        state.sleeping = false;
        state.messages_bytes = 0;
        std::mem::take(&mut state.work)
    }

    /// Takes no more, and gives what is left.
    pub fn close(&self) -> Work {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.work)
    }
}

impl Work {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.messages.is_empty()
            && self.reads.is_empty()
            && self.orders.is_empty()
    }
}
