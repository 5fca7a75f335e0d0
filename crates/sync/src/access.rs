//! Who may read a room at all, and up to where.

use std::sync::Arc;

use myelin_core::{Position, TimelineOrder};
use myelin_dag::StateTree;
use myelin_store::tables::Membership;
use myelin_view::RoomSnapshot;
use ruma::{RoomId, events::room::history_visibility::HistoryVisibility};

use crate::{Error, Requester, Sync, room_state::state_at};

const NOT_IN_ROOM: &str = "You are not in this room.";

/// A room that the requester may read.
pub struct Readable {
    pub room: Arc<RoomSnapshot>,
    /// Up to here: now, or where the requester left.
    pub until: TimelineOrder,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Joined,
    /// Was joined and has left: the room as of that moment.
    Left,
    /// Never joined, but the room is world-readable.
    Peeking,
}

impl Sync {
    /// The same refusal for rooms that are not there and rooms that are not for this user.
    pub async fn readable(&self, requester: &Requester, room_id: &RoomId) -> Result<Readable, Error> {
        // The snapshot is then at least as new.
        let now = TimelineOrder::from(self.view.feed.caught_up().await);
        let room = self.view.room_by_id(room_id).await?.ok_or(Error::Forbidden(NOT_IN_ROOM))?;
        if room.is_joined(requester.user) {
            return Ok(Readable { room, until: now, access: Access::Joined });
        }
        if self.is_world_readable(&room).await? {
            return Ok(Readable { room, until: now, access: Access::Peeking });
        }
        let held = self.view.user_rooms.load(requester.user).await?.get(&room.nid()).copied();
        let held = held.filter(|held| held.was_joined && !held.forgotten && is_out(held.membership));
        let held = held.ok_or(Error::Forbidden(NOT_IN_ROOM))?;
        Ok(Readable { room, until: held.position.into(), access: Access::Left })
    }

    /// Who forgot a room sees nothing of it any more, unless everybody does.
    pub(crate) async fn has_forgotten(
        &self,
        requester: &Requester,
        room: &RoomSnapshot,
    ) -> Result<bool, Error> {
        let rooms = self.view.user_rooms.load(requester.user).await?;
        let forgotten = rooms.get(&room.nid()).is_some_and(|held| held.forgotten);
        Ok(forgotten && !self.is_world_readable(room).await?)
    }

    /// The room if the requester is joined now.
    pub async fn joined_room_of(
        &self,
        requester: &Requester,
        room_id: &RoomId,
    ) -> Result<Arc<RoomSnapshot>, Error> {
        let room = self.view.room_by_id(room_id).await?;
        room.filter(|room| room.is_joined(requester.user)).ok_or(Error::Forbidden(NOT_IN_ROOM))
    }

    pub(crate) async fn is_world_readable(&self, room: &RoomSnapshot) -> Result<bool, Error> {
        let event = self.view.current_state_event(room, "m.room.history_visibility", "").await?;
        let visibility = event.and_then(|e| e.pdu.content_field::<HistoryVisibility>("history_visibility"));
        Ok(visibility == Some(HistoryVisibility::WorldReadable))
    }

    /// The state which the reader may see.
    pub(crate) async fn readable_state(&self, readable: &Readable) -> Result<StateTree, Error> {
        match readable.access {
            Access::Left => state_at(&self.view, readable.room.nid(), readable.until).await,
            Access::Joined | Access::Peeking => Ok(readable.room.current_state.clone()),
        }
    }
}

impl Readable {
    /// A position given by the client, cut to what it may read.
    pub fn clamp(&self, position: Position) -> TimelineOrder {
        TimelineOrder::from(position).min(self.until)
    }
}

fn is_out(membership: Membership) -> bool {
    matches!(membership, Membership::Leave | Membership::Ban)
}
