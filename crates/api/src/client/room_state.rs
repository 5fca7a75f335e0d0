//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}` (Client-Server API, "Sending events to a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_rooms::Rooms;
use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use super::room_send::EventId;
use crate::{
    ApiError, AppState,
    extract::{Auth, GuestsNotSuspended, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{roomId}/state/{eventType}", put(set_without_key))
        .route("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/", put(set_without_key))
        .route("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}", put(set))
}

async fn set_without_key(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    rooms: State<Arc<Rooms>>,
    Path((room_id, event_type)): Path<(OwnedRoomId, String)>,
    content: JsonBody<Box<RawValue>>,
) -> Result<Json<EventId>, ApiError> {
    set(auth, limits, rooms, Path((room_id, event_type, String::new())), content).await
}

async fn set(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path((room_id, event_type, state_key)): Path<(OwnedRoomId, String, String)>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Result<Json<EventId>, ApiError> {
    limits.check(Class::Message, &auth)?;
    let sender = auth.sender();
    let sent = rooms.send_state(&sender, &room_id, event_type.into(), &state_key, &content);
    Ok(Json(EventId { event_id: sent.await? }))
}
