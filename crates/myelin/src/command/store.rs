//! `myelin store verify|backup|compact|drop-one-time-keys`

use std::{
    path::{Path, PathBuf, absolute},
    process::ExitCode,
};

use anyhow::Context;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::Settings;
use crate::{
    config::Config,
    logging,
    maintenance::{self, Outcome, Target, Task},
    runtime,
    serve::control::{self, Step},
    storage,
};

#[derive(Subcommand)]
pub enum Command {
    /// Check every row: that it can be read, its hashes, and what it refers to. Changes nothing; works beside the server
    Verify,
    /// Copy everything, as it is at one moment, to a new place; works beside the server
    Backup {
        /// A new directory, or a postgres:// URI of an empty database. To restore, make it the store.uri
        #[arg(value_name = "DIRECTORY|URI")]
        target: String,
    },
    /// Rewrite the store without what was deleted, to save space
    Compact,
    /// Make every device upload new one-time keys. For a store that was set back by other means than `store backup`, such
    /// as a snapshot of the disk: keys that were given out since must not be given out again; works beside the server
    DropOneTimeKeys,
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let loaded = settings.load()?;
        logging::quietly(&loaded.config.log);
        let task = self.task()?;
        let outcome = runtime::command()?.block_on(Box::pin(perform(task, &loaded.config)))?;
        println!("{}", outcome.text);
        Ok(if outcome.good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn task(self) -> anyhow::Result<Task> {
        Ok(match self {
            Self::Verify => Task::Verify,
            Self::Compact => Task::Compact,
            Self::DropOneTimeKeys => Task::DropOneTimeKeys,
            Self::Backup { target } if target.starts_with("postgres") && target.contains("://") => {
                Task::Backup { target: Target::Postgres(target) }
            }
            Self::Backup { target } => {
                let path = PathBuf::from(target.strip_prefix("embedded:").unwrap_or(&target));
                Task::Backup {
                    target: Target::Directory(absolute(&path).context("where should the backup go?")?),
                }
            }
        })
    }
}

/// In the server that runs, if it alone has the store or alone knows the answer, or else here.
pub(super) async fn perform(task: Task, config: &Config) -> anyhow::Result<Outcome> {
    let bar = Bar::new();
    let directory = storage::directory(&config.store.uri);
    let socket = storage::control_socket(config);
    let concerns_server = directory.is_some() || matches!(task, Task::Federation(_));
    if let Some(socket) = socket.filter(|_| concerns_server)
        && let Some(outcome) = control::ask(&socket, &task, |step| bar.show(&step)).await?
    {
        return Ok(outcome);
    }
    if let Some(directory) = directory {
        anyhow::ensure!(directory.exists(), "there is no store in {}", directory.display());
    }
    here(task, config, directory, &bar).await
}

async fn here(task: Task, config: &Config, directory: Option<&Path>, bar: &Bar) -> anyhow::Result<Outcome> {
    let store = storage::open(&config.store).await?;
    let mut show = |progress| bar.show(&Step::from(progress));
    let outcome = maintenance::run(task, &store, directory, &mut show).await;
    store.close().await?;
    outcome
}

/// Nothing is drawn unless somebody watches.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}");
        let bar = ProgressBar::new(1);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self(bar)
    }

    fn show(&self, step: &Step) {
        self.0.set_length(step.steps);
        self.0.set_position(step.number.saturating_sub(1));
        self.0.set_message(format!("{}: {} rows", step.name, step.rows));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
