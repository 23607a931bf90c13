//! Both stores in memory, with the faults that tests want: torn writes, lost syncs, a full disk.
//!
//! A [`MemDisk`] is what outlives the process: open [`MemLog`] and [`MemCheckpoints`] on it, let the
//! process die with [`MemDisk::crash`], and open them again. Nothing here is random and nothing
//! waits: whoever simulates decides what a crash leaves, and counts [`Work`] as time.

mod checkpoint;
mod log;

pub use checkpoint::MemCheckpoints;
pub use log::MemLog;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::Fault;

/// What is wrong with the disk at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nothing more can be written; what is there can be read. Refused before it is written, as
    /// the log on files does, so the stores can go on once there is room.
    pub full: bool,
    /// Writes are taken, but their sync fails. What of them survives a crash is open.
    pub sync_fails: bool,
    /// Syncs report success without effect. No store can be correct on such a disk: it is there to
    /// prove that a harness notices.
    pub sync_lies: bool,
}

/// What the disk was asked to do since it was made, for a simulator to turn into time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Writes.
    pub writes: u64,
    /// Bytes of content in them.
    pub bytes: u64,
    /// Syncs, also those that failed.
    pub syncs: u64,
}

/// A disk in memory; a clone is the same disk.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    /// Counts crashes, so that what a dead process still holds can do nothing.
    generation: u64,
    faults: Faults,
    work: Work,
    log: log::LogFile,
    checkpoint: checkpoint::Files,
}

impl MemDisk {
    /// An empty disk without faults.
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// Changes what is wrong with the disk, from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// What it has done so far.
    pub fn work(&self) -> Work {
        self.0.lock().work
    }

    /// Kills the process and takes the power away. `kept` is told how many frames (entries, votes)
    /// were written but not synced and says how many of them, from the oldest on, reached the disk
    /// all the same. A frame torn in the middle is dropped when the log is opened, and all after
    /// it, so it counts as not kept. Stores opened before answer every later call with a fault.
    pub fn crash(&self, kept: impl FnOnce(usize) -> usize) {
        let mut disk = self.0.lock();
        disk.generation += 1;
        disk.log.crash(kept);
    }

    /// Kills the process; what it had written, synced or not, stays.
    pub fn kill(&self) {
        self.crash(|unsynced| unsynced);
    }

    /// Flips bits in the newest image, if there is one. Answers whether there was.
    pub fn damage_newest_image(&self) -> bool {
        self.0.lock().checkpoint.damage_newest()
    }

    fn generation(&self) -> u64 {
        self.0.lock().generation
    }

    /// The disk, for a store opened in `generation`.
    fn enter(&self, generation: u64, action: &'static str) -> Result<MutexGuard<'_, Disk>, Fault> {
        let disk = self.0.lock();
        if disk.generation == generation {
            Ok(disk)
        } else {
            Err(fault(action, "the process that opened it has crashed"))
        }
    }
}

impl Disk {
    /// Counts a write, unless there is no room for it.
    fn write(&mut self, action: &'static str, bytes: usize) -> Result<(), Fault> {
        if self.faults.full {
            return Err(fault(action, "no space left on device"));
        }
        self.work.writes += 1;
        self.work.bytes += bytes as u64;
        Ok(())
    }

    /// Counts a sync. Answers whether what was written is durable now.
    fn sync(&mut self, action: &'static str) -> Result<bool, Fault> {
        self.work.syncs += 1;
        if self.faults.sync_fails {
            return Err(fault(action, "input/output error"));
        }
        Ok(!self.faults.sync_lies)
    }
}

fn fault(action: &'static str, cause: &str) -> Fault {
    Fault {
        action,
        path: "memory".to_string(),
        cause: cause.to_string(),
    }
}
