//! Storms: several servers, random users, a bad network, crashes; and then agreement.
//!
//! `cargo xtask sim` runs many, by [`storms_on_request`] and the environment variables that it reads.

use std::panic::catch_unwind;

use myelin_testkit::storm::{Breadth, Options, Outcome, Storm};

const EVERY_VERSION: &[&str] = &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

const OPTIONS: Options = Options {
    servers: 3,
    users_per_server: 2,
    steps: 60,
    steps_per_crash: 12,
    steps_per_change_of_weather: 8,
    versions: &["12", "12", "11", "10", "9", "8", "6"],
    malice: true,
    breadth: Breadth::Narrow,
    omits_members: false,
};

/// Seeds that once failed stay here.
#[test]
fn fixed_seeds() {
    for seed in
        [0, 1_029, 2_001, 2_004, 2_025, 2_037, 2_038, 2_086, 3_001, 3_005, 3_009, 3_026, 3_036, 3_047, 3_057]
    {
        Storm::run(seed, Options { versions: EVERY_VERSION, malice: false, ..OPTIONS });
    }
}

#[test]
fn fixed_seeds_with_a_liar() {
    for seed in [
        10_006, 10_015, 10_024, 10_059, 10_063, 10_112, 20_004, 20_037, 20_088, 20_095, 20_105, 20_149,
        20_158, 20_216, 40_418, 40_445, 40_450,
    ] {
        Storm::run(seed, Options { versions: EVERY_VERSION, ..OPTIONS });
    }
}

#[test]
fn fixed_seeds_of_every_kind() {
    for (seed, steps) in [(50_091, OPTIONS.steps), (60_023, 160), (70_259, OPTIONS.steps)] {
        Storm::run(seed, Options { steps, versions: EVERY_VERSION, breadth: Breadth::Broad, ..OPTIONS });
    }
}

#[test]
fn fixed_seeds_with_liars_everywhere() {
    for seed in [80_098, 80_245, 80_261, 80_296, 80_299, 90_287] {
        Storm::run(seed, Options { versions: EVERY_VERSION, breadth: Breadth::Full, ..OPTIONS });
    }
}

#[test]
fn fixed_seeds_with_members_omitted() {
    for seed in [1, 2, 3, 4] {
        Storm::run(seed, Options { malice: false, omits_members: true, ..OPTIONS });
    }
}

/// A failure prints its seed: add it above.
#[test]
fn fresh_seeds() {
    let base = u64::from(std::process::id()) << 16;
    for seed in base..base + 4 {
        Storm::run(seed, Options { versions: EVERY_VERSION, breadth: Breadth::Full, ..OPTIONS });
    }
}

#[test]
fn old_room_versions() {
    Storm::run(7, Options { steps: 40, versions: EVERY_VERSION, ..OPTIONS });
}

#[test]
fn calm_weather() {
    let options = Options { steps_per_crash: usize::MAX, steps_per_change_of_weather: usize::MAX, ..OPTIONS };
    Storm::run(5, Options { servers: 4, ..options });
}

#[test]
fn a_seed_repeats_itself() {
    let options = Options { steps: 25, ..OPTIONS };
    assert_eq!(Storm::run(11, options), Storm::run(11, options));
}

/// Does nothing unless it is told how many.
#[test]
fn storms_on_request() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(count) = number("MYELIN_SIM_SEEDS") else { return };
    let first = number("MYELIN_SIM_SEED").unwrap_or(1_000);
    let steps = number("MYELIN_SIM_STEPS").and_then(|steps| usize::try_from(steps).ok());
    let breadth = match std::env::var("MYELIN_SIM_BREADTH").as_deref() {
        Ok("narrow") => Breadth::Narrow,
        Ok("broad") => Breadth::Broad,
        _ => Breadth::Full,
    };
    let omits_members = number("MYELIN_SIM_OMITS").is_some();
    let steps = steps.unwrap_or(OPTIONS.steps);
    let options = Options { steps, breadth, omits_members, versions: EVERY_VERSION, ..OPTIONS };
    let mut failed = Vec::new();
    for seed in first..first + count {
        match catch_unwind(|| Storm::run(seed, options)) {
            Ok(outcome) => report(seed, &outcome),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
    println!("{count} seeds passed, {first} to {}", first + count - 1);
}

fn report(seed: u64, outcome: &Outcome) {
    let Outcome { actions, succeeded, crashes, agreed_after_ms, fingerprint } = outcome;
    println!(
        "seed {seed}: {succeeded} of {actions} actions, {crashes} crashes, agreement after {} s, {fingerprint:016x}",
        agreed_after_ms / 1_000
    );
}
