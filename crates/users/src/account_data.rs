//! Account data, global and per room (Client-Server API, "Client Config"). Each write moves the row in the user's stream
//! to its new position, so the stream holds one row per datum.

use myelin_core::{RoomNid, UserNid, limits};
use myelin_store::{
    Batch, Direction,
    codec::AtPosition,
    log::LogEntry,
    tables::{ACCOUNT_DATA, AccountDataRecord, PUSH_RULE_OWNERS, USER_STREAM, UserChange},
};
use serde_json::value::RawValue;

use crate::{Error, Users, push_rules::PUSH_RULES, transaction::transact};

/// Types that the server manages: they have endpoints of their own.
const SERVER_MANAGED: [&str; 2] = ["m.fully_read", PUSH_RULES];
const TYPES_PER_ROOM_MAX: usize = 10_000;

#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountDataError {
    #[error("'{0}' is managed by the server and cannot be set here")]
    ServerManaged(String),
    #[error("account data has to be a JSON object")]
    NotAnObject,
    #[error("account data has at most {} bytes", limits::ACCOUNT_DATA_SIZE_MAX)]
    TooLarge,
    #[error("the type of account data has 1 to {} bytes", limits::EVENT_FIELD_SIZE_MAX)]
    Type,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    /// The content as it was set; `room` is `RoomNid::GLOBAL` for global data.
    pub async fn account_data(
        &self,
        user: UserNid,
        room: RoomNid,
        kind: &str,
    ) -> Result<Option<String>, Error> {
        let row = self.view.store.get(&ACCOUNT_DATA, &(user, room, kind.to_owned())).await?;
        Ok(row.map(|row| row.value.json))
    }

    /// Every type and content in one room, or globally.
    pub async fn all_account_data(
        &self,
        user: UserNid,
        room: RoomNid,
    ) -> Result<Vec<(String, String)>, Error> {
        let (prefix, limit) = ((user, room), TYPES_PER_ROOM_MAX);
        let rows = self.view.store.scan(&ACCOUNT_DATA, &prefix, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, _, kind), row)| (kind, row.value.json)).collect())
    }

    /// Sets what a client may set.
    pub async fn set_account_data(
        &self,
        user: UserNid,
        room: RoomNid,
        kind: &str,
        content: &RawValue,
    ) -> Result<(), AccountDataError> {
        if SERVER_MANAGED.contains(&kind) {
            return Err(AccountDataError::ServerManaged(kind.to_owned()));
        }
        self.put_account_data(user, room, kind, content).await
    }

    /// Sets anything, for the endpoints that manage it.
    pub async fn put_account_data(
        &self,
        user: UserNid,
        room: RoomNid,
        kind: &str,
        content: &RawValue,
    ) -> Result<(), AccountDataError> {
        self.update_account_data(user, room, kind, |_| Ok(Some(content.get().to_owned()))).await
    }

    /// Replaces a datum by what `update` makes of it; `None` leaves it alone. Nothing written in between is lost.
    pub(crate) async fn update_account_data<E: From<AccountDataError> + From<Error>>(
        &self,
        user: UserNid,
        room: RoomNid,
        kind: &str,
        update: impl Fn(Option<&str>) -> Result<Option<String>, E>,
    ) -> Result<(), E> {
        check_type(kind)?;
        let key = (user, room, kind.to_owned());
        let written: Result<(), E> = transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let old = self.view.store.get(&ACCOUNT_DATA, &key).await.map_err(Error::from)?;
            let Some(json) = update(old.as_ref().map(|row| row.value.json.as_str()))? else {
                return Ok((batch, ()));
            };
            check_content(&json)?;
            batch.require_unchanged(&ACCOUNT_DATA, &key, old.as_ref());
            if let Some(old) = &old {
                batch.delete(&USER_STREAM, &(user, old.position));
            }
            let kind = key.2.clone();
            let position = batch.log(&LogEntry::AccountData { user, room, kind: kind.clone() });
            batch.put(&ACCOUNT_DATA, &key, &AtPosition { position, value: AccountDataRecord { json } });
            if decides_notifications(room, &kind) {
                batch.put(&PUSH_RULE_OWNERS, &user, &());
            }
            batch.put(&USER_STREAM, &(user, position), &UserChange::AccountData { room, kind });
            Ok((batch, ()))
        })
        .await;
        written?;
        if decides_notifications(room, kind) {
            // The next event is judged by what was just acknowledged.
            self.view.feed.caught_up().await;
        }
        Ok(())
    }
}

