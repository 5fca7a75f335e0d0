//! The command line, one file per command.

mod config;
mod doctor;
mod federation;
mod key;
mod media;
mod notice;
mod password;
mod registration_token;
mod serve;
mod store;
mod user;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{
    compose::Server,
    config::{Config, Loaded, Sources, types::StoreUri},
    logging, runtime,
    serve::control,
    storage,
};

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
    /// Create, change, close and list accounts
    #[command(subcommand)]
    User(user::Command),
    /// Make and list tokens with which people can register
    #[command(subcommand)]
    RegistrationToken(registration_token::Command),
    /// Show and replace the signing key of this server
    #[command(subcommand)]
    Key(key::Command),
    /// Verify, back up and compact the store
    #[command(subcommand)]
    Store(store::Command),
    /// See how it stands with other servers, and ask them again
    #[command(subcommand)]
    Federation(federation::Command),
    /// Say something to a user as the server (a server notice)
    Notice(notice::Command),
    /// List, quarantine and delete media
    #[command(subcommand)]
    Media(media::Command),
    /// Find out what is wrong with this installation, and what to do about it
    Doctor(doctor::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(command) => command.run(&self.settings),
            Command::User(command) => command.run(&self.settings),
            Command::RegistrationToken(command) => command.run(&self.settings),
            Command::Key(command) => command.run(&self.settings),
            Command::Store(command) => command.run(&self.settings),
            Command::Federation(command) => command.run(&self.settings),
            Command::Notice(command) => command.run(&self.settings),
            Command::Media(command) => command.run(&self.settings),
            Command::Doctor(command) => command.run(&self.settings),
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

    /// Does `work` on a server that is composed but answers nobody.
    fn with_server<T>(&self, work: impl AsyncFnOnce(&Server) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let loaded = self.load()?;
        logging::quietly(&loaded.config.log);
        runtime::command()?.block_on(Box::pin(async {
            let config = &loaded.config;
            let opened = Server::open(config, crate::system::env()).await;
            let server = opened.with_context(|| in_the_way(config))?;
            let result = work(&server).await;
            server.store.close().await.context("the store could not be closed cleanly")?;
            result
        }))
    }
}

/// What may keep a command from the store.
fn in_the_way(config: &Config) -> String {
    let answered = || storage::control_socket(config).is_some_and(|socket| control::is_answered(&socket));
    match &config.store.uri {
        uri @ StoreUri::Embedded(_) if answered() => format!(
            "a server is running over {uri}, and an embedded store serves one process at a time: stop the server, run \
             this command, and start it again. (With PostgreSQL commands work beside the server; accounts can also be \
             made through registration.shared_secret.)"
        ),
        uri => format!("the store {uri} cannot be used"),
    }
}
