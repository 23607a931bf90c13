//! What clients of the three protocols asked, were answered and were told, in words that none of
//! them has for itself: a key, a value that is written once, and what else an answer says of it.

use std::fmt;

use anyhow::{Context as _, Result};
use checker::kv::Entry;
pub use checker::kv::{Key, Lease, Value};
use checker::watch::Watch;

/// Everything that was seen in one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Where the run began.
    pub first: Clocks,
    /// Everything that was asked of a key.
    pub operations: Vec<Operation>,
    /// All leases that keys may have been bound to, sessions among them.
    pub lives: Vec<Life>,
    /// etcd v3's watchers of all keys, from the first change to the last.
    pub watches: Vec<EtcdWatch>,
    /// etcd v2's waiters for all keys, from the first event to the last.
    pub waits: Vec<Vec<WaitEvent>>,
    /// What ZooKeeper's sessions were shown and told.
    pub sessions: Vec<Vec<Line>>,
    /// Where the run ended.
    pub last: Clocks,
    /// What each member held then, when all that time ends had been waited for.
    pub held: Vec<Vec<(Key, Entry)>>,
}

/// A moment as the protocols count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// etcd v3's revision, and ZooKeeper's zxid.
    pub revision: u64,
    /// etcd v2's index.
    pub index: u64,
}

/// Something asked of one key. A transaction over several is one operation for each.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Of which key.
    pub key: Key,
    /// Microseconds from the start of the run.
    pub began_us: u64,
    /// What was asked.
    pub ask: Ask,
    /// The answer; nothing if the outcome is unknown.
    pub answered: Option<Answered>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Microseconds from the start of the run.
    pub ended_us: u64,
    /// When it was computed; of a write that was done, the write.
    pub at: Moment,
    /// What it says.
    pub answer: Answer,
}

/// A moment as one of the clocks counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A revision, or a zxid.
    Revision(u64),
    /// An index of etcd v2's.
    Index(u64),
}

/// What is asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What it holds now.
    Read,
    /// What it held lately: a serializable range, or ZooKeeper's plain reads.
    ReadLate,
    /// To hold a value that nothing else writes.
    Write {
        /// The value.
        value: Value,
        /// Only if.
        guard: Guard,
        /// What it is bound to then.
        bind: Bind,
    },
    /// To be no more.
    Delete {
        /// Only if.
        guard: Guard,
    },
    /// To be as it is said, since another key is written only then.
    Check {
        /// What is said.
        guard: Guard,
    },
    /// That what is bound to a lease ends; no client asks it of a key by itself.
    End {
        /// The lease.
        lease: Lease,
    },
    /// That its time is over; no client asks it.
    EndTime {
        /// The write that gave it this time.
        value: Value,
    },
}

/// A condition on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// None.
    Always,
    /// It does not exist.
    Absent,
    /// It exists.
    Present,
    /// It holds this value. Since no other write has it, a comparison of the revision or the index
    /// that came with the value is the same.
    Holds(Value),
    /// It was written so many times since its creation.
    Version(u64),
}

/// What becomes of a key's bindings when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// They stay: ZooKeeper's set.
    Stay,
    /// This lease, or 0, and no time: etcd v3's put, and ZooKeeper's create.
    Lease(Lease),
    /// The session stays, and it ends after so many microseconds, if any: all that etcd v2 writes. It
    /// would free a key from a lease of etcd v3's, but its clients here write none that has one.
    Time(Option<u64>),
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a read.
    Found(Found),
    /// It was done.
    Done {
        /// What was there before.
        before: Found,
        /// What is there now.
        now: Found,
    },
    /// The condition did not hold.
    Refused(Found),
}

/// What an answer says was at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It does not say.
    Unsaid,
    /// Nothing.
    Nothing,
    /// This.
    Entry(Shown),
}

/// What an answer says of an entry; nothing where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its value.
    pub value: Option<Value>,
    /// Revision of its creation.
    pub created: Option<u64>,
    /// Revision of its last change.
    pub modified: Option<u64>,
    /// Number of writes since its creation; ZooKeeper's version is one less.
    pub version: Option<u64>,
    /// The lease or session it is bound to, or 0.
    pub lease: Option<Lease>,
    /// etcd v2's index of its last change.
    pub index: Option<u64>,
}

/// A lease or session as its owner knows it.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its number.
    pub lease: Lease,
    /// How long it outlives its owner's silence.
    pub ttl_us: u64,
    /// When the latest request was sent by which its owner is known to have kept it alive.
    pub alive_us: u64,
    /// How much earlier than its owner believes it may end.
    pub tolerance_us: u64,
    /// When its end was asked for, and acknowledged.
    pub ended_us: Option<(u64, u64)>,
}

