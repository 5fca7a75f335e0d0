//! Room tags (Client-Server API, "Room Tagging"): one `m.tag` datum per room.

use myelin_core::{RoomNid, UserNid};
use serde_json::{Map, Value};

use crate::{Error, Users, account_data::AccountDataError};

pub const TAG_TYPE: &str = "m.tag";
/// Of a tag's name, in bytes (specification).
const NAME_SIZE_MAX: usize = 255;

#[derive(Debug, Clone, thiserror::Error)]
pub enum TagError {
    #[error("a tag has 1 to {NAME_SIZE_MAX} bytes")]
    Name,
    #[error("the order of a tag is a number from 0 to 1")]
    Order,
    #[error(transparent)]
    Data(#[from] AccountDataError),
}

impl From<Error> for TagError {
    fn from(error: Error) -> Self {
        Self::Data(error.into())
    }
}

impl Users {
    /// The `tags` of a room.
    pub async fn tags(&self, user: UserNid, room: RoomNid) -> Result<Map<String, Value>, Error> {
        let json = self.account_data(user, room, TAG_TYPE).await?;
        Ok(json.map(|json| parse(&json).1).unwrap_or_default())
    }

    pub async fn set_tag(
        &self,
        user: UserNid,
        room: RoomNid,
        tag: &str,
        info: Map<String, Value>,
    ) -> Result<(), TagError> {
        check(tag, &info)?;
        self.update_tags(user, room, |tags| {
            tags.insert(tag.to_owned(), Value::Object(info.clone()));
            true
        })
        .await
    }

    pub async fn delete_tag(&self, user: UserNid, room: RoomNid, tag: &str) -> Result<(), TagError> {
        self.update_tags(user, room, |tags| tags.remove(tag).is_some()).await
    }

    /// `change` answers whether it changed anything.
    async fn update_tags(
        &self,
        user: UserNid,
        room: RoomNid,
        change: impl Fn(&mut Map<String, Value>) -> bool,
    ) -> Result<(), TagError> {
        self.update_account_data(user, room, TAG_TYPE, |old| {
            let (mut content, mut tags) = old.map(parse).unwrap_or_default();
            if !change(&mut tags) {
                return Ok(None);
            }
            content.insert("tags".to_owned(), Value::Object(tags));
            Ok(Some(Value::Object(content).to_string()))
        })
        .await
    }
}

/// The content and its tags. Clients can write `m.tag` as plain account data, so anything may be in it.
fn parse(json: &str) -> (Map<String, Value>, Map<String, Value>) {
    let mut content: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    match content.remove("tags") {
        Some(Value::Object(tags)) => (content, tags),
        _ => (content, Map::new()),
    }
}

fn check(tag: &str, info: &Map<String, Value>) -> Result<(), TagError> {
    if tag.is_empty() || tag.len() > NAME_SIZE_MAX {
        return Err(TagError::Name);
    }
    match info.get("order") {
        None => Ok(()),
        Some(order) if order.as_f64().is_some_and(|n| (0.0..=1.0).contains(&n)) => Ok(()),
        Some(_) => Err(TagError::Order),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::testing::World;

    const USER: UserNid = UserNid(1);
    const ROOM: RoomNid = RoomNid(7);

    fn info(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn tags_are_set_and_deleted() {
        let world = World::new();
        world.run(async {
            let users = &world.users;
            users.set_tag(USER, ROOM, "m.favourite", info(json!({ "order": 0.5 }))).await.unwrap();
            users.set_tag(USER, ROOM, "u.work", info(json!({}))).await.unwrap();
            let tags = Value::Object(users.tags(USER, ROOM).await.unwrap());
            assert_eq!(tags, json!({ "m.favourite": { "order": 0.5 }, "u.work": {} }));
            users.delete_tag(USER, ROOM, "m.favourite").await.unwrap();
            let position = world.view.store.position();
            users.delete_tag(USER, ROOM, "m.favourite").await.unwrap();
            assert_eq!(world.view.store.position(), position, "nothing to delete, nothing written");
            let data = users.account_data(USER, ROOM, TAG_TYPE).await.unwrap().unwrap();
            assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json!({ "tags": { "u.work": {} } }));
        });
    }

    #[test]
    fn two_tags_set_at_once_are_both_there() {
        let world = World::interleaved();
        world.run(async {
            let set = |tag: &'static str| world.users.set_tag(USER, ROOM, tag, Map::new());
            let (one, two) = futures::join!(set("u.one"), set("u.two"));
            one.and(two).unwrap();
            assert_eq!(world.users.tags(USER, ROOM).await.unwrap().len(), 2);
        });
    }

    #[test]
    fn broken_content_does_not_stop_tagging() {
        let world = World::new();
        world.run(async {
            let broken = to_raw_value(&json!({ "tags": 7, "other": 1 })).unwrap();
            world.users.set_account_data(USER, ROOM, TAG_TYPE, &broken).await.unwrap();
            assert_eq!(world.users.tags(USER, ROOM).await.unwrap().len(), 0);
            world.users.set_tag(USER, ROOM, "u.x", Map::new()).await.unwrap();
            assert_eq!(world.users.tags(USER, ROOM).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn refused_tags() {
        for order in [json!(-0.1), json!(1.1), json!("0.5"), json!(null)] {
            assert!(matches!(check("u.x", &info(json!({ "order": order }))), Err(TagError::Order)));
        }
        assert!(matches!(check("", &Map::new()), Err(TagError::Name)));
        assert!(matches!(check(&"x".repeat(256), &Map::new()), Err(TagError::Name)));
        assert!(check("u.x", &info(json!({ "order": 1 }))).is_ok());
    }
}
