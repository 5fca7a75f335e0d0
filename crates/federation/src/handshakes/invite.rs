//! Inviting users of other servers (Server-Server API, "Inviting to a room").

use std::sync::Arc;

use http::StatusCode;
use myelin_dag::{
    Pdu,
    checks::{RawPdu, VerifiedPdu},
};
use myelin_rooms::{Error, Invitation, MembershipChange, Sender};
use myelin_view::RoomInfo;
use ruma::{RoomId, RoomVersionId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{HandshakeError, Handshakes, join::send_uri, route::QUICK};
use crate::RequestError;

#[derive(Serialize)]
struct Body<'a> {
    room_version: &'a str,
    event: &'a RawValue,
    invite_room_state: &'a RawValue,
}

#[derive(Deserialize)]
struct Signed {
    event: Box<RawValue>,
}

impl Handshakes {
    /// The invited user's server signs the invite before anybody hears of it. Who is invited already stays so.
    pub async fn invite(
        self: &Arc<Self>,
        sender: &Sender,
        room_id: &RoomId,
        user_id: &UserId,
        change: MembershipChange,
    ) -> Result<(), HandshakeError> {
        let room = self.view.room_by_id(room_id).await.map_err(Error::from)?;
        if self.view.is_local(user_id) {
            if let Some(room) = room {
                self.await_membership(room, user_id).await?;
            }
            return Ok(self.rooms.invite(sender, room_id, user_id, change).await.map(drop)?);
        }
        let server = user_id.server_name();
        if !self.client.permits(server) {
            return Err(HandshakeError::Forbidden(format!("This server does not talk with {server}.")));
        }
        if let Some(room) = room {
            // Somebody who is banned must not be brought in for want of knowing it.
            self.await_members(room).await?;
        }
        let drafted = self.rooms.draft_invite(sender, room_id, user_id, &change).await?;
        match drafted {
            Invitation::Drafted { info, event } => self.have_signed(server, info, *event).await,
            Invitation::Stands(_) => Ok(()),
        }
    }

    /// What the other server has signed it shows to its user, so the room must get it, whoever hangs up.
    pub(super) async fn have_signed(
        self: &Arc<Self>,
        server: &ServerName,
        info: Arc<RoomInfo>,
        event: Pdu,
    ) -> Result<(), HandshakeError> {
        let (this, server) = (self.clone(), server.to_owned());
        let handshake = async move {
            let signed = this.ask_to_sign(&server, &info, &event).await?;
            let signed = this.inbound.approved(&info.room_id, signed).await?;
            Ok(this.rooms.accept_member(&info.room_id, &signed).await.map(drop)?)
        };
        self.to_the_end(handshake).await
    }

    async fn ask_to_sign(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        event: &Pdu,
    ) -> Result<VerifiedPdu, HandshakeError> {
        let failed = |reason: String| HandshakeError::failed(server, reason);
        let raw = |text: String| RawValue::from_string(text).map_err(|error| failed(error.to_string()));
        let state = raw(self.rooms.recognisable_state(&info.room_id, Some(&event.sender)).await?)?;
        let own = raw(event.json.to_string())?;
        let body = Body { room_version: info.version.as_str(), event: &own, invite_room_state: &state };
        let uri = send_uri("v2/invite", &info.room_id, &event.event_id);
        let signed = match self.client.put::<Signed>(server, &uri, &body, QUICK).await {
            Err(RequestError::Status { status, .. }) if knows_only_v1(status, &info.version) => {
                self.ask_to_sign_v1(server, info, event, &state).await
            }
            answered => answered,
        };
        let signed = signed.map_err(|error| refused(server, error))?;
        let formed = RawPdu(&signed.event).check_format(&info.rules);
        let formed = formed.map_err(|dropped| failed(dropped.to_string()))?;
        if *formed.event_id() != event.event_id {
            return Err(failed("it signed another event than it was asked to".to_owned()));
        }
        self.verify(formed, &info.rules).await.map_err(failed)
    }

    async fn ask_to_sign_v1(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        event: &Pdu,
        state: &RawValue,
    ) -> Result<Signed, RequestError> {
        let uri = send_uri("v1/invite", &info.room_id, &event.event_id);
        let unreadable = |error: serde_json::Error| RequestError::Answer(error.to_string());
        let mut body: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&event.json).map_err(unreadable)?;
        let state: serde_json::Value = serde_json::from_str(state.get()).map_err(unreadable)?;
        body.insert("unsigned".to_owned(), serde_json::json!({ "invite_room_state": state }));
        let (_, signed) = self.client.put::<(u16, Signed)>(server, &uri, &body, QUICK).await?;
        Ok(signed)
    }
}

/// What the other server finds malformed was made by this one: the user can do nothing about it.
fn refused(server: &ServerName, error: RequestError) -> HandshakeError {
    match &error {
        RequestError::Status { status: StatusCode::BAD_REQUEST, errcode, .. }
            if matches!(errcode.as_str(), "M_MISSING_PARAM" | "M_INVALID_PARAM") =>
        {
            HandshakeError::failed(server, error.to_string())
        }
        _ => HandshakeError::of_request(server, error),
    }
}

fn knows_only_v1(status: StatusCode, version: &RoomVersionId) -> bool {
    matches!(status.as_u16(), 400 | 404) && matches!(version, RoomVersionId::V1 | RoomVersionId::V2)
}
