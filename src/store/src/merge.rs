//! Increments laid over an image while both are read in key order.

use std::iter::Peekable;

use crate::{Fault, Record};

/// The records of `image` and `over`, both in key order; where both have a key, that of `over`.
pub(crate) struct Merge<A: Iterator, B: Iterator> {
    image: Peekable<A>,
    over: Peekable<B>,
}

impl<A, B> Merge<A, B>
where
    A: Iterator<Item = Result<Record, Fault>>,
    B: Iterator<Item = Result<Record, Fault>>,
{
    pub(crate) fn new(image: A, over: B) -> Self {
        Merge {
            image: image.peekable(),
            over: over.peekable(),
        }
    }
}

impl<A, B> Iterator for Merge<A, B>
where
    A: Iterator<Item = Result<Record, Fault>>,
    B: Iterator<Item = Result<Record, Fault>>,
{
    type Item = Result<Record, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let (Some(below), Some(over)) = (self.image.peek(), self.over.peek()) else {
            return self.over.next().or_else(|| self.image.next());
        };
        match (below, over) {
            (Ok(below), Ok(over)) if below.key < over.key => self.image.next(),
            (Ok(below), Ok(over)) => {
                if below.key == over.key {
                    self.image.next();
                }
                self.over.next()
            }
            (Err(_), _) => self.image.next(),
            (Ok(_), Err(_)) => self.over.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (image, _) = self.image.size_hint();
        let (over, _) = self.over.size_hint();
        (image.max(over), None)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn records(pairs: &[(&'static str, &'static str)]) -> Vec<Result<Record, Fault>> {
        let record = |&(key, value): &(&'static str, &'static str)| {
            Ok(Record {
                key: Bytes::from_static(key.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            })
        };
        pairs.iter().map(record).collect()
    }

    #[test]
    fn increment_replaces_and_adds_in_key_order() {
        let image = records(&[("b", "1"), ("d", "1"), ("e", "1")]);
        let over = records(&[("a", "2"), ("d", "2"), ("f", "2")]);
        let merged: Vec<_> = Merge::new(image.into_iter(), over.into_iter()).collect();
        let expected = records(&[("a", "2"), ("b", "1"), ("d", "2"), ("e", "1"), ("f", "2")]);
        assert_eq!(merged, expected);
    }
}
