//! What is still to happen in a world, and when.

use crate::member::Input;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something that is due.
#[derive(Debug)]
pub enum Event {
    /// A tick of a member's clock, in one of its runs.
    Tick(u64, u64),
    /// Something reaches a member.
    Arrive(u64, Input),
    /// A disk has done its work, for one run.
    Disk(u64, u64),
    /// A client does something.
    Call(u32),
    /// A client's patience ends, if it still waits for this.
    GiveUp(u32, u64),
    /// Something breaks.
    Break,
    /// Something is mended.
    Mend(Mend),
    /// A client with a session does something.
    Act(usize),
    /// A watcher takes a piece of history.
    CatchUp(usize),
    /// Hosts follow the roster, and watchers are told how far they are.
    Care,
}

/// What is mended.
#[derive(Clone, Copy, Debug)]
pub enum Mend {
    /// A machine is started.
    Start(u64),
    /// All links carry again.
    Links,
    /// The weather is fair.
    Weather,
    /// A disk is fast.
    Disk(u64),
    /// A disk has room.
    Room(u64),
    /// A process goes on.
    Resume(u64),
}

/// An event and when it is due; equal times go in the order in which they were planned.
struct Due {
    at: u64,
    nth: u64,
    event: Event,
}

/// What is planned, the earliest first.
#[derive(Default)]
pub struct Agenda {
    due: BinaryHeap<Reverse<Due>>,
    planned: u64,
}

impl Agenda {
    /// Plans an event for a moment, in microseconds since the world began.
    pub fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.due.push(Reverse(Due {
            at,
            nth: self.planned,
            event,
        }));
    }

    /// Takes the next event, with its moment.
    pub fn take_next(&mut self) -> Option<(u64, Event)> {
        let Reverse(due) = self.due.pop()?;
        Some((due.at, due.event))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}
