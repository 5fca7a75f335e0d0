//! `myelin doctor`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::{
    doctor::{self, Verdict},
    runtime,
};

/// Examines configuration, store, key, ports, clock, disk, limits and, with server.public_base_url, the way in from
/// outside. Exits with 1 if something must be put right.
#[derive(Args)]
pub struct Command {}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let loaded = settings.load()?;
        let findings = runtime::command()?.block_on(Box::pin(doctor::examine(&loaded)));
        for finding in &findings {
            println!("{finding}");
        }
        let bad = findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Bad { .. })).count();
        let doubtful =
            findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Doubtful { .. })).count();
        println!("\n{}", summary(bad, doubtful));
        Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn summary(bad: usize, doubtful: usize) -> String {
    match (bad, doubtful) {
        (0, 0) => "all is well".to_owned(),
        (0, doubtful) => format!("nothing is broken; {doubtful} to think about"),
        (bad, 0) => format!("{bad} to put right"),
        (bad, doubtful) => format!("{bad} to put right, {doubtful} to think about"),
    }
}
