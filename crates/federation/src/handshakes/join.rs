//! Joining a room, here or through other servers (Server-Server API, "Joining Rooms").

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use myelin_dag::{
    Pdu,
    checks::{RawPdu, VerifiedPdu},
};
use myelin_rooms::{Adoption, Error, Join, MembershipChange, Partial, ProtoEvent, Sender};
use myelin_view::{RoomInfo, RoomSnapshot};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, RoomVersionId, ServerName,
    events::room::member::MembershipState,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    HandshakeError, Handshakes,
    given_state::{GivenState, Lacking},
    route::QUICK,
};
use crate::{Budget, uri::segment};

/// How long somebody waits for a join, which goes on after that: reverse proxies wait for three minutes.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long a join that another server has signed may take to be seen here.
const ARRIVAL: Duration = Duration::from_secs(30);

/// What somebody wants to join.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub room_id: OwnedRoomId,
    /// Servers that may be in the room.
    pub via: Vec<OwnedServerName>,
    pub change: MembershipChange,
}

#[derive(Deserialize)]
struct Made {
    room_version: Option<RoomVersionId>,
    event: ProtoEvent,
}

/// An event to be handed in.
pub(super) struct Draft {
    pub info: Arc<RoomInfo>,
    pub event: Pdu,
    /// As it travels.
    pub raw: Box<RawValue>,
}

#[derive(Deserialize)]
struct Joined {
    event: Option<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
    auth_chain: Vec<Box<RawValue>>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default)]
    servers_in_room: Vec<OwnedServerName>,
}

/// How joining goes on.
enum Way {
    /// The room is here.
    Done,
    Elsewhere,
}

impl Handshakes {
    /// Idempotent: who is joined stays joined.
    pub async fn join(
        self: &Arc<Self>,
        sender: &Sender,
        request: &JoinRequest,
    ) -> Result<(), HandshakeError> {
        let joined = async {
            match self.join_here(sender, request).await? {
                Way::Done => Ok(()),
                Way::Elsewhere => self.join_once(sender, request).await,
            }
        };
        let joined = self.view.env.timeout(PATIENCE, Box::pin(joined)).await;
        joined.unwrap_or_else(|| Err(HandshakeError::UnderWay(request.room_id.to_string())))
    }

    pub(super) async fn join_elsewhere(
        &self,
        sender: &Sender,
        request: &JoinRequest,
    ) -> Result<(), HandshakeError> {
        let _turn = self.turn_at(&request.room_id).await;
        if let Way::Done = self.join_here(sender, request).await? {
            return Ok(());
        }
        if sender.guest {
            return Err(Error::GuestAccess.into());
        }
        let room_id = &request.room_id;
        let _arrival = self.inbound.expect(room_id);
        let servers = self.servers_for(room_id, &request.via, &sender.user_id).await?;
        if servers.is_empty() && room_id.server_name() == Some(&*self.view.server_name) {
            return Err(HandshakeError::NotFound(format!("This server does not know the room {room_id}.")));
        }
        self.ask_each(room_id, &servers, |server| self.join_through(server, sender, request)).await
    }

