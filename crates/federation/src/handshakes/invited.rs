//! Invites that come from other servers for local users (Server-Server API, "Inviting to a room").

use myelin_core::UserNid;
use myelin_dag::{
    Pdu,
    checks::{Dropped, FormedPdu, RawPdu},
    room_version,
};
use myelin_rooms::Error;
use myelin_store::tables::{ACCOUNTS, Membership};
use ruma::{
    EventId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{HandshakeError, Handshakes, stripped};
use crate::inbound::verification::keyless;

/// Invites that wait for one user's answer when another server sends one more. Each may bring some state to be shown, and
/// many servers may belong to one person.
const PENDING_MAX: usize = 200;

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
        let state = self.room_state(&request, &rules).await?;
        self.check_user(&user_id, formed.claims()).await?;
        self.verify(formed.clone(), &rules).await.map_err(HandshakeError::Invalid)?;
        let signed = self.rooms.countersign(formed, &rules)?;
        self.hold_invite(&signed, origin, &request, &version, &state).await?;
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

    async fn check_user(&self, user_id: &UserId, invite: &Pdu) -> Result<(), HandshakeError> {
        let nobody = || HandshakeError::NotFound(format!("There is no user {user_id}."));
        let user = self.view.interner.lookup_user(user_id).await.map_err(Error::from)?.ok_or_else(nobody)?;
        let account = self.view.store.get(&ACCOUNTS, &user).await.map_err(Error::from)?;
        account.ok_or_else(nobody)?;
        if self.rooms.refuses_invites(user_id, &invite.sender).await? {
            return Err(Error::InviteBlocked(user_id.to_owned()).into());
        }
        if self.pending(user, &invite.room_id).await? >= PENDING_MAX {
            let full = format!("{user_id} has {PENDING_MAX} invites to answer first.");
            return Err(HandshakeError::Forbidden(full));
        }
        Ok(())
    }

    /// How many invites to other rooms than this one the user has not answered.
    async fn pending(&self, user: UserNid, room_id: &RoomId) -> Result<usize, Error> {
        let this = self.rooms.known_room(room_id).await?.map(|info| info.nid);
        let rooms = self.view.user_rooms.load(user).await?;
        let others = rooms.iter().filter(|(room, _)| Some(**room) != this);
        Ok(others.filter(|(_, held)| held.membership == Membership::Invite).count())
    }

    async fn hold_invite(
        &self,
        signed: &FormedPdu,
        origin: &ServerName,
        request: &InviteRequest<'_>,
        version: &RoomVersionId,
        state: &[Box<RawValue>],
    ) -> Result<(), HandshakeError> {
        if self.rooms.is_resident(request.room_id).await? {
            return Ok(());
        }
        let info = self.rooms.know_room(request.room_id, version).await?;
        let record = stripped::record(state, vec![origin.to_owned()]);
        Ok(self.rooms.put_outside(&info, signed.claims().clone(), Some(record)).await?)
    }

    /// By what comes along the user decides whether to join: the part of it to be shown. From room version 12 on it must
    /// hold the create event, and what claims to be an event must be one of the room and signed as such. Synapse sent all
    /// but the create event in the stripped form until July 2026: that is as good as it always was.
    async fn room_state(
        &self,
        request: &InviteRequest<'_>,
        rules: &RoomVersionRules,
    ) -> Result<Vec<Box<RawValue>>, HandshakeError> {
        if !rules.authorization.room_create_event_id_as_room_id {
            return Ok(request.invite_room_state.to_vec());
        }
        let (mut events, mut shown) = (Vec::new(), Vec::new());
        for raw in request.invite_room_state.iter().take(stripped::EVENTS_MAX) {
            match RawPdu(raw).check_format(rules) {
                Ok(event) => events.push(event),
                Err(_) if stripped::is_stripped(raw) => shown.push(raw.clone()),
                Err(dropped) => return Err(invalid("malformed", &dropped)),
            }
        }
        let raws: Vec<_> = events.iter().map(|event| event.json().to_owned()).collect();
        let is_create: Vec<_> =
            events.iter().map(|event| is_create(event.claims(), request.room_id)).collect();
        if events.iter().any(|event| event.claims().room_id != request.room_id) {
            return Err(HandshakeError::Invalid("The state that comes along is of another room.".to_owned()));
        }
        if !is_create.contains(&true) {
            return Err(HandshakeError::Invalid(
                "The create event of the room does not come along.".to_owned(),
            ));
        }
        let outcomes = self.inbound.verify(events, rules).await;
        for ((outcome, raw), is_create) in outcomes.into_iter().zip(raws).zip(is_create) {
            match outcome {
                Ok(_) => {}
                // A room outlives the servers of those who made it; its create event is told by the room's name.
                Err(error) if keyless(&error).is_some() && is_create => {}
                Err(error) if keyless(&error).is_some() => continue,
                Err(dropped) => return Err(invalid("not as it was signed", &dropped)),
            }
            shown.extend(RawValue::from_string(raw));
        }
        Ok(shown)
    }
}

fn is_create(claims: &Pdu, room_id: &RoomId) -> bool {
    claims.event_type == TimelineEventType::RoomCreate && claims.room_id == room_id
}

fn invalid(what: &str, dropped: &Dropped) -> HandshakeError {
    HandshakeError::Invalid(format!("The state that comes along is {what}: {dropped}."))
}
