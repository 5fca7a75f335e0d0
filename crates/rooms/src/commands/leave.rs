//! Leaving, rejecting an invite, taking back a knock (Client-Server API, "Leaving rooms").

use myelin_store::tables::Membership;
use ruma::{RoomId, events::room::member::MembershipState};
use serde_json::Map;

use crate::{
    Error, Rooms, Sender,
    commands::membership::MembershipChange,
    writer::{Command, Draft},
};

struct Leave<'a> {
    sender: &'a Sender,
    change: MembershipChange,
    is_notice_room: bool,
}

impl Rooms {
    /// Idempotent: who has left has left.
    pub async fn leave(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        change: MembershipChange,
    ) -> Result<(), Error> {
        let room = self.own_room(room_id).await?;
        let is_notice_room = self.is_notice_room(sender.user, room).await?;
        self.run(room, &Leave { sender, change, is_notice_room }).await
    }
}

impl Command for Leave<'_> {
    type Output = ();

    async fn act(&self, draft: &mut Draft<'_>) -> Result<(), Error> {
        match draft.membership(self.sender.user) {
            None => return Err(Error::not_in_room(&draft.room.info.room_id)),
            Some(Membership::Leave) => return Ok(()),
            Some(Membership::Ban) => {
                return Err(Error::Forbidden("You are banned from this room.".to_owned()));
            }
            Some(Membership::Invite) if self.is_notice_room => return Err(Error::ServerNotices),
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {}
        }
        let content = self.change.content(&MembershipState::Leave, &Map::new());
        draft.append_member(self.sender, &self.sender.user_id, &content).await?;
        Ok(())
    }
}
