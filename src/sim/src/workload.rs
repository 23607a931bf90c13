//! What clients ask for: few keys, so that they meet; every value written once, so that it names its
//! write; and all that was asked and answered, for the checkers.

use crate::ledger::Ledger;
use crate::rng::Rng;
use checker::kv::{Answer, Entry, Guard, Key, Lease, Op, Reply, Request, Response, Txn, Value};
use checker::linear::Operation;
use std::collections::BTreeMap;
use std::ops::Range;

/// The keys are `0..KEYS`.
pub const KEYS: Key = 12;
/// Granted times to live. Some end within a run, some only after it.
pub const TTLS_MS: [u64; 3] = [2_000, 4_000, 9_000];
/// A compaction leaves about so many of the newest revisions.
const REVISIONS_KEPT: u64 = 40;

/// What one client does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// To be replicated; the time to live is for a grant.
    Propose(Request, u64),
    /// A transaction of reads, after everything acknowledged before it.
    Read(Vec<Range<Key>>),
    /// A read of what the member has, or of an old revision of it.
    ReadHere(Range<Key>, Option<u64>),
    /// Start a lease's time anew.
    KeepAlive(Lease),
}

/// A read of one member's state, checked against what the state was at its revision.
#[derive(Clone, Debug)]
pub struct LocalRead {
    /// When, in the world's microseconds.
    pub at: u64,
    /// The revision that the answer is of.
    pub revision: u64,
    /// What was read.
    pub span: Range<Key>,
    /// What was found.
    pub found: Vec<(Key, Entry)>,
}

/// The clients' memory of what they met, from which guards, leases and old revisions are drawn.
pub struct Workload {
    rng: Rng,
    next_value: Value,
    next_lease: Lease,
    /// The last entry that an answer showed of a key; none if it was not there.
    met: BTreeMap<Key, Option<Entry>>,
    /// Leases whose grant was answered and that may still live.
    leases: Vec<Lease>,
    /// The greatest revision that an answer showed.
    revision: u64,
    /// Everything asked of the cluster as a whole, in the order of the calls.
    pub history: Vec<Operation<Request, Response>>,
    /// Reads of one member's state.
    pub local: Vec<LocalRead>,
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    PutLeased,
    Swap,
    Several,
    Delete,
    DeleteSpan,
    Read,
    ReadSpans,
    ReadHere,
    ReadOld,
    Grant,
    Revoke,
    KeepAlive,
    Compact,
}

/// Reads and writes about evenly, everything else often enough to meet every fault.
const MIX: [(u64, Kind); 14] = [
    (22, Kind::Put),
    (6, Kind::PutLeased),
    (12, Kind::Swap),
    (6, Kind::Several),
    (5, Kind::Delete),
    (2, Kind::DeleteSpan),
    (20, Kind::Read),
    (6, Kind::ReadSpans),
    (6, Kind::ReadHere),
    (3, Kind::ReadOld),
    (3, Kind::Grant),
    (1, Kind::Revoke),
    (6, Kind::KeepAlive),
    (2, Kind::Compact),
];

impl Workload {
    /// A workload of this chance.
    pub fn new(rng: Rng) -> Workload {
        Workload {
            rng,
            next_value: 1,
            next_lease: 1,
            met: BTreeMap::new(),
            leases: Vec::new(),
            revision: 1,
            history: Vec::new(),
            local: Vec::new(),
        }
    }

    /// What some client does next.
    pub fn next_call(&mut self) -> Call {
        match self.rng.weighted(&MIX) {
            Kind::Put => self.write(|w| vec![w.put(0)]),
            Kind::PutLeased => {
                let lease = self.lease().unwrap_or(0);
                self.write(|w| vec![w.put(lease)])
            }
            Kind::Swap => self.swap(),
            Kind::Several => self.write(Workload::several),
            Kind::Delete => {
                let key = self.key();
                self.write(|_| vec![Op::Delete(key..key + 1)])
            }
            Kind::DeleteSpan => {
                let span = self.span();
                self.write(|_| vec![Op::Delete(span)])
            }
            Kind::Read => {
                let key = self.key();
                let span = key..key + 1;
                Call::Read(vec![span])
            }
            Kind::ReadSpans => Call::Read(vec![self.span(), self.span()]),
            Kind::ReadHere => Call::ReadHere(self.span(), None),
            Kind::ReadOld => {
                let revision = 1 + self.rng.below(self.revision);
                Call::ReadHere(self.span(), Some(revision))
            }
            Kind::Grant => self.grant(),
            Kind::Revoke => match self.lease() {
                Some(lease) => Call::Propose(Request::End(lease), 0),
                None => self.grant(),
            },
            Kind::KeepAlive => self.lease().map_or_else(|| self.grant(), Call::KeepAlive),
            Kind::Compact => {
                let kept = self.rng.below(2 * REVISIONS_KEPT);
                let revision = self.revision.saturating_sub(kept).max(1);
                Call::Propose(Request::Compact(revision), 0)
            }
        }
    }

    fn write(&mut self, ops: impl FnOnce(&mut Workload) -> Vec<Op>) -> Call {
        let then = ops(self);
        let txn = Txn {
            then,
            ..Txn::default()
        };
        Call::Propose(Request::Txn(txn), 0)
    }

