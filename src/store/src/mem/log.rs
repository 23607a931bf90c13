//! The log in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{MemDisk, fault};
use crate::{Fault, LogEntry, LogReader, LogStore, Vote};

/// One thing written to the log.
#[derive(Clone)]
enum Frame {
    Entry(LogEntry),
    Vote(Vote),
    Reset { index: u64, term: u64 },
    Cut { index: u64 },
}

/// What a log's frames add up to.
#[derive(Clone, Default)]
struct Content {
    /// Index and term of the entry before the first.
    base: (u64, u64),
    entries: VecDeque<LogEntry>,
    vote: Vote,
}

/// The log as it is on a [`MemDisk`].
#[derive(Default)]
pub(super) struct LogFile {
    /// What a reader in the same process sees.
    written: Content,
    /// What a crash leaves in any case.
    durable: Content,
    /// What leads from `durable` to `written`.
    unsynced: Vec<Frame>,
    /// The write or sync that failed since the log was opened.
    poison: Option<Fault>,
}

/// A [`LogStore`] on a [`MemDisk`].
pub struct MemLog {
    disk: MemDisk,
    generation: u64,
}

impl Content {
    fn last_index(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn entry(&self, index: u64) -> Option<&LogEntry> {
        let place = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(place as usize)
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entry(index).map(|entry| entry.term)
    }

    fn put(&mut self, frame: Frame) {
        match frame {
            Frame::Entry(entry) => {
                assert!(
                    self.base.0 < entry.index && entry.index <= self.last_index() + 1,
                    "entry {} does not follow the log, which ends with {}",
                    entry.index,
                    self.last_index()
                );
                self.entries
                    .truncate((entry.index - self.base.0 - 1) as usize);
                self.entries.push_back(entry);
            }
            Frame::Vote(vote) => self.vote = vote,
            Frame::Reset { index, term } => {
                self.base = (index, term);
                self.entries.clear();
            }
            Frame::Cut { index } => {
                while self.entries.front().is_some_and(|e| e.index <= index) {
                    let entry = self.entries.pop_front().expect("it was just seen");
                    self.base = (entry.index, entry.term);
                }
            }
        }
    }
}

impl LogFile {
    pub(super) fn crash(&mut self, kept: impl FnOnce(usize) -> usize) {
        let kept = kept(self.unsynced.len());
        for frame in std::mem::take(&mut self.unsynced).into_iter().take(kept) {
            self.durable.put(frame);
        }
        self.written = self.durable.clone();
        self.poison = None;
    }

    fn write(&mut self, frame: Frame) {
        self.written.put(frame.clone());
        self.unsynced.push(frame);
    }

    fn synced(&mut self) {
        for frame in self.unsynced.drain(..) {
            self.durable.put(frame);
        }
    }
}

impl MemLog {
    /// Opens the log that is on this disk; a new disk has an empty one.
    pub fn open(disk: &MemDisk) -> MemLog {
        disk.0.lock().log.poison = None;
        MemLog {
            disk: disk.clone(),
            generation: disk.generation(),
        }
    }

    fn write(&self, action: &'static str, frames: Vec<Frame>, durable: bool) -> Result<(), Fault> {
        let mut disk = self.disk.enter(self.generation, action)?;
        if let Some(poison) = &disk.log.poison {
            return Err(poison.clone());
        }
        let content = |frame: &Frame| match frame {
            Frame::Entry(entry) => entry.data.len(),
            Frame::Vote(_) | Frame::Reset { .. } | Frame::Cut { .. } => 0,
        };
        disk.write(action, frames.iter().map(content).sum())?;
        for frame in frames {
            disk.log.write(frame);
        }
        if durable {
            match disk.sync(action) {
                Ok(true) => disk.log.synced(),
                Ok(false) => {}
                Err(fault) => {
                    disk.log.poison = Some(fault.clone());
                    return Err(fault);
                }
            }
        }
        Ok(())
    }
}

impl LogReader for MemLog {
    fn first_index(&self) -> u64 {
        self.disk.0.lock().log.written.base.0 + 1
    }

    fn last_index(&self) -> u64 {
        self.disk.0.lock().log.written.last_index()
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.disk.0.lock().log.written.term(index)
    }

