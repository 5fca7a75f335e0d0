//! Templates of member events for users of other servers (`make_join`, `make_leave`, `make_knock`).

use myelin_dag::{NewEvent, Pdu};
use ruma::{OwnedRoomId, RoomId, RoomVersionId, UserId, events::room::member::MembershipState};
use serde_json::{Map, Value, json};

use crate::{
    Error, Rooms,
    commands::join::AUTHORISED_VIA,
    writer::{Command, Draft},
};

/// An event that the asking server may complete and sign.
#[derive(Debug, Clone)]
pub struct Template {
    pub room_version: RoomVersionId,
    pub event: Map<String, Value>,
}

struct MakeTemplate<'a> {
    rooms: &'a Rooms,
    user_id: &'a UserId,
    membership: MembershipState,
}

impl Rooms {
    /// The room's version, if this server takes part in it and so may let others in.
    pub async fn resident_version(&self, room_id: &RoomId) -> Result<RoomVersionId, Error> {
        Ok(self.resident_room(room_id).await?.info.version.clone())
    }

    pub(crate) async fn resident_room(
        &self,
        room_id: &RoomId,
    ) -> Result<std::sync::Arc<myelin_view::RoomSnapshot>, Error> {
        let room = self.room(room_id).await?;
        // What lacks for want of keys nobody may ever have.
        if room.has_server(&self.view.server_name) && !room.members_omitted {
            Ok(room)
        } else {
            Err(Error::unknown_room(room_id))
        }
    }

    /// What `user_id` would send to get that membership, if the room allows it now.
    pub async fn member_template(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        membership: MembershipState,
    ) -> Result<Template, Error> {
        let room = self.resident_room(room_id).await?;
        self.run(room.nid(), &MakeTemplate { rooms: self, user_id, membership }).await
    }
}

impl Command for MakeTemplate<'_> {
    type Output = Template;

    /// Appends nothing.
    async fn act(&self, draft: &mut Draft<'_>) -> Result<Template, Error> {
        let mut content = json!({ "membership": self.membership.as_str() });
        if self.membership == MembershipState::Join
            && let Some(user) = self.rooms.authorising_user_of(draft, self.user_id).await?
        {
            content[AUTHORISED_VIA] = user.as_str().into();
        }
        let event =
            NewEvent::state(self.user_id.to_owned(), "m.room.member", self.user_id.as_str(), &content)?;
        let (pdu, _) = draft.make(event).await?;
        let event = unsigned(&pdu, draft.room.info.room_id.clone(), self.rooms)?;
        Ok(Template { room_version: draft.room.info.version.clone(), event })
    }
}

/// The event without what only its maker can put in.
fn unsigned(pdu: &Pdu, room_id: OwnedRoomId, rooms: &Rooms) -> Result<Map<String, Value>, Error> {
    let mut event: Map<String, Value> = serde_json::from_str(&pdu.json)?;
    for field in ["hashes", "signatures", "event_id"] {
        event.remove(field);
    }
    event.insert("room_id".to_owned(), room_id.as_str().into());
    event.insert("origin".to_owned(), rooms.view.server_name.as_str().into());
    Ok(event)
}
