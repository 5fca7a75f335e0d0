//! Invites to and knocks on a room from before this server came into it, as long as the room's members are still to come:
//! what is held of them is that they are there, and what becomes of them the room decides.

use std::sync::Arc;

use myelin_rooms::{Error, Sender};
use myelin_store::tables::Membership;
use myelin_view::RoomSnapshot;
use ruma::RoomId;

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
            true => Err(HandshakeError::StillJoining(room.info.room_id.to_string())),
            false => Ok(()),
        }
    }
}
