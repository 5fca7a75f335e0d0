//! Invites that come from other servers for local users (Server-Server API, "Inviting to a room").

use myelin_dag::{
    Pdu,
    checks::{FormedPdu, RawPdu},
    room_version,
};
use myelin_rooms::Error;
use myelin_store::tables::ACCOUNTS;
use ruma::{
    EventId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{HandshakeError, Handshakes, stripped};

/// What the inviting server hands in.
#[derive(Debug)]
pub struct InviteRequest<'a> {
    pub room_id: &'a RoomId,
    pub event_id: &'a EventId,
    /// `None` from servers that only know versions 1 and 2.
    pub room_version: Option<&'a RoomVersionId>,
    pub event: &'a RawValue,
    pub invite_room_state: &'a [Box<RawValue>],
}

impl Handshakes {
    /// The event with this server's signature. Once that is given, the invite is stored for the user; in a room that
    /// this server is in, it comes as any other event does.
    pub async fn take_invite(
        &self,
        origin: &ServerName,
        request: InviteRequest<'_>,
    ) -> Result<String, HandshakeError> {
        let version = self.version_of(&request).await?;
        let unsupported = || HandshakeError::IncompatibleVersion(version.to_string());
        let rules = room_version::rules(&version).ok_or_else(unsupported)?;
        self.check_acl(origin, request.room_id).await?;
        let formed = RawPdu(request.event).check_format(&rules);
        let formed = formed.map_err(|dropped| HandshakeError::Invalid(dropped.to_string()))?;
        let user_id = self.check_invite(formed.claims(), origin, &request)?;
        check_room_state(&request, &rules)?;
        self.check_user(&user_id, &formed.claims().sender).await?;
        self.verify(formed.clone(), &rules).await.map_err(HandshakeError::Invalid)?;
        let signed = self.rooms.countersign(formed, &rules)?;
        self.hold_invite(&signed, origin, &request, &version).await?;
        Ok(signed.json().to_owned())
    }

    async fn version_of(&self, request: &InviteRequest<'_>) -> Result<RoomVersionId, HandshakeError> {
        if let Some(version) = request.room_version {
            return Ok(version.clone());
        }
        let known = self.rooms.known_room(request.room_id).await?;
        Ok(known.map_or(RoomVersionId::V1, |info| info.version.clone()))
    }

    fn check_invite(
        &self,
        claims: &Pdu,
        origin: &ServerName,
        request: &InviteRequest<'_>,
    ) -> Result<OwnedUserId, HandshakeError> {
        let target = claims.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
        let target = target.filter(|target| self.view.is_local(target));
        let wrong = if claims.event_id != request.event_id {
            "The event has another event id."
        } else if claims.room_id != request.room_id {
            "The event belongs to another room."
        } else if claims.event_type != TimelineEventType::RoomMember {
            "The event is not an m.room.member event."
        } else if claims.membership() != Some(MembershipState::Invite) {
            "The event is not an invite."
        } else if claims.sender.server_name() != origin {
            "The sender is not a user of your server."
        } else if let Some(target) = target {
            return Ok(target.to_owned());
        } else {
            "The invited user is not one of this server."
        };
        Err(HandshakeError::Invalid(wrong.to_owned()))
    }

    async fn check_user(&self, user_id: &UserId, inviter: &UserId) -> Result<(), HandshakeError> {
        let lookup = self.view.interner.lookup_user(user_id).await.map_err(Error::from)?;
        let account = match lookup {
            Some(user) => self.view.store.get(&ACCOUNTS, &user).await.map_err(Error::from)?,
            None => None,
        };
        if account.is_none() {
            return Err(HandshakeError::NotFound(format!("There is no user {user_id}.")));
        }
        if self.rooms.refuses_invites(user_id, inviter).await? {
            return Err(Error::InviteBlocked(user_id.to_owned()).into());
        }
        Ok(())
    }

    async fn hold_invite(
        &self,
        signed: &FormedPdu,
        origin: &ServerName,
        request: &InviteRequest<'_>,
        version: &RoomVersionId,
    ) -> Result<(), HandshakeError> {
        if self.rooms.is_resident(request.room_id).await? {
            return Ok(());
        }
        let info = self.rooms.know_room(request.room_id, version).await?;
        let record = stripped::record(request.invite_room_state, vec![origin.to_owned()]);
        Ok(self.rooms.put_outside(&info, signed.claims().clone(), Some(record)).await?)
    }
}

/// Where the room id is the hash of the create event, that event must not be another one.
fn check_room_state(request: &InviteRequest<'_>, rules: &RoomVersionRules) -> Result<(), HandshakeError> {
    if !rules.authorization.room_create_event_id_as_room_id {
        return Ok(());
    }
    let events = request.invite_room_state.iter().filter_map(|raw| RawPdu(raw).check_format(rules).ok());
    for event in events {
        let claims = event.claims();
        if claims.room_id != request.room_id {
            return Err(HandshakeError::Invalid("The state that comes along is of another room.".to_owned()));
        }
    }
    Ok(())
}
