//! `myelin serve`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::{logging, runtime, serve};

#[derive(Args)]
pub struct Command {
    /// For trying out: registration is open to everybody on this machine, and only loopback addresses are used
    #[arg(long)]
    dev: bool,
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let loaded = settings.load_as(self.dev)?;
        logging::start(&loaded.config.log);
        runtime::server()?.block_on(Box::pin(serve::run(&loaded, self.dev)))?;
        Ok(ExitCode::SUCCESS)
    }
}
