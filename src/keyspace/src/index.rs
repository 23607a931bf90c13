//! The ordered index: a B+-tree of slots whose branches know how many live keys lie beneath, so that
//! counting a span, finding the n-th key and seeking all cost O(log n).
//!
//! Keys whose newest version is a tombstone stay in the tree, not counted as live, until compaction
//! drops them: reads of older revisions still find them.

use crate::slot::Slot;
use std::ops::Bound;

/// Slots in a leaf, children in a branch. 64, so that one word holds a leaf's live bits.
const FANOUT: usize = 64;
/// A node that shrinks below this is merged with a neighbour if both fit well into one.
const SPARSE: usize = FANOUT / 4;
const MERGED_MAX: usize = FANOUT * 3 / 4;

/// The tree.
pub(crate) struct Index {
    root: Node,
}

enum Node {
    Leaf(Box<Leaf>),
    Branch(Box<Branch>),
}

#[derive(Default)]
struct Leaf {
    slots: Vec<Slot>,
    /// Bit i says whether slot i is live.
    live: u64,
}

struct Branch {
    /// The keys of child i are >= separator i-1 and < separator i. Separators are the shortest
    /// prefixes that tell two neighbours apart.
    separators: Vec<Box<[u8]>>,
    children: Vec<Node>,
    /// Live keys beneath each child.
    live: Vec<usize>,
}

/// The right half of a node that was split, and the separator between the halves.
type Split = Option<(Box<[u8]>, Node)>;

/// The lowest `bits` bits.
fn low_bits(bits: usize) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// The shortest key k with `left` < k <= `right`.
fn separator(left: &[u8], right: &[u8]) -> Box<[u8]> {
    let common = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    right[..=common].into()
}

impl Leaf {
    fn insert(&mut self, slot: Slot, live: bool) -> Split {
        let place = self.slots.partition_point(|other| other < &slot);
        if self.slots.len() < FANOUT {
            self.insert_at(place, slot, live);
            return None;
        }
        // Ascending inserts would leave half-empty leaves behind if a full one were cut in halves.
        let middle = if place == FANOUT { FANOUT } else { FANOUT / 2 };
        let mut right = Leaf {
            slots: self.slots.split_off(middle),
            live: self.live.checked_shr(middle as u32).unwrap_or(0),
        };
        self.live &= low_bits(middle);
        if place < middle {
            self.insert_at(place, slot, live);
        } else {
            right.insert_at(place - middle, slot, live);
        }
        let last = self
            .slots
            .last()
            .expect("both halves of a split hold slots");
        let between = separator(last.key(), right.slots[0].key());
        Some((between, Node::Leaf(Box::new(right))))
    }

    fn insert_at(&mut self, place: usize, slot: Slot, live: bool) {
        let below = self.live & low_bits(place);
        self.live = (self.live & !low_bits(place)) << 1 | u64::from(live) << place | below;
        self.slots.insert(place, slot);
    }

    fn remove_at(&mut self, place: usize) {
        let below = self.live & low_bits(place);
        self.live = self.live >> 1 & !low_bits(place) | below;
        self.slots.remove(place);
    }

    fn place(&self, key: &[u8]) -> Option<usize> {
        self.slots.binary_search_by(|slot| slot.key().cmp(key)).ok()
    }
}

impl Branch {
    fn child(&self, key: &[u8]) -> usize {
        self.separators
            .partition_point(|separator| &separator[..] <= key)
    }

