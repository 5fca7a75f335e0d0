//! Long work on a whole store: verify, backup, compact, drop one-time keys, and what else is asked of a server by a command. The same task runs in the server, asked through the control
//! socket, or in the command itself when no server runs.

mod room_rules;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use myelin_store::{
    Store,
    maintenance::{OnProgress, copy, verify},
};
use myelin_store_postgres::Postgres;
use myelin_users::keys::invalidate::{Followed, drop_one_time_keys};
use serde::{Deserialize, Serialize};

use crate::{
    config::types::StoreUri,
    destinations,
    identity::{self, KeyPlace},
    notices, storage,
};

/// Findings that are printed; the first ones tell enough.
const FINDINGS_SHOWN: usize = 50;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Verify,
    /// Copies the store, as it is at one moment, with its key.
    Backup {
        target: Target,
    },
    Compact,
    /// After the store was set back by other means than a backup of Myelin.
    DropOneTimeKeys,
    /// How it stands with other servers.
    Federation(destinations::Task),
    /// What is said to a user.
    Notice(notices::Notice),
}

/// Where a backup goes; must be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A new embedded store in this (absolute) directory.
    Directory(PathBuf),
    /// A PostgreSQL database.
    Postgres(String),
}

/// What came of a task, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub good: bool,
    pub text: String,
}

/// Does `task` on `store`, whose data directory (if it has one) is `directory`.
pub async fn run(
    task: Task,
    store: &Store,
    directory: Option<&Path>,
    on_progress: OnProgress<'_>,
) -> anyhow::Result<Outcome> {
    match task {
        Task::Verify => verify_store(store, on_progress).await,
        Task::Backup { target } => backup(store, directory, &target, on_progress).await,
        Task::Compact => {
            store.backend().compact().await?;
            Ok(Outcome { good: true, text: "the store is compact".to_owned() })
        }
        Task::DropOneTimeKeys => {
            let dropped = drop_one_time_keys(store, Followed::Yes).await?;
            Ok(Outcome {
                good: true,
                text: format!("{dropped} one-time keys are gone; clients make new ones"),
            })
        }
        Task::Notice(_) => bail!("a notice is said by a server, not by its store"),
        Task::Federation(task) => destinations::in_store(&task, store, crate::system::env().now_ms()).await,
    }
}

async fn verify_store(store: &Store, on_progress: OnProgress<'_>) -> anyhow::Result<Outcome> {
    let report = verify(store, &room_rules::RoomRules, on_progress).await?;
    let seen = format!("{} rows at position {}", report.rows, report.position.0);
    if report.findings_total == 0 {
        return Ok(Outcome { good: true, text: format!("the store is sound: {seen}") });
    }
    let mut lines: Vec<_> = report.findings.iter().take(FINDINGS_SHOWN).map(ToString::to_string).collect();
    let unseen = report.findings_total.saturating_sub(lines.len() as u64);
    if unseen > 0 {
        lines.push(format!("… and {unseen} more"));
    }
    lines.push(format!(
        "{} problems in {seen}: stop the server and restore a backup (docs/operations.md)",
        report.findings_total
    ));
    Ok(Outcome { good: false, text: lines.join("\n") })
}

async fn backup(
    store: &Store,
    directory: Option<&Path>,
    target: &Target,
    on_progress: OnProgress<'_>,
) -> anyhow::Result<Outcome> {
    let key = identity::load_key(store, &KeyPlace::of(directory)).await?;
    let key = key.context("this store has no signing key yet: there is nothing to back up")?;
    let (copy_of, uri) = (open_target(target, directory).await?, target.uri());
    let copied = copy(store, &copy_of, on_progress).await?;
    // Whoever goes on with the copy must not give out what the original has given out since.
    drop_one_time_keys(&copy_of, Followed::No).await?;
    identity::keep_key(&copy_of, &KeyPlace::of(storage::directory(&uri)), &key).await?;
    copy_of.close().await?;
    let mib = copied.bytes as f64 / f64::from(1 << 20);
    let text = format!(
        "{uri} holds the store as it was at position {}: {} rows, {mib:.1} MiB, and the signing key",
        copied.position.0, copied.rows
    );
    Ok(Outcome { good: true, text })
}

async fn open_target(target: &Target, source: Option<&Path>) -> anyhow::Result<Store> {
    match target {
        Target::Postgres(uri) => Ok(Store::new(Arc::new(Postgres::open(uri).await?))),
        Target::Directory(path) => {
            let inside = source
                .and_then(|source| std::path::absolute(source).ok())
                .is_some_and(|s| path.starts_with(s));
            ensure!(!inside, "the backup cannot be inside of the store's own directory");
            if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
                bail!("{} is not empty; choose a new directory", path.display());
            }
            Ok(Store::new(storage::embedded(path)?))
        }
    }
}

