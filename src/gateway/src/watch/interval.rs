//! A set of key ranges that answers which of them hold a key, in O(log n + answers).
//!
//! A treap ordered by (start, end); every node knows the greatest end beneath it, so that a search
//! skips subtrees that end before the key. Equal ranges share a node: a thousand clients that watch
//! one prefix cost one comparison.

use bytes::Bytes;
use std::cmp::Ordering;

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Unbounded,
}

impl Limit {
    fn is_past(&self, key: &[u8]) -> bool {
        match self {
            Limit::Before(end) => key < &end[..],
            Limit::Unbounded => true,
        }
    }
}

impl Ord for Limit {
    fn cmp(&self, other: &Limit) -> Ordering {
        match (self, other) {
            (Limit::Before(a), Limit::Before(b)) => a.cmp(b),
            (Limit::Before(_), Limit::Unbounded) => Ordering::Less,
            (Limit::Unbounded, Limit::Before(_)) => Ordering::Greater,
            (Limit::Unbounded, Limit::Unbounded) => Ordering::Equal,
        }
    }
}

impl PartialOrd for Limit {
    fn partial_cmp(&self, other: &Limit) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

type Link<V> = Option<Box<Node<V>>>;

/// The set. Several values may lie at one range.
#[derive(Debug)]
pub struct Intervals<V> {
    root: Link<V>,
    /// Where the priorities stand. They begin at random, or a client that knew them could choose
    /// its ranges so that the tree became a list.
    priorities: u64,
}

#[derive(Debug)]
struct Node<V> {
    start: Bytes,
    end: Limit,
    /// The greatest `end` in this subtree.
    reach: Limit,
    /// Keeps the tree balanced: a parent's is never less than its children's.
    priority: u64,
    values: Vec<V>,
    left: Link<V>,
    right: Link<V>,
}

impl<V> Default for Intervals<V> {
    fn default() -> Self {
        Intervals {
            root: None,
            priorities: rand::random(),
        }
    }
}

impl<V> Intervals<V> {
    /// Puts `value` at the range from `start` to `end`.
    pub fn insert(&mut self, start: Bytes, end: Limit, value: V) {
        self.priorities = self.priorities.wrapping_add(1);
        let node = Box::new(Node {
            reach: end.clone(),
            start,
            end,
            priority: scatter(self.priorities),
            values: vec![value],
            left: None,
            right: None,
        });
        self.root = Some(insert(self.root.take(), node));
    }

    /// Removes the values at exactly this range that `is_it` picks.
    pub fn remove(&mut self, start: &[u8], end: &Limit, is_it: impl Fn(&V) -> bool) {
        self.root = remove(self.root.take(), start, end, &is_it);
    }

    /// Shows every value whose range holds `key`.
    pub fn stab(&self, key: &[u8], mut show: impl FnMut(&V)) {
        stab(&self.root, key, &mut show);
    }

    /// Shows every value.
    pub fn each(&self, mut show: impl FnMut(&V)) {
        each(&self.root, &mut show);
    }
}

/// Spreads consecutive numbers over all of u64 (the finalizer of splitmix64), so that the tree's
/// shape does not follow the order in which clients come.
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<V> Node<V> {
    fn order(&self, start: &[u8], end: &Limit) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    fn measure(&mut self) {
        let reach = [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|child| &child.reach)
            .fold(&self.end, std::cmp::Ord::max)
            .clone();
        self.reach = reach;
    }
}

fn insert<V>(link: Link<V>, mut new: Box<Node<V>>) -> Box<Node<V>> {
    let Some(mut node) = link else {
        return new;
    };
    match node.order(&new.start, &new.end) {
        Ordering::Equal => node.values.append(&mut new.values),
        Ordering::Less => {
            let left = insert(node.left.take(), new);
            if left.priority > node.priority {
                return rotate_right(node, left);
            }
            node.left = Some(left);
        }
        Ordering::Greater => {
            let right = insert(node.right.take(), new);
            if right.priority > node.priority {
                return rotate_left(node, right);
            }
            node.right = Some(right);
        }
    }
    node.measure();
    node
}

fn rotate_right<V>(mut node: Box<Node<V>>, mut left: Box<Node<V>>) -> Box<Node<V>> {
    node.left = left.right.take();
    node.measure();
    left.right = Some(node);
    left.measure();
    left
}

fn rotate_left<V>(mut node: Box<Node<V>>, mut right: Box<Node<V>>) -> Box<Node<V>> {
    node.right = right.left.take();
    node.measure();
    right.left = Some(node);
    right.measure();
    right
}

fn remove<V>(link: Link<V>, start: &[u8], end: &Limit, is_it: &impl Fn(&V) -> bool) -> Link<V> {
    let mut node = link?;
    match node.order(start, end) {
        Ordering::Equal => {
            node.values.retain(|value| !is_it(value));
            if node.values.is_empty() {
                return join(node.left.take(), node.right.take());
            }
        }
        Ordering::Less => node.left = remove(node.left.take(), start, end, is_it),
        Ordering::Greater => node.right = remove(node.right.take(), start, end, is_it),
    }
    node.measure();
    Some(node)
}

/// Joins two trees, all of `left` lying before all of `right`.
fn join<V>(left: Link<V>, right: Link<V>) -> Link<V> {
    match (left, right) {
        (None, only) | (only, None) => only,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = join(left.right.take(), Some(right));
                left.measure();
                Some(left)
            } else {
                right.left = join(Some(left), right.left.take());
                right.measure();
                Some(right)
            }
        }
    }
}

