//! The resident side: templates for users of other servers, and the events that come back.

use myelin_dag::{
    Pdu,
    checks::{FormedPdu, RawPdu, VerifiedPdu},
};
use myelin_rooms::{Error, JoinAnswer, Taken, Template};
use myelin_view::RoomInfo;
use ruma::{
    EventId, RoomId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::{Value, value::RawValue};

use super::{HandshakeError, Handshakes};

/// What a joining server hands in.
#[derive(Debug)]
pub struct SendJoin<'a> {
    pub room_id: &'a RoomId,
    pub event_id: &'a EventId,
    pub event: &'a RawValue,
    /// The answer may leave out members.
    pub omit_members: bool,
}

impl Handshakes {
    /// `make_join`, `make_leave`, `make_knock`. `versions`: those that the asking server knows; `None`: it does not say.
    pub async fn make_member(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        membership: MembershipState,
        versions: Option<&[String]>,
    ) -> Result<Template, HandshakeError> {
        if user_id.server_name() != origin {
            return Err(HandshakeError::Forbidden(format!("{user_id} is not a user of your server.")));
        }
        let version = self.rooms.resident_version(room_id).await?;
        self.check_acl(origin, room_id).await?;
        if versions.is_some_and(|versions| !versions.iter().any(|known| known == version.as_str())) {
            return Err(HandshakeError::IncompatibleVersion(version.to_string()));
        }
        Ok(self.rooms.member_template(room_id, user_id, membership).await?)
    }

    /// `send_join`: the answer as JSON.
    pub async fn take_join(&self, origin: &ServerName, send: SendJoin<'_>) -> Result<String, HandshakeError> {
        let SendJoin { room_id, event_id, event, omit_members } = send;
        let info = self.rooms.resident_info(room_id).await?;
        let (event, taken) = self.take(origin, &info, event_id, event, MembershipState::Join).await?;
        let state = &taken.state_before;
        let whole_max = if omit_members { self.whole_state_max } else { usize::MAX };
        let answer = self.rooms.join_answer(&info, event.pdu(), state, whole_max).await?;
        Ok(self.join_body(event.pdu(), &taken, answer))
    }

    /// `send_leave`.
    pub async fn take_leave(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<(), HandshakeError> {
        let info = self.rooms.resident_info(room_id).await?;
        self.take(origin, &info, event_id, event, MembershipState::Leave).await.map(drop)
    }

    /// `send_knock`: `knock_room_state`, a JSON array.
    pub async fn take_knock(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
    ) -> Result<String, HandshakeError> {
        let info = self.rooms.resident_info(room_id).await?;
        self.take(origin, &info, event_id, event, MembershipState::Knock).await?;
        Ok(self.rooms.recognisable_state(room_id, None).await?)
    }

    async fn take(
        &self,
        origin: &ServerName,
        info: &RoomInfo,
        event_id: &EventId,
        raw: &RawValue,
        membership: MembershipState,
    ) -> Result<(VerifiedPdu, Taken), HandshakeError> {
        self.check_acl(origin, &info.room_id).await?;
        let formed = RawPdu(raw).check_format(&info.rules);
        let formed = formed.map_err(|dropped| HandshakeError::Invalid(dropped.to_string()))?;
        check_claims(formed.claims(), origin, info, event_id, &membership)?;
        let formed = self.authorise(formed, info).await?;
        let event = self.verify(formed, &info.rules).await.map_err(HandshakeError::Invalid)?;
        let event = self.inbound.approved(&info.room_id, event).await?;
        let taken = self.rooms.accept_member(&info.room_id, &event).await?;
        Ok((event, taken))
    }

    /// What the room's server ACL says, where the room is held.
    pub(super) async fn check_acl(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
    ) -> Result<(), HandshakeError> {
        let room = self.view.room_by_id(room_id).await.map_err(Error::from)?;
        let Some(room) = room else { return Ok(()) };
        if self.view.permits(&room, origin).await.map_err(Error::from)? {
            return Ok(());
        }
        Err(HandshakeError::Forbidden(format!("The room does not let {origin} take part.")))
    }

    /// Signs a join that a member of this server is said to authorise, if that is so.
    async fn authorise(&self, formed: FormedPdu, info: &RoomInfo) -> Result<FormedPdu, HandshakeError> {
        let claims = formed.claims();
        let via = claims.content_field::<ruma::OwnedUserId>("join_authorised_via_users_server");
        let is_join = claims.membership() == Some(MembershipState::Join);
        if !is_join || via.is_none_or(|user| user.server_name() != self.view.server_name) {
            return Ok(formed);
        }
        match self.rooms.authorising_member(&info.room_id, &claims.sender).await? {
            Some(_) => Ok(self.rooms.countersign(formed, &info.rules)?),
            None => Ok(formed),
        }
    }

    fn join_body(&self, event: &Pdu, taken: &Taken, answer: JoinAnswer) -> String {
        let JoinAnswer { state, auth_chain, members_omitted } = answer;
        let origin = Value::from(self.view.server_name.as_str());
        let servers = match members_omitted {
            true => {
                let servers: Value = taken.servers.iter().map(|server| server.as_str()).collect();
                format!(r#","servers_in_room":{servers}"#)
            }
            false => String::new(),
        };
        let event = &event.json;
        format!(
            r#"{{"origin":{origin},"event":{event},"members_omitted":{members_omitted}{servers},"auth_chain":{auth_chain},"state":{state}}}"#
        )
    }
}

/// The event is the one that the URL names, of a user of the asking server, and about that user.
fn check_claims(
    claims: &Pdu,
    origin: &ServerName,
    info: &RoomInfo,
    event_id: &EventId,
    membership: &MembershipState,
) -> Result<(), HandshakeError> {
    let wrong = if claims.event_id != event_id {
        "The event has another event id."
    } else if claims.room_id != info.room_id {
        "The event belongs to another room."
    } else if claims.event_type != TimelineEventType::RoomMember {
        "The event is not an m.room.member event."
    } else if claims.membership().as_ref() != Some(membership) {
        "The event is for another membership."
    } else if claims.sender.server_name() != origin {
        "The sender is not a user of your server."
    } else if claims.state_key.as_deref() != Some(claims.sender.as_str()) {
        "The event is not about its sender."
    } else {
        return Ok(());
    };
    Err(HandshakeError::Invalid(wrong.to_owned()))
}