    async fn join_here(&self, sender: &Sender, request: &JoinRequest) -> Result<Way, HandshakeError> {
        let room = self.view.room_by_id(&request.room_id).await.map_err(Error::from)?;
        let Some(room) = room else { return Ok(Way::Elsewhere) };
        if !self.is_here(&room) {
            return Ok(Way::Elsewhere);
        }
        let join = || Join { change: request.change.clone(), update: false };
        let mut joined = self.rooms.join(sender, &request.room_id, join()).await;
        if matches!(joined, Err(Error::Forbidden(_) | Error::StillJoining(_)))
            && self.has_waited_for_invite(sender, &request.room_id).await?
        {
            joined = self.rooms.join(sender, &request.room_id, join()).await;
        }
        match joined {
            Ok(_) => Ok(Way::Done),
            // Members of other servers may be able to.
            Err(Error::UnableToGrantJoin | Error::UnableToAuthoriseJoin) if room.servers.len() > 1 => {
                Ok(Way::Elsewhere)
            }
            // Members of other servers know whether the user is banned.
            Err(Error::StillJoining(_)) => Ok(Way::Elsewhere),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what becomes of it is decided here. Where nobody is left anywhere, it is nobody else's.
    pub(super) fn is_here(&self, room: &RoomSnapshot) -> bool {
        room.has_server(&self.view.server_name) || room.servers.is_empty()
    }

    async fn join_through(
        &self,
        server: &ServerName,
        sender: &Sender,
        request: &JoinRequest,
    ) -> Result<(), HandshakeError> {
        let (join, change) = (MembershipState::Join, &request.change);
        let Draft { info, event, raw } = self.draft(server, sender, &request.room_id, join, change).await?;
        let uri = send_uri("v2/send_join", &info.room_id, &event.event_id) + "?omit_members=true";
        let answer = self.client.put(server, &uri, &raw, Budget::LARGE).await;
        let answer: Joined = answer.map_err(|error| HandshakeError::of_request(server, error))?;
        let signed = self.signed_join(server, &info, &answer, &raw, &event.event_id).await?;
        if self.rooms.is_resident(&info.room_id).await? {
            let raw = answer.event.unwrap_or(raw);
            return self.see_join(server, sender, &info, raw).await;
        }
        self.take_room(server, &info, answer, signed).await
    }

    /// The join as the resident server has it, perhaps with its signature.
    async fn signed_join(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        answer: &Joined,
        own: &RawValue,
        event_id: &OwnedEventId,
    ) -> Result<VerifiedPdu, HandshakeError> {
        let failed = |reason: String| HandshakeError::failed(server, reason);
        let raw = answer.event.as_deref().unwrap_or(own);
        let formed = RawPdu(raw).check_format(&info.rules).map_err(|dropped| failed(dropped.to_string()))?;
        if formed.event_id() != event_id {
            return Err(failed("the join that it answers is another one".to_owned()));
        }
        self.verify(formed, &info.rules).await.map_err(failed)
    }

    async fn take_room(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        answer: Joined,
        join: VerifiedPdu,
    ) -> Result<(), HandshakeError> {
        let failed = |reason: &str| HandshakeError::failed(server, reason);
        let GivenState { ids: state, lacking, missing } =
            self.take_state(info, &answer.state, &answer.auth_chain).await?;
        if missing > 0 {
            tracing::warn!(room_id = %info.room_id, %server, missing, "a state without all that authorises it");
        }
        let partial = partial(server, &answer, lacking);
        let verdict = self.rooms.adopt(info, &Adoption { state, join, partial }).await;
        match verdict.map_err(|error| match error {
            Error::BadState(reason) => failed(&reason),
            other => other.into(),
        })? {
            myelin_dag::Verdict::Accepted => {
                self.partial.notify_one();
                Ok(())
            }
            refused => {
                Err(failed(&format!("the join is not allowed by the state that it gives: {refused:?}")))
            }
        }
    }

    /// The user's own event after a template of the server. A template for something else is the server's fault.
    pub(super) async fn draft(
        &self,
        server: &ServerName,
        sender: &Sender,
        room_id: &ruma::RoomId,
        membership: MembershipState,
        change: &MembershipChange,
    ) -> Result<Draft, HandshakeError> {
        let failed = |reason: String| HandshakeError::failed(server, reason);
        let made = self.make(server, sender, room_id, &membership).await?;
        let version = made.room_version.unwrap_or(RoomVersionId::V1);
        let info = self.rooms.know_room(room_id, &version).await;
        let info = info.map_err(|error| match error {
            Error::InvalidParam(reason) => failed(reason),
            other => other.into(),
        })?;
        let event = self.rooms.complete_template(sender, &info, made.event, &membership, change).await;
        let event = event.map_err(|error| match error {
            Error::BadState(reason) => failed(reason),
            other => other.into(),
        })?;
        let raw = RawValue::from_string(event.json.to_string()).map_err(|error| failed(error.to_string()))?;
        Ok(Draft { info, event, raw })
    }

    async fn make(
        &self,
        server: &ServerName,
        sender: &Sender,
        room_id: &ruma::RoomId,
        membership: &MembershipState,
    ) -> Result<Made, HandshakeError> {
        let versions = myelin_dag::room_version::SUPPORTED.iter();
        let versions: Vec<_> = versions.map(|version| format!("ver={version}")).collect();
        let query = match membership {
            MembershipState::Leave => String::new(),
            _ => format!("?{}", versions.join("&")),
        };
        let uri = format!(
            "/_matrix/federation/v1/make_{membership}/{}/{}{query}",
            segment(room_id.as_str()),
            segment(sender.user_id.as_str()),
        );
        let made = self.client.get(server, &uri, QUICK).await;
        made.map_err(|error| HandshakeError::of_request(server, error))
    }

    /// This server is in the room: the join is an event like any other, and there before the transaction that brings it.
    async fn see_join(
        &self,
        server: &ServerName,
        sender: &Sender,
        info: &RoomInfo,
        join: Box<RawValue>,
    ) -> Result<(), HandshakeError> {
        if let Err(error) = self.inbound.receive_pdus(server, &[join]).await {
            tracing::warn!(room_id = %info.room_id, %server, %error, "a signed join is not taken; it comes again");
        }
        let arrived = async {
            loop {
                let seen = self.view.feed.caught_up().await;
                let room = self.view.rooms.load(info.nid).await.map_err(Error::from)?;
                if room.is_some_and(|room| room.is_joined(sender.user)) {
                    return Ok(());
                }
                self.view.feed.moved_past(seen).await;
            }
        };
        let arrived = self.view.env.timeout(ARRIVAL, arrived).await;
        arrived.unwrap_or_else(|| Err(HandshakeError::UnderWay(info.room_id.to_string())))
    }
}

/// What of the state is still to come: members that were left out, and what nobody's keys are there for yet.
fn partial(server: &ServerName, answer: &Joined, lacking: Lacking) -> Option<Partial> {
    let Lacking { keyless, left_out } = lacking;
    let members_omitted = answer.members_omitted;
    if !members_omitted && keyless.is_empty() {
        return None;
    }
    let named = if members_omitted { answer.servers_in_room.as_slice() } else { &[] };
    let silent = keyless.iter().filter_map(|record| record.server.as_str().try_into().ok());
    let servers: BTreeSet<OwnedServerName> = named.iter().cloned().chain(silent).collect();
    let servers = servers.into_iter().collect();
    Some(Partial { resident: server.to_owned(), servers, keyless, members_omitted, left_out })
}

pub(super) fn send_uri(what: &str, room_id: &ruma::RoomId, event_id: &OwnedEventId) -> String {
    format!("/_matrix/federation/{what}/{}/{}", segment(room_id.as_str()), segment(event_id.as_str()))
}
