//! Leaving a room, rejecting an invite, taking back a knock (Server-Server API, "Leaving Rooms (Rejecting Invites)").

use std::sync::Arc;

use myelin_rooms::{Error, MembershipChange, Sender};
use ruma::{RoomId, ServerName, events::room::member::MembershipState};

use super::{
    HandshakeError, Handshakes,
    join::{Draft, send_uri},
    route::QUICK,
};

impl Handshakes {
    /// Idempotent. What is known of from outside only is left through a server in the room; if none of them answers, it
    /// ends here all the same.
    pub async fn leave(
        self: &Arc<Self>,
        sender: &Sender,
        room_id: &RoomId,
        change: MembershipChange,
    ) -> Result<(), HandshakeError> {
        if self.rooms.outside(&sender.user_id, room_id).await?.is_none() {
            self.has_waited_for_invite(sender, room_id).await?;
            return Ok(self.rooms.leave(sender, room_id, change).await?);
        }
        let (this, sender, room_id) = (self.clone(), sender.clone(), room_id.to_owned());
        self.to_the_end(async move { this.leave_elsewhere(&sender, &room_id, change).await }).await
    }

    async fn leave_elsewhere(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        change: MembershipChange,
    ) -> Result<(), HandshakeError> {
        let _turn = self.turn_at(room_id).await;
        let servers = self.servers_for(room_id, &[], &sender.user_id).await?;
        let asked =
            self.ask_each(room_id, &servers, |server| self.leave_through(server, sender, room_id, &change));
        match asked.await {
            Ok(()) => Ok(()),
            Err(HandshakeError::Rooms(error @ Error::Store(_))) => Err(error.into()),
            Err(error) => {
                tracing::info!(%room_id, user = %sender.user_id, %error, "nobody takes the leave: it stays here");
                Ok(self.rooms.leave_outside(sender, room_id, change.reason).await?)
            }
        }
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        sender: &Sender,
        room_id: &RoomId,
        change: &MembershipChange,
    ) -> Result<(), HandshakeError> {
        let leave = MembershipState::Leave;
        let Draft { info, event, raw } = self.draft(server, sender, room_id, leave, change).await?;
        let uri = send_uri("v2/send_leave", room_id, &event.event_id);
        let sent = self.client.put::<serde::de::IgnoredAny>(server, &uri, &raw, QUICK).await;
        sent.map_err(|error| HandshakeError::of_request(server, error))?;
        Ok(self.rooms.put_outside(&info, event, None).await?)
    }
}
