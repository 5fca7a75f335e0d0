//! `cargo xtask test`: the one command that runs every test there is.
//!
//! It installs what is missing (PostgreSQL, Python, Node.js, Chromium, cargo-nextest) and fails where it cannot: a test that
//! was skipped proves nothing. Whatever it starts listens on loopback only, lives in a temporary directory and is
//! stopped by its process id.

mod clients;
mod machine;
mod peers;
mod postgres;
pub mod process;
mod report;
mod rust;
mod s3;
mod service;

use std::process::Command;

use clap::ValueEnum;

pub use self::process::workspace_root;
use self::report::Report;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Run only these sections, e.g. `--only tidy,clients`.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Format,
    Lints,
    Tidy,
    Rust,
    Clients,
    Peers,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let wanted = |section| args.only.is_empty() || args.only.contains(&section);
    let scratch = tempfile::Builder::new().prefix("myelin-test-").tempdir()?;
    let mut report = Report::default();

    report.section("what this machine lacks", || {
        machine::prepare(wanted(Section::Rust), wanted(Section::Clients), wanted(Section::Peers))
    })?;
    if wanted(Section::Format) {
        report.record("format", rust::format);
    }
    if wanted(Section::Lints) {
        report.record("lints", rust::lints);
    }
    if wanted(Section::Tidy) {
        report.record("tidy", crate::tidy::check);
    }
    if wanted(Section::Rust) {
        report.record("Rust tests", || rust::tests(scratch.path()));
    }
    if (wanted(Section::Clients) || wanted(Section::Peers))
        && let Some(server) = report.record("build of the server", rust::build_server)
    {
        if wanted(Section::Clients) {
            report.record("matrix-nio", || clients::nio(&server, scratch.path()));
            report.record("matrix-js-sdk", || clients::js(&server, scratch.path()));
            report.record("matrix-sdk", || clients::rust_sdk(&server, scratch.path()));
            report.record("Element", || clients::element(&server, scratch.path()));
        }
        if wanted(Section::Peers) {
            report.record("Synapse", || peers::synapse(&server, scratch.path()));
        }
    }
    // `-D`: the directory may be a link.
    let size = process::output(Command::new("du").arg("-shD").arg(rust::target_directory()?))?;
    println!("\nbuilt and installed: {size}");
    report.finish()
}
