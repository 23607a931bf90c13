//! The bank of planted bugs: a checker that finds nothing may be blind. Each bug must be found
//! within a few seeds.

use sim::failure::Failure;
use sim::ledger::Disagreement;
use sim::plant::Plant;
use sim::run::run;
use sim::world::Options;

/// The first failure within these seeds.
fn first_failure(plant: Plant, seeds: std::ops::Range<u64>, ops: u64) -> Failure {
    for seed in seeds.clone() {
        let options = Options {
            seed,
            ops,
            members: 3,
            plant: Some(plant),
            trace_lines: 0,
        };
        if let (Err(failure), _) = run(options) {
            return failure;
        }
    }
    panic!("{} was not found in seeds {seeds:?}", plant.name());
}

macro_rules! finds {
    ($test:ident, $plant:ident, $failure:pat) => {
        finds!($test, $plant, $failure, 0..10, 400);
    };
    ($test:ident, $plant:ident, $failure:pat, $seeds:expr, $ops:expr) => {
        #[test]
        fn $test() {
            let failure = first_failure(Plant::$plant, $seeds, $ops);
            assert!(matches!(failure, $failure), "found as {failure}");
        }
    };
}

// A member's own guard may see the loss before a checker does; or the raft library panics.
finds!(
    a_disk_that_lies_is_found,
    LyingDisk,
    Failure::Stopped { .. } | Failure::Panic(_) | Failure::Disagreement(_)
);
finds!(
    a_read_without_asking_the_leader_is_found,
    UncheckedRead,
    Failure::NotLinearizable { .. }
);
// Two proposals that are under way together may overtake each other: who waits for the first is then
// told that nobody knows, in the end as well.
finds!(
    a_proposal_made_twice_is_found,
    ProposedTwice,
    Failure::NotLinearizable { .. } | Failure::Stuck { .. }
);
finds!(
    an_altered_message_is_found,
    AlteredMessage,
    Failure::Disagreement(Disagreement::Changes { .. } | Disagreement::Digest { .. })
);
finds!(
    an_answer_with_a_wrong_revision_is_found,
    WrongRevision,
    Failure::NotLinearizable { .. }
);
finds!(an_event_twice_is_found, EventTwice, Failure::Watch { .. });
finds!(a_lost_event_is_found, EventLost, Failure::Watch { .. });
finds!(
    a_torn_revision_is_found,
    TornRevision,
    Failure::Watch { .. }
);
// Members install snapshots while someone watches there in few runs.
finds!(
    what_a_snapshot_skipped_is_found_missing,
    SnapshotGap,
    Failure::Watch { .. },
    0..60,
    1_000
);
finds!(
    an_early_bookmark_is_found,
    EarlyBookmark,
    Failure::Watch { .. }
);
finds!(
    leases_that_end_early_are_found,
    FastLeases,
    Failure::LeaseTooShort { .. }
);
finds!(
    leases_that_never_end_are_found,
    ImmortalLeases,
    Failure::LeasesImmortal(_)
);
// Few writes of a session are lost or late while later ones are not.
finds!(
    writes_out_of_turn_are_found,
    NoTurns,
    Failure::Turns { .. },
    0..60,
    1_000
);
finds!(
    an_answer_ahead_of_its_events_is_found,
    EarlyReply,
    Failure::Nodes(_)
);
finds!(
    signs_of_life_that_nobody_passes_on_are_found,
    LostTouches,
    Failure::SessionLost(_)
);
