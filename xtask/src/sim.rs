//! `cargo xtask sim`: many storms of the simulator (`crates/testkit/src/storm.rs`), each from a seed of its own.
//!
//! Runs the test `storms::storms_on_request` of `myelin-testkit`, which reads how many from its environment; so it knows
//! nothing of the simulator but its name.

use anyhow::Context;
use clap::Parser;

use crate::test::process;

const TEST: &str = "storms::storms_on_request";

#[derive(Parser)]
pub struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1_000)]
    seed: u64,
    /// Steps of each storm.
    #[arg(long)]
    steps: Option<u64>,
    /// What users and liars do (`narrow`, `broad`, `full`): seeds in the lists of the test need what there was when they
    /// failed.
    #[arg(long)]
    breadth: Option<String>,
    /// Optimised: pays off from some hundreds of seeds on.
    #[arg(long)]
    release: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--package", "myelin-testkit", "--test", "it"]).args(process::locked());
    if args.release {
        cargo.arg("--release");
    }
    cargo.args(["--", "--exact", TEST, "--nocapture"]);
    cargo.env("MYELIN_SIM_SEEDS", args.seeds.to_string()).env("MYELIN_SIM_SEED", args.seed.to_string());
    if let Some(breadth) = &args.breadth {
        cargo.env("MYELIN_SIM_BREADTH", breadth);
    }
    if let Some(steps) = args.steps {
        cargo.env("MYELIN_SIM_STEPS", steps.to_string());
    }
    process::run(&mut cargo).context("a seed that fails is repeated with --seeds 1 --seed N")
}
