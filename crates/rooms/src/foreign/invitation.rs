//! Invites to users of other servers: made here, signed there, and only then part of the room (Server-Server API,
//! "Inviting to a room").

use myelin_dag::Pdu;
use myelin_store::tables::Membership;
use myelin_view::RoomInfo;
use ruma::{OwnedEventId, RoomId, UserId, events::room::member::MembershipState};
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::{
    Error, MembershipChange, Rooms, Sender,
    commands::{id_of, membership::Target, state_event},
    writer::{Command, Draft},
};

/// What became of the wish to invite somebody.
#[derive(Debug, Clone)]
pub enum Invitation {
    /// Invited before.
    Stands(OwnedEventId),
    /// To be signed by the invited user's server; nothing is stored yet.
    Drafted { info: Arc<RoomInfo>, event: Box<Pdu> },
}

struct DraftInvite<'a> {
    sender: &'a Sender,
    target: Target,
    content: Map<String, Value>,
}

impl Rooms {
    /// An invite that the room allows now. `content` is what the member event says beside the membership.
    pub async fn draft_invite(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        user_id: &UserId,
        change: &MembershipChange,
    ) -> Result<Invitation, Error> {
        let room = self.own_room(room_id).await?;
        let target = self.target(user_id).await?;
        let content = change.content(&MembershipState::Invite, &Map::new());
        self.run(room, &DraftInvite { sender, target, content }).await
    }
}

impl Command for DraftInvite<'_> {
    type Output = Invitation;

    /// Appends nothing.
    async fn act(&self, draft: &mut Draft<'_>) -> Result<Invitation, Error> {
        draft.require_joined(self.sender)?;
        if draft.room.members_omitted {
            // What the other server has signed could not be taken.
            return Err(Error::unknown_room(&draft.room.info.room_id));
        }
        if draft.membership(self.target.user) == Some(Membership::Invite)
            && let Some(event) = draft.member_event(self.target.user).await?
        {
            return Ok(Invitation::Stands(id_of(&event)));
        }
        let event = state_event(self.sender, "m.room.member", self.target.user_id.as_str(), &self.content)?;
        let (event, _) = draft.make(event).await?;
        Ok(Invitation::Drafted { info: draft.room.info.clone(), event: Box::new(event) })
    }
}