fn stab<V>(link: &Link<V>, key: &[u8], show: &mut impl FnMut(&V)) {
    let Some(node) = link else { return };
    if !node.reach.is_past(key) {
        return;
    }
    stab(&node.left, key, show);
    if node.start[..] <= *key {
        if node.end.is_past(key) {
            node.values.iter().for_each(&mut *show);
        }
        stab(&node.right, key, show);
    }
}

fn each<V>(link: &Link<V>, show: &mut impl FnMut(&V)) {
    if let Some(node) = link {
        each(&node.left, show);
        node.values.iter().for_each(&mut *show);
        each(&node.right, show);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Bytes, Limit),
        Remove(usize),
        Stab(Bytes),
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop::sample::select(b"ab\x00\xff".as_slice()), 0..4)
            .prop_map(Bytes::from)
    }

    fn step() -> impl Strategy<Value = Step> {
        let limit = prop_oneof![
            4 => key().prop_map(Limit::Before),
            1 => Just(Limit::Unbounded),
        ];
        prop_oneof![
            3 => (key(), limit).prop_map(|(start, end)| Step::Insert(start, end)),
            1 => any::<usize>().prop_map(Step::Remove),
            3 => key().prop_map(Step::Stab),
        ]
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn stabbing_finds_what_a_list_finds(steps in prop::collection::vec(step(), 1..200)) {
            let mut tree = Intervals::default();
            let mut list: Vec<(Bytes, Limit, usize)> = Vec::new();
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(start, end) => {
                        tree.insert(start.clone(), end.clone(), id);
                        list.push((start, end, id));
                    }
                    Step::Remove(_) if list.is_empty() => {}
                    Step::Remove(nth) => {
                        let (start, end, gone) = list.swap_remove(nth % list.len());
                        tree.remove(&start, &end, |&id| id == gone);
                    }
                    Step::Stab(key) => {
                        let mut found = Vec::new();
                        tree.stab(&key, |&id| found.push(id));
                        found.sort_unstable();
                        let mut expected: Vec<_> = list
                            .iter()
                            .filter(|(start, end, _)| *start <= key && end.is_past(&key))
                            .map(|&(_, _, id)| id)
                            .collect();
                        expected.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
                }
            }
            let mut all = 0;
            tree.each(|_| all += 1);
            prop_assert_eq!(all, list.len());
        }
    }

    #[test]
    fn neighbours_in_order_do_not_make_a_list_of_the_tree() {
        let mut tree = Intervals::default();
        for n in 0..10_000u32 {
            let start = Bytes::copy_from_slice(&n.to_be_bytes());
            let end = Limit::Before(Bytes::copy_from_slice(&(n + 1).to_be_bytes()));
            tree.insert(start, end, n);
        }
        fn depth<V>(link: &Link<V>) -> usize {
            link.as_ref()
                .map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
        }
        assert!(depth(&tree.root) < 60, "depth {}", depth(&tree.root));
    }
}
