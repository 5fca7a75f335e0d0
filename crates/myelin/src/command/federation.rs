//! `myelin federation destinations|show|retry|reset`

use std::process::ExitCode;

use clap::Subcommand;
use ruma::OwnedServerName;

use super::{Settings, store};
use crate::{destinations, logging, maintenance::Task, runtime};

#[derive(Subcommand)]
pub enum Command {
    /// List other servers: who gets everything, who does not, since when and why
    Destinations,
    /// Everything about one server: what waits for it and why
    Show {
        #[arg(value_name = "SERVER")]
        server: OwnedServerName,
    },
    /// Ask a server (or all that failed) again now instead of when its time has come
    Retry {
        #[arg(value_name = "SERVER")]
        server: Option<OwnedServerName>,
    },
    /// Forget that a server (or all) failed before, and ask again now. What waits is kept
    Reset {
        #[arg(value_name = "SERVER")]
        server: Option<OwnedServerName>,
    },
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let loaded = settings.load()?;
        logging::quietly(&loaded.config.log);
        let task = Task::Federation(match self {
            Self::Destinations => destinations::Task::List,
            Self::Show { server } => destinations::Task::Show(server),
            Self::Retry { server } => destinations::Task::Retry(server),
            Self::Reset { server } => destinations::Task::Reset(server),
        });
        let outcome = runtime::command()?.block_on(Box::pin(store::perform(task, &loaded.config)))?;
        println!("{}", outcome.text);
        Ok(if outcome.good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
