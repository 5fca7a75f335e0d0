//! Rooms whose members are still to come. Of invites and knocks from before this server came into one, all that is held is
//! that they are there; what becomes of them the room decides.

use std::sync::Arc;

use myelin_rooms::{Error, Sender};
use myelin_store::tables::Membership;
use myelin_view::RoomSnapshot;
use ruma::{RoomId, UserId};

use super::{HandshakeError, Handshakes};

impl Handshakes {
    /// Waits until the room knows of the user's invite or knock; `false` if it is not that which it lacks.
    pub(super) async fn has_waited_for_invite(
        &self,
        sender: &Sender,
        room_id: &RoomId,
    ) -> Result<bool, HandshakeError> {
        let room = self.view.room_by_id(room_id).await.map_err(Error::from)?;
        let Some(room) = room.filter(|room| room.members_omitted && room.membership(sender.user).is_none())
        else {
            return Ok(false);
        };
        let rooms = self.view.user_rooms.load(sender.user).await.map_err(Error::from)?;
        let held = rooms.get(&room.nid()).map(|held| held.membership);
        if !matches!(held, Some(Membership::Invite | Membership::Knock)) {
            return Ok(false);
        }
        self.await_members(room).await?;
        Ok(true)
    }

    /// Who is in the room is known then.
    pub(super) async fn await_members(&self, room: Arc<RoomSnapshot>) -> Result<(), HandshakeError> {
        let room = self.view.completed(room).await.map_err(Error::from)?;
        match room.members_omitted {
            true => Err(Error::StillJoining(room.info.room_id.clone()).into()),
            false => Ok(()),
        }
    }

    /// What the user is in the room is known then: somebody who is banned must not come in for want of knowing it.
    pub(super) async fn await_membership(
        &self,
        room: Arc<RoomSnapshot>,
        user_id: &UserId,
    ) -> Result<(), HandshakeError> {
        let user = self.view.interner.lookup_user(user_id).await.map_err(Error::from)?;
        match user.and_then(|user| room.membership(user)) {
            Some(_) => Ok(()),
            None => self.await_members(room).await,
        }
    }
}
