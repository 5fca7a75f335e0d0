//! The project's own tasks: `cargo xtask test | tidy | bench | sim | spec | coverage`.
//!
//! Must not know anything of the server's crates: it drives the programs they build, from outside.

mod bench;
mod coverage;
mod sim;
mod spec;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Tests, rules and benchmarks of Myelin",
    disable_help_subcommand = true
)]
enum Task {
    /// Install what is missing and run every test: format, lints, rules, Rust tests, real clients.
    Test(test::Args),
    /// Check the rules of the code base that no compiler checks.
    Tidy(tidy::Args),
    /// Measure the server under load.
    Bench(bench::Args),
    /// Simulate several servers in bad weather, one seed after the other.
    Sim(sim::Args),
    /// Digest a copy of the specification for the tests.
    Spec(spec::Args),
    /// Ask the server for every operation of the specification and write docs/coverage.md.
    Coverage,
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Test(args) => test::run(args),
        Task::Tidy(args) => tidy::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Sim(args) => sim::run(&args),
        Task::Spec(args) => spec::run(&args),
        Task::Coverage => coverage::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
