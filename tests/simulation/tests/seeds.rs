//! The simulation with seeds that are always the same.

use std::ops::Range;

use waybill_simulation::{Plan, run_many, run_one};

/// The seeds that each test run takes: enough to reach every branch, the rare ones too.
const SEEDS: Range<u64> = 2000..2264;

/// Seeds that failed once, each with what was wrong then.
const ONCE_FAILED: &[(u64, &str)] = &[
    (1172, "a parcel was waited for whose dispatch the operator had discarded"),
    (3831, "an attempt was left at an event that another replica had passed without an effect"),
];

#[test]
fn nothing_is_violated_and_every_branch_is_reached() {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    let plan = Plan { seeds: SEEDS, jobs, keep_going: true };
    let campaign = run_many(&plan, &|| {}).unwrap();
    assert_eq!(campaign.failures, [], "\n{}", campaign.tally);
    assert_eq!(campaign.tally.missing(), [""; 0], "\n{}", campaign.tally);
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte_of_its_log() {
    for seed in [1, 7] {
        let runs = [run_one(seed).unwrap(), run_one(seed).unwrap()];
        let [first, second] = runs.map(|run| run.log.text().unwrap().to_owned());
        assert!(first.lines().count() > 200);
        assert_eq!(first, second);
    }
}

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, wrong) in ONCE_FAILED {
        let run = run_one(*seed).unwrap();
        assert!(run.outcome.is_ok(), "seed {seed} ({wrong}): {:?}", run.outcome);
    }
}
