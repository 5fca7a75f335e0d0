//! Inviting (Client-Server API, "Joining rooms", "Invite permission").

use myelin_store::tables::Membership;
use ruma::{OwnedEventId, RoomId, UserId, events::room::member::MembershipState};
use serde_json::{Map, Value};

use crate::{
    Error, Rooms, Sender,
    commands::{
        id_of,
        membership::{MembershipChange, Target},
    },
    writer::{Command, Draft},
};

struct Invite<'a> {
    sender: &'a Sender,
    target: Target,
    change: MembershipChange,
    profile: Map<String, Value>,
}

impl Rooms {
    /// Who is invited already stays so, without another event.
    pub async fn invite(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        user_id: &UserId,
        change: MembershipChange,
    ) -> Result<OwnedEventId, Error> {
        self.own_room(room_id).await?;
        self.check_reachable(user_id)?;
        let target = self.target(user_id).await?;
        if self.blocks_invites(target.user, &sender.user_id).await? {
            return Err(Error::InviteBlocked(user_id.to_owned()));
        }
        self.invite_regardless(sender, room_id, user_id, change).await
    }

    /// Whosever invites the user wants.
    pub(crate) async fn invite_regardless(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        user_id: &UserId,
        change: MembershipChange,
    ) -> Result<OwnedEventId, Error> {
        let room = self.own_room(room_id).await?;
        self.check_reachable(user_id)?;
        let target = self.target(user_id).await?;
        let profile = self.profile(target.user).await?;
        self.run(room, &Invite { sender, target, change, profile }).await
    }

    /// An invite must be delivered to the invited user's server.
    pub(crate) fn check_reachable(&self, user_id: &UserId) -> Result<(), Error> {
        if self.view.is_local(user_id) {
            return Ok(());
        }
        Err(Error::Unreachable(user_id.server_name().to_owned()))
    }
}

impl Command for Invite<'_> {
    type Output = OwnedEventId;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<OwnedEventId, Error> {
        draft.require_joined(self.sender)?;
        draft.require_known(self.target.user)?;
        if draft.membership(self.target.user) == Some(Membership::Invite)
            && let Some(event) = draft.member_event(self.target.user).await?
        {
            return Ok(id_of(&event));
        }
        let content = self.change.content(&MembershipState::Invite, &self.profile);
        let event = draft.append_member(self.sender, &self.target.user_id, &content).await?;
        Ok(id_of(&event))
    }
}
