//! Listing what lies right beneath a node, stepping over all that lies deeper.

use crate::index::Scan;
use crate::shared::Shared;
use crate::tree::{self, Tree};
use crate::types::Revision;
use bytes::Bytes;
use std::ops::Bound;

/// Slots copied under one hold of the index.
const CHUNK: usize = 256;

/// The names beneath `path` at `revision`, whose tree is `tree`, in order. What deeper nodes cost is
/// one step over each child that has some, whatever their number.
pub(crate) fn list(shared: &Shared, tree: &Tree, revision: Revision, path: &[u8]) -> Vec<Bytes> {
    let prefix = tree::prefix(path);
    let beyond = tree::beyond(path);
    let mut names = Names::default();
    with_records(tree, &prefix, &beyond, &mut names);
    let recorded = names.ends.len();
    with_values(shared, revision, &prefix, &beyond, &mut names);
    let mut names = names.into_shared();
    if recorded > 0 {
        // Two runs in order, which this sort finds and merges. Some are in both.
        names.sort();
        names.dedup();
    }
    names
}

/// Names one after the other in one piece of memory.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len());
    }

    fn into_shared(self) -> Vec<Bytes> {
        let bytes = Bytes::from(self.bytes);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let places = starts.zip(&self.ends);
        places
            .map(|(start, end)| bytes.slice(start..*end))
            .collect()
    }
}

/// What a key beneath says of the child it is or belongs to: the child's name, and if it lies
/// deeper, where the child's own realm ends.
fn child<'k>(key: &'k [u8], prefix: &[u8]) -> (&'k [u8], Option<Vec<u8>>) {
    let rest = &key[prefix.len()..];
    match rest.iter().position(|byte| *byte == b'/') {
        None => (rest, None),
        Some(slash) => (
            &rest[..slash],
            // Its name may be empty, of a key that is no path; at the top that is not the root.
            Some([&key[..prefix.len() + slash], b"0"].concat()),
        ),
    }
}

/// Adds the children that exist by their records.
fn with_records(tree: &Tree, prefix: &[u8], beyond: &[u8], names: &mut Names) {
    let mut from = Bound::Excluded(prefix.to_vec());
    loop {
        let start = match &from {
            Bound::Included(key) => Bound::Included(&key[..]),
            Bound::Excluded(key) => Bound::Excluded(&key[..]),
            Bound::Unbounded => Bound::Unbounded,
        };
        let mut range = tree
            .nodes
            .range::<_, [u8]>((start, Bound::Excluded(beyond)));
        let Some((key, node)) = range.next() else {
            return;
        };
        let (name, deeper) = child(key, prefix);
        if deeper.is_none() && node.stands_alone() {
            names.push(name);
        }
        from = deeper.map_or_else(|| Bound::Excluded(key.to_vec()), Bound::Included);
    }
}

/// Adds the children that have a value.
fn with_values(
    shared: &Shared,
    revision: Revision,
    prefix: &[u8],
    beyond: &[u8],
    names: &mut Names,
) {
    let mut from = Bound::Excluded(prefix.to_vec());
    let mut slots = Vec::new();
    loop {
        slots.clear();
        let index = shared.index.read();
        // As long as nothing came since, the index knows which keys are there.
        let newest = shared.revision() == revision;
        let scan = Scan {
            before: Some(beyond),
            live_only: newest,
            max: CHUNK,
        };
        index.scan(from.as_ref().map(|key| &key[..]), &scan, &mut slots);
        drop(index);
        let Some(last) = slots.last() else { return };
        let mut next = Bound::Excluded(last.key().to_vec());
        let mut realm: Option<Vec<u8>> = None;
        for slot in &slots {
            if realm.as_ref().is_some_and(|end| slot.key() < &end[..]) {
                continue;
            }
            let (name, deeper) = child(slot.key(), prefix);
            realm = deeper;
            let is_node = realm.is_none() && tree::is_path(slot.key());
            if is_node && (newest || slot.live_at(revision.0).is_some()) {
                names.push(name);
            }
        }
        // A realm that reaches beyond the chunk is stepped over as a whole.
        if let Some(end) = realm.filter(|end| last.key() < &end[..]) {
            next = Bound::Included(end);
        }
        from = next;
    }
}
