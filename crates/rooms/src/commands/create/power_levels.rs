//! The power levels of a new room.

use ruma::UserId;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{Plan, Preset};
use crate::{Error, Sender};

/// From version 12 on, tombstones need more than the state default, so that only creators send them.
pub const DEFAULT_LEVEL_OF_TOMBSTONES: i64 = 150;
const LEVEL_OF_A_CREATOR: i64 = 100;

impl Plan<'_> {
    pub fn power_levels(&self, sender: &Sender) -> Result<Box<RawValue>, Error> {
        let privileged = self.rules.authorization.explicitly_privilege_room_creators;
        let named = std::iter::once(&*sender.user_id).chain(self.trusted());
        let users = if privileged { Map::new() } else { named_levels(named) };
        let mut content = defaults(users, privileged, self.preset);
        for (field, value) in &self.request.power_level_content_override {
            content.insert(field.clone(), value.clone());
        }
        Ok(to_raw_value(&content)?)
    }
}

/// `users` of a room version in which creators are named there.
pub fn named_levels<'a>(users: impl Iterator<Item = &'a UserId>) -> Map<String, Value> {
    users.map(|user| (user.to_string(), LEVEL_OF_A_CREATOR.into())).collect()
}

fn defaults(users: Map<String, Value>, privileged: bool, preset: Preset) -> Map<String, Value> {
    let tombstone = if privileged { DEFAULT_LEVEL_OF_TOMBSTONES } else { 100 };
    // In private rooms everybody brings others along.
    let invite = if preset == Preset::PublicChat { 50 } else { 0 };
    let content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
        "historical": 100,
    });
    match content {
        Value::Object(content) => content,
        _ => Map::new(),
    }
}
