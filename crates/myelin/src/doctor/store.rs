//! The store and what is tied to it: does it open, whose is it, is its key there and private.

use std::path::Path;

use myelin_store::{Store, tables};

use super::{Finding, bad, good};
use crate::{
    config::{Config, types::StoreUri},
    identity::{self, KeyPlace},
    serve::control,
    storage,
};

/// Rows of each table that are decoded: enough to notice the wrong format, quick on any store.
const ROWS_LOOKED_AT: usize = 200;

pub async fn examine(config: &Config) -> Vec<Finding> {
    let directory = storage::directory(&config.store.uri);
    if let Some(directory) = directory.filter(|directory| !directory.exists()) {
        return vec![absent(directory)];
    }
    let mut findings: Vec<_> = directory.map(key_permissions).into_iter().flatten().collect();
    let socket = storage::control_socket(config).filter(|_| directory.is_some());
    if socket.is_some_and(|socket| control::is_answered(&socket)) {
        findings.push(good("store", format!("{} is in use by the running server", config.store.uri)));
        return findings;
    }
    match storage::open(&config.store).await {
        Err(error) => findings.push(bad("store", format!("{error:#}"), open_remedy(&config.store.uri))),
        Ok(store) => {
            findings.extend(contents(&store, config).await);
            store.close().await.ok();
        }
    }
    findings
}

fn absent(directory: &Path) -> Finding {
    let parent =
        directory.ancestors().skip(1).find(|parent| parent.as_os_str().is_empty() || parent.exists());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let remedy = "make the directory and give it to the user that runs myelin, or change store.uri";
    let cannot = |why: &str| format!("{} cannot be made: {} {why}", directory.display(), parent.display());
    match rustix::fs::access(parent, rustix::fs::Access::WRITE_OK) {
        Ok(()) if !parent.is_dir() => bad("store", cannot("is not a directory"), remedy),
        Ok(()) => {
            good("store", format!("{} does not exist yet; the first start makes it", directory.display()))
        }
        Err(_) => bad("store", cannot("is not writable"), remedy),
    }
}

fn key_permissions(directory: &Path) -> Option<Finding> {
    let KeyPlace::File(file) = KeyPlace::of(Some(directory)) else { return None };
    if !file.exists() {
        return None;
    }
    Some(match identity::is_exposed(&file) {
        false => good("signing key", format!("{} is private", file.display())),
        true => bad(
            "signing key",
            format!("others on this machine can read {}", file.display()),
            format!("chmod 600 {}", file.display()),
        ),
    })
}

fn open_remedy(uri: &StoreUri) -> &'static str {
    match uri {
        StoreUri::Embedded(_) => {
            "if another process has it, stop that one; if it is damaged, restore a backup (docs/operations.md)"
        }
        StoreUri::Postgres(_) => {
            "check that the database runs and that user, password and database in store.uri exist"
        }
        StoreUri::Memory => "free some memory",
    }
}

async fn contents(store: &Store, config: &Config) -> Vec<Finding> {
    vec![owner(store, config).await, signing_key(store, config).await, quick_verify(store).await]
}

async fn signing_key(store: &Store, config: &Config) -> Finding {
    let place = KeyPlace::of(storage::directory(&config.store.uri));
    let remedy = "restore signing.key from a backup";
    match identity::load_key(store, &place).await {
        Ok(Some(key)) => good("signing key", format!("{} can be used", key.key_id())),
        Ok(None) if is_claimed(store).await => bad("signing key", "it is gone", remedy),
        Ok(None) => good("signing key", "there is none yet; the first start makes it"),
        Err(error) => bad("signing key", format!("{error:#}"), remedy),
    }
}

/// Whether a server has started over this store before.
async fn is_claimed(store: &Store) -> bool {
    identity::owner(store).await.is_ok_and(|owner| owner.is_some())
}

async fn owner(store: &Store, config: &Config) -> Finding {
    let name = config.server.name.as_str();
    match identity::owner(store).await {
        Ok(None) => good("store", format!("{} opens and is empty", config.store.uri)),
        Ok(Some(owner)) if owner == name => {
            good("store", format!("{} opens and belongs to {name}", config.store.uri))
        }
        Ok(Some(owner)) => bad(
            "store",
            format!("it belongs to the server '{owner}', but server.name is '{name}'"),
            format!("set server.name = \"{owner}\", or choose another store.uri for the new server"),
        ),
        Err(error) => bad("store", format!("{error:#}"), "restore a backup (docs/operations.md)"),
    }
}

async fn quick_verify(store: &Store) -> Finding {
    for table in tables::ALL {
        let everything = myelin_store::backend::KeyRange { start: Vec::new(), end: None };
        let newest = myelin_store::Direction::Reverse;
        let rows = match store.backend().scan(table.id, everything, newest, ROWS_LOOKED_AT).await {
            Ok(rows) => rows,
            Err(error) => return bad("store", format!("table {}: {error}", table.name), "restore a backup"),
        };
        if let Some(reason) = rows.iter().find_map(|(key, value)| (table.check)(key, value).err()) {
            return bad(
                "store",
                format!("a row of table {} is damaged: {reason}", table.name),
                "run `myelin store verify` for the whole picture, and restore a backup",
            );
        }
    }
    good("store", "a sample of every table is sound (`myelin store verify` looks at everything)")
}
