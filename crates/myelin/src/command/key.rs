//! `myelin key show|rotate`

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Subcommand;
use myelin_federation::keys::own::old_keys;

use super::{Settings, in_the_way};
use crate::{
    identity::{self, KeyPlace},
    logging, runtime, storage,
};

#[derive(Subcommand)]
pub enum Command {
    /// Show the signing keys of this server: the one in use and those before it, public halves only
    Show,
    /// Make a new signing key. The old one is still published, so that what it signed can be verified, but signs nothing
    /// any more. Stop the server first, on PostgreSQL every node: it reads the key when it starts
    Rotate,
}

impl Command {
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let config = settings.load()?.config;
        logging::quietly(&config.log);
        let place = KeyPlace::of(storage::directory(&config.store.uri));
        runtime::command()?.block_on(Box::pin(async {
            let opened = storage::open(&config.store).await;
            let store = opened.with_context(|| in_the_way(&config))?;
            let owner = identity::owner(&store).await?;
            ensure!(owner.is_some(), "no server has used this store yet: its first start makes the key");
            let outcome = match self {
                Self::Show => show(&store, &place).await,
                Self::Rotate => rotate(&store, &place).await,
            };
            store.close().await.context("the store could not be closed cleanly")?;
            outcome.map(|()| ExitCode::SUCCESS)
        }))
    }
}

async fn show(store: &myelin_store::Store, place: &KeyPlace) -> anyhow::Result<()> {
    let key = identity::load_key(store, place).await?.context("the signing key is gone")?;
    println!("{} {} (in use)", key.key_id(), key.public_key_base64());
    for old in old_keys(store).await? {
        println!("{} {} (until {} ms)", old.key_id, old.public_key_base64(), old.expired_ms);
    }
    Ok(())
}

async fn rotate(store: &myelin_store::Store, place: &KeyPlace) -> anyhow::Result<()> {
    let rotated = identity::rotate(store, place, &crate::system::env()).await?;
    println!("{} replaces {}. Start the server to use it.", rotated.new, rotated.old);
    Ok(())
}