    fn insert(&mut self, slot: Slot, live: bool) -> Split {
        let i = self.child(slot.key());
        self.live[i] += usize::from(live);
        let (between, right) = self.children[i].insert(slot, live)?;
        self.live[i] = self.children[i].live();
        self.separators.insert(i, between);
        self.live.insert(i + 1, right.live());
        self.children.insert(i + 1, right);
        if self.children.len() <= FANOUT {
            return None;
        }
        let middle = if i + 2 == self.children.len() {
            self.children.len() - 1
        } else {
            self.children.len() / 2
        };
        let right = Branch {
            separators: self.separators.split_off(middle),
            children: self.children.split_off(middle),
            live: self.live.split_off(middle),
        };
        let between = self
            .separators
            .pop()
            .expect("one separator lies between the halves");
        Some((between, Node::Branch(Box::new(right))))
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let i = self.child(key);
        if !self.children[i].remove(key) {
            return false;
        }
        self.live[i] = self.children[i].live();
        let size = self.children[i].size();
        if size == 0 {
            self.children.remove(i);
            self.live.remove(i);
            if !self.separators.is_empty() {
                self.separators.remove(i.saturating_sub(1));
            }
        } else if size < SPARSE {
            let left = if i > 0 { i - 1 } else { i };
            let fits = |right: &Node| self.children[left].size() + right.size() <= MERGED_MAX;
            if self.children.get(left + 1).is_some_and(fits) {
                self.merge(left);
            }
        }
        true
    }

    fn merge(&mut self, left: usize) {
        let right = self.children.remove(left + 1);
        self.live[left] += self.live.remove(left + 1);
        let between = self.separators.remove(left);
        match (&mut self.children[left], right) {
            (Node::Leaf(left), Node::Leaf(mut right)) => {
                left.live |= right.live << left.slots.len();
                left.slots.append(&mut right.slots);
            }
            (Node::Branch(left), Node::Branch(mut right)) => {
                left.separators.push(between);
                left.separators.append(&mut right.separators);
                left.children.append(&mut right.children);
                left.live.append(&mut right.live);
            }
            (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {
                unreachable!("siblings are of one height")
            }
        }
    }
}

impl Node {
    fn size(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.slots.len(),
            Node::Branch(branch) => branch.children.len(),
        }
    }

    fn live(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.live.count_ones() as usize,
            Node::Branch(branch) => branch.live.iter().sum(),
        }
    }

    fn insert(&mut self, slot: Slot, live: bool) -> Split {
        match self {
            Node::Leaf(leaf) => leaf.insert(slot, live),
            Node::Branch(branch) => branch.insert(slot, live),
        }
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.place(key).map(|place| leaf.remove_at(place)).is_some(),
            Node::Branch(branch) => branch.remove(key),
        }
    }

    /// Returns whether the bit was different.
    fn set_live(&mut self, key: &[u8], live: bool) -> bool {
        match self {
            Node::Leaf(leaf) => {
                let Some(place) = leaf.place(key) else {
                    return false;
                };
                let before = leaf.live;
                leaf.live = before & !(1 << place) | u64::from(live) << place;
                leaf.live != before
            }
            Node::Branch(branch) => {
                let i = branch.child(key);
                let changed = branch.children[i].set_live(key, live);
                if changed && live {
                    branch.live[i] += 1;
                } else if changed {
                    branch.live[i] -= 1;
                }
                changed
            }
        }
    }

    /// See [`Index::scan`]. Returns whether the scan is over.
    fn scan(&self, from: Bound<&[u8]>, scan: &Scan, out: &mut Vec<Slot>) -> bool {
        match self {
            Node::Leaf(leaf) => {
                let start = match from {
                    Bound::Included(key) => leaf.slots.partition_point(|slot| slot.key() < key),
                    Bound::Excluded(key) => leaf.slots.partition_point(|slot| slot.key() <= key),
                    Bound::Unbounded => 0,
                };
                for (place, slot) in leaf.slots.iter().enumerate().skip(start) {
                    if out.len() >= scan.max || scan.before.is_some_and(|end| slot.key() >= end) {
                        return true;
                    }
                    if !scan.live_only || leaf.live >> place & 1 == 1 {
                        out.push(slot.clone());
                    }
                }
                false
            }
            Node::Branch(branch) => {
                let first = match from {
                    Bound::Included(key) | Bound::Excluded(key) => branch.child(key),
                    Bound::Unbounded => 0,
                };
                for i in first..branch.children.len() {
                    let beyond = |end| i > first && &branch.separators[i - 1][..] >= end;
                    if scan.before.is_some_and(beyond) {
                        return true;
                    }
                    if scan.live_only && branch.live[i] == 0 {
                        continue;
                    }
                    let from = if i == first { from } else { Bound::Unbounded };
                    if branch.children[i].scan(from, scan, out) {
                        return true;
                    }
                }
                false
            }
        }
    }
}

