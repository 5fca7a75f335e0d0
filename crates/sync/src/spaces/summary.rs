//! What is said of a room to who looks at it from outside: the fields of `definitions/room_summary.yaml`.

use myelin_view::RoomSnapshot;
use serde_json::{Value, json};

use crate::{Error, Sync};

impl Sync {
    pub(super) async fn summary_of(&self, room: &RoomSnapshot) -> Result<Value, Error> {
        let rules = self.join_rules(room).await?;
        let guests = self.content_text(room, "m.room.guest_access", "guest_access").await?;
        let mut summary = json!({
            "room_id": room.info.room_id,
            "num_joined_members": room.joined_count,
            "join_rule": rules.rule,
            "guest_can_join": guests.as_deref() == Some("can_join"),
            "world_readable": self.is_world_readable(room).await?,
            "room_version": room.info.version,
        });
        for (field, event_type, key) in [
            ("name", "m.room.name", "name"),
            ("topic", "m.room.topic", "topic"),
            ("avatar_url", "m.room.avatar", "url"),
            ("canonical_alias", "m.room.canonical_alias", "alias"),
            ("encryption", "m.room.encryption", "algorithm"),
        ] {
            if let Some(value) = self.content_text(room, event_type, key).await? {
                summary[field] = value.into();
            }
        }
        if let Some(room_type) = &room.info.room_type {
            summary["room_type"] = room_type.as_str().into();
        }
        if !rules.allowed_rooms.is_empty() {
            summary["allowed_room_ids"] = json!(rules.allowed_rooms);
        }
        Ok(summary)
    }

    async fn content_text(
        &self,
        room: &RoomSnapshot,
        event_type: &str,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let event = self.view.current_state_event(room, event_type, "").await?;
        Ok(event.and_then(|e| e.pdu.content_field::<String>(field)).filter(|text| !text.is_empty()))
    }
}
