//! What the writer and the readers share, and how a new revision becomes visible.
//!
//! A reader takes the published revision and ignores every version beyond it. The writer puts
//! versions into slots first and publishes their revision last, so that a transaction is seen as a
//! whole or not at all. Where a key appears or disappears, the writer holds the ordered index from
//! the first such step until it has published: whoever holds the index for reading finds its live
//! counts to be those of the published revision.
//!
//! Locks are taken in this order: index, history, ring, tree, slot; the others are taken alone or
//! inside these.

use crate::access::Permissions;
use crate::auth::{Auth, Principal};
use crate::change::Refusal;
use crate::command::{Alarm, Txn};
use crate::history::History;
use crate::index::Index;
use crate::lease::Leases;
use crate::node::Event;
use crate::ring::{FOUNDED, Ring};
use crate::slot::Slot;
use crate::tree::Tree;
use crate::types::{Revision, Span};
use arc_swap::{ArcSwap, Guard};
use dashmap::DashSet;
use foldhash::quality::RandomState;
use imbl::OrdSet;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The whole state but for what only the writer needs.
pub(crate) struct Shared {
    /// Key to slot. Only ever asked for one key, so that its order cannot leak; its hasher is seeded
    /// afresh in each process, so that no client can aim at one bucket.
    pub slots: DashSet<Slot, RandomState>,
    pub index: RwLock<Index>,
    pub history: RwLock<History>,
    pub leases: RwLock<Leases>,
    pub alarms: RwLock<OrdSet<(u64, Alarm)>>,
    /// The path tree at the published revision: both change under this lock where both change.
    pub tree: RwLock<Tree>,
    /// Whether some node of it has an access list, for those who ask before they take its lock.
    restricted: AtomicBool,
    /// Whether some node ever had one, as far as versions that are kept can tell.
    was_restricted: AtomicBool,
    auth: ArcSwap<Auth>,
    /// Whether anyone may do everything: no node has an access list, and authentication is off.
    open: AtomicBool,
    pub ring: RwLock<Ring>,
    pub bytes: AtomicU64,
    /// See [`crate::Reader::stepped`].
    pub stepped: AtomicU64,
    revision: AtomicU64,
    compacted: AtomicU64,
    event: AtomicU64,
    /// One more reference for each living cut.
    pub cuts: Arc<()>,
}

impl Shared {
    pub fn new(revision: u64, compacted: u64) -> Shared {
        Shared::with_room(revision, compacted, 0)
    }

    /// With room for so many slots.
    pub fn with_room(revision: u64, compacted: u64, slots: usize) -> Shared {
        Shared {
            slots: DashSet::with_capacity_and_hasher(slots, RandomState::default()),
            index: RwLock::new(Index::new()),
            history: RwLock::new(History::new()),
            leases: RwLock::default(),
            alarms: RwLock::default(),
            tree: RwLock::new(Tree::new()),
            restricted: AtomicBool::new(false),
            was_restricted: AtomicBool::new(false),
            auth: ArcSwap::default(),
            open: AtomicBool::new(true),
            ring: RwLock::default(),
            bytes: AtomicU64::new(0),
            revision: AtomicU64::new(revision),
            compacted: AtomicU64::new(compacted),
            event: AtomicU64::new(FOUNDED),
            stepped: AtomicU64::new(0),
            cuts: Arc::new(()),
        }
    }

    pub fn find(&self, key: &[u8]) -> Option<Slot> {
        self.slots.get(key).map(|slot| slot.key().clone())
    }

    /// Whether a key has a value; only the writer may ask.
    pub fn is_live(&self, key: &[u8]) -> bool {
        let slot = self.find(key);
        slot.is_some_and(|slot| !slot.newest().is_tombstone())
    }

    /// Puts the path tree of a revision that is about to be published in its place.
    pub fn put_tree(&self, place: &mut Tree, tree: Tree) {
        let restricted = !tree.restricted.is_empty();
        self.restricted.store(restricted, Ordering::Release);
        if restricted {
            self.note_restricted();
        }
        self.note_whether_open();
        *place = tree;
    }

    /// Users and roles.
    pub fn auth(&self) -> Guard<Arc<Auth>> {
        self.auth.load()
    }

    /// Puts users and roles in their place.
    pub fn put_auth(&self, auth: Auth) {
        let (before, after) = (self.auth().bytes(), auth.bytes());
        self.bytes
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        self.auth.store(Arc::new(auth));
        self.note_whether_open();
    }

    /// Only the writer changes what this depends on.
    fn note_whether_open(&self) {
        let open = !self.is_restricted() && !self.auth().enabled();
        self.open.store(open, Ordering::Release);
    }

    /// Whether anyone may do everything.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether some node has an access list.
    pub fn is_restricted(&self) -> bool {
        self.restricted.load(Ordering::Acquire)
    }

    /// Whether a version may have come while an access list protected its key, for those who ask
    /// before they look at versions.
    pub fn was_restricted(&self) -> bool {
        self.was_restricted.load(Ordering::Acquire)
    }

    /// A version came while an access list protected its key, or is about to.
    pub fn note_restricted(&self) {
        self.was_restricted.store(true, Ordering::Release);
    }

    /// Refuses what someone may not do with one of these keys, as one whom no access list names.
    pub fn check(&self, who: &Principal, span: &Span, may: Permissions) -> Result<(), Refusal> {
        if self.is_open() {
            return Ok(());
        }
        let auth = self.auth();
        auth.rights(who)?.check(span, may)?;
        let denied =
            self.is_restricted() && is_bound(&auth, who) && self.tree.read().restricts(span);
        refuse_if(denied)
    }

    /// The same of all that a transaction touches, whichever branch it takes.
    pub fn check_txn(&self, who: &Principal, txn: &Txn) -> Result<(), Refusal> {
        if self.is_open() {
            return Ok(());
        }
        let auth = self.auth();
        auth.rights(who)?.check_txn(txn, &self.leases.read())?;
        let denied = self.is_restricted()
            && is_bound(&auth, who)
            && self.tree.read().denies(txn, &|key| self.is_live(key));
        refuse_if(denied)
    }

    /// Refuses those whom access lists bind.
    pub fn refuse_bound(&self, who: &Principal) -> Result<(), Refusal> {
        refuse_if(is_bound(&self.auth(), who))
    }

    /// The newest revision that readers may see.
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub fn publish(&self, revision: u64) {
        self.revision.store(revision, Ordering::Release);
    }

    /// The oldest readable revision. A version is dropped only after this has moved past it, so
    /// that a reader who looks here last knows whether what it read was whole.
    pub fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    pub fn compact(&self, revision: u64) {
        self.compacted.store(revision, Ordering::Release);
    }

    /// The node event counter.
    pub fn event(&self) -> u64 {
        self.event.load(Ordering::Acquire)
    }

    /// Publishes a revision together with its events; `event` is the counter then. Whoever holds the
    /// ring for reading finds the counter to be that of the published revision.
    pub fn publish_with(&self, events: Vec<Event>, event: u64, publish: impl FnOnce()) {
        if event == self.event() {
            return publish();
        }
        let mut ring = self.ring.write();
        events.into_iter().for_each(|event| ring.push(event));
        publish();
        self.event.store(event, Ordering::Release);
    }
}

/// Whether access lists bind someone.
fn is_bound(auth: &Auth, who: &Principal) -> bool {
    *who != Principal::System && !auth.is_root(who)
}

fn refuse_if(denied: bool) -> Result<(), Refusal> {
    match denied {
        true => Err(Refusal::Denied),
        false => Ok(()),
    }
}
