//! Kicking (Client-Server API, "Leaving rooms"): makes somebody else leave, or takes an invite or a knock back.

use myelin_store::tables::Membership;
use ruma::{RoomId, UserId, events::room::member::MembershipState};
use serde_json::Map;

use crate::{
    Error, Rooms, Sender,
    commands::membership::{MembershipChange, Target},
    writer::{Command, Draft},
};

struct Kick<'a> {
    sender: &'a Sender,
    target: Target,
    change: MembershipChange,
}

impl Rooms {
    pub async fn kick(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        user_id: &UserId,
        change: MembershipChange,
    ) -> Result<(), Error> {
        let room = self.own_room(room_id).await?;
        let target = self.target(user_id).await?;
        self.run(room, &Kick { sender, target, change }).await
    }
}

impl Command for Kick<'_> {
    type Output = ();

    async fn act(&self, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.require_joined(self.sender)?;
        draft.require_membership(&self.target, &[Membership::Join, Membership::Invite, Membership::Knock])?;
        let content = self.change.content(&MembershipState::Leave, &Map::new());
        draft.append_member(self.sender, &self.target.user_id, &content).await?;
        Ok(())
    }
}
