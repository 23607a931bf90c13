//! The judgement over a history, from the narrowest promise to the widest.

use anyhow::{Context as _, Result};

use super::history::{Action, History, Key};
use super::truth::Truth;
use super::{ends, one_key, order, sessions};

impl History {
    /// Holds the history of some keys against what the three protocols promise.
    ///
    /// # Errors
    /// The first broken promise, in words.
    pub fn check(&self, keys: &[Key]) -> Result<()> {
        let truth = Truth::new(self)?;
        one_key::check(self, &truth.values())?;
        order::check(self, &truth)?;
        for (session, lines) in self.sessions.iter().enumerate() {
            let judged = sessions::check(&truth, keys, lines);
            judged.with_context(|| format!("ZooKeeper's session {session}"))?;
        }
        ends::check(self, &truth)
    }

    /// How many times something ended because its time, or what it was bound to, was over.
    pub fn expiries(&self) -> usize {
        let told = self.waits.iter().flatten();
        let expired = told.filter(|event| event.action == Action::Expired);
        expired.count() / self.waits.len().max(1)
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
