//! `cargo xtask coverage`: runs the coverage test of `myelin-testkit` and lets it write `docs/coverage.md`.

use anyhow::Context;

use crate::test::process;

const TEST: &str = "coverage::the_table_is_that_of_the_server";

pub fn run() -> anyhow::Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--package", "myelin-testkit", "--test", "it"]).args(process::locked());
    cargo.args(["--", "--exact", TEST, "--nocapture"]).env("MYELIN_COVERAGE", "write");
    process::run(&mut cargo).context("no operation may get worse")
}