    /// A compare-and-swap that holds unless someone was faster; both branches write.
    fn swap(&mut self) -> Call {
        let key = self.key();
        let met = self.met.get(&key).copied().flatten();
        let guard = match (self.rng.below(3), met) {
            (0, Some(entry)) => Guard::Value(key, entry.value),
            (1, met) => Guard::Version(key, met.map_or(0, |e| e.version)),
            (_, met) => Guard::Modified(key, met.map_or(0, |e| e.modified)),
        };
        let value = self.value();
        let elsewhere = self.put(0);
        let txn = Txn {
            guards: vec![guard],
            then: vec![Op::Read(self.span()), Op::Put(key, value, 0)],
            otherwise: vec![elsewhere, Op::Read(key..key + 1)],
        };
        Call::Propose(Request::Txn(txn), 0)
    }

    /// Several operations of one transaction, without two writes of one key, which etcd refuses.
    fn several(&mut self) -> Vec<Op> {
        let middle = KEYS / 2;
        let (low, high) = (self.key() % middle, middle + self.key() % middle);
        let (first, second) = (self.value(), self.value());
        vec![
            Op::Put(low, first, 0),
            Op::Read(self.span()),
            Op::Put(high, second, 0),
            Op::Delete(low + 1..middle.min(low + 3)),
        ]
    }

    fn grant(&mut self) -> Call {
        let lease = self.next_lease;
        self.next_lease += 1;
        let ttl_ms = *self.rng.pick(&TTLS_MS);
        Call::Propose(Request::Grant(lease), ttl_ms)
    }

    fn put(&mut self, lease: Lease) -> Op {
        Op::Put(self.key(), self.value(), lease)
    }

    fn key(&mut self) -> Key {
        self.rng.below(u64::from(KEYS)) as Key
    }

    fn span(&mut self) -> Range<Key> {
        let start = self.key();
        start..start + 1 + self.rng.below(4) as Key
    }

    fn value(&mut self) -> Value {
        self.next_value += 1;
        self.next_value
    }

    fn lease(&mut self) -> Option<Lease> {
        if self.leases.is_empty() {
            return None;
        }
        Some(*self.rng.pick(&self.leases))
    }

    /// Notes that `client` asks for something; the place in the history is the operation's name.
    pub fn called(&mut self, at: u64, client: u32, input: Request) -> usize {
        self.history.push(Operation {
            client,
            called: at,
            input,
            answered: None,
        });
        self.history.len() - 1
    }

    /// Notes an answer, and remembers what it showed.
    pub fn answered(&mut self, at: u64, place: usize, response: Response) {
        self.revision = self.revision.max(response.revision.unwrap_or(0));
        let operation = &mut self.history[place];
        match (&operation.input, &response.reply) {
            (Request::Grant(lease), Some(Reply::Done)) => self.leases.push(*lease),
            (Request::End(ended), _) => self.leases.retain(|lease| lease != ended),
            (Request::Txn(txn), Some(Reply::Txn { succeeded, answers })) => {
                let ops = if *succeeded {
                    &txn.then
                } else {
                    &txn.otherwise
                };
                for (op, answer) in ops.iter().zip(answers) {
                    if let (Op::Read(span), Answer::Read(found)) = (op, answer) {
                        self.met.extend(span.clone().map(|key| (key, None)));
                        self.met.extend(found.iter().map(|(k, e)| (*k, Some(*e))));
                    }
                }
            }
            (Request::Txn(_) | Request::Compact(_) | Request::Grant(_), _) => {}
        }
        operation.answered = Some((at, response));
    }

    /// A lease that is known to be over is not used again.
    pub fn lease_ended(&mut self, ended: Lease) {
        self.leases.retain(|lease| *lease != ended);
    }

    /// Fills in what the ledger knows of operations whose outcome their client does not: a write
    /// whose value was seen took effect at that revision, and one whose value never was did not
    /// take effect at all.
    pub fn settle(&mut self, ledger: &Ledger) {
        let mut history = std::mem::take(&mut self.history);
        history.retain_mut(|operation| {
            if operation.answered.is_some() {
                return true;
            }
            let Request::Txn(txn) = &operation.input else {
                return true;
            };
            let ops = || txn.then.iter().chain(&txn.otherwise);
            let mut values = ops().filter_map(|op| match op {
                Op::Put(_, value, _) => Some(*value),
                Op::Read(_) | Op::Delete(_) => None,
            });
            match values.find_map(|value| ledger.written(value)) {
                Some((revision, at)) => {
                    let response = Response {
                        revision: Some(revision),
                        reply: None,
                    };
                    operation.answered = Some((at.max(operation.called), response));
                    true
                }
                // Only deletes leave no value behind.
                None => ops().any(|op| matches!(op, Op::Delete(_))) && writes_nothing(txn),
            }
        });
        self.history = history;
    }
}

/// Whether no branch puts anything.
fn writes_nothing(txn: &Txn) -> bool {
    let mut ops = txn.then.iter().chain(&txn.otherwise);
    !ops.any(|op| matches!(op, Op::Put(..)))
}
