//! The sequential specification of the keyspace: what etcd's KV, lease and compaction calls answer
//! when nothing goes on at the same time. Written from the interface alone and shares no code with
//! the keyspace, so that a mistake there is not repeated here.
//!
//! Keys and values are numbers here; a workload gives every write a value of its own, so that a
//! value names the write it came from.

use super::linear::Model;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A key.
pub type Key = u32;
/// A value.
pub type Value = u64;
/// A lease.
pub type Lease = i64;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Guards, then one of two branches.
    Txn(Txn),
    /// Forget what was superseded at or before this revision.
    Compact(u64),
    /// Create a lease.
    Grant(Lease),
    /// End a lease, by request or by time, and delete what is bound to it.
    End(Lease),
}

/// All guards are judged first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `then`.
    pub guards: Vec<Guard>,
    /// Runs when the guards hold.
    pub then: Vec<Op>,
    /// Runs when one does not.
    pub otherwise: Vec<Op>,
}

/// A condition on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It was last changed at this revision; 0: it does not exist.
    Modified(Key, u64),
    /// It exists and has this value.
    Value(Key, Value),
    /// It was written so many times since its creation; 0: it does not exist.
    Version(Key, u64),
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a key, bound to a lease unless that is 0, and answer with the entry before.
    Put(Key, Value, Lease),
    /// Read the keys of a span.
    Read(Range<Key>),
    /// Delete the keys of a span and answer with the entries before.
    Delete(Range<Key>),
}

/// A key's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its value.
    pub value: Value,
    /// Revision of its creation.
    pub created: u64,
    /// Revision of its last change.
    pub modified: u64,
    /// Number of puts since its creation.
    pub version: u64,
    /// The lease it is bound to, or 0.
    pub lease: Lease,
}

/// What is known of a request that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The keyspace's revision after it; `None` where that was not seen.
    pub revision: Option<u64>,
    /// What the client was answered; `None` where that was lost.
    pub reply: Option<Reply>,
}

/// The body of a [`Response`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Txn`].
    Txn {
        /// Whether the guards held.
        succeeded: bool,
        /// One for each operation.
        answers: Vec<Answer>,
    },
    /// To the others.
    Done,
    /// Nothing was done: no such lease.
    LeaseNotFound,
    /// Nothing was done: there is such a lease.
    LeaseExists,
    /// Nothing was done: the revision to compact to is compacted already.
    Compacted,
    /// Nothing was done: the revision to compact to has not happened.
    Future,
}

/// To one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The entry before the put.
    Put(Option<Entry>),
    /// What was found, in key order.
    Read(Vec<(Key, Entry)>),
    /// What was deleted, in key order.
    Delete(Vec<(Key, Entry)>),
}

/// The keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Its revision.
    pub revision: u64,
    /// The last compaction.
    pub compacted: u64,
    /// The keys.
    pub entries: BTreeMap<Key, Entry>,
    /// The leases.
    pub leases: BTreeSet<Lease>,
}

impl Default for State {
    fn default() -> State {
        State {
            revision: 1,
            compacted: 0,
            entries: BTreeMap::new(),
            leases: BTreeSet::new(),
        }
    }
}

impl State {
    /// Applies one request and says what it answers.
    pub fn apply(&mut self, request: &Request) -> Reply {
        match request {
            Request::Txn(txn) => self.txn(txn),
            Request::Compact(revision) if *revision <= self.compacted => Reply::Compacted,
            Request::Compact(revision) if *revision > self.revision => Reply::Future,
            Request::Compact(revision) => {
                self.compacted = *revision;
                Reply::Done
            }
            Request::Grant(lease) if self.leases.insert(*lease) => Reply::Done,
            Request::Grant(_) => Reply::LeaseExists,
            Request::End(lease) if self.leases.remove(lease) => {
                let len = self.entries.len();
                self.entries.retain(|_, entry| entry.lease != *lease);
                self.revision += u64::from(self.entries.len() < len);
                Reply::Done
            }
            Request::End(_) => Reply::LeaseNotFound,
        }
    }

