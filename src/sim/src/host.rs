//! A machine that a member runs on: its disk, its process, its clocks, and what waits for it.

use crate::member::{Clock, Input, Member, Output, Packet, Stopped, Token};
use crate::rng::Rng;
use gateway::Hub;
use keyspace::{Applied, Command, WallMs};
use replica::ChangeSink;
use replica::roster::Roster;
use std::collections::VecDeque;
use store::mem::{Faults, MemCheckpoints, MemDisk, MemLog};
use store::{CheckpointStore, Fault, LogReader};

/// The time of day at which every world begins: 2023-11-14 22:13:20 UTC.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// A sync of a good disk, in microseconds.
const SYNC_FAIR: std::ops::Range<u64> = 50..300;

/// How a process dies.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// How much of what was not synced the disk keeps, in thousandths.
    pub kept: u64,
    /// The newest image is damaged, if there is another.
    pub image_damaged: bool,
}

/// One machine.
pub struct Host {
    /// The member's id.
    pub id: u64,
    /// Its disk.
    pub disk: MemDisk,
    /// Counts its runs, so that what was meant for an earlier one is told apart.
    pub run: u64,
    /// The process, while it runs.
    pub member: Option<Member>,
    /// Where the process's node watchers wait.
    pub hub: Hub,
    sink: Box<dyn ChangeSink>,
    /// What was applied, and so can be read, but is not told to watchers yet.
    untold: VecDeque<(Command, Applied)>,
    /// It dies within its next write to the log.
    pub doomed: Option<Death>,
    /// It stands still.
    pub paused: bool,
    /// How long a sync takes while the disk is slow.
    pub slow_sync: Option<u64>,
    /// What is wrong with the disk.
    pub faults: Faults,
    /// How far its time of day is off.
    pub skew_ms: i64,
    /// How fast the clock for leases runs: 1, but for planted bugs.
    pub clock_rate: u64,
    /// It was removed from the cluster and is not started again.
    pub removed: bool,
    /// A round waits for the disk.
    busy: bool,
    inbox: VecDeque<Input>,
    /// Whose snapshot it takes in.
    taking: Option<u64>,
}

/// Who sent the snapshot, if it is one.
fn snapshot_sender(input: &Input) -> Option<u64> {
    match input {
        Input::Message(from, Packet::Snapshot(..)) => Some(*from),
        _ => None,
    }
}

impl Host {
    /// A new machine with an empty disk.
    pub fn new(id: u64) -> Host {
        let hub = Hub::new();
        Host {
            id,
            sink: hub.sink(),
            hub,
            untold: VecDeque::new(),
            disk: MemDisk::new(),
            run: 0,
            member: None,
            doomed: None,
            paused: false,
            slow_sync: None,
            faults: Faults::default(),
            skew_ms: 0,
            clock_rate: 1,
            removed: false,
            busy: false,
            inbox: VecDeque::new(),
            taking: None,
        }
    }

    /// Its clocks at this moment of the world.
    pub fn clock(&self, now: u64) -> Clock {
        let wall = (EPOCH_MS + now / 1_000).saturating_add_signed(self.skew_ms);
        Clock {
            now_ms: now / 1_000 * self.clock_rate,
            wall: WallMs(wall),
        }
    }

    /// Starts the process; on an empty disk as one of the first members, or as one that joins.
    pub fn start(&mut self, now: u64, first: Option<&Roster>) -> Result<(), Fault> {
        assert!(self.member.is_none(), "it runs already");
        self.run += 1;
        self.busy = false;
        self.paused = false;
        self.inbox.clear();
        let wall = self.clock(now).wall;
        let member = Member::start(self.id, &self.disk, first, wall)?;
        self.hub = Hub::new();
        self.sink = self.hub.sink();
        self.untold.clear();
        self.hub.nodes().begin(&member.reader());
        self.member = Some(member);
        Ok(())
    }

    /// What was applied is to be told to watchers, now or later.
    pub fn applied(&mut self, command: &Command, applied: &Applied) {
        self.untold.push_back((command.clone(), applied.clone()));
    }

