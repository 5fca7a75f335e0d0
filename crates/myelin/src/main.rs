//! The binary: configuration, composition root, command line.
//!
//! The only crate that names backends, and the only one where time, chance and tasks come from the system.

mod command;
mod compose;
mod config;
mod destinations;
mod doctor;
mod identity;
mod logging;
mod mail;
mod maintenance;
mod media;
mod notices;
mod outbound;
mod previews;
mod runtime;
mod serve;
mod storage;
mod system;

use std::process::ExitCode;

use clap::Parser;

/// Returns memory to the system sooner than the system's own allocator, and fragments less over weeks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
