//! Stored filters (Client-Server API, "Filtering"). A filter that is there already gets the id that it has.

use myelin_core::{UserNid, limits};
use myelin_store::{
    Batch, Direction,
    tables::{FILTERS, FilterRecord},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{Error, Users, transaction::transact};

/// The oldest gives way; clients upload again what they do not find.
const FILTERS_PER_USER_MAX: usize = 100;

#[derive(Debug, Clone, thiserror::Error)]
pub enum FilterError {
    #[error("this is not a filter: {0}")]
    Invalid(String),
    #[error("a filter has at most {} bytes", limits::FILTER_SIZE_MAX)]
    TooLarge,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    /// Stores a filter and answers its id.
    pub async fn define_filter(&self, user: UserNid, definition: &RawValue) -> Result<String, FilterError> {
        let definition = check(definition.get())?;
        let json = definition.to_string();
        let id = transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let stored = self.filters(user).await?;
            if let Some((id, _)) = stored.iter().find(|(_, known)| known == &json) {
                return Ok((batch, *id));
            }
            let id = stored.last().map_or(0, |(last, _)| last + 1);
            let surplus = (stored.len() + 1).saturating_sub(FILTERS_PER_USER_MAX);
            for (oldest, _) in stored.iter().take(surplus) {
                batch.delete(&FILTERS, &(user, *oldest));
            }
            batch.require_absent(&FILTERS, &(user, id));
            batch.put(&FILTERS, &(user, id), &FilterRecord { json: json.clone() });
            Ok::<_, Error>((batch, id))
        })
        .await?;
        Ok(id.to_string())
    }

    /// The JSON of a filter by its id as clients give it.
    pub async fn filter(&self, user: UserNid, id: &str) -> Result<Option<String>, Error> {
        let Ok(id) = id.parse::<u64>() else { return Ok(None) };
        let record = self.view.store.get(&FILTERS, &(user, id)).await?;
        Ok(record.map(|record| record.json))
    }

    async fn filters(&self, user: UserNid) -> Result<Vec<(u64, String)>, Error> {
        let limit = 2 * FILTERS_PER_USER_MAX;
        let rows = self.view.store.scan(&FILTERS, &user, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, id), record)| (id, record.json)).collect())
    }
}

/// The filter in the form in which it is stored: members in order, so that equal filters are equal texts.
fn check(json: &str) -> Result<Value, FilterError> {
    if json.len() > limits::FILTER_SIZE_MAX {
        return Err(FilterError::TooLarge);
    }
    serde_json::from_str::<shape::Filter>(json).map_err(|e| FilterError::Invalid(e.to_string()))?;
    let mut definition: Value =
        serde_json::from_str(json).map_err(|e| FilterError::Invalid(e.to_string()))?;
    definition.sort_all_objects();
    Ok(definition)
}

/// What a filter looks like, for validation only; reading filters is the business of sync.
#[expect(dead_code, reason = "deserialising is the check")]
mod shape {
    use super::*;

    #[derive(Deserialize)]
    pub struct Filter {
        event_fields: Option<Vec<String>>,
        event_format: Option<EventFormat>,
        presence: Option<EventFilter>,
        account_data: Option<EventFilter>,
        room: Option<RoomFilter>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum EventFormat {
        Client,
        Federation,
    }

    #[derive(Deserialize)]
    struct EventFilter {
        limit: Option<u64>,
        types: Option<Vec<String>>,
        not_types: Option<Vec<String>>,
        senders: Option<Vec<OwnedUserId>>,
        not_senders: Option<Vec<OwnedUserId>>,
        rooms: Option<Vec<OwnedRoomId>>,
        not_rooms: Option<Vec<OwnedRoomId>>,
        contains_url: Option<bool>,
        lazy_load_members: Option<bool>,
        include_redundant_members: Option<bool>,
        unread_thread_notifications: Option<bool>,
        related_by_senders: Option<Vec<OwnedUserId>>,
        related_by_rel_types: Option<Vec<String>>,
    }

    #[derive(Deserialize)]
    struct RoomFilter {
        rooms: Option<Vec<OwnedRoomId>>,
        not_rooms: Option<Vec<OwnedRoomId>>,
        include_leave: Option<bool>,
        state: Option<EventFilter>,
        timeline: Option<EventFilter>,
        ephemeral: Option<EventFilter>,
        account_data: Option<EventFilter>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    const USER: UserNid = UserNid(1);

    async fn define(world: &World, json: &str) -> Result<String, FilterError> {
        world.users.define_filter(USER, &RawValue::from_string(json.to_owned()).unwrap()).await
    }

    #[test]
    fn equal_filters_have_one_id() {
        let world = World::new();
        world.run(async {
            let first = define(&world, r#"{"room":{"timeline":{"limit":5}},"event_format":"client"}"#);
            let first = first.await.unwrap();
            let same = r#"{ "event_format": "client", "room": { "timeline": { "limit": 5 } } }"#;
            assert_eq!(define(&world, same).await.unwrap(), first);
            let other = define(&world, r#"{"room":{"timeline":{"limit":6}}}"#).await.unwrap();
            assert_ne!(other, first);
            let stored = world.users.filter(USER, &first).await.unwrap().unwrap();
            let stored: Value = serde_json::from_str(&stored).unwrap();
            assert_eq!(stored["room"]["timeline"]["limit"], 5);
        });
    }

    #[test]
    fn unknown_ids() {
        let world = World::new();
        for id in ["0", "x", "-1", "", "99999999999999999999"] {
            assert_eq!(world.run(world.users.filter(USER, id)).unwrap(), None, "{id}");
        }
    }

    #[test]
    fn what_is_no_filter() {
        for json in [
            "[]",
            "7",
            r#"{"room":[]}"#,
            r#"{"room":{"timeline":{"limit":-1}}}"#,
            r#"{"room":{"timeline":{"limit":"10"}}}"#,
            r#"{"room":{"rooms":["not a room"]}}"#,
            r#"{"presence":{"senders":["nobody"]}}"#,
            r#"{"event_format":"other"}"#,
            r#"{"event_fields":"type"}"#,
        ] {
            assert!(matches!(check(json), Err(FilterError::Invalid(_))), "{json}");
        }
        let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(limits::FILTER_SIZE_MAX));
        assert!(matches!(check(&large), Err(FilterError::TooLarge)));
        assert!(check(r#"{"org.example.unknown":1}"#).is_ok());
    }

    #[test]
    fn the_oldest_filter_gives_way() {
        let world = World::new();
        world.run(async {
            let nth = |n: usize| format!(r#"{{"room":{{"timeline":{{"limit":{n}}}}}}}"#);
            let first = define(&world, &nth(0)).await.unwrap();
            for n in 1..=FILTERS_PER_USER_MAX {
                define(&world, &nth(n)).await.unwrap();
            }
            assert_eq!(world.users.filter(USER, &first).await.unwrap(), None);
            assert_eq!(world.users.filters(USER).await.unwrap().len(), FILTERS_PER_USER_MAX);
        });
    }
}