    fn entries(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<LogEntry>, Fault> {
        let action = "read the log";
        let disk = self.disk.enter(self.generation, action)?;
        if let Some(poison) = &disk.log.poison {
            return Err(poison.clone());
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in from..to {
            let Some(entry) = disk.log.written.entry(index) else {
                return Err(fault(action, &format!("entry {index} is not held")));
            };
            bytes += entry.data.len() as u64;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}

impl LogStore for MemLog {
    fn reader(&self) -> Arc<dyn LogReader + Send + Sync> {
        Arc::new(MemLog {
            disk: self.disk.clone(),
            generation: self.generation,
        })
    }

    fn vote(&self) -> Vote {
        self.disk.0.lock().log.written.vote
    }

    fn append(&mut self, entries: &[LogEntry], vote: Vote) -> Result<(), Fault> {
        let old = self.vote();
        let mut frames: Vec<_> = entries.iter().cloned().map(Frame::Entry).collect();
        if vote != old {
            frames.push(Frame::Vote(vote));
        }
        if frames.is_empty() {
            return Ok(());
        }
        let promised = (vote.term, vote.vote) != (old.term, old.vote);
        self.write("append to the log", frames, promised || !entries.is_empty())
    }

    fn reset(&mut self, index: u64, term: u64) -> Result<(), Fault> {
        self.write("reset the log", vec![Frame::Reset { index, term }], true)
    }

    fn cut(&mut self, index: u64) -> Result<(), Fault> {
        // Takes no room, so it is possible on a full disk.
        let mut disk = self.disk.enter(self.generation, "cut the log")?;
        if let Some(poison) = &disk.log.poison {
            return Err(poison.clone());
        }
        disk.log.write(Frame::Cut { index });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Faults;
    use super::*;

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry {
            index,
            term,
            kind: 0,
            data: Bytes::from(format!("{index}@{term}")),
        }
    }

    fn vote(term: u64, commit: u64) -> Vote {
        Vote {
            term,
            vote: 1,
            commit,
        }
    }

    #[test]
    fn crash_loses_only_what_no_sync_covered() {
        let disk = MemDisk::new();
        let mut log = MemLog::open(&disk);
        log.append(&[entry(1, 1), entry(2, 1)], vote(1, 0)).unwrap();
        log.append(&[], vote(1, 2)).unwrap();
        assert_eq!(disk.work().syncs, 1, "a commit alone asks for no sync");
        disk.crash(|unsynced| {
            assert_eq!(unsynced, 1);
            0
        });
        assert!(log.append(&[entry(3, 1)], vote(1, 2)).is_err());
        let log = MemLog::open(&disk);
        assert_eq!((log.last_index(), log.vote()), (2, vote(1, 0)));
    }

    #[test]
    fn failed_sync_poisons_until_the_next_process_and_may_leave_a_part() {
        let disk = MemDisk::new();
        let mut log = MemLog::open(&disk);
        disk.set_faults(Faults {
            sync_fails: true,
            ..Faults::default()
        });
        let batch = [entry(1, 1), entry(2, 1), entry(3, 1)];
        let fault = log.append(&batch, Vote::default()).unwrap_err();
        disk.set_faults(Faults::default());
        assert_eq!(log.append(&batch, Vote::default()), Err(fault.clone()));
        assert_eq!(log.entries(1, 2, 0), Err(fault));
        disk.crash(|_| 2);
        assert_eq!(MemLog::open(&disk).last_index(), 2);
    }

    #[test]
    fn full_disk_refuses_before_it_writes() {
        let disk = MemDisk::new();
        let mut log = MemLog::open(&disk);
        let full = Faults {
            full: true,
            ..Faults::default()
        };
        disk.set_faults(full);
        assert!(log.append(&[entry(1, 1)], Vote::default()).is_err());
        assert_eq!(log.last_index(), 0);
        disk.set_faults(Faults::default());
        log.append(&[entry(1, 1)], Vote::default()).unwrap();
        disk.set_faults(full);
        assert_eq!(log.entries(1, 2, 0).unwrap(), [entry(1, 1)]);
        log.cut(1).unwrap();
        assert_eq!(log.first_index(), 2);
    }

    #[test]
    fn lying_sync_loses_what_was_acknowledged() {
        let disk = MemDisk::new();
        disk.set_faults(Faults {
            sync_lies: true,
            ..Faults::default()
        });
        let mut log = MemLog::open(&disk);
        log.append(&[entry(1, 1)], Vote::default()).unwrap();
        disk.crash(|_| 0);
        assert_eq!(MemLog::open(&disk).last_index(), 0);
    }
}