    fn txn(&mut self, txn: &Txn) -> Reply {
        let succeeded = txn.guards.iter().all(|guard| self.holds(guard));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        let missing = |op: &Op| matches!(op, Op::Put(_, _, lease) if *lease != 0 && !self.leases.contains(lease));
        if ops.iter().any(missing) {
            return Reply::LeaseNotFound;
        }
        let at = self.revision + 1;
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            let (answer, changed) = self.op(op, at);
            answers.push(answer);
            if changed {
                self.revision = at;
            }
        }
        Reply::Txn { succeeded, answers }
    }

    fn holds(&self, guard: &Guard) -> bool {
        match *guard {
            Guard::Modified(key, revision) => {
                self.entries.get(&key).map_or(0, |e| e.modified) == revision
            }
            Guard::Version(key, version) => {
                self.entries.get(&key).map_or(0, |e| e.version) == version
            }
            Guard::Value(key, value) => self.entries.get(&key).is_some_and(|e| e.value == value),
        }
    }

    fn op(&mut self, op: &Op, at: u64) -> (Answer, bool) {
        match op {
            Op::Put(key, value, lease) => {
                let before = self.entries.get(key).copied();
                let entry = Entry {
                    value: *value,
                    created: before.map_or(at, |e| e.created),
                    modified: at,
                    version: before.map_or(1, |e| e.version + 1),
                    lease: *lease,
                };
                self.entries.insert(*key, entry);
                (Answer::Put(before), true)
            }
            Op::Read(span) => (Answer::Read(self.read(span)), false),
            Op::Delete(span) => {
                let found = self.read(span);
                for (key, _) in &found {
                    self.entries.remove(key);
                }
                let changed = !found.is_empty();
                (Answer::Delete(found), changed)
            }
        }
    }

    /// The entries of a span, in key order.
    pub fn read(&self, span: &Range<Key>) -> Vec<(Key, Entry)> {
        self.entries
            .range(span.clone())
            .map(|(key, entry)| (*key, *entry))
            .collect()
    }
}

/// [`State`] as a model of concurrent histories.
pub struct Kv;

impl Model for Kv {
    type State = State;
    type Input = Request;
    type Output = Response;

    fn initial(&self) -> State {
        State::default()
    }

    fn step(&self, state: &State, input: &Request, output: Option<&Response>) -> Option<State> {
        let Some(Response { revision, reply }) = output else {
            let mut after = state.clone();
            after.apply(input);
            return Some(after);
        };
        // A request moves the revision by one or not at all: what cannot have led to the answered
        // one is told without copying the state.
        if revision.is_some_and(|r| r.wrapping_sub(state.revision) > 1) {
            return None;
        }
        let mut after = state.clone();
        let expected = after.apply(input);
        let fits = revision.is_none_or(|r| r == after.revision)
            && reply.as_ref().is_none_or(|r| *r == expected);
        fits.then_some(after)
    }

    fn reads_only(&self, _: &Request, output: &Response) -> bool {
        output.reply.as_ref().is_some_and(|reply| match reply {
            Reply::Txn { answers, .. } => !writes(answers),
            Reply::Done => false,
            Reply::LeaseNotFound | Reply::LeaseExists | Reply::Compacted | Reply::Future => true,
        })
    }

    fn position(&self, state: &State) -> u64 {
        state.revision
    }

    fn latest(&self, _: &Request, output: &Response) -> u64 {
        let moved = match &output.reply {
            Some(Reply::Txn { answers, .. }) => writes(answers),
            Some(_) | None => false,
        };
        output.revision.map_or(u64::MAX, |r| r - u64::from(moved))
    }
}

/// Whether something was written.
fn writes(answers: &[Answer]) -> bool {
    answers.iter().any(|answer| match answer {
        Answer::Put(_) => true,
        Answer::Read(_) => false,
        Answer::Delete(found) => !found.is_empty(),
    })
}
