//! Knocking on a room, here or through other servers (Server-Server API, "Knocking upon a room").

use std::sync::Arc;

use myelin_rooms::{Error, MembershipChange, Sender};
use ruma::{OwnedServerName, RoomId, ServerName, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    HandshakeError, Handshakes,
    join::{Draft, send_uri},
    route::QUICK,
    stripped,
};

#[derive(Deserialize)]
struct Knocked {
    #[serde(default)]
    knock_room_state: Vec<Box<RawValue>>,
}

impl Handshakes {
    pub async fn knock(
        self: &Arc<Self>,
        sender: &Sender,
        room_id: &RoomId,
        via: &[OwnedServerName],
        change: MembershipChange,
    ) -> Result<(), HandshakeError> {
        let room = self.view.room_by_id(room_id).await.map_err(Error::from)?;
        if let Some(room) = room.filter(|room| self.is_here(room)) {
            self.await_membership(room, &sender.user_id).await?;
            return Ok(self.rooms.knock(sender, room_id, change).await.map(drop)?);
        }
        let (this, sender, room_id, via) = (self.clone(), sender.clone(), room_id.to_owned(), via.to_vec());
        self.to_the_end(async move { this.knock_elsewhere(&sender, &room_id, &via, &change).await }).await
    }

    async fn knock_elsewhere(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        via: &[OwnedServerName],
        change: &MembershipChange,
    ) -> Result<(), HandshakeError> {
        let _turn = self.turn_at(room_id).await;
        let servers = self.servers_for(room_id, via, &sender.user_id).await?;
        self.ask_each(room_id, &servers, |server| self.knock_through(server, sender, room_id, change)).await
    }

    async fn knock_through(
        &self,
        server: &ServerName,
        sender: &Sender,
        room_id: &RoomId,
        change: &MembershipChange,
    ) -> Result<(), HandshakeError> {
        let knock = MembershipState::Knock;
        let Draft { info, event, raw } = self.draft(server, sender, room_id, knock, change).await?;
        let uri = send_uri("v1/send_knock", room_id, &event.event_id);
        let answer = self.client.put(server, &uri, &raw, QUICK).await;
        let answer: Knocked = answer.map_err(|error| HandshakeError::of_request(server, error))?;
        let record = stripped::record(&answer.knock_room_state, vec![server.to_owned()]);
        Ok(self.rooms.put_outside(&info, event, Some(record)).await?)
    }
}
