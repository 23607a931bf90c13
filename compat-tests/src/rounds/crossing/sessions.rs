//! What ZooKeeper promises to those who watch: a watch that is told once is told of the first change
//! after it was set, one that is always told of every change while there is a connection; in order,
//! once, and before any reply that shows the change. Replies never go back.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::history::{Happening, Key, Line};
use super::truth::{Change, Truth};

/// Judges what one session was shown and told.
///
/// # Errors
/// The first broken promise, in words.
pub fn check(truth: &Truth, keys: &[Key], lines: &[Line]) -> Result<()> {
    let mut judge = Judge {
        truth,
        keys,
        armed: BTreeMap::new(),
        always: None,
        is_connected: true,
        newest: 0,
    };
    for (place, line) in lines.iter().enumerate() {
        let judged = judge.line(*line);
        judged.with_context(|| format!("line {place}, {line:?}"))?;
    }
    Ok(())
}

struct Judge<'a> {
    truth: &'a Truth,
    keys: &'a [Key],
    /// The revision at which each watch that is told once was set.
    armed: BTreeMap<Key, u64>,
    /// Where all keys are always watched: up to which revision each was told.
    always: Option<BTreeMap<Key, u64>>,
    is_connected: bool,
    /// The newest revision that was shown or told.
    newest: u64,
}

impl Judge<'_> {
    fn line(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Armed { key, revision } => {
                self.show(revision)?;
                self.armed.entry(key).or_insert(revision);
            }
            Line::ArmedAlways { revision } => {
                self.show(revision)?;
                self.always = Some(self.all_told_to(revision));
            }
            Line::Shown { revision } => self.show(revision)?,
            Line::Told {
                key,
                what,
                revision: Some(revision),
            } => self.tell(key, what, revision)?,
            Line::Told {
                key,
                revision: None,
                ..
            } => self.catch_up(key)?,
            Line::Broke => self.is_connected = false,
            Line::Resumed { revision } => self.resume(revision)?,
        }
        Ok(())
    }

    fn all_told_to(&self, revision: u64) -> BTreeMap<Key, u64> {
        self.keys.iter().map(|key| (*key, revision)).collect()
    }

    /// A reply: nothing that happened up to its revision may still have to be told.
    fn show(&mut self, revision: u64) -> Result<()> {
        ensure!(
            revision >= self.newest,
            "it shows what was before revision {}",
            self.newest
        );
        self.newest = revision;
        for (key, since) in self.armed.iter().chain(self.always.iter().flatten()) {
            let due = self.truth.next(*key, *since);
            let due = due.filter(|change| change.event.revision <= revision);
            ensure!(due.is_none(), "it comes before the event of {due:?}");
        }
        Ok(())
    }

    fn tell(&mut self, key: Key, what: Happening, revision: u64) -> Result<()> {
        ensure!(
            revision >= self.newest,
            "it comes after revision {} was shown or told",
            self.newest
        );
        self.newest = revision;
        let once = self.armed.get(&key).copied();
        let always = self.always.as_ref().map(|told| told[&key]);
        // Watches that are set again begin somewhere between two connections.
        let begun = |since: u64| {
            if self.is_connected {
                since
            } else {
                revision - 1
            }
        };
        let is_due = |since: Option<u64>| {
            let due = self.truth.next(key, begun(since?))?;
            (due.event.revision == revision).then_some(due)
        };
        let (once, always) = (is_due(once), is_due(always));
        let due = once.or(always).context("nothing of the kind was due")?;
        ensure!(
            what == happening(due),
            "it was {:?}: {due:?}",
            happening(due)
        );
        if once.is_some() {
            self.armed.remove(&key);
        }
        if let Some(told) = self.always.as_mut().filter(|_| always.is_some()) {
            told.insert(key, revision);
        }
        Ok(())
    }

    /// An event of what happened between two connections.
    fn catch_up(&mut self, key: Key) -> Result<()> {
        ensure!(!self.is_connected, "there was a connection");
        let since = self.armed.remove(&key).context("nobody watched")?;
        let change = self.truth.next(key, since);
        change.context("nothing has happened")?;
        Ok(())
    }

    fn resume(&mut self, revision: u64) -> Result<()> {
        self.is_connected = true;
        self.always = self.always.as_ref().map(|_| self.all_told_to(revision));
        // A watch on a key that was not there is told only if it is there now.
        for (key, since) in &mut self.armed {
            if self.truth.is_there(*key, *since) || self.truth.is_there(*key, revision) {
                continue;
            }
            *since = revision;
        }
        self.show(revision)
    }
}

fn happening(change: &Change) -> Happening {
    match (change.event.previous, change.event.now) {
        (None, _) => Happening::Created,
        (Some(_), Some(_)) => Happening::Changed,
        (Some(_), None) => Happening::Deleted,
    }
}
