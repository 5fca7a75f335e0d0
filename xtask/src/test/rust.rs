//! The sections that cargo does: format, lints, the Rust tests, and the server that the clients talk to.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{machine, postgres, process, s3};

/// Tells the Rust tests where their PostgreSQL is.
const POSTGRES_VARIABLE: &str = "MYELIN_TEST_POSTGRES";
/// And their server that speaks S3.
const S3_VARIABLE: &str = "MYELIN_TEST_S3";

pub fn format() -> anyhow::Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt`")
}

pub fn lints() -> anyhow::Result<()> {
    let mut clippy = process::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets"]).args(process::locked());
    process::run(clippy.args(["--", "-D", "warnings"]))
}

pub fn tests(scratch: &Path) -> anyhow::Result<()> {
    let server = postgres::Server::start(scratch)?;
    println!("PostgreSQL: {}", server.uri);
    let bucket = s3::Server::start(scratch)?;
    println!("S3: {}", bucket.endpoint);
    let temporary = scratch.join("rust-tests");
    std::fs::create_dir(&temporary)?;
    let mut tests = process::cargo();
    match machine::has_nextest() {
        true => tests.args(["nextest", "run"]),
        false => tests.args(["test", "--no-fail-fast"]),
    };
    tests.arg("--workspace").args(process::locked());
    tests.env(POSTGRES_VARIABLE, &server.uri).env(S3_VARIABLE, &bucket.endpoint);
    process::run(tests.env("TMPDIR", &temporary))
}

/// Builds the server as the tests did, and returns where it is.
pub fn build_server() -> anyhow::Result<PathBuf> {
    // The same selection of packages as the tests, or cargo would build the dependencies with other features.
    let selection = ["build", "--workspace", "--bins", "--tests"];
    process::run(process::cargo().args(selection).args(process::locked()))?;
    let server = target_directory()?.join("debug").join("myelin");
    anyhow::ensure!(server.is_file(), "the build left no {}", server.display());
    Ok(server)
}

/// Where cargo builds, whatever its configuration says.
pub fn target_directory() -> anyhow::Result<PathBuf> {
    let metadata =
        cargo_metadata::MetadataCommand::new().current_dir(process::workspace_root()).no_deps().exec()?;
    Ok(metadata.target_directory.into())
}
