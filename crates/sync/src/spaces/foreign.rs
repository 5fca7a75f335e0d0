//! Rooms that other servers describe (Server-Server API, "Spaces"), and the port by which they are asked. What they say is
//! taken field by field: anything else stays behind.

use std::sync::Arc;

use futures::future::BoxFuture;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Asks other servers about rooms.
pub trait Elsewhere: Send + std::marker::Sync {
    /// What the first of `via` that knows the room says of it and of its children; `None` if nobody does.
    fn space<'a>(
        &'a self,
        room_id: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> BoxFuture<'a, Option<Arc<ForeignSpace>>>;
}

/// A server that knows no others.
pub struct Alone;

impl Elsewhere for Alone {
    fn space<'a>(
        &'a self,
        _: &'a RoomId,
        _: &'a [OwnedServerName],
        _: bool,
    ) -> BoxFuture<'a, Option<Arc<ForeignSpace>>> {
        Box::pin(std::future::ready(None))
    }
}

/// The answer to `GET /_matrix/federation/v1/hierarchy/{roomId}`.
#[derive(Clone, Debug, Deserialize)]
pub struct ForeignSpace {
    pub room: ForeignRoom,
    #[serde(default)]
    pub children: Vec<ForeignRoom>,
    #[serde(default)]
    pub inaccessible_children: Vec<OwnedRoomId>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ForeignRoom {
    pub room_id: OwnedRoomId,
    pub num_joined_members: u64,
    #[serde(default = "public")]
    pub join_rule: String,
    #[serde(default)]
    pub guest_can_join: bool,
    #[serde(default)]
    pub world_readable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<OwnedRoomId>,
    #[serde(default, skip_serializing)]
    pub children_state: Vec<Value>,
}

/// What a server means that leaves the rule out.
fn public() -> String {
    "public".to_owned()
}

impl ForeignRoom {
    pub fn is_space(&self) -> bool {
        self.room_type.as_deref() == Some("m.space")
    }

    /// For clients; without children.
    pub fn summary(&self) -> Value {
        serde_json::to_value(self).unwrap_or_else(|_| json!({}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_adds_stays_behind() {
        let text = r#"{
            "room_id": "!a:b.test", "num_joined_members": 3, "evil": {"x": 1}, "name": "n",
            "children_state": [{"type": "m.space.child"}]
        }"#;
        let room: ForeignRoom = serde_json::from_str(text).unwrap();
        let expected = json!({
            "room_id": "!a:b.test", "num_joined_members": 3, "name": "n", "join_rule": "public",
            "guest_can_join": false, "world_readable": false,
        });
        assert_eq!(room.summary(), expected);
        assert!(serde_json::from_str::<ForeignRoom>(r#"{"room_id": "!a:b.test"}"#).is_err());
        assert!(serde_json::from_str::<ForeignRoom>(r#"{"room_id": 1, "num_joined_members": 3}"#).is_err());
    }
}
