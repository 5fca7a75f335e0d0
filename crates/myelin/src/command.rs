//! The command line, one file per command.

mod config;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{Loaded, Sources};

/// A Matrix homeserver.
#[derive(Parser)]
#[command(name = "myelin", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration comes from.
#[derive(Args)]
pub struct Settings {
    /// Configuration file [default: myelin.toml, if there is one]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key over file and environment; the value is TOML, a bare word is a string
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(command) => command.run(&self.settings),
            Command::Config(command) => command.run(&self.settings),
        }
    }
}

impl Settings {
    fn load(&self) -> anyhow::Result<Loaded> {
        self.load_as(false)
    }

    fn load_as(&self, dev: bool) -> anyhow::Result<Loaded> {
        let sources =
            Sources { file: self.config.clone(), env: Sources::process_env(), dev, set: self.set.clone() };
        Ok(sources.load()?)
    }
}
