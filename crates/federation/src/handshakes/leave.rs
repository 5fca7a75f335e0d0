//! Leaving a room, rejecting an invite, taking back a knock (Server-Server API, "Leaving Rooms (Rejecting Invites)").

use std::{sync::Arc, time::Duration};

use myelin_rooms::{Error, MembershipChange, Sender};
use ruma::{RoomId, ServerName, events::room::member::MembershipState};

use super::{
    HandshakeError, Handshakes,
    join::{Draft, send_uri},
    route::QUICK,
};

/// How long servers are asked to take a leave of a room that is known from outside only: longer than one request takes.
const PATIENCE: Duration = Duration::from_secs(30);

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
            return self.leave_here(sender, room_id, change).await;
        }
        let (this, sender, room_id) = (self.clone(), sender.clone(), room_id.to_owned());
        self.to_the_end(async move { this.leave_elsewhere(&sender, &room_id, change).await }).await
    }

    async fn leave_here(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        change: MembershipChange,
    ) -> Result<(), HandshakeError> {
        self.has_waited_for_invite(sender, room_id).await?;
        Ok(self.rooms.leave(sender, room_id, change).await?)
    }

    /// Waits for no join: who rejects an invite must not have to wait for a server that does not let anybody in.
    async fn leave_elsewhere(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        change: MembershipChange,
    ) -> Result<(), HandshakeError> {
        let servers = self.servers_for(room_id, &[], &sender.user_id).await?;
        let asked =
            self.ask_each(room_id, &servers, |server| self.leave_through(server, sender, room_id, &change));
        let asked = self.view.env.timeout(PATIENCE, asked).await;
        match asked.transpose() {
            Ok(Some(())) => Ok(()),
            Err(HandshakeError::Rooms(error @ Error::Store(_))) => Err(error.into()),
            // Somebody else has joined meanwhile.
            _ if self.rooms.is_resident(room_id).await? => self.leave_here(sender, room_id, change).await,
            outcome => {
                let error = outcome.err();
                tracing::info!(%room_id, user = %sender.user_id, ?error, "nobody takes the leave: it stays here");
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
