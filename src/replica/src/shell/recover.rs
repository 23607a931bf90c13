//! Reading back what is on the disk: the newest checkpoint, then the committed log after it. Two
//! threads share the work, as how soon a member serves again depends on it: they take turns at
//! reading records, and restore what they have read side by side; of the log one reads and decodes
//! while the other applies.

use crate::config::StartError;
use crate::machine::{Machine, Meta, Observer, Place, Prepared, to_keyspace};
use keyspace::{Damaged, Keyspace, Record, Restoring, Run};
use parking_lot::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use store::{CheckpointStore, Fault, Loaded, LogReader};

/// What one thread reads before the other may: so many records, or until they have so many bytes.
const TURN_RECORDS: usize = 2048;
const TURN_BYTES: usize = 1 << 20;
/// Entries in a piece, in bytes.
const REPLAY_BYTES: u64 = 1 << 20;
/// Pieces that may wait, so that memory is bounded.
const PIECES_MAX: usize = 8;

/// How much of the log was replayed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replayed {
    pub entries: u64,
    pub bytes: u64,
}

/// The newest checkpoint that is whole; `None` on a new member.
pub fn load(checkpoints: &mut dyn CheckpointStore) -> Result<Option<(Meta, Machine)>, StartError> {
    while let Some(loaded) = checkpoints.load()? {
        let meta = Meta::decode(&loaded.mark.meta).map_err(damaged)?;
        // The store has said what is wrong, and gives the one before.
        if let Some(machine) = rebuild(loaded, &meta)? {
            return Ok(Some((meta, machine)));
        }
    }
    Ok(None)
}

/// The state that a checkpoint holds; `None` if the store finds it damaged.
fn rebuild(loaded: Loaded, meta: &Meta) -> Result<Option<Machine>, StartError> {
    let place = Place {
        index: loaded.mark.index,
        term: loaded.mark.term,
    };
    let mut records = Records {
        loaded,
        fault: None,
        turns: 0,
    };
    let keyspace = restore(&mut records);
    // A state without its end may look whole.
    if records.fault.is_some() {
        return Ok(None);
    }
    let keyspace = keyspace.map_err(damaged)?;
    Ok(Some(Machine::over(keyspace, place, meta)))
}

fn restore(records: &mut Records) -> Result<Keyspace, Damaged> {
    let restoring = Restoring::begin(records)?;
    let records = Mutex::new(records);
    let runs = Mutex::new(Vec::new());
    let work = || -> Result<(), Damaged> {
        loop {
            let (turn, read) = records.lock().turn();
            if read.is_empty() {
                return Ok(());
            }
            let run = restoring.run(read.into_iter())?;
            runs.lock().push((turn, run));
        }
    };
    let (aside, here) = beside(work, work);
    aside.and(here)?;
    let mut runs: Vec<(u32, Run)> = runs.into_inner();
    runs.sort_unstable_by_key(|(turn, _)| *turn);
    restoring.finish(runs.into_iter().map(|(_, run)| run).collect())
}

/// The records of a checkpoint, as far as they can be read.
struct Records {
    loaded: Loaded,
    /// Why they ended before their end.
    fault: Option<Fault>,
    turns: u32,
}

impl Records {
    /// The next records, and which turn it is; none at the end.
    fn turn(&mut self) -> (u32, Vec<Record>) {
        self.turns += 1;
        let (mut read, mut bytes) = (Vec::new(), 0);
        while read.len() < TURN_RECORDS
            && bytes < TURN_BYTES
            && let Some(record) = self.next()
        {
            bytes += record.key.len() + record.value.len();
            read.push(record);
        }
        (self.turns, read)
    }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.fault.is_some() {
            return None;
        }
        match self.loaded.records.next()? {
            Ok(record) => Some(to_keyspace(record)),
            Err(fault) => {
                self.fault = Some(fault);
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.loaded.records.size_hint()
    }
}

/// Applies the entries after the machine's place, up to `last`. Nothing if the log does not hold
/// that place: then it belongs to an older state, and the core puts it right.
pub fn replay(
    log: &(dyn LogReader + Sync),
    last: u64,
    machine: &mut Machine,
) -> Result<Replayed, StartError> {
    let place = machine.place();
    let last = last.min(log.last_index());
    if log.term(place.index) != Some(place.term) || place.index >= last {
        return Ok(Replayed::default());
    }
    let mut replayed = Replayed::default();
    let (sender, receiver) = sync_channel(PIECES_MAX);
    let (read, ()) = beside(
        move || read_entries(log, place.index + 1, last + 1, &sender),
        || {
            for (bytes, entries) in receiver {
                replayed.bytes += bytes;
                for prepared in entries {
                    replayed.entries += 1;
                    machine.apply(&prepared, &mut Unwatched);
                }
            }
        },
    );
    read.map(|()| replayed)
}

/// Reads entries `from..to`, in pieces with their length in the log.
fn read_entries(
    log: &dyn LogReader,
    from: u64,
    to: u64,
    pieces: &SyncSender<(u64, Vec<Prepared>)>,
) -> Result<(), StartError> {
    let mut next = from;
    while next < to {
        let entries = log.entries(next, to, REPLAY_BYTES)?;
        let bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        let prepared = entries.iter().map(Prepared::read);
        let prepared = prepared.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        next += entries.len() as u64;
        if pieces.send((bytes, prepared)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Nobody watches what is replayed before the replica runs.
struct Unwatched;

impl Observer for Unwatched {
    fn applied(&mut self, _: &keyspace::Command, _: &keyspace::Applied) {}
}

/// Runs `aside` on a thread of its own while `work` runs here.
fn beside<A: Send, B>(aside: impl FnOnce() -> A + Send, work: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let aside = scope.spawn(aside);
        let done = work();
        match aside.join() {
            Ok(answer) => (answer, done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn damaged(error: impl std::fmt::Display) -> StartError {
    StartError::Damaged(error.to_string())
}
