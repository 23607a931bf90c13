//! One key's place in memory: the newest version and the older ones still readable.
//!
//! A slot is one allocation with the key's bytes inside, shared by the hash, the ordered index, the
//! history and every [`Entry`] handed out. A version is one allocation with the value's bytes
//! inside. Both are right-sized copies, so that no read buffer is ever pinned by what came in it.

use crate::types::{LeaseId, Revision, WallMs};
use parking_lot::RwLock;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use triomphe::ThinArc;

/// What one retained version counts towards [`crate::Reader::bytes_in_use`] beside the bytes of its
/// key and value: about what the slot, the version and their places in the indexes take.
pub(crate) const VERSION_BYTES: u64 = 160;

/// What a version counts in all.
pub(crate) fn cost(key: &[u8], value: &[u8]) -> u64 {
    VERSION_BYTES + key.len() as u64 + value.len() as u64
}

/// The figures of one version, as they are given and read; see [`Header`] for how they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Revision of the key's creation; 0 marks a tombstone.
    pub created: u64,
    pub modified: u64,
    pub sub: u32,
    /// Puts since creation.
    pub count: u64,
    pub lease: LeaseId,
    /// When this version was written.
    pub written: WallMs,
    /// The node event that it made; 0 for a key that is no path.
    pub event: u64,
    /// The value is empty because there is none.
    pub null: bool,
    /// The key was a node with an access list.
    pub restricted: bool,
}

impl Figures {
    /// What a deletion leaves.
    pub fn tombstone(modified: u64, sub: u32, written: WallMs, event: u64) -> Figures {
        Figures {
            event,
            null: false,
            restricted: false,
            created: 0,
            modified,
            sub,
            count: 0,
            lease: LeaseId::NONE,
            written,
        }
    }
}

/// [`Figures`] packed: with this header a value of 256 bytes takes 312, which allocators serve from a
/// class of 320 (eight bytes more, and mimalloc would take 384).
#[derive(Clone, Copy)]
struct Header {
    modified: u64,
    lease: i64,
    /// 48 bits of revisions are centuries of writing; so they are of puts and of node events, and of
    /// milliseconds they reach beyond the year 10,000.
    created: [u16; 3],
    count: [u16; 3],
    written: [u16; 3],
    event: [u16; 3],
}

const NULL_BIT: u32 = 1 << 31;
const RESTRICTED_BIT: u32 = 1 << 30;
/// Changes that one revision can hold.
pub(crate) const SUB_MAX: u32 = RESTRICTED_BIT - 1;
/// The greatest figure that has room in 48 bits.
pub(crate) const FIGURE_MAX: u64 = (1 << 48) - 1;

fn pack(figure: u64) -> [u16; 3] {
    [figure as u16, (figure >> 16) as u16, (figure >> 32) as u16]
}

fn unpack(packed: [u16; 3]) -> u64 {
    u64::from(packed[0]) | u64::from(packed[1]) << 16 | u64::from(packed[2]) << 32
}

/// One version: its figures and its value.
#[derive(Clone)]
struct Version(ThinArc<Header, u8>);

/// A version as a slot keeps it, with what belongs to the key's whole life and what found no room in
/// the version.
#[derive(Clone)]
pub(crate) struct Stored {
    version: Version,
    born: [u16; 3],
    born_event: [u16; 3],
    /// The two highest bits are figures of their own, the rest the place within the revision.
    sub: u32,
}

/// What belongs to a key's life rather than to one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth {
    /// When the key was created.
    pub wall: WallMs,
    /// The node event that counts as its creation; 0 for a key that is no path.
    pub event: u64,
}

impl Stored {
    pub fn new(figures: &Figures, birth: Birth, value: &[u8]) -> Stored {
        let header = Header {
            modified: figures.modified,
            lease: figures.lease.0,
            created: pack(figures.created),
            count: pack(figures.count),
            written: pack(figures.written.0),
            event: pack(figures.event),
        };
        Stored {
            version: Version(ThinArc::from_header_and_slice(header, value)),
            born: pack(birth.wall.0),
            born_event: pack(birth.event),
            sub: figures.sub
                | if figures.null { NULL_BIT } else { 0 }
                | if figures.restricted {
                    RESTRICTED_BIT
                } else {
                    0
                },
        }
    }

