//! Opening the store that the configuration names. The only place where backends are named.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use myelin_store::{
    Batch, CommitError, Error, Store,
    memory::{Memory, MemoryDisk},
    tables::{FORMAT, META, META_FORMAT},
};
use myelin_store_fjall::Fjall;

use crate::config::{self, types::StoreUri};

/// Opens the store; creates it if there is none.
pub async fn open(config: &config::Store) -> anyhow::Result<Store> {
    let store = match &config.uri {
        StoreUri::Memory => Store::new(Arc::new(Memory::open(MemoryDisk::default()))),
        StoreUri::Embedded(directory) => open_embedded(directory)?,
        StoreUri::Postgres(uri) => open_postgres(uri, config).await?,
    };
    check_format(&store).await?;
    Ok(store)
}

/// The directory of an embedded store, where the signing key and the control socket are too.
pub fn directory(uri: &StoreUri) -> Option<&Path> {
    match uri {
        StoreUri::Embedded(path) => Some(path),
        StoreUri::Postgres(_) | StoreUri::Memory => None,
    }
}

/// An embedded store in `directory`; private to the owner if it is made here.
pub fn open_embedded(directory: &Path) -> anyhow::Result<Store> {
    if !directory.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("cannot make the directory {} (store.uri)", directory.display()))?;
        let parent =
            directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).ok();
    }
    Ok(Store::new(Arc::new(Fjall::open(directory)?)))
}

async fn open_postgres(_uri: &str, config: &config::Store) -> anyhow::Result<Store> {
    anyhow::bail!("the PostgreSQL store with {} connections is not built yet", config.connections)
}

/// Stamps a new store with the format of this binary, and refuses one that a newer binary has written.
async fn check_format(store: &Store) -> anyhow::Result<()> {
    let key = META_FORMAT.to_owned();
    if store.get(&META, &key).await?.is_none() {
        let mut batch = Batch::new();
        batch.require_absent(&META, &key);
        batch.put(&META, &key, &FORMAT.to_string().into_bytes());
        match store.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let stored = store.get(&META, &key).await?.unwrap_or_default();
    let format = String::from_utf8(stored).ok().and_then(|text| text.parse::<u32>().ok());
    let found = format.context("the format number in the store is damaged; restore a backup")?;
    anyhow::ensure!(found <= FORMAT, Error::NewerFormat { found, known: FORMAT });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_format_is_refused() {
        let store = Store::new(Arc::new(Memory::open(MemoryDisk::default())));
        check_format(&store).await.expect("a new store");
        check_format(&store).await.expect("its own format");
        for (stored, words) in
            [((FORMAT + 1).to_string(), "start the newer version"), ("x".to_owned(), "damaged")]
        {
            let mut batch = Batch::new();
            batch.put(&META, &META_FORMAT.to_owned(), &stored.into_bytes());
            store.commit(batch).await.expect("committed");
            let message = check_format(&store).await.expect_err("refused").to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_store_that_is_in_use_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let open = open_embedded(&path).expect("a new store");
        let message = open_embedded(&path).map(|_| ()).expect_err("in use").to_string();
        assert!(message.contains("in use by another process"), "{message}");
        drop(open);
    }
}
