//! A seed replays: whatever happens happens again, or no failure could be looked into.

use sim::run::run;
use sim::world::Options;

#[test]
fn twenty_seeds_run_twice_leave_equal_traces() {
    for seed in 0..20 {
        let options = Options {
            seed,
            ops: 150,
            members: 3,
            plant: None,
            trace_lines: 0,
        };
        let report = |options| run(options).0.expect("nothing is planted");
        let (first, second) = (report(options.clone()), report(options));
        assert_eq!(first, second, "seed {seed}");
    }
}