/// One of etcd v3's watchers.
#[derive(Clone, Debug)]
pub struct EtcdWatch {
    /// What it asked for and received.
    pub watch: Watch,
    /// When each message came, in microseconds from the start of the run.
    pub came_us: Vec<u64>,
}

/// An event that one of etcd v2's waiters was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitEvent {
    /// Its index.
    pub index: u64,
    /// The key.
    pub key: Key,
    /// What happened.
    pub action: Action,
    /// The new value; none of a key that is no more.
    pub value: Option<Value>,
    /// The value before, if there was one.
    pub previous: Option<Value>,
}

/// etcd v2's names for what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was written: `set`, `create`, `update` or `compareAndSwap`.
    Written,
    /// It was deleted: `delete` or `compareAndDelete`.
    Deleted,
    /// Its time, or what it was bound to, was over.
    Expired,
}

/// What happens to a node, as ZooKeeper's events say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It came to be.
    Created,
    /// It was set.
    Changed,
    /// It is no more.
    Deleted,
}

/// Something that a session of ZooKeeper's was shown or told, in the order of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A reply that set a watch, which is told once, on a key as it was at a revision.
    Armed {
        /// The key.
        key: Key,
        /// The revision.
        revision: u64,
    },
    /// A reply that set a watch on all keys, which is always told, as of a revision.
    ArmedAlways {
        /// The revision.
        revision: u64,
    },
    /// A reply, computed at a revision.
    Shown {
        /// The revision.
        revision: u64,
    },
    /// An event.
    Told {
        /// The key.
        key: Key,
        /// What happened.
        what: Happening,
        /// When; none of one that happened while the session had no connection.
        revision: Option<u64>,
    },
    /// The connection broke.
    Broke,
    /// Another connection, on which the watches were set again as of a revision.
    Resumed {
        /// The revision.
        revision: u64,
    },
}

impl Life {
    /// When it is over by its owner's silence, at the earliest.
    pub fn over_us(&self) -> u64 {
        (self.alive_us + self.ttl_us).saturating_sub(self.tolerance_us)
    }
}

/// The value that a client's write of this number has.
pub fn value(client: u32, number: u32) -> Value {
    u64::from(client) << 32 | u64::from(number)
}

/// The client that wrote a value.
pub fn writer(value: Value) -> u32 {
    u32::try_from(value >> 32).expect("half of it")
}

/// A value as it is stored.
pub struct Text(pub Value);

impl fmt::Display for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", writer(self.0), self.0 & u64::from(u32::MAX))
    }
}

/// Reads what is stored.
///
/// # Errors
/// When nobody can have written it.
pub fn parse(stored: &[u8]) -> Result<Value> {
    let parsed = str::from_utf8(stored).ok().and_then(|text| {
        let (client, number) = text.split_once('-')?;
        Some(value(client.parse().ok()?, number.parse().ok()?))
    });
    parsed.with_context(|| {
        format!(
            "{:?}, which nobody wrote",
            stored.escape_ascii().to_string()
        )
    })
}

impl Shown {
    /// Whether it says nothing that is not so. `index` is that of the entry's last change.
    pub fn fits(&self, entry: &Entry, index: u64) -> bool {
        let fits = |said: Option<u64>, is: u64| said.is_none_or(|said| said == is);
        fits(self.value, entry.value)
            && fits(self.created, entry.created)
            && fits(self.modified, entry.modified)
            && fits(self.version, entry.version)
            && self.lease.is_none_or(|lease| lease == entry.lease)
            && fits(self.index, index)
    }
}

impl Ask {
    /// The value that it writes, if it writes one.
    pub fn value(self) -> Option<Value> {
        match self {
            Self::Write { value, .. } => Some(value),
            Self::Read
            | Self::ReadLate
            | Self::Delete { .. }
            | Self::Check { .. }
            | Self::End { .. }
            | Self::EndTime { .. } => None,
        }
    }

    /// The condition that it is done under, if it can have one.
    pub fn guard(self) -> Option<Guard> {
        match self {
            Self::Write { guard, .. } | Self::Delete { guard } | Self::Check { guard } => {
                Some(guard)
            }
            Self::Read | Self::ReadLate | Self::End { .. } | Self::EndTime { .. } => None,
        }
    }
}

impl Guard {
    /// Whether it holds for what a key holds, a value and its version, if anything.
    pub fn holds(self, held: Option<(Value, u64)>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => held.is_none(),
            Self::Present => held.is_some(),
            Self::Holds(value) => held.is_some_and(|held| held.0 == value),
            Self::Version(version) => held.is_some_and(|held| held.1 == version),
        }
    }
}
