//! Reading back what is on the disk: the newest checkpoint, then the committed log after it. A
//! thread reads and decodes, some pieces ahead of the one that rebuilds the state: each is about
//! half of the work, and how soon a member serves again depends on it.

use crate::config::StartError;
use crate::machine::{Machine, Meta, Observer, Place, Prepared, to_keyspace};
use keyspace::{Damaged, Part};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use store::{CheckpointStore, Fault, Loaded, LogReader};

/// Records in a piece.
const RECORDS: usize = 1024;
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
    let (sender, receiver) = sync_channel(PIECES_MAX);
    let parts = Parts {
        expected: loaded.records.size_hint().0,
        pieces: receiver,
        piece: Vec::new().into_iter(),
    };
    let (read, machine) = beside(
        move || read_parts(loaded, &sender),
        move || Machine::assemble(place, meta, parts),
    );
    match read {
        Ok(()) => machine.map(Some).map_err(damaged),
        Err(_passed_over) => Ok(None),
    }
}

type Piece = Vec<Result<Part, Damaged>>;

/// Reads until the end, or until nobody wants more because of damage.
fn read_parts(loaded: Loaded, pieces: &SyncSender<Piece>) -> Result<(), Fault> {
    let mut piece = Vec::with_capacity(RECORDS);
    for record in loaded.records {
        piece.push(Part::read(&to_keyspace(record?)));
        if piece.len() == RECORDS {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(RECORDS));
            if pieces.send(full).is_err() {
                return Ok(());
            }
        }
    }
    pieces.send(piece).ok();
    Ok(())
}

/// The parts on their way from one thread to the other.
struct Parts {
    pieces: Receiver<Piece>,
    piece: std::vec::IntoIter<Result<Part, Damaged>>,
    /// How many are still to come.
    expected: usize,
}

impl Iterator for Parts {
    type Item = Result<Part, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = loop {
            if let Some(next) = self.piece.next() {
                break next;
            }
            self.piece = self.pieces.recv().ok()?.into_iter();
        };
        self.expected = self.expected.saturating_sub(1);
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.expected, None)
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
