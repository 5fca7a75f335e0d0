//! Who may know of a room without being in it: the list in the specification of `/hierarchy`.

use myelin_core::UserNid;
use myelin_store::tables::Membership;
use myelin_view::RoomSnapshot;
use ruma::{OwnedRoomId, RoomId, ServerName};
use serde::Deserialize;

use super::ForeignRoom;
use crate::{Error, Sync};

/// Who looks at a room from outside.
#[derive(Clone, Copy, Debug)]
pub enum Outsider<'a> {
    /// `None`: somebody without an account here.
    User(Option<UserNid>),
    /// Another server, for any of its users.
    Server(&'a ServerName),
}

/// What the join rules say.
pub struct JoinRules {
    pub rule: String,
    pub allowed_rooms: Vec<OwnedRoomId>,
}

/// `allow` of `m.room.join_rules`.
#[derive(Deserialize)]
struct AllowRule {
    room_id: Option<OwnedRoomId>,
}

impl Sync {
    pub(super) async fn is_open_to(&self, room: &RoomSnapshot, who: Outsider<'_>) -> Result<bool, Error> {
        let own = match who {
            Outsider::User(user) => self.standing_of_user(room, user),
            Outsider::Server(server) => self.standing_of_server(room, server).await?,
        };
        match own {
            Some(Standing::Inside) => return Ok(true),
            Some(Standing::Banned) if matches!(who, Outsider::Server(_)) => return Ok(false),
            _ => {}
        }
        if self.is_world_readable(room).await? {
            return Ok(true);
        }
        let rules = self.join_rules(room).await?;
        match rules.rule.as_str() {
            "public" | "knock" | "knock_restricted" => Ok(own != Some(Standing::Banned)),
            "restricted" => self.is_in_any(who, &rules.allowed_rooms).await,
            _ => Ok(false),
        }
    }

    /// The same for a room of which only another server's description is at hand.
    pub(super) async fn is_foreign_open_to(&self, room: &ForeignRoom, user: UserNid) -> Result<bool, Error> {
        match self.membership_outside(user, &room.room_id).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => return Ok(true),
            Some(Membership::Ban) => return Ok(false),
            _ => {}
        }
        if room.world_readable || matches!(&*room.join_rule, "public" | "knock" | "knock_restricted") {
            return Ok(true);
        }
        Ok(room.join_rule == "restricted"
            && self.is_in_any(Outsider::User(Some(user)), &room.allowed_room_ids).await?)
    }

    pub(super) async fn membership_outside(
        &self,
        user: UserNid,
        room_id: &RoomId,
    ) -> Result<Option<Membership>, Error> {
        let Some(room) = self.view.interner.lookup_room(room_id).await? else { return Ok(None) };
        let held = self.view.user_rooms.load(user).await?.get(&room).map(|held| held.membership);
        Ok(held)
    }

    fn standing_of_user(&self, room: &RoomSnapshot, user: Option<UserNid>) -> Option<Standing> {
        match room.membership(user?)? {
            Membership::Join | Membership::Invite | Membership::Knock => Some(Standing::Inside),
            Membership::Ban => Some(Standing::Banned),
            Membership::Leave => None,
        }
    }

    async fn standing_of_server(
        &self,
        room: &RoomSnapshot,
        server: &ServerName,
    ) -> Result<Option<Standing>, Error> {
        if !self.view.permits(room, server).await? {
            return Ok(Some(Standing::Banned));
        }
        if room.has_server(server) {
            return Ok(Some(Standing::Inside));
        }
        let invited = room
            .members
            .iter()
            .filter(|(_, (membership, _))| matches!(membership, Membership::Invite | Membership::Knock));
        for (user, _) in invited {
            if self.view.interner.user_id(*user).await?.server_name() == server {
                return Ok(Some(Standing::Inside));
            }
        }
        Ok(None)
    }

    async fn is_in_any(&self, who: Outsider<'_>, rooms: &[OwnedRoomId]) -> Result<bool, Error> {
        for room_id in rooms {
            let Some(room) = self.view.room_by_id(room_id).await? else { continue };
            let inside = match who {
                Outsider::User(user) => user.is_some_and(|user| room.is_joined(user)),
                Outsider::Server(server) => room.has_server(server),
            };
            if inside {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn join_rules(&self, room: &RoomSnapshot) -> Result<JoinRules, Error> {
        let event = self.view.current_state_event(room, "m.room.join_rules", "").await?;
        let rule = event.as_ref().and_then(|e| e.pdu.content_field::<String>("join_rule"));
        let allow = event.and_then(|e| e.pdu.content_field::<Vec<AllowRule>>("allow")).unwrap_or_default();
        Ok(JoinRules {
            rule: rule.unwrap_or_else(|| "invite".to_owned()),
            allowed_rooms: allow.into_iter().filter_map(|allow| allow.room_id).collect(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Joined, invited or knocking.
    Inside,
    Banned,
}
