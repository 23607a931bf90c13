//! From slices to figures: medians, and the ratio of two contenders that took turns.

use serde::Serialize;

/// The middle of `values`; none when there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// How one contender relates to the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The middle of the rounds' ratios.
    pub median: f64,
    /// The lowest of them.
    pub min: f64,
    /// The highest of them.
    pub max: f64,
}

impl Ratio {
    /// The ratios of `subject` to `baseline` round by round; none when no round has both.
    ///
    /// Two slices of a round are neighbours in time, so that what the machine does besides hits
    /// both, and their ratio is steadier than the ratio of two medians.
    pub fn of_pairs(subject: &[f64], baseline: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = subject
            .iter()
            .zip(baseline)
            .filter(|&(_, &of)| of > 0.0)
            .map(|(value, of)| value / of)
            .collect();
        Some(Self {
            median: median(&ratios)?,
            min: ratios.iter().copied().min_by(f64::total_cmp)?,
            max: ratios.iter().copied().max_by(f64::total_cmp)?,
        })
    }
}

/// Who goes first in a round, 0 or 1: A/B/B/A/A/B…, so that neither always follows the other.
pub fn first_of_round(round: usize) -> usize {
    round % 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_pair_the_slices_of_a_round() {
        let ratio = Ratio::of_pairs(&[10.0, 40.0, 90.0], &[10.0, 20.0, 30.0]).expect("pairs");
        assert_eq!((ratio.min, ratio.median, ratio.max), (1.0, 2.0, 3.0));
    }

    #[test]
    fn rounds_without_a_baseline_have_no_ratio() {
        assert_eq!(Ratio::of_pairs(&[1.0], &[0.0]), None);
        assert_eq!(Ratio::of_pairs(&[], &[]), None);
        let ratio = Ratio::of_pairs(&[1.0, 6.0], &[0.0, 3.0]).expect("one pair");
        assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 2.0, 2.0));
    }

    #[test]
    fn turns_alternate_who_follows_whom() {
        let order: Vec<_> = (0..4)
            .flat_map(|round| [first_of_round(round), 1 - first_of_round(round)])
            .collect();
        assert_eq!(order, [0, 1, 1, 0, 0, 1, 1, 0]);
    }
}
