//! Known bugs, planted into the world around the replica, to prove that the checkers find them.

use std::str::FromStr;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Syncs report success without effect: acknowledged writes die with the power.
    LyingDisk,
    /// Linearizable reads are served from the member's state without asking the leader.
    UncheckedRead,
    /// Every proposal is made twice.
    ProposedTwice,
    /// A message between members is altered on its way.
    AlteredMessage,
    /// A write is acknowledged with another's revision.
    WrongRevision,
    /// Watchers are sent an event twice now and then.
    EventTwice,
    /// Watchers are not sent an event now and then.
    EventLost,
    /// Watchers are sent one revision in two messages.
    TornRevision,
    /// Watchers are not sent what happened while their member installed a snapshot.
    SnapshotGap,
    /// Progress notifications run ahead of what was sent.
    EarlyBookmark,
    /// The lease clocks run at twice their speed.
    FastLeases,
    /// The lease clocks stand still.
    ImmortalLeases,
    /// Sessions' writes do not say whose turn it is.
    NoTurns,
    /// What a node was read as is answered before its watchers are told.
    EarlyReply,
    /// Members do not tell the leader which sessions' clients they hear of.
    LostTouches,
}

impl Plant {
    /// Every one, with the name it has on the command line.
    pub const ALL: [(&'static str, Plant); 15] = [
        ("lying-disk", Plant::LyingDisk),
        ("unchecked-read", Plant::UncheckedRead),
        ("proposed-twice", Plant::ProposedTwice),
        ("altered-message", Plant::AlteredMessage),
        ("wrong-revision", Plant::WrongRevision),
        ("event-twice", Plant::EventTwice),
        ("event-lost", Plant::EventLost),
        ("torn-revision", Plant::TornRevision),
        ("snapshot-gap", Plant::SnapshotGap),
        ("early-bookmark", Plant::EarlyBookmark),
        ("fast-leases", Plant::FastLeases),
        ("immortal-leases", Plant::ImmortalLeases),
        ("no-turns", Plant::NoTurns),
        ("early-reply", Plant::EarlyReply),
        ("lost-touches", Plant::LostTouches),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        let found = Plant::ALL.iter().find(|(_, plant)| *plant == self);
        found.expect("every plant is listed").0
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(name: &str) -> Result<Plant, String> {
        let found = Plant::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, plant)| *plant).ok_or_else(|| {
            let names: Vec<&str> = Plant::ALL.iter().map(|(name, _)| *name).collect();
            format!("unknown bug; there are {}", names.join(", "))
        })
    }
}
