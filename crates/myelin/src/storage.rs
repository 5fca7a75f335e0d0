//! Opening the store that the configuration names. The only place where backends are named.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use myelin_search::Place;
use myelin_store::{
    Store,
    backend::Backend,
    memory::{Memory, MemoryDisk},
};
use myelin_store_fjall::Fjall;
use myelin_store_postgres::Postgres;

use crate::config::{self, Config, types::StoreUri};

/// Opens the store; creates it if there is none.
pub async fn open(config: &config::Store) -> anyhow::Result<Store> {
    let backend: Arc<dyn Backend> = match &config.uri {
        StoreUri::Memory => Arc::new(Memory::open(MemoryDisk::default())),
        StoreUri::Embedded(directory) => embedded(directory)?,
        StoreUri::Postgres(uri) => Arc::new(Postgres::open(uri).await?),
    };
    Ok(Store::open(backend).await?)
}

/// The directory of an embedded store, where the signing key is too.
pub fn directory(uri: &StoreUri) -> Option<&Path> {
    match uri {
        StoreUri::Embedded(path) => Some(path),
        StoreUri::Postgres(_) | StoreUri::Memory => None,
    }
}

/// Where the running server listens to commands.
pub fn control_socket(config: &Config) -> Option<PathBuf> {
    let beside = match &config.store.uri {
        StoreUri::Embedded(directory) => Some(directory.as_path()),
        StoreUri::Postgres(_) => Some(Path::new("./myelin-data")),
        StoreUri::Memory => None,
    };
    config.server.control_socket.clone().or_else(|| beside.map(|directory| directory.join("control.sock")))
}

/// Where the search index lies: beside an embedded store unless it is told otherwise.
pub fn search_place(config: &Config) -> Place {
    let beside = || directory(&config.store.uri).map(Path::to_owned);
    config.search.path.clone().or_else(beside).map_or(Place::Memory, Place::Directory)
}

/// An embedded store in `directory`; private to the owner if it is made here.
pub fn embedded(directory: &Path) -> anyhow::Result<Arc<dyn Backend>> {
    if !directory.exists() {
        make_private(directory).context("store.uri")?;
        let parent =
            directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).ok();
    }
    Ok(Arc::new(Fjall::open(directory)?))
}

/// A directory, with those above it, for the owner only.
pub fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make the directory {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_in_use_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let open = embedded(&path).expect("a new store");
        let message = embedded(&path).map(|_| ()).expect_err("in use").to_string();
        assert!(message.contains("in use by another process"), "{message}");
        drop(open);
    }
}
