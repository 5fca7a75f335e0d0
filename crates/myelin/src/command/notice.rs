//! `myelin notice`

use std::{
    io::{Read, stdin},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::Args;
use ruma::UserId;

use super::{Settings, in_the_way};
use crate::{
    compose::Server, config::Config, logging, maintenance::Task, notices, runtime, serve::control, storage,
};

/// As much as fits into an event with some room to spare.
const TEXT_SIZE_MAX: u64 = 32 * 1024;

#[derive(Args)]
pub struct Command {
    /// Like alice, or @alice:example.org
    user: String,
    /// What is said; left out, it is read from standard input
    text: Option<String>,
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let loaded = settings.load()?;
        logging::quietly(&loaded.config.log);
        let server_name = &loaded.config.server.name;
        let user_id = UserId::parse_with_server_name(&*self.user, server_name).with_context(|| {
            format!("'{}' is not a user name; write alice or @alice:{server_name}", self.user)
        })?;
        let text = self.text.map_or_else(read_text, Ok)?;
        ensure!(!text.trim().is_empty(), "there is nothing to say");
        let notice = notices::Notice { user_id, text };
        println!("{}", runtime::command()?.block_on(Box::pin(say(notice, &loaded.config)))?);
        Ok(ExitCode::SUCCESS)
    }
}

fn read_text() -> anyhow::Result<String> {
    let mut text = String::new();
    stdin().take(TEXT_SIZE_MAX).read_to_string(&mut text).context("standard input cannot be read")?;
    Ok(text.trim_end().to_owned())
}

/// By the server that has the store, or else here.
async fn say(notice: notices::Notice, config: &Config) -> anyhow::Result<String> {
    let task = Task::Notice(notice.clone());
    if let Some(socket) = storage::control_socket(config)
        && let Some(outcome) = control::ask(&socket, &task, drop).await?
    {
        return Ok(outcome.text);
    }
    let server = Server::open(config, crate::system::env()).await;
    let server = server.with_context(|| in_the_way(config))?;
    server.start_feed();
    let said = notices::say(&server.notices(config), notice).await;
    server.store.close().await.context("the store could not be closed cleanly")?;
    Ok(said?.text)
}
