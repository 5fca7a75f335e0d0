//! Backups of room keys, encrypted by the clients (Client-Server API, "Server-side key backups").
//!
//! Every change of a backup's keys requires the row of the backup as it was read, so count and etag are always right. Keys
//! go into the newest version only.

use std::collections::BTreeMap;

use myelin_core::{UserNid, limits};
use myelin_store::{
    Batch, Direction,
    tables::{BACKED_UP_KEYS, BackedUpKeyRecord, KEY_BACKUPS, KeyBackupRecord},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Users, transaction::transact};

/// Bytes of one key, and of `auth_data`.
const SESSION_DATA_SIZE_MAX: usize = 64 * 1024;
const KEYS_PER_BACKUP_MAX: u64 = 1_000_000;
const VERSIONS_MAX: usize = 100_000;
const PAGE: usize = 1_000;

/// A key as it is uploaded.
#[derive(Clone, Debug, Deserialize)]
pub struct KeyData {
    pub first_message_index: u64,
    pub forwarded_count: u64,
    pub is_verified: bool,
    pub session_data: Box<RawValue>,
}

/// Keys by room and session.
pub type Keys<T> = BTreeMap<String, BTreeMap<String, T>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub version: u64,
    pub record: KeyBackupRecord,
}

/// Which keys of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Room(String),
    Session(String, String),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum BackupError {
    #[error("there is no such backup")]
    NotFound,
    #[error("the algorithm of a backup cannot be changed")]
    Algorithm,
    #[error("keys go into the newest backup, which is version {0}")]
    WrongVersion(u64),
    #[error("a key, or the data of a backup, is too large")]
    TooLarge,
    #[error("the backup is full")]
    Full,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for BackupError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Users {
    /// The new version.
    pub async fn create_key_backup(
        &self,
        user: UserNid,
        algorithm: &str,
        auth_data: &str,
    ) -> Result<u64, BackupError> {
        check_sizes(algorithm, auth_data)?;
        transact(&self.view.store, || async {
            let newest = self.view.store.scan(&KEY_BACKUPS, &user, Direction::Reverse, 1).await?;
            let version = newest.first().map_or(1, |((_, version), _)| version + 1);
            let record = KeyBackupRecord {
                algorithm: algorithm.to_owned(),
                auth_data: auth_data.to_owned(),
                etag: 0,
                count: 0,
                deleted: false,
            };
            let mut batch = Batch::new();
            batch.require_absent(&KEY_BACKUPS, &(user, version));
            batch.put(&KEY_BACKUPS, &(user, version), &record);
            Ok((batch, version))
        })
        .await
    }

    /// `None`: the newest.
    pub async fn key_backup(&self, user: UserNid, version: Option<u64>) -> Result<Backup, BackupError> {
        let Some(version) = version else {
            let rows = self.view.store.scan(&KEY_BACKUPS, &user, Direction::Reverse, VERSIONS_MAX).await?;
            let newest = rows.into_iter().find(|(_, record)| !record.deleted);
            let ((_, version), record) = newest.ok_or(BackupError::NotFound)?;
            return Ok(Backup { version, record });
        };
        let record = self.view.store.get(&KEY_BACKUPS, &(user, version)).await?;
        let record = record.filter(|record| !record.deleted).ok_or(BackupError::NotFound)?;
        Ok(Backup { version, record })
    }

    pub async fn update_key_backup(
        &self,
        user: UserNid,
        version: u64,
        algorithm: &str,
        auth_data: &str,
    ) -> Result<(), BackupError> {
        check_sizes(algorithm, auth_data)?;
        transact(&self.view.store, || async {
            let Backup { record, .. } = self.key_backup(user, Some(version)).await?;
            if record.algorithm != algorithm {
                return Err(BackupError::Algorithm);
            }
            let mut batch = Batch::new();
            batch.require_equal(&KEY_BACKUPS, &(user, version), &record);
            let auth_data = auth_data.to_owned();
            batch.put(&KEY_BACKUPS, &(user, version), &KeyBackupRecord { auth_data, ..record });
            Ok((batch, ()))
        })
        .await
    }

    /// The number stays taken; the keys go page by page.
    pub async fn delete_key_backup(&self, user: UserNid, version: u64) -> Result<(), BackupError> {
        transact(&self.view.store, || async {
            let Backup { record, .. } = self.key_backup(user, Some(version)).await?;
            let mut batch = Batch::new();
            batch.require_equal(&KEY_BACKUPS, &(user, version), &record);
            let gone = KeyBackupRecord { auth_data: "{}".to_owned(), count: 0, deleted: true, ..record };
            batch.put(&KEY_BACKUPS, &(user, version), &gone);
            Ok::<_, BackupError>((batch, ()))
        })
        .await?;
        loop {
            let prefix = (user, version);
            let rows = self.view.store.scan(&BACKED_UP_KEYS, &prefix, Direction::Forward, PAGE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            rows.iter().for_each(|(row, _)| batch.delete(&BACKED_UP_KEYS, row));
            self.view.store.commit(batch).await.map_err(Error::from)?;
        }
    }

    /// The backup afterwards. A key that is there already gives way to a better one only.
    pub async fn back_up_keys(
        &self,
        user: UserNid,
        version: u64,
        keys: &Keys<KeyData>,
    ) -> Result<Backup, BackupError> {
        let keys = records(keys)?;
        transact(&self.view.store, || async {
            let newest = self.key_backup(user, None).await?;
            if newest.version != version {
                return Err(BackupError::WrongVersion(newest.version));
            }
            let (mut batch, mut record) = (Batch::new(), newest.record.clone());
            let rows: Vec<_> = keys
                .iter()
                .map(|(room, session, _)| (user, version, room.clone(), session.clone()))
                .collect();
            let held = self.view.store.multi_get(&BACKED_UP_KEYS, &rows).await?;
            for ((row, (_, _, new)), held) in rows.iter().zip(&keys).zip(held) {
                record.count += u64::from(held.is_none());
                if held.is_none_or(|held| is_better(new, &held)) {
                    batch.put(&BACKED_UP_KEYS, row, new);
                }
            }
            if record.count > KEYS_PER_BACKUP_MAX {
                return Err(BackupError::Full);
            }
            if !batch.is_empty() {
                record.etag += 1;
                batch.require_equal(&KEY_BACKUPS, &(user, version), &newest.record);
                batch.put(&KEY_BACKUPS, &(user, version), &record);
            }
            Ok((batch, Backup { version, record }))
        })
        .await
    }

    pub async fn backed_up_keys(
        &self,
        user: UserNid,
        version: u64,
        scope: &Scope,
    ) -> Result<Keys<BackedUpKeyRecord>, BackupError> {
        self.key_backup(user, Some(version)).await?;
        let mut keys = Keys::new();
        for ((_, _, room, session), record) in self.rows_in(user, version, scope).await? {
            keys.entry(room).or_default().insert(session, record);
        }
        Ok(keys)
    }

    /// The backup afterwards.
    pub async fn delete_backed_up_keys(
        &self,
        user: UserNid,
        version: u64,
        scope: &Scope,
    ) -> Result<Backup, BackupError> {
        transact(&self.view.store, || async {
            let backup = self.key_backup(user, Some(version)).await?;
            let rows = self.rows_in(user, version, scope).await?;
            let (mut batch, mut record) = (Batch::new(), backup.record.clone());
            if !rows.is_empty() {
                rows.iter().for_each(|(row, _)| batch.delete(&BACKED_UP_KEYS, row));
                record.count = record.count.saturating_sub(rows.len() as u64);
                record.etag += 1;
                batch.require_equal(&KEY_BACKUPS, &(user, version), &backup.record);
                batch.put(&KEY_BACKUPS, &(user, version), &record);
            }
            Ok((batch, Backup { version, record }))
        })
        .await
    }

    async fn rows_in(&self, user: UserNid, version: u64, scope: &Scope) -> Result<Vec<Row>, Error> {
        let (store, forward, limit) = (&self.view.store, Direction::Forward, KEYS_PER_BACKUP_MAX as usize);
        Ok(match scope {
            Scope::All => store.scan(&BACKED_UP_KEYS, &(user, version), forward, limit).await?,
            Scope::Room(room) => {
                store.scan(&BACKED_UP_KEYS, &(user, version, room.clone()), forward, limit).await?
            }
            Scope::Session(room, session) => {
                let row = (user, version, room.clone(), session.clone());
                store.get(&BACKED_UP_KEYS, &row).await?.map(|record| (row, record)).into_iter().collect()
            }
        })
    }
}

type Row = ((UserNid, u64, String, String), BackedUpKeyRecord);

fn check_sizes(algorithm: &str, auth_data: &str) -> Result<(), BackupError> {
    let fits = algorithm.len() <= limits::EVENT_FIELD_SIZE_MAX && auth_data.len() <= SESSION_DATA_SIZE_MAX;
    if fits { Ok(()) } else { Err(BackupError::TooLarge) }
}

fn records(keys: &Keys<KeyData>) -> Result<Vec<(String, String, BackedUpKeyRecord)>, BackupError> {
    let mut records = Vec::new();
    for (room, sessions) in keys {
        for (session, key) in sessions {
            let names = room.len().max(session.len());
            if names > limits::EVENT_FIELD_SIZE_MAX || key.session_data.get().len() > SESSION_DATA_SIZE_MAX {
                return Err(BackupError::TooLarge);
            }
            let record = BackedUpKeyRecord {
                first_message_index: key.first_message_index,
                forwarded_count: key.forwarded_count,
                is_verified: key.is_verified,
                session_data: key.session_data.get().to_owned(),
            };
            records.push((room.clone(), session.clone(), record));
        }
    }
    Ok(records)
}

/// Verified before not, then the lower first index, then the lower forwarded count.
fn is_better(new: &BackedUpKeyRecord, held: &BackedUpKeyRecord) -> bool {
    let rank = |key: &BackedUpKeyRecord| (!key.is_verified, key.first_message_index, key.forwarded_count);
    rank(new) < rank(held)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::World;

    const USER: UserNid = UserNid(1);

    fn key(first: u64, forwarded: u64, verified: bool) -> KeyData {
        let text = json!({
            "first_message_index": first, "forwarded_count": forwarded, "is_verified": verified,
            "session_data": { "of": [first, forwarded] },
        });
        serde_json::from_value(text).unwrap()
    }

    fn keys(room: &str, session: &str, key: KeyData) -> Keys<KeyData> {
        [(room.to_owned(), [(session.to_owned(), key)].into())].into()
    }

    #[test]
    fn a_key_gives_way_to_a_better_one_only() {
        let world = World::new();
        world.run(async {
            let version = world.users.create_key_backup(USER, "m.x", "{}").await.unwrap();
            let put = async |key: KeyData| {
                let backup = world.users.back_up_keys(USER, version, &keys("!r", "s", key)).await.unwrap();
                let held = world.users.backed_up_keys(USER, version, &Scope::All).await.unwrap();
                let held = &held["!r"]["s"];
                assert_eq!(backup.record.count, 1);
                (held.first_message_index, held.forwarded_count, held.is_verified, backup.record.etag)
            };
            assert_eq!(put(key(5, 5, false)).await, (5, 5, false, 1));
            assert_eq!(put(key(6, 0, false)).await, (5, 5, false, 1));
            assert_eq!(put(key(5, 6, false)).await, (5, 5, false, 1));
            assert_eq!(put(key(5, 4, false)).await, (5, 4, false, 2));
            assert_eq!(put(key(4, 9, false)).await, (4, 9, false, 3));
            assert_eq!(put(key(9, 9, true)).await, (9, 9, true, 4));
            assert_eq!(put(key(0, 0, false)).await, (9, 9, true, 4));
        });
    }

    #[test]
    fn versions_come_and_go() {
        let world = World::new();
        world.run(async {
            let users = &world.users;
            assert!(matches!(users.key_backup(USER, None).await, Err(BackupError::NotFound)));
            assert_eq!(users.create_key_backup(USER, "m.x", "{}").await.unwrap(), 1);
            users.back_up_keys(USER, 1, &keys("!r", "s", key(0, 0, true))).await.unwrap();
            assert_eq!(users.create_key_backup(USER, "m.x", "{}").await.unwrap(), 2);
            let late = users.back_up_keys(USER, 1, &keys("!r", "t", key(0, 0, true))).await;
            assert!(matches!(late, Err(BackupError::WrongVersion(2))));
            let other = users.update_key_backup(USER, 2, "m.y", "{}").await;
            assert!(matches!(other, Err(BackupError::Algorithm)));
            users.update_key_backup(USER, 2, "m.x", r#"{"a":1}"#).await.unwrap();
            assert_eq!(users.key_backup(USER, None).await.unwrap().record.auth_data, r#"{"a":1}"#);
            let large = "x".repeat(SESSION_DATA_SIZE_MAX + 1);
            assert!(matches!(users.create_key_backup(USER, "m.x", &large).await, Err(BackupError::TooLarge)));
            let long = "x".repeat(256);
            let refused = users.back_up_keys(USER, 2, &keys(&long, "s", key(0, 0, true))).await;
            assert!(matches!(refused, Err(BackupError::TooLarge)));
            users.delete_key_backup(USER, 2).await.unwrap();
            assert!(matches!(users.delete_key_backup(USER, 2).await, Err(BackupError::NotFound)));
            assert_eq!(users.key_backup(USER, None).await.unwrap().version, 1, "the one before counts again");
            users.delete_key_backup(USER, 1).await.unwrap();
            assert_eq!(world.view.store.read().all(&BACKED_UP_KEYS, 9).await.unwrap(), []);
            assert_eq!(
                users.create_key_backup(USER, "m.x", "{}").await.unwrap(),
                3,
                "numbers are not used again"
            );
        });
    }

    #[test]
    fn keys_are_read_and_deleted_by_session_room_and_altogether() {
        let world = World::new();
        world.run(async {
            let users = &world.users;
            let version = users.create_key_backup(USER, "m.x", "{}").await.unwrap();
            for (room, session) in [("!a", "1"), ("!a", "2"), ("!b", "1"), ("!c", "1")] {
                users.back_up_keys(USER, version, &keys(room, session, key(0, 0, true))).await.unwrap();
            }
            let count = async |scope: &Scope| {
                let keys = users.backed_up_keys(USER, version, scope).await.unwrap();
                keys.values().map(BTreeMap::len).sum::<usize>()
            };
            let room = Scope::Room("!a".to_owned());
            let session = Scope::Session("!a".to_owned(), "1".to_owned());
            assert_eq!((count(&Scope::All).await, count(&room).await, count(&session).await), (4, 2, 1));
            let mut left = Vec::new();
            for scope in [&session, &session, &room, &Scope::All] {
                let backup = users.delete_backed_up_keys(USER, version, scope).await.unwrap();
                left.push((backup.record.count, backup.record.etag));
            }
            assert_eq!(left, [(3, 5), (3, 5), (2, 6), (0, 7)]);
        });
    }
}