    fn created(&self) -> u64 {
        unpack(self.header().created)
    }

    fn header(&self) -> &Header {
        &self.version.0.header.header
    }

    fn value(&self) -> &[u8] {
        &self.version.0.slice
    }
}

/// The versions of one key in order of revision; never empty.
struct Chain {
    newest: Stored,
    /// Absent for the many keys that have one version.
    #[expect(
        clippy::box_collection,
        reason = "one word instead of four in every slot"
    )]
    older: Option<Box<VecDeque<Stored>>>,
}

impl Chain {
    /// The newest version at or before revision `bound`.
    fn at(&self, bound: u64) -> Option<&Stored> {
        if self.newest.header().modified <= bound {
            return Some(&self.newest);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|stored| stored.header().modified <= bound);
        older.get(after.checked_sub(1)?)
    }
}

/// A shared handle to one key's slot. Equal, ordered and hashed by the key's bytes.
#[derive(Clone)]
pub(crate) struct Slot(ThinArc<RwLock<Chain>, u8>);

impl Slot {
    pub fn new(key: &[u8], first: Stored) -> Slot {
        let chain = Chain {
            newest: first,
            older: None,
        };
        Slot(ThinArc::from_header_and_slice(RwLock::new(chain), key))
    }

    pub fn key(&self) -> &[u8] {
        &self.0.slice
    }

    fn chain(&self) -> &RwLock<Chain> {
        &self.0.header.header
    }

    fn entry(&self, stored: &Stored) -> Entry {
        Entry {
            slot: self.clone(),
            stored: stored.clone(),
        }
    }

    /// The newest version, published or not. Only the writer may ask.
    pub fn newest(&self) -> Entry {
        self.entry(&self.chain().read().newest)
    }

    /// The newest version at or before revision `bound`; it may be a tombstone.
    pub fn at(&self, bound: u64) -> Option<Entry> {
        self.chain()
            .read()
            .at(bound)
            .map(|stored| self.entry(stored))
    }

    /// Like [`Slot::at`], but nothing for a tombstone.
    pub fn live_at(&self, bound: u64) -> Option<Entry> {
        self.at(bound).filter(|entry| !entry.is_tombstone())
    }

    /// Every version at or before `bound`, oldest first.
    pub fn versions(&self, bound: u64) -> Vec<Entry> {
        let chain = self.chain().read();
        let older = chain.older.iter().flat_map(|older| older.iter());
        older
            .chain([&chain.newest])
            .filter(|stored| stored.header().modified <= bound)
            .map(|stored| self.entry(stored))
            .collect()
    }

    /// Adds a version on top, or puts it in place of one of the same revision, which nobody but the
    /// writer has seen. Returns the entry that it replaced.
    pub fn push(&self, stored: Stored) -> Option<Entry> {
        let chain = &mut *self.chain().write();
        let same_revision = chain.newest.header().modified == stored.header().modified;
        let before = std::mem::replace(&mut chain.newest, stored);
        if same_revision {
            return Some(self.entry(&before));
        }
        chain.older.get_or_insert_default().push_back(before);
        None
    }

    /// Takes the newest version off again. Returns it, or none when it is the only one.
    pub fn pop(&self) -> Option<Entry> {
        let chain = &mut *self.chain().write();
        let older = chain.older.as_mut()?;
        let below = older.pop_back()?;
        if older.is_empty() {
            chain.older = None;
        }
        Some(self.entry(&std::mem::replace(&mut chain.newest, below)))
    }

    /// Drops the oldest versions, at most `max`, as far as no revision from `compacted` on shows them
    /// any more; returns what they counted towards the bytes in use.
    pub fn drop_oldest(&self, compacted: u64, max: usize) -> u64 {
        let chain = &mut *self.chain().write();
        let Some(older) = chain.older.as_mut() else {
            return 0;
        };
        let mut bytes = 0;
        for _ in 0..max {
            let Some(oldest) = older.front() else { break };
            let successor = older.get(1).unwrap_or(&chain.newest).header();
            let tombstone = oldest.created() == 0 && oldest.header().modified < compacted;
            if successor.modified > compacted && !tombstone {
                break;
            }
            bytes += self.cost(oldest);
            older.pop_front();
        }
        if older.is_empty() {
            chain.older = None;
        } else if older.capacity() > 4 * older.len() {
            older.shrink_to(2 * older.len());
        }
        bytes
    }

