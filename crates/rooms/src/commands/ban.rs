//! Banning (Client-Server API, "Banning users in a room"). Anybody can be banned, in the room or not.

use myelin_store::tables::Membership;
use ruma::{RoomId, UserId, events::room::member::MembershipState};
use serde_json::Map;

use crate::{
    Error, Rooms, Sender,
    commands::membership::{MembershipChange, Target},
    writer::{Command, Draft},
};

struct Ban<'a> {
    sender: &'a Sender,
    target: Target,
    change: MembershipChange,
}

impl Rooms {
    /// Who is banned stays banned, without another event.
    pub async fn ban(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        user_id: &UserId,
        change: MembershipChange,
    ) -> Result<(), Error> {
        let room = self.own_room(room_id).await?;
        let target = self.target(user_id).await?;
        self.run(room, &Ban { sender, target, change }).await
    }
}

impl Command for Ban<'_> {
    type Output = ();

    async fn act(&self, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.require_joined(self.sender)?;
        if draft.membership(self.target.user) == Some(Membership::Ban) && self.change.reason.is_none() {
            return Ok(());
        }
        let content = self.change.content(&MembershipState::Ban, &Map::new());
        draft.append_member(self.sender, &self.target.user_id, &content).await?;
        Ok(())
    }
}
