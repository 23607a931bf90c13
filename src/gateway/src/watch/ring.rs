//! The newest revisions that anybody watches.

use keyspace::Change;
use std::collections::VecDeque;
use std::sync::Arc;

/// Enough for a watcher to miss a tenth of a second at a hundred thousand changes a second. Tests
/// reach the end sooner.
pub const CHANGES_MAX: usize = if cfg!(test) { 32 } else { 8192 };
/// The ring keeps values alive that compaction could otherwise free: this much at most, beyond the
/// newest revision.
const BYTES_MAX: usize = 32 << 20;

/// See the module's page.
#[derive(Default)]
pub struct Ring {
    /// Oldest first. Revisions that nobody watched are missing.
    steps: VecDeque<Arc<Step>>,
    /// Every watched revision from this one on is here.
    complete_from: u64,
    changes: usize,
    bytes: usize,
}

/// One revision's changes, in order.
pub struct Step {
    pub revision: u64,
    pub changes: Box<[Change]>,
    bytes: usize,
}

/// What a change holds on to.
pub fn bytes_of(change: &Change) -> usize {
    let previous = change.previous.as_ref().map_or(0, |it| it.value().len());
    change.entry.key().len() + change.entry.value().len() + previous
}

impl Ring {
    /// Adds the newest revision.
    pub fn push(&mut self, revision: u64, changes: &[Change]) {
        let bytes = changes.iter().map(bytes_of).sum();
        self.changes += changes.len();
        self.bytes += bytes;
        self.steps.push_back(Arc::new(Step {
            revision,
            changes: changes.into(),
            bytes,
        }));
        while self.steps.len() > 1 && (self.changes > CHANGES_MAX || self.bytes > BYTES_MAX) {
            let oldest = self.steps.pop_front().expect("the ring holds two or more");
            self.changes -= oldest.changes.len();
            self.bytes -= oldest.bytes;
            self.complete_from = oldest.revision + 1;
        }
    }

    /// Forgets everything before `revision`, which lies beyond the newest.
    pub fn restart(&mut self, revision: u64) {
        *self = Ring {
            complete_from: revision,
            ..Ring::default()
        };
    }

    /// At most `steps_max` watched revisions within, or none when the ring has forgotten some.
    pub fn range(&self, from: u64, through: u64, steps_max: usize) -> Option<Vec<Arc<Step>>> {
        if from < self.complete_from {
            return None;
        }
        let start = self.steps.partition_point(|step| step.revision < from);
        let within = self.steps.range(start..);
        let within = within.take_while(|step| step.revision <= through);
        Some(within.take(steps_max).cloned().collect())
    }
}
