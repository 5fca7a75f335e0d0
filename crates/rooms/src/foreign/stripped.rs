//! State by which somebody recognises a room that they are invited to or knock on (Client-Server API, "Stripped state"),
//! in the form of PDUs (MSC4311).

use myelin_core::EventNid;
use ruma::RoomId;

use crate::{Error, Rooms};

const TYPES: [&str; 8] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.name",
    "m.room.topic",
    "m.room.history_visibility",
];

impl Rooms {
    /// A JSON array of PDUs: the recognisable state of a room, and the membership of `inviter`.
    pub async fn recognisable_state(
        &self,
        room_id: &RoomId,
        inviter: Option<&ruma::UserId>,
    ) -> Result<String, Error> {
        let room = self.room(room_id).await?;
        let names = TYPES.iter().map(|event_type| (*event_type, ""));
        let inviter = inviter.map(|user_id| ("m.room.member", user_id.as_str()));
        let mut events: Vec<EventNid> = Vec::new();
        for (event_type, state_key) in names.chain(inviter) {
            let key = self.view.interner.lookup_state_key(event_type, state_key).await?;
            events.extend(key.and_then(|key| room.current_state.get(key)));
        }
        self.json_array(events.into_iter(), &[]).await
    }
}