    /// What the slot still counts towards the bytes in use, if all that is left of it is the
    /// tombstone of `revision`, which no revision from `compacted` on needs.
    pub fn spent_at(&self, revision: u64, compacted: u64) -> Option<u64> {
        let chain = self.chain().read();
        let newest = &chain.newest;
        let spent = chain.older.is_none()
            && newest.created() == 0
            && newest.header().modified == revision
            && revision < compacted;
        spent.then(|| self.cost(&chain.newest))
    }

    fn cost(&self, stored: &Stored) -> u64 {
        cost(self.key(), stored.value())
    }
}

impl Borrow<[u8]> for Slot {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Slot) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Slot) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Slot) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// One version of one key, shared with the keyspace: cheap to clone, safe to keep.
#[derive(Clone)]
pub struct Entry {
    slot: Slot,
    stored: Stored,
}

impl Entry {
    /// The key's bytes.
    pub fn key(&self) -> &[u8] {
        self.slot.key()
    }
    /// The value's bytes; empty for a tombstone.
    pub fn value(&self) -> &[u8] {
        self.stored.value()
    }
    /// Revision of the key's creation; 0 for a tombstone.
    pub fn created(&self) -> Revision {
        Revision(self.stored.created())
    }
    /// Revision of this version.
    pub fn modified(&self) -> Revision {
        Revision(self.stored.header().modified)
    }
    /// Place among the changes of its revision: ascending from 0, with gaps where a transaction
    /// undid what it had done.
    pub fn sub(&self) -> u32 {
        self.stored.sub & SUB_MAX
    }
    /// Number of puts since creation, from 1; 0 for a tombstone.
    pub fn version(&self) -> u64 {
        unpack(self.stored.header().count)
    }
    /// The lease the key is bound to.
    pub fn lease(&self) -> LeaseId {
        LeaseId(self.stored.header().lease)
    }
    /// When this version was written, by the proposer's clock.
    pub fn written(&self) -> WallMs {
        WallMs(unpack(self.stored.header().written))
    }
    /// When the key was created, by the proposer's clock.
    pub fn born(&self) -> WallMs {
        WallMs(unpack(self.stored.born))
    }
    /// The node event that this version made; 0 if the key is no path.
    pub fn event(&self) -> u64 {
        unpack(self.stored.header().event)
    }
    /// The node event that counts as the key's creation; 0 if the key is no path.
    pub fn created_event(&self) -> u64 {
        unpack(self.stored.born_event)
    }
    /// Whether the value is empty because there is none. Only a node written so has this.
    pub fn is_null(&self) -> bool {
        self.stored.sub & NULL_BIT != 0
    }
    /// Whether the key was a node with an access list when this version came.
    pub fn is_restricted(&self) -> bool {
        self.stored.sub & RESTRICTED_BIT != 0
    }
    /// Whether this version says that the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.stored.created() == 0
    }

    pub(crate) fn birth(&self) -> Birth {
        Birth {
            wall: self.born(),
            event: self.created_event(),
        }
    }

    /// An entry of its own, that no index knows.
    pub(crate) fn apart(key: &[u8], stored: Stored) -> Entry {
        Slot::new(key, stored).newest()
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// What this version counts towards [`crate::Reader::bytes_in_use`].
    pub(crate) fn cost(&self) -> u64 {
        self.slot.cost(&self.stored)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}={} @{}.{} created {} version {} lease {}",
            self.key().escape_ascii(),
            self.value().escape_ascii(),
            self.modified(),
            self.sub(),
            self.created(),
            self.version(),
            self.lease().0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory goal rests on these: a 256-byte value has room in an allocation class of 320 bytes
    /// with the two words of its shared pointer, a key of 33 in one of 96.
    #[test]
    fn headers_are_as_small_as_the_memory_goal_needs() {
        assert_eq!(size_of::<Header>() + 16 + 256, 312);
        assert_eq!(size_of::<RwLock<Chain>>() + 16 + 33, 89);
    }

    #[test]
    fn packed_figures_survive() {
        for figure in [0, 1, 0xffff, 0x1_0000, 0x1234_5678_9abc, (1 << 48) - 1] {
            assert_eq!(unpack(pack(figure)), figure);
        }
    }
}