impl Target {
    fn uri(&self) -> StoreUri {
        match self {
            Self::Directory(path) => StoreUri::Embedded(path.clone()),
            Self::Postgres(uri) => StoreUri::Postgres(uri.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_core::{EventNid, Position, RoomNid, TimelineOrder, UserNid};
    use myelin_store::{
        Batch,
        memory::{Memory, MemoryDisk},
        tables::{KEY_STOCKS, KeyStockRecord, ONE_TIME_KEYS, OneTimeKeyRecord, TIMELINE},
    };
    use ruma::server_name;

    use super::*;

    async fn store() -> Store {
        let store = Store::open(Arc::new(Memory::open(MemoryDisk::default()))).await.expect("a store");
        let env = crate::system::env();
        identity::establish(&store, &KeyPlace::Store, server_name!("example.org"), &env)
            .await
            .expect("a server");
        store
    }

    async fn done(task: Task, store: &Store, directory: Option<&Path>) -> anyhow::Result<Outcome> {
        run(task, store, directory, &mut |_| {}).await
    }

    #[tokio::test]
    async fn damage_is_reported_and_is_not_good() {
        let store = store().await;
        let sound = done(Task::Verify, &store, None).await.expect("verified");
        assert!(sound.good && sound.text.contains("sound"), "{sound:?}");
        let mut batch = Batch::new();
        batch.put(&TIMELINE, &(RoomNid(7), TimelineOrder(1)), &EventNid(7));
        store.commit(batch).await.expect("committed");
        let damaged = done(Task::Verify, &store, None).await.expect("verified");
        assert!(!damaged.good, "{damaged:?}");
        assert!(
            damaged.text.contains("timeline[") && damaged.text.contains("restore a backup"),
            "{}",
            damaged.text
        );
    }

    #[tokio::test]
    async fn one_time_keys_are_not_in_a_backup() {
        let (store, directory) = (store().await, tempfile::tempdir().expect("a directory"));
        let (key, device) = (OneTimeKeyRecord { json: "{}".to_owned() }, (UserNid(1), "D".to_owned()));
        let row = (device.0, device.1.clone(), "a".to_owned(), Position(1), "a:1".to_owned());
        let stock = KeyStockRecord { one_time_keys: vec![("a".to_owned(), 1)], ..KeyStockRecord::default() };
        let mut batch = Batch::new();
        batch.put(&ONE_TIME_KEYS, &row, &key);
        batch.put(&KEY_STOCKS, &device, &stock);
        store.commit(batch).await.expect("committed");
        let target = directory.path().join("backup");
        let backup = Task::Backup { target: Target::Directory(target.clone()) };
        done(backup, &store, None).await.expect("a backup");
        let copy = Store::new(storage::embedded(&target).expect("a store"));
        assert_eq!(copy.read().all(&ONE_TIME_KEYS, 9).await.expect("readable"), []);
        let left = copy.get(&KEY_STOCKS, &device).await.expect("readable").expect("a stock");
        assert_eq!(left.one_time_keys, [("a".to_owned(), 0)]);
        assert_eq!(copy.position(), store.position());
        assert_eq!(store.read().all(&ONE_TIME_KEYS, 9).await.expect("readable").len(), 1);
        let outcome = done(Task::DropOneTimeKeys, &store, None).await.expect("done");
        assert_eq!(outcome.text, "1 one-time keys are gone; clients make new ones");
        assert_eq!(store.read().all(&ONE_TIME_KEYS, 9).await.expect("readable"), []);
    }

    #[tokio::test]
    async fn a_backup_takes_the_key_along_and_overwrites_nothing() {
        let (store, directory) = (store().await, tempfile::tempdir().expect("a directory"));
        let target = directory.path().join("backup");
        let backup = || Task::Backup { target: Target::Directory(target.clone()) };
        let outcome = done(backup(), &store, None).await.expect("a backup");
        assert!(outcome.good && outcome.text.contains("and the signing key"), "{outcome:?}");
        let place = KeyPlace::of(Some(&target));
        let key = identity::load_key(&store, &place).await.expect("readable").expect("a key");
        let original = identity::load_key(&store, &KeyPlace::Store).await.expect("readable").expect("a key");
        assert_eq!(key.to_text(), original.to_text());

        let again = done(backup(), &store, None).await.expect_err("it exists").to_string();
        assert!(again.contains("is not empty"), "{again}");
        let inside = Task::Backup { target: Target::Directory(target.join("backup")) };
        let refused = done(inside, &store, Some(&target)).await.expect_err("inside").to_string();
        assert!(refused.contains("inside of the store's own directory"), "{refused}");
    }
}
