//! Joining (Client-Server API, "Joining rooms", "Restricted rooms", "Guest access").

use myelin_core::UserNid;
use myelin_store::tables::Membership;
use myelin_view::Event;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState,
    room::JoinRuleKind, state_res::events::RoomPowerLevelsIntField,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    Error, Rooms, Sender,
    commands::{id_of, membership::MembershipChange},
    writer::{Command, Draft},
};

pub(crate) const AUTHORISED_VIA: &str = "join_authorised_via_users_server";

/// What comes with a join.
#[derive(Clone, Debug, Default)]
pub struct Join {
    pub change: MembershipChange,
    /// Write an event even if the user is joined already (a client that writes its own member event).
    pub update: bool,
}

struct JoinCommand<'a> {
    rooms: &'a Rooms,
    sender: &'a Sender,
    join: &'a Join,
    profile: Map<String, Value>,
}

/// The parts of `m.room.join_rules` that matter here.
#[derive(Deserialize)]
struct JoinRules {
    join_rule: JoinRuleKind,
    #[serde(default)]
    allow: Vec<Value>,
}

impl Rooms {
    /// Idempotent: who is joined stays joined.
    pub async fn join(&self, sender: &Sender, room_id: &RoomId, join: Join) -> Result<OwnedEventId, Error> {
        let room = self.room(room_id).await?.nid();
        self.target(&sender.user_id).await?;
        let profile = self.profile(sender.user).await?;
        self.run(room, &JoinCommand { rooms: self, sender, join: &join, profile }).await
    }
}

impl Command for JoinCommand<'_> {
    type Output = OwnedEventId;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<OwnedEventId, Error> {
        let sender = self.sender;
        let before = draft.membership(sender.user);
        let mut content = self.join.change.content(&MembershipState::Join, &self.profile);
        if let (Some(Membership::Join), Some(event)) = (before, draft.member_event(sender.user).await?) {
            let same =
                || serde_json::from_str(event.pdu.content.get()).is_ok_and(|held: Map<_, _>| held == content);
            if !self.join.update || same() {
                return Ok(id_of(&event));
            }
        }
        if sender.guest && !guests_may_join(draft).await? {
            return Err(Error::GuestAccess);
        }
        draft.require_known(sender.user)?;
        if let Some(user) = self.rooms.authorising_user_of(draft, &sender.user_id).await? {
            content.insert(AUTHORISED_VIA.to_owned(), user.as_str().into());
        }
        let event = draft.append_member(sender, &sender.user_id, &content).await?;
        if before != Some(Membership::Join) {
            draft.inherit_tags(sender).await?;
        }
        Ok(id_of(&event))
    }
}

impl Rooms {
    /// For rooms with a restricted join rule: the member of this server who lets the user in, given that the user
    /// fulfils a condition. `None` for other rooms.
    pub(crate) async fn authorising_user_of(
        &self,
        draft: &Draft<'_>,
        user_id: &UserId,
    ) -> Result<Option<OwnedUserId>, Error> {
        let user = self.view.interner.lookup_user(user_id).await?;
        let before = user.and_then(|user| draft.membership(user));
        if matches!(before, Some(Membership::Join | Membership::Invite | Membership::Ban)) {
            return Ok(None);
        }
        if !draft.room.info.rules.authorization.restricted_join_rule {
            return Ok(None);
        }
        let Some(rules) = join_rules(draft).await? else { return Ok(None) };
        if !matches!(rules.join_rule, JoinRuleKind::Restricted | JoinRuleKind::KnockRestricted) {
            return Ok(None);
        }
        self.require_condition(&rules.allow, user).await?;
        self.member_who_may_invite(draft).await?.map(Some).ok_or(Error::UnableToGrantJoin)
    }

    async fn require_condition(&self, conditions: &[Value], user: Option<UserNid>) -> Result<(), Error> {
        let mut unknown = false;
        for room_id in conditions.iter().filter_map(room_of_condition) {
            let room = self.view.room_by_id(&room_id).await?;
            let room = room.filter(|room| room.has_server(&self.view.server_name));
            match (room, user) {
                (Some(room), Some(user)) if room.is_joined(user) => return Ok(()),
                // Who is not among the members of a room that are known so far may be among the others.
                (Some(room), user) => {
                    unknown |= room.partial && user.is_none_or(|user| room.membership(user).is_none());
                }
                (None, _) => unknown = true,
            }
        }
        if unknown {
            return Err(Error::UnableToAuthoriseJoin);
        }
        let refusal =
            "You do not belong to any of the rooms that let you join this one, and you are not invited.";
        Err(Error::Forbidden(refusal.to_owned()))
    }

    async fn member_who_may_invite(&self, draft: &Draft<'_>) -> Result<Option<OwnedUserId>, Error> {
        // Whom the power levels name, and then any one of all the others, who are all alike.
        let mut candidates = draft.power_levels(|levels| levels.named()).await?;
        let mut unnamed = None;
        for user in &draft.room.local_joined {
            let user_id = self.view.interner.user_id(*user).await?;
            if !candidates.iter().any(|named| **named == *user_id) {
                unnamed = Some((*user_id).to_owned());
                break;
            }
        }
        candidates.extend(unnamed);
        let mut here = Vec::new();
        for user_id in candidates {
            let user = self.view.interner.lookup_user(&user_id).await?;
            if user.is_some_and(|user| draft.room.local_joined.contains(&user)) {
                here.push(user_id);
            }
        }
        let may_invite = draft.power_levels(|levels| {
            here.into_iter().find(|user| levels.may(user, RoomPowerLevelsIntField::Invite))
        });
        may_invite.await
    }
}

async fn join_rules(draft: &Draft<'_>) -> Result<Option<JoinRules>, Error> {
    let event = draft.state_event("m.room.join_rules", "").await?;
    Ok(event.and_then(|event| serde_json::from_str(event.pdu.content.get()).ok()))
}

fn room_of_condition(condition: &Value) -> Option<OwnedRoomId> {
    if condition.get("type")?.as_str()? != "m.room_membership" {
        return None;
    }
    condition.get("room_id")?.as_str()?.try_into().ok()
}

async fn guests_may_join(draft: &Draft<'_>) -> Result<bool, Error> {
    Ok(admits_guests(draft.state_event("m.room.guest_access", "").await?.as_deref()))
}

/// Whether the `m.room.guest_access` event of a room, or that there is none, lets guests in.
pub(crate) fn admits_guests(event: Option<&Event>) -> bool {
    let access = event.and_then(|event| event.pdu.content_field::<String>("guest_access"));
    access.as_deref() == Some("can_join")
}
