//! `myelin config check|show|default`

use std::process::ExitCode;

use clap::Subcommand;

use super::Settings;
use crate::config;

#[derive(Subcommand)]
pub enum Command {
    /// Check file, environment and --set; say what is wrong and where
    Check,
    /// Print every effective value and where it was written
    Show,
    /// Print every key with its documentation and default, as a file to start from
    Default {
        /// As the Markdown page docs/configuration.md
        #[arg(long)]
        markdown: bool,
    },
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check => check(settings),
            Self::Show => {
                print!("{}", settings.load()?.show());
                Ok(ExitCode::SUCCESS)
            }
            Self::Default { markdown } => {
                print!("{}", if markdown { config::markdown() } else { config::default_toml() });
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn check(settings: &Settings) -> anyhow::Result<ExitCode> {
    let loaded = settings.load()?;
    for warning in loaded.config.warnings() {
        println!("warning: {warning}");
    }
    match &loaded.file {
        Some(file) => println!("{}: the configuration is valid", file.display()),
        None => println!("no configuration file: the configuration is valid"),
    }
    Ok(ExitCode::SUCCESS)
}
