//! A changed profile in the member event of one room (Client-Server API, "Events on change of profile information").

use myelin_core::RoomNid;
use serde_json::{Map, Value};

use crate::{
    Error, Rooms, Sender,
    writer::{Command, Draft},
};

struct UpdateProfile<'a> {
    sender: &'a Sender,
    profile: Map<String, Value>,
}

impl Rooms {
    /// Writes an event only if the member event shows another profile.
    pub(crate) async fn update_profile(&self, sender: &Sender, room: RoomNid) -> Result<(), Error> {
        let profile = self.profile(sender.user).await?;
        self.run(room, &UpdateProfile { sender, profile }).await
    }
}

impl Command for UpdateProfile<'_> {
    type Output = ();

    async fn act(&self, draft: &mut Draft<'_>) -> Result<(), Error> {
        if !draft.room.is_joined(self.sender.user) {
            return Ok(());
        }
        let Some(event) = draft.member_event(self.sender.user).await? else { return Ok(()) };
        let held: Map<String, Value> = serde_json::from_str(event.pdu.content.get())?;
        let mut content = held.clone();
        for field in ["displayname", "avatar_url"] {
            match self.profile.get(field) {
                Some(value) => content.insert(field.to_owned(), value.clone()),
                None => content.remove(field),
            };
        }
        if content == held {
            return Ok(());
        }
        // Both belong to the moment of joining.
        content.remove("reason");
        content.remove("join_authorised_via_users_server");
        draft.append_member(self.sender, &self.sender.user_id, &content).await?;
        Ok(())
    }
}
