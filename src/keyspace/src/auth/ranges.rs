//! Sets of keys that are made of few ranges.

use crate::types::{End, Span};
use bytes::Bytes;

/// Ranges of keys in their order, which neither meet nor touch: each from its start up to, not
/// including, its end; the last one's may be none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(Bytes, Option<Bytes>)>);

impl Ranges {
    /// All keys of spans that come in the order of their starts.
    pub fn of<'s>(spans: impl Iterator<Item = &'s Span>) -> Ranges {
        let mut ranges: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        for span in spans {
            let end = match &span.end {
                End::Single => Some(Bytes::from([&span.start[..], b"\0"].concat())),
                End::Before(end) => Some(end.clone()),
                End::Unbounded => None,
            };
            match ranges.last_mut() {
                Some((_, last)) if reaches(last.as_deref(), Some(&span.start)) => {
                    if reaches(end.as_deref(), last.as_deref()) {
                        *last = end;
                    }
                }
                Some(_) | None => ranges.push((span.start.clone(), end)),
            }
        }
        Ranges(ranges)
    }

    /// Where the range ends that a key lies in, which may be nowhere; none if it lies in none.
    fn end_around(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let next = self.0.partition_point(|(start, _)| start[..] <= *key);
        let (_, end) = self.0.get(next.checked_sub(1)?)?;
        let end = end.as_deref();
        end.is_none_or(|end| key < end).then_some(end)
    }

    pub fn contain(&self, key: &[u8]) -> bool {
        self.end_around(key).is_some()
    }
}

/// Whether an end is not before another; none is after all.
fn reaches(end: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (end, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(end), Some(other)) => end >= other,
    }
}

/// Whether several sets together hold all keys of a span: each step goes as far as one of them does.
pub(crate) fn cover<'r>(sets: impl Iterator<Item = &'r Ranges> + Clone, span: &Span) -> bool {
    let end = match &span.end {
        End::Single => return sets.into_iter().any(|set| set.contain(&span.start)),
        End::Before(end) => Some(&end[..]),
        End::Unbounded => None,
    };
    let mut at = &span.start[..];
    loop {
        let around = sets.clone().filter_map(|set| set.end_around(at));
        let furthest = around.reduce(|a, b| if reaches(a, b) { a } else { b });
        match furthest {
            None => return false,
            Some(furthest) if reaches(furthest, end) => return true,
            Some(None) => unreachable!("what has no end reaches all"),
            Some(Some(furthest)) => at = furthest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` is a key, `a-c` and `a-` are spans.
    fn span(text: &'static str) -> Span {
        match text.split_once('-') {
            None => Span::single(text),
            Some((start, end)) => Span {
                start: start.into(),
                end: match end {
                    "" => End::Unbounded,
                    end => End::Before(end.into()),
                },
            },
        }
    }

    fn ranges(text: &'static str) -> Ranges {
        let spans: Vec<Span> = text.split_whitespace().map(span).collect();
        Ranges::of(spans.iter())
    }

    #[test]
    fn what_meets_becomes_one() {
        for (spans, count) in [
            ("", 0),
            ("a b c", 3),
            ("a a\0", 1),
            ("a-c b-d", 1),
            ("a-c c-d", 1),
            ("a-d b-c d", 1),
            ("a-c d-e", 2),
            ("a- b-c d", 1),
        ] {
            assert_eq!(ranges(spans).0.len(), count, "{spans}");
        }
    }

    #[test]
    fn sets_cover_together() {
        for (sets, wanted, covered) in [
            (["a-c", ""], "b", true),
            (["a-c", ""], "c", false),
            (["a-c", ""], "a-c", true),
            (["a-c", "c-e"], "a-e", true),
            (["a-c", "d-e"], "a-e", false),
            (["a c-e", "a\0-c"], "a-d", true),
            (["a-c", "b-"], "a-", true),
            (["a-c", "d-"], "a-", false),
            (["a-z", ""], "a-", false),
            (["", ""], "a", false),
            // No key is there, but its own start is asked for.
            (["a-c", ""], "b-a", true),
            (["a-c", ""], "d-a", false),
        ] {
            let sets = sets.map(ranges);
            assert_eq!(cover(sets.iter(), &span(wanted)), covered, "{wanted}");
        }
    }
}
