//! `PUT /_matrix/federation/{v1,v2}/invite/{roomId}/{eventId}` (Server-Server API, "Inviting to a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use bytes::Bytes;
use myelin_federation::{Handshakes, InviteRequest};
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId, ServerName};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

use crate::{
    ApiError, AppState,
    extract::{Path, SignedRequest},
    rate_limit::{Class, RateLimiter},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/invite/{roomId}/{eventId}", put(invite_v1))
        .route("/_matrix/federation/v2/invite/{roomId}/{eventId}", put(invite))
}

#[derive(Deserialize)]
struct Body {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    #[serde(default, deserialize_with = "events")]
    invite_room_state: Vec<Box<RawValue>>,
}

/// In version 1 the body is the event, and the state that comes along is in its `unsigned`.
#[derive(Deserialize)]
struct Carrier {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Deserialize, Default)]
struct Unsigned {
    #[serde(default, deserialize_with = "events")]
    invite_room_state: Vec<Box<RawValue>>,
}

/// Of what is not of the room's format the rest is left out later; what is not even an object says that nobody made it.
fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<RawValue>>, D::Error> {
    let events = Vec::<Box<RawValue>>::deserialize(deserializer)?;
    match events.iter().all(|event| event.get().starts_with('{')) {
        true => Ok(events),
        false => Err(D::Error::custom("the events of invite_room_state are objects")),
    }
}

async fn invite(
    State(handshakes): State<Arc<Handshakes>>,
    State(limiter): State<Arc<RateLimiter>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest<Body>,
) -> Result<RawJson, ApiError> {
    let invite = InviteRequest {
        room_id: &room_id,
        event_id: &event_id,
        room_version: Some(&request.content.room_version),
        event: &request.content.event,
        invite_room_state: &request.content.invite_room_state,
    };
    check_rate(&limiter, &request.origin, invite.event)?;
    let event = handshakes.take_invite(&request.origin, invite).await?;
    Ok(RawJson(Bytes::from(format!(r#"{{"event":{event}}}"#))))
}

async fn invite_v1(
    State(handshakes): State<Arc<Handshakes>>,
    State(limiter): State<Arc<RateLimiter>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest<Box<RawValue>>,
) -> Result<RawJson, ApiError> {
    let carrier: Result<Carrier, _> = serde_json::from_str(request.content.get());
    let carrier = carrier.map_err(|error| ApiError::bad_json(format!("This is no invite: {error}.")))?;
    let state = carrier.unsigned.invite_room_state;
    let invite = InviteRequest {
        room_id: &room_id,
        event_id: &event_id,
        room_version: None,
        event: &request.content,
        invite_room_state: &state,
    };
    check_rate(&limiter, &request.origin, invite.event)?;
    let event = handshakes.take_invite(&request.origin, invite).await?;
    Ok(RawJson(Bytes::from(format!(r#"[200,{{"event":{event}}}]"#))))
}

/// Each invite is kept for the user until they answer: nobody gets more than they can read, from one server or from all.
fn check_rate(limiter: &RateLimiter, origin: &ServerName, event: &RawValue) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Target {
        state_key: String,
    }
    match serde_json::from_str::<Target>(event.get()) {
        Ok(Target { state_key }) => {
            limiter.check_name(Class::InviteReceived, &format!("{origin} {state_key}"))?;
            limiter.check_name(Class::UserInvited, &state_key)
        }
        // It is refused for that.
        Err(_) => Ok(()),
    }
}
