//! The key space: fixed-size names that sort as their numbers do.

use anyhow::ensure;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

/// `count` keys of `bytes` bytes each: the prefix, then the number with leading zeros.
#[derive(Debug, Clone)]
pub struct KeySpace {
    prefix: String,
    digits: usize,
    count: u64,
}

impl KeySpace {
    /// Fails when the numbers do not fit into the keys.
    pub fn new(prefix: &str, bytes: usize, count: u64) -> anyhow::Result<Self> {
        ensure!(count > 0, "the key space must have at least one key");
        let needed = prefix.len() + (count - 1).to_string().len();
        ensure!(
            bytes >= needed,
            "{count} keys behind the prefix {prefix:?} need a --key-size of at least {needed}"
        );
        Ok(Self {
            prefix: prefix.to_owned(),
            digits: bytes - prefix.len(),
            count,
        })
    }

    /// How many keys there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The key with this number, which must be below [`KeySpace::count`].
    pub fn key(&self, number: u64) -> Bytes {
        assert!(number < self.count, "key {number} of {}", self.count);
        let mut key = Vec::with_capacity(self.prefix.len() + self.digits);
        key.extend_from_slice(self.prefix.as_bytes());
        key.resize(self.prefix.len() + self.digits, b'0');
        let mut rest = number;
        for digit in key[self.prefix.len()..].iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key.into()
    }

    /// The end of a range that begins at `key(0)` and holds every key.
    pub fn end(&self) -> Bytes {
        let mut end = self.key(self.count - 1).to_vec();
        end.push(0);
        end.into()
    }
}

/// What is above a path.
pub fn parent_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

/// A value that does not compress.
pub fn random_value(rng: &mut SmallRng, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    rng.fill_bytes(&mut value);
    value.into()
}

/// In which order a client walks the key space.
#[derive(Debug, Clone)]
pub enum Order {
    /// Any key, each with the same chance.
    Random(SmallRng),
    /// From `next` on in steps, so that several connections share the space; then again.
    Sequential {
        /// The number of the next key.
        next: u64,
        /// The number of connections.
        step: u64,
    },
    /// Each of a range once.
    Once(std::ops::Range<u64>),
}

impl Order {
    /// One key, again and again.
    pub fn one_key() -> Self {
        Self::Sequential { next: 0, step: 0 }
    }

    /// The number of the next key among `count`; none when each had its turn.
    pub fn pick(&mut self, count: u64) -> Option<u64> {
        match self {
            Self::Random(rng) => Some(rng.random_range(0..count)),
            Self::Sequential { next, step } => {
                let number = *next % count;
                *next = next.wrapping_add(*step);
                Some(number)
            }
            Self::Once(range) => range.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    #[test]
    fn keys_have_one_size_and_sort_by_number() {
        let keys = KeySpace::new("b/", 6, 10_000).expect("fits");
        assert_eq!(keys.key(0), "b/0000");
        assert_eq!(keys.key(907), "b/0907");
        assert_eq!(keys.key(9_999), "b/9999");
        assert!(keys.key(9_999) < keys.end());
        let sorted: BTreeSet<_> = (0..keys.count()).map(|n| keys.key(n)).collect();
        assert!(
            sorted
                .iter()
                .cloned()
                .eq((0..keys.count()).map(|n| keys.key(n)))
        );
    }

    #[test]
    fn a_key_size_that_cannot_name_every_key_is_refused() {
        assert!(KeySpace::new("b/", 5, 10_000).is_err());
        assert!(KeySpace::new("", 8, 0).is_err());
        assert!(KeySpace::new("", 1, 10).is_ok());
        assert!(KeySpace::new("", 1, 11).is_err());
    }

    #[test]
    fn parents_end_before_the_last_name() {
        for (path, parent) in [("/a", "/"), ("/a/b", "/a"), ("/a/b/c", "/a/b")] {
            assert_eq!(parent_of(path.as_bytes()), parent.as_bytes());
        }
    }

    #[test]
    fn sequential_connections_cover_the_space_without_overlap() {
        let mut seen: Vec<u64> = (0..3)
            .flat_map(|first| {
                let mut order = Order::Sequential {
                    next: first,
                    step: 3,
                };
                (0..3).filter_map(move |_| order.pick(9))
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn random_keys_stay_in_the_space_and_reach_all_of_it() {
        let mut order = Order::Random(SmallRng::seed_from_u64(1));
        let seen: BTreeSet<_> = (0..1_000).map(|_| order.pick(10)).collect();
        assert_eq!(seen, (0..10).map(Some).collect());
    }
}
