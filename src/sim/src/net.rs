//! The network between members: it loses, repeats, delays and so reorders messages, and is cut.

use crate::rng::Rng;
use std::collections::BTreeSet;

/// How bad the network is at the moment.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Messages lost, of a thousand.
    pub lost: u64,
    /// Messages that arrive twice, of a thousand.
    pub twice: u64,
    /// How long a message takes, in microseconds. A wide range reorders.
    pub delay: std::ops::Range<u64>,
}

/// A good local network.
pub const FAIR: Weather = Weather {
    lost: 0,
    twice: 0,
    delay: 100..400,
};

/// All links.
pub struct Net {
    rng: Rng,
    /// How bad it is.
    pub weather: Weather,
    /// Links that carry nothing, from and to.
    cut: BTreeSet<(u64, u64)>,
}

impl Net {
    /// A network without faults.
    pub fn new(rng: Rng) -> Net {
        Net {
            rng,
            weather: FAIR,
            cut: BTreeSet::new(),
        }
    }

    /// After how many microseconds a message sent now arrives: never, once or twice.
    pub fn carry(&mut self, from: u64, to: u64) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || self.rng.permille(self.weather.lost) {
            return Vec::new();
        }
        let copies = 1 + u64::from(self.rng.permille(self.weather.twice));
        let delay = self.weather.delay.clone();
        (0..copies)
            .map(|_| self.rng.within(delay.clone()))
            .collect()
    }

    /// Whether messages pass in this direction.
    pub fn connects(&self, from: u64, to: u64) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Cuts the links from each of `these` to each of `those`; the way back stays.
    pub fn cut(&mut self, these: &[u64], those: &[u64]) {
        for &from in these {
            self.cut.extend(those.iter().map(|&to| (from, to)));
        }
    }

    /// Mends all links.
    pub fn mend(&mut self) {
        self.cut.clear();
    }
}