/// What [`Index::scan`] gathers, and where it stops.
pub(crate) struct Scan<'a> {
    /// Only keys below this one.
    pub before: Option<&'a [u8]>,
    /// Leave out keys whose newest version is a tombstone.
    pub live_only: bool,
    /// Stop when this many are gathered.
    pub max: usize,
}

impl Index {
    pub fn new() -> Index {
        Index {
            root: Node::Leaf(Box::default()),
        }
    }

    /// Adds a slot whose key is not there yet.
    pub fn insert(&mut self, slot: Slot, live: bool) {
        let Some((between, right)) = self.root.insert(slot, live) else {
            return;
        };
        let left = std::mem::replace(&mut self.root, Node::Leaf(Box::default()));
        self.root = Node::Branch(Box::new(Branch {
            separators: vec![between],
            live: vec![left.live(), right.live()],
            children: vec![left, right],
        }));
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: &[u8]) {
        self.root.remove(key);
        while let Node::Branch(branch) = &mut self.root
            && branch.children.len() <= 1
        {
            self.root = branch
                .children
                .pop()
                .unwrap_or_else(|| Node::Leaf(Box::default()));
        }
    }

    /// Says whether a key's newest version is a value or a tombstone.
    pub fn set_live(&mut self, key: &[u8], live: bool) {
        self.root.set_live(key, live);
    }

    /// Number of live keys.
    pub fn live(&self) -> usize {
        self.root.live()
    }

    /// Number of live keys below `key`.
    pub fn rank(&self, key: &[u8]) -> usize {
        let mut node = &self.root;
        let mut below = 0;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let place = leaf.slots.partition_point(|slot| slot.key() < key);
                    return below + (leaf.live & low_bits(place)).count_ones() as usize;
                }
                Node::Branch(branch) => {
                    let i = branch.child(key);
                    below += branch.live[..i].iter().sum::<usize>();
                    node = &branch.children[i];
                }
            }
        }
    }

    /// Number of live keys from `start` on and below `before`.
    pub fn count(&self, start: &[u8], before: Option<&[u8]>) -> usize {
        let end = before.map_or_else(|| self.live(), |before| self.rank(before));
        end.saturating_sub(self.rank(start))
    }

    /// The live key of this rank.
    pub fn nth_live(&self, rank: usize) -> Option<&Slot> {
        let mut node = &self.root;
        let mut left = rank;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let live = |place: &usize| leaf.live >> place & 1 == 1;
                    let place = (0..leaf.slots.len()).filter(live).nth(left)?;
                    return leaf.slots.get(place);
                }
                Node::Branch(branch) => {
                    let mut i = 0;
                    while left >= *branch.live.get(i)? {
                        left -= branch.live[i];
                        i += 1;
                    }
                    node = &branch.children[i];
                }
            }
        }
    }

    /// Appends slots in key order to `out`.
    pub fn scan(&self, from: Bound<&[u8]>, scan: &Scan, out: &mut Vec<Slot>) {
        self.root.scan(from, scan, out);
    }
}

/// Builds a tree of slots that come in key order: full leaves first, then the branches over them
/// level by level, so that every count is made once.
#[derive(Default)]
pub(crate) struct Builder {
    leaves: Vec<Leaf>,
    /// What is between each leaf and the next, the one being filled as well.
    separators: Vec<Box<[u8]>>,
    /// The leaf being filled.
    leaf: Leaf,
}

impl Builder {
    /// The slot with the lowest key.
    pub fn first(&self) -> Option<&Slot> {
        self.leaves.first().unwrap_or(&self.leaf).slots.first()
    }

    /// The slot with the highest key.
    pub fn last(&self) -> Option<&Slot> {
        self.leaf.slots.last()
    }

    /// Adds a slot whose key is above all others.
    pub fn push(&mut self, slot: Slot, live: bool) {
        if self.leaf.slots.len() == FANOUT {
            self.close_leaf(&slot);
        }
        if self.leaf.slots.is_empty() {
            self.leaf.slots.reserve_exact(FANOUT);
        }
        self.leaf.live |= u64::from(live) << self.leaf.slots.len();
        self.leaf.slots.push(slot);
    }

