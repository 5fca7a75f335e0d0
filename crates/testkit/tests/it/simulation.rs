//! The simulation of one server: fixed seeds, and a few that differ from run to run.

use myelin_testkit::workload::{Options, Workload};

const OPTIONS: Options = Options { users: 5, steps: 120, steps_per_crash: 6 };

/// Seeds that once failed stay here.
#[test]
fn fixed_seeds() {
    for seed in 0..12 {
        Workload::run(seed, OPTIONS);
    }
}

/// A failure prints its seed: add it above.
#[test]
fn fresh_seeds() {
    let base = u64::from(std::process::id()) << 16;
    for seed in base..base + 6 {
        Workload::run(seed, OPTIONS);
    }
}

#[test]
fn a_long_life_without_crashes() {
    Workload::run(99, Options { users: 8, steps: 400, steps_per_crash: usize::MAX });
}
