//! The room summary: heroes and counts.

use myelin_core::UserNid;
use myelin_store::tables::Membership;
use myelin_view::RoomSnapshot;
use ruma::OwnedUserId;

use crate::{Error, Sync, json, json::Object};

const HEROES: usize = 5;

pub(crate) struct Summary {
    pub heroes: Option<Vec<OwnedUserId>>,
    joined: u64,
    invited: u64,
}

impl Sync {
    /// Heroes only where the room has neither name nor canonical alias.
    pub(crate) async fn summary(&self, room: &RoomSnapshot, user: UserNid) -> Result<Summary, Error> {
        let heroes = if self.is_named(room).await? { None } else { Some(self.heroes(room, user).await?) };
        Ok(Summary { heroes, joined: room.joined_count, invited: room.invited_count })
    }

    async fn is_named(&self, room: &RoomSnapshot) -> Result<bool, Error> {
        for (event_type, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
            let event = self.view.current_state_event(room, event_type, "").await?;
            let value = event.and_then(|event| event.pdu.content_field::<String>(field));
            if value.is_some_and(|text| !text.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first five of the members joined or invited, else of those who left, in the order in which this server came
    /// to know them: stable, and found without sorting a large room.
    pub(crate) async fn heroes(&self, room: &RoomSnapshot, user: UserNid) -> Result<Vec<OwnedUserId>, Error> {
        let among = |wanted: fn(Membership) -> bool| {
            let others = room.members.iter().filter(move |(nid, _)| **nid != user);
            let matching = others.filter(move |(_, (membership, _))| wanted(*membership));
            matching.map(|(nid, _)| *nid).take(HEROES).collect::<Vec<_>>()
        };
        let mut nids = among(|m| matches!(m, Membership::Join | Membership::Invite));
        if nids.is_empty() {
            nids = among(|m| matches!(m, Membership::Leave | Membership::Ban));
        }
        let mut heroes = Vec::with_capacity(nids.len());
        for nid in nids {
            heroes.push(self.view.interner.user_id(nid).await?);
        }
        Ok(heroes)
    }
}

impl Summary {
    pub fn push(&self, room: &mut Object<'_>) {
        let mut summary = room.object("summary");
        if let Some(heroes) = &self.heroes {
            summary.array("m.heroes", heroes.iter().map(|id| json::string(id.as_str())));
        }
        summary.number("m.joined_member_count", self.joined);
        summary.number("m.invited_member_count", self.invited);
        summary.close();
    }
}