    /// Adds all slots of another, whose keys are above all of this one's.
    pub fn append(&mut self, mut next: Builder) {
        if let Some(first) = next.first().cloned() {
            self.close_leaf(&first);
            self.leaves.append(&mut next.leaves);
            self.separators.append(&mut next.separators);
            self.leaf = next.leaf;
        }
    }

    /// Ends the leaf before `next`.
    fn close_leaf(&mut self, next: &Slot) {
        if let Some(last) = self.last() {
            self.separators.push(separator(last.key(), next.key()));
            self.leaves.push(std::mem::take(&mut self.leaf));
        }
    }

    pub fn finish(mut self) -> Index {
        self.leaves.push(self.leaf);
        let leaves = self.leaves.into_iter();
        let mut nodes: Vec<Node> = leaves.map(|leaf| Node::Leaf(Box::new(leaf))).collect();
        let mut separators = self.separators;
        while nodes.len() > 1 {
            (nodes, separators) = branches(nodes, separators);
        }
        let root = nodes.pop().expect("there is a leaf at least");
        Index { root }
    }
}

/// The branches over nodes with these separators between them, and what is between the branches.
fn branches(nodes: Vec<Node>, separators: Vec<Box<[u8]>>) -> (Vec<Node>, Vec<Box<[u8]>>) {
    let (mut branches, mut between) = (Vec::new(), Vec::new());
    let (mut nodes, mut separators) = (nodes.into_iter(), separators.into_iter());
    while nodes.len() > 0 {
        let children: Vec<Node> = nodes.by_ref().take(FANOUT).collect();
        let branch = Branch {
            separators: separators.by_ref().take(children.len() - 1).collect(),
            live: children.iter().map(Node::live).collect(),
            children,
        };
        branches.push(Node::Branch(Box::new(branch)));
        between.extend(separators.next());
    }
    (branches, between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Birth, Figures, Stored};
    use crate::types::WallMs;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn slot(key: &[u8]) -> Slot {
        let figures = Figures::tombstone(1, 0, WallMs(0), 0);
        let birth = Birth {
            wall: WallMs(0),
            event: 0,
        };
        Slot::new(key, Stored::new(&figures, birth, b""))
    }

    fn keys(slots: &[Slot]) -> Vec<&[u8]> {
        slots.iter().map(Slot::key).collect()
    }

    /// Checks every count, bound and separator beneath; returns the number of leaves.
    fn check(node: &Node, low: Option<&[u8]>, high: Option<&[u8]>) -> usize {
        match node {
            Node::Leaf(leaf) => {
                assert!(leaf.slots.len() <= FANOUT);
                assert_eq!(
                    leaf.live & !low_bits(leaf.slots.len()),
                    0,
                    "stray live bits"
                );
                assert!(leaf.slots.is_sorted());
                for slot in &leaf.slots {
                    assert!(low.is_none_or(|low| low <= slot.key()));
                    assert!(high.is_none_or(|high| slot.key() < high));
                }
                1
            }
            Node::Branch(branch) => {
                assert!((1..=FANOUT).contains(&branch.children.len()));
                assert_eq!(branch.separators.len() + 1, branch.children.len());
                let lives: Vec<usize> = branch.children.iter().map(Node::live).collect();
                assert_eq!(lives, branch.live);
                let mut leaves = 0;
                for (i, child) in branch.children.iter().enumerate() {
                    let low = if i == 0 {
                        low
                    } else {
                        Some(&branch.separators[i - 1][..])
                    };
                    let high = branch
                        .separators
                        .get(i)
                        .map_or(high, |high| Some(&high[..]));
                    leaves += check(child, low, high);
                }
                leaves
            }
        }
    }

    #[test]
    fn ascending_inserts_fill_their_leaves() {
        let mut index = Index::new();
        for i in 0..64 * 200 {
            index.insert(slot(format!("key/{i:08}").as_bytes()), true);
        }
        assert_eq!(check(&index.root, None, None), 200);
    }

    #[test]
    fn built_trees_are_as_if_inserted() {
        for keys in [
            0_usize,
            1,
            63,
            64,
            65,
            64 * 64,
            64 * 64 + 1,
            64 * 64 * 64 + 64,
        ] {
            let mut builder = Builder::default();
            for i in 0..keys {
                builder.push(slot(format!("key/{i:08}").as_bytes()), i % 3 == 0);
            }
            let mut index = builder.finish();
            assert_eq!(check(&index.root, None, None), keys.div_ceil(64).max(1));
            assert_eq!(index.live(), keys.div_ceil(3));
            // Full nodes must still split.
            for i in 0..keys.min(1000) {
                index.insert(slot(format!("key/{i:08}+").as_bytes()), true);
            }
            check(&index.root, None, None);
            assert_eq!(index.live(), keys.div_ceil(3) + keys.min(1000));
        }
    }

    #[test]
    fn removing_everything_leaves_an_empty_tree() {
        let mut index = Index::new();
        let key = |i: u32| (i.wrapping_mul(2_654_435_761)).to_be_bytes();
        for i in 0..20_000 {
            index.insert(slot(&key(i)), i % 2 == 0);
        }
        assert_eq!(index.live(), 10_000);
        for i in 0..20_000 {
            index.remove(&key(i));
            if i % 1_000 == 0 {
                check(&index.root, None, None);
            }
        }
        assert_eq!(check(&index.root, None, None), 1);
        assert_eq!(index.root.size(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, bool),
        Remove(Vec<u8>),
        Live(Vec<u8>, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Few distinct bytes make prefixes of each other; up to five make thousands of keys.
        let key = || prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', 255]), 0..6);
        let step = prop_oneof![
            6 => (key(), any::<bool>()).prop_map(|(key, live)| Step::Insert(key, live)),
            3 => key().prop_map(Step::Remove),
            1 => (key(), any::<bool>()).prop_map(|(key, live)| Step::Live(key, live)),
        ];
        prop::collection::vec(step, 0..3_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        /// The tree against a sorted map.
        #[test]
        fn agrees_with_a_sorted_map(steps in steps(), start: Vec<u8>, end: Vec<u8>) {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(key, live) => {
                        model.entry(key.clone()).or_insert_with(|| {
                            index.insert(slot(&key), live);
                            live
                        });
                    }
                    Step::Remove(key) => {
                        index.remove(&key);
                        model.remove(&key);
                    }
                    Step::Live(key, live) => {
                        index.set_live(&key, live);
                        model.entry(key).and_modify(|l| *l = live);
                    }
                }
            }
            check(&index.root, None, None);
            // In two parts, of which either may be empty.
            let (mut builder, mut next) = (Builder::default(), Builder::default());
            for (key, live) in &model {
                let part = if key < &start { &mut builder } else { &mut next };
                part.push(slot(key), *live);
            }
            builder.append(next);
            for index in [index, builder.finish()] {
            check(&index.root, None, None);
            let live: Vec<&[u8]> = model.iter().filter(|(_, l)| **l).map(|(k, _)| &k[..]).collect();
            prop_assert_eq!(index.live(), live.len());
            let within = |key: &&&[u8]| &start[..] <= **key && **key < &end[..];
            prop_assert_eq!(index.count(&start, Some(&end)), live.iter().filter(within).count());
            for (rank, key) in live.iter().enumerate() {
                prop_assert_eq!(index.nth_live(rank).map(Slot::key), Some(*key));
                prop_assert_eq!(index.rank(key), rank);
            }
            prop_assert!(index.nth_live(live.len()).is_none());
            let mut found = Vec::new();
            let scan = Scan { before: Some(&end), live_only: true, max: usize::MAX };
            index.scan(Bound::Included(&start), &scan, &mut found);
            prop_assert_eq!(keys(&found), live.iter().filter(within).copied().collect::<Vec<_>>());
            let mut found = Vec::new();
            let scan = Scan { before: None, live_only: false, max: 7 };
            index.scan(Bound::Excluded(&start), &scan, &mut found);
            let after: Vec<&[u8]> =
                model.keys().map(|k| &k[..]).filter(|k| *k > &start[..]).take(7).collect();
            prop_assert_eq!(keys(&found), after);
            }
        }
    }
}
