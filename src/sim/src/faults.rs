//! Misfortune, planned from the seed: what breaks when, and for how long.

use crate::net::Weather;
use crate::rng::Rng;
use std::ops::Range;

/// Between one fault's beginning and the next one's, in microseconds.
const PAUSE: Range<u64> = 150_000..1_500_000;
/// How long most faults last.
const LASTS: Range<u64> = 200_000..3_000_000;

/// Something breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A member loses power. Of what it had not synced, the disk keeps so many thousandths.
    Crash {
        /// Which.
        member: u64,
        /// How much is kept.
        kept: u64,
        /// The process is killed within its next write to the log, so that the write is torn.
        torn: bool,
        /// The newest image is damaged as well.
        image_damaged: bool,
        /// How long until it is started again.
        lasts: u64,
    },
    /// Members on different sides do not hear each other.
    Split {
        /// One side.
        side: Vec<u64>,
        /// How long.
        lasts: u64,
    },
    /// Some are heard by nobody but hear all.
    Mute {
        /// Those.
        members: Vec<u64>,
        /// How long.
        lasts: u64,
    },
    /// The leader, whoever it is, is alone.
    IsolateLeader {
        /// How long.
        lasts: u64,
    },
    /// Messages are lost, repeated and reordered.
    Storm {
        /// How badly.
        lost: u64,
        /// How often.
        twice: u64,
        /// The longest delay.
        delay_max: u64,
        /// How long.
        lasts: u64,
    },
    /// A disk takes long to sync.
    SlowDisk {
        /// Whose.
        member: u64,
        /// Microseconds each.
        sync: u64,
        /// How long.
        lasts: u64,
    },
    /// A disk has no room.
    FullDisk {
        /// Whose.
        member: u64,
        /// How long.
        lasts: u64,
    },
    /// A member's clock on the wall jumps.
    ClockJump {
        /// Whose.
        member: u64,
        /// By so much, in milliseconds.
        by_ms: i64,
    },
    /// A process stands still, as if stopped by a signal.
    Pause {
        /// Whose.
        member: u64,
        /// How long.
        lasts: u64,
    },
    /// Leadership is handed over.
    Transfer {
        /// To whom.
        to: u64,
    },
    /// A member is added, as a learner first, or one is removed.
    Membership {
        /// Picks who.
        draw: u64,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Crash,
    Split,
    Mute,
    IsolateLeader,
    Storm,
    SlowDisk,
    FullDisk,
    ClockJump,
    Pause,
    Transfer,
    Membership,
}

const MIX: [(u64, Kind); 11] = [
    (30, Kind::Crash),
    (12, Kind::Split),
    (8, Kind::Mute),
    (10, Kind::IsolateLeader),
    (12, Kind::Storm),
    (6, Kind::SlowDisk),
    (3, Kind::FullDisk),
    (6, Kind::ClockJump),
    (6, Kind::Pause),
    (6, Kind::Transfer),
    (6, Kind::Membership),
];

/// The plan of one run.
pub struct Faults {
    rng: Rng,
}

impl Faults {
    /// The plan of this chance.
    pub fn new(rng: Rng) -> Faults {
        Faults { rng }
    }

    /// How long until the next fault.
    pub fn pause(&mut self) -> u64 {
        self.rng.within(PAUSE)
    }

    /// The next fault, among these members.
    pub fn next_fault(&mut self, members: &[u64]) -> Fault {
        let rng = &mut self.rng;
        let member = *rng.pick(members);
        let lasts = rng.within(LASTS);
        match rng.weighted(&MIX) {
            Kind::Crash => Fault::Crash {
                member,
                kept: rng.below(1_001),
                torn: rng.permille(500),
                image_damaged: rng.permille(100),
                // Often shorter than an election, so that it comes back as what it was.
                lasts: if rng.permille(500) { lasts / 20 } else { lasts },
            },
            Kind::Split => Fault::Split {
                side: some_of(rng, members),
                lasts,
            },
            Kind::Mute => Fault::Mute {
                members: some_of(rng, members),
                lasts,
            },
            Kind::IsolateLeader => Fault::IsolateLeader { lasts },
            Kind::Storm => Fault::Storm {
                lost: rng.below(300),
                twice: rng.below(200),
                delay_max: *rng.pick(&[2_000, 20_000, 200_000]),
                lasts,
            },
            Kind::SlowDisk => Fault::SlowDisk {
                member,
                sync: rng.within(5_000..100_000),
                lasts,
            },
            Kind::FullDisk => Fault::FullDisk { member, lasts },
            Kind::ClockJump => Fault::ClockJump {
                member,
                by_ms: rng.below(7_200_000) as i64 - 3_600_000,
            },
            Kind::Pause => Fault::Pause { member, lasts },
            Kind::Transfer => Fault::Transfer { to: member },
            Kind::Membership => Fault::Membership { draw: rng.draw() },
        }
    }
}

/// At least one, not all.
fn some_of(rng: &mut Rng, members: &[u64]) -> Vec<u64> {
    let first = rng.below(members.len() as u64);
    let len = rng.within(1..(members.len() as u64).max(2));
    let nth = |n: u64| members[((first + n) % members.len() as u64) as usize];
    (0..len).map(nth).collect()
}

/// The weather of a [`Fault::Storm`].
pub fn storm(lost: u64, twice: u64, delay_max: u64) -> Weather {
    Weather {
        lost,
        twice,
        delay: 100..delay_max,
    }
}
