//! What happened, in order: always as a hash, by which two runs of a seed are compared, and as text
//! when someone wants to read it.

use std::fmt;

/// FNV-1a, 64 bits: the same on every machine for ever, which std's hasher does not promise.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The events of one run.
pub struct Trace {
    hash: u64,
    /// How many lines to keep; 0 keeps none.
    lines_max: usize,
    lines: std::collections::VecDeque<String>,
}

impl Trace {
    /// Keeps the last so many lines.
    pub fn new(lines_max: usize) -> Trace {
        Trace {
            hash: FNV_OFFSET,
            lines_max,
            lines: std::collections::VecDeque::new(),
        }
    }

    /// Notes an event: its figures always, its words only if they are kept.
    pub fn note(&mut self, at: u64, figures: &[u64], words: impl FnOnce() -> String) {
        self.mix(at);
        figures.iter().for_each(|&figure| self.mix(figure));
        if self.lines_max == 0 {
            return;
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
        self.lines
            .push_back(format!("{seconds:3}.{micros:06} {}", words()));
    }

    /// Notes bytes, such as a message's.
    pub fn note_bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn mix(&mut self, figure: u64) {
        self.note_bytes(&figure.to_le_bytes());
    }

    /// Of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
