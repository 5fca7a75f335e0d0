//! Knocking (Client-Server API, "Knocking on rooms").

use myelin_store::tables::Membership;
use ruma::{OwnedEventId, RoomId, events::room::member::MembershipState};
use serde_json::{Map, Value};

use crate::{
    Error, Rooms, Sender,
    commands::{id_of, membership::MembershipChange},
    writer::{Command, Draft},
};

struct Knock<'a> {
    sender: &'a Sender,
    change: MembershipChange,
    profile: Map<String, Value>,
}

impl Rooms {
    pub async fn knock(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        change: MembershipChange,
    ) -> Result<OwnedEventId, Error> {
        let room = self.room(room_id).await?.nid();
        self.target(&sender.user_id).await?;
        let profile = self.profile(sender.user).await?;
        self.run(room, &Knock { sender, change, profile }).await
    }
}

impl Command for Knock<'_> {
    type Output = OwnedEventId;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<OwnedEventId, Error> {
        match draft.membership(self.sender.user) {
            Some(Membership::Join) => {
                return Err(Error::Forbidden("You are in this room already.".to_owned()));
            }
            Some(Membership::Invite) => {
                return Err(Error::Forbidden("You are invited to this room already: join it.".to_owned()));
            }
            Some(Membership::Knock) => {
                if let Some(event) = draft.member_event(self.sender.user).await? {
                    return Ok(id_of(&event));
                }
            }
            _ => {}
        }
        draft.require_known(self.sender.user)?;
        let content = self.change.content(&MembershipState::Knock, &self.profile);
        let event = draft.append_member(self.sender, &self.sender.user_id, &content).await?;
        Ok(id_of(&event))
    }
}