fn decides_notifications(room: RoomNid, kind: &str) -> bool {
    room == RoomNid::GLOBAL && matches!(kind, PUSH_RULES | "m.ignored_user_list")
}

fn check_type(kind: &str) -> Result<(), AccountDataError> {
    match kind.len() {
        1..=limits::EVENT_FIELD_SIZE_MAX => Ok(()),
        _ => Err(AccountDataError::Type),
    }
}

fn check_content(json: &str) -> Result<(), AccountDataError> {
    if json.len() > limits::ACCOUNT_DATA_SIZE_MAX {
        return Err(AccountDataError::TooLarge);
    }
    if !json.trim_start().starts_with('{') {
        return Err(AccountDataError::NotAnObject);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use myelin_store::tables::LOG;

    use super::*;
    use crate::testing::World;

    const USER: UserNid = UserNid(1);

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn data_is_kept_apart_by_room_and_type() {
        let world = World::new();
        world.run(async {
            let set = async |room, kind, json: &str| {
                world.users.set_account_data(USER, room, kind, &raw(json)).await.unwrap();
            };
            set(RoomNid::GLOBAL, "a", r#"{"n":1}"#).await;
            set(RoomNid(7), "a", r#"{"n":2}"#).await;
            set(RoomNid(7), "b", r#"{"n": 1e5}"#).await;
            let get = async |room, kind| world.users.account_data(USER, room, kind).await.unwrap();
            assert_eq!(get(RoomNid::GLOBAL, "a").await.as_deref(), Some(r#"{"n":1}"#));
            assert_eq!(get(RoomNid(7), "b").await.as_deref(), Some(r#"{"n": 1e5}"#), "as it came");
            assert_eq!(get(RoomNid::GLOBAL, "b").await, None);
            let all = world.users.all_account_data(USER, RoomNid(7)).await.unwrap();
            assert_eq!(all.len(), 2);
        });
    }

    #[test]
    fn the_stream_has_one_row_per_datum_at_its_newest_position() {
        let world = World::new();
        world.run(async {
            for n in 0..3 {
                let content = raw(&format!(r#"{{"n":{n}}}"#));
                world.users.set_account_data(USER, RoomNid::GLOBAL, "a", &content).await.unwrap();
            }
            let last = world.view.store.position();
            let rows = world.view.store.read().all(&USER_STREAM, 9).await.unwrap();
            let change = UserChange::AccountData { room: RoomNid::GLOBAL, kind: "a".to_owned() };
            assert_eq!(rows, [((USER, last), change)]);
            let entry = world.view.store.get(&LOG, &last).await.unwrap();
            let kind = "a".to_owned();
            assert_eq!(entry, Some(LogEntry::AccountData { user: USER, room: RoomNid::GLOBAL, kind }));
        });
    }

    #[test]
    fn whom_a_user_ignores_is_known_at_once() {
        let world = World::new();
        world.run(async {
            let ignored = async || {
                world.view.feed.caught_up().await;
                world.view.ignored.load(USER).await.unwrap()
            };
            assert!(ignored().await.is_empty());
            for (list, count) in [(r#"{"ignored_users":{"@spam:example.org":{}}}"#, 1), ("{}", 0)] {
                let list = raw(list);
                let set = world.users.set_account_data(USER, RoomNid::GLOBAL, "m.ignored_user_list", &list);
                set.await.unwrap();
                assert_eq!(ignored().await.len(), count);
            }
        });
    }

    #[test]
    fn refused_data() {
        let world = World::new();
        let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(limits::ACCOUNT_DATA_SIZE_MAX));
        let set = |kind: &str, json: &str| {
            world.run(world.users.set_account_data(USER, RoomNid::GLOBAL, kind, &raw(json))).unwrap_err()
        };
        assert!(matches!(set("m.fully_read", "{}"), AccountDataError::ServerManaged(_)));
        assert!(matches!(set("m.push_rules", "{}"), AccountDataError::ServerManaged(_)));
        assert!(matches!(set("a", "[]"), AccountDataError::NotAnObject));
        assert!(matches!(set("a", "null"), AccountDataError::NotAnObject));
        assert!(matches!(set("a", &large), AccountDataError::TooLarge));
        assert!(matches!(set("", "{}"), AccountDataError::Type));
        assert!(matches!(set(&"x".repeat(256), "{}"), AccountDataError::Type));
    }
}
