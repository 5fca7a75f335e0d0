//! What all changes of membership share: the content of member events.

use myelin_core::UserNid;
use myelin_store::tables::Membership;
use myelin_view::{Event, InvitePermission};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};
use serde_json::{Map, Value};

use crate::{Error, Rooms, Sender, commands::state_event, writer::Draft};

/// What a client says about a membership beside the membership itself.
#[derive(Clone, Debug, Default)]
pub struct MembershipChange {
    pub reason: Option<String>,
    /// Content of an `m.room.member` event that the client wrote itself.
    pub content: Map<String, Value>,
}

impl MembershipChange {
    pub fn because(reason: Option<String>) -> Self {
        Self { reason, content: Map::new() }
    }

    /// The content of the member event; `profile` fills in what the client did not say.
    pub(crate) fn content(
        &self,
        membership: &MembershipState,
        profile: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut content = self.content.clone();
        for (field, value) in profile {
            content.entry(field.clone()).or_insert_with(|| value.clone());
        }
        // What was granted to an earlier event is not granted to this one.
        content.remove("join_authorised_via_users_server");
        content.insert("membership".to_owned(), membership.as_str().into());
        if let Some(reason) = &self.reason {
            content.insert("reason".to_owned(), reason.clone().into());
        }
        content
    }
}

/// The user whom somebody wants to invite, kick, ban or unban.
#[derive(Clone, Debug)]
pub struct Target {
    pub user: UserNid,
    pub user_id: OwnedUserId,
}

impl Rooms {
    pub(crate) async fn target(&self, user_id: &UserId) -> Result<Target, Error> {
        let user = self.view.interner.user(user_id).await?;
        // Given out before the room is locked, as a new number costs a commit.
        self.view.interner.state_key("m.room.member", user_id.as_str()).await?;
        Ok(Target { user, user_id: user_id.to_owned() })
    }

    /// Whether the user's invite permission refuses invites of somebody (Client-Server API, "Invite permission").
    pub(crate) async fn blocks_invites(&self, user: UserNid, inviter: &UserId) -> Result<bool, Error> {
        Ok(self.view.invite_permission(user, inviter).await? == InvitePermission::Block)
    }
}

impl Draft<'_> {
    pub(crate) async fn append_member(
        &mut self,
        sender: &Sender,
        target: &UserId,
        content: &Map<String, Value>,
    ) -> Result<std::sync::Arc<Event>, Error> {
        let event = state_event(sender, "m.room.member", target.as_str(), content)?;
        self.append(sender, event).await
    }

    /// Guards commands about somebody in the room.
    pub(crate) fn require_membership(&self, target: &Target, allowed: &[Membership]) -> Result<(), Error> {
        match self.membership(target.user) {
            Some(membership) if allowed.contains(&membership) => Ok(()),
            _ if allowed.contains(&Membership::Ban) => {
                Err(Error::BadState(format!("{} is not banned from this room.", target.user_id)))
            }
            _ => Err(Error::Forbidden(format!("{} is not in this room.", target.user_id))),
        }
    }

    /// Somebody of whom nothing is known as long as members are still to come may be banned.
    pub(crate) fn require_known(&self, user: UserNid) -> Result<(), Error> {
        if self.room.members_omitted && self.membership(user).is_none() {
            return Err(Error::StillJoining(self.room.info.room_id.clone()));
        }
        Ok(())
    }

    pub(crate) fn require_joined(&self, sender: &Sender) -> Result<(), Error> {
        if self.room.is_joined(sender.user) {
            return Ok(());
        }
        Err(Error::not_in_room(&self.room.info.room_id))
    }
}