    /// Tells watchers of the first `count` things that were applied and not told.
    pub fn tell(&mut self, count: usize) {
        for (command, applied) in self.untold.drain(..count.min(self.untold.len())) {
            self.sink.publish(&command, &applied);
        }
    }

    /// How much was applied and not told.
    pub fn untold(&self) -> usize {
        self.untold.len()
    }

    /// A snapshot took the state's place.
    pub fn restored(&mut self) {
        self.tell(usize::MAX);
        if let Some(member) = &self.member {
            self.sink.restored(member.reader().revision());
        }
    }

    /// Whether it runs and answers.
    pub fn is_up(&self) -> bool {
        self.member.is_some() && !self.paused
    }

    /// Whether it is writing to its disk.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Something arrives; lost if there is no process.
    pub fn receive(&mut self, input: Input) -> bool {
        if self.member.is_none() {
            return false;
        }
        self.inbox.push_back(input);
        true
    }

    /// Begins a round with what waits, if it can. Answers how long the disk will take, if it has
    /// anything to do.
    pub fn begin(
        &mut self,
        now: u64,
        rng: &mut Rng,
        out: &mut Output,
    ) -> Result<Option<u64>, Stopped> {
        let clock = self.clock(now);
        while !self.busy && !self.paused && !self.inbox.is_empty() {
            let inputs = self.next_inputs();
            let Some(member) = &mut self.member else {
                return Ok(None);
            };
            self.taking = inputs.iter().find_map(snapshot_sender);
            self.busy = member.begin(inputs, clock, out)?;
            self.taking = None;
        }
        Ok(self.busy.then(|| self.sync_time(rng)))
    }

    /// All that waits, but a snapshot comes alone: nothing of the round before may be left.
    fn next_inputs(&mut self) -> Vec<Input> {
        let is_snapshot = |input: &Input| snapshot_sender(input).is_some();
        let len = match self.inbox.iter().position(is_snapshot) {
            Some(0) => 1,
            Some(place) => place,
            None => self.inbox.len(),
        };
        self.inbox.drain(..len).collect()
    }

    /// The disk has done its work. Answers how long it will take for the next, if there is any.
    pub fn finish(
        &mut self,
        now: u64,
        rng: &mut Rng,
        out: &mut Output,
    ) -> Result<Option<u64>, Stopped> {
        let clock = self.clock(now);
        let Some(member) = &mut self.member else {
            return Ok(None);
        };
        self.busy = false;
        self.busy = member.finish(clock, out)?;
        if self.busy {
            return Ok(Some(self.sync_time(rng)));
        }
        self.begin(now, rng, out)
    }

    fn sync_time(&self, rng: &mut Rng) -> u64 {
        self.slow_sync.unwrap_or_else(|| rng.within(SYNC_FAIR))
    }

    /// The process dies. Answers who waited for it, and who sent it snapshots that are lost.
    pub fn die(&mut self, now: u64, death: Death) -> (Vec<Token>, Vec<u64>) {
        let Some(mut member) = self.member.take() else {
            return (Vec::new(), Vec::new());
        };
        if self.busy {
            // Within the write: all of it is on its way to the disk, none of it is synced.
            self.disk.set_faults(Faults {
                sync_fails: true,
                ..self.faults
            });
            member.finish(self.clock(now), &mut Output::default()).ok();
            self.disk.set_faults(self.faults);
        }
        let tokens = member.abandon();
        drop(member);
        self.disk
            .crash(|unsynced| unsynced * death.kept as usize / 1_000);
        self.doomed = None;
        self.busy = false;
        if death.image_damaged && self.has_spare_image() {
            self.disk.damage_newest_image();
        }
        let waiting = self.inbox.iter().filter_map(snapshot_sender);
        let senders = waiting.chain(self.taking.take()).collect();
        self.inbox.clear();
        (tokens, senders)
    }

    /// Whether the newest image can be lost: the one before it and the log make up for it.
    fn has_spare_image(&self) -> bool {
        let older = MemCheckpoints::open(&self.disk).log_needed_from();
        older > 0 && MemLog::open(&self.disk).first_index() <= older + 1
    }
}
