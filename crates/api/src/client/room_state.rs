//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}` (Client-Server API, "Sending events to a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_rooms::{Rooms, delayed::NewDelayedEvent};
use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use super::{
    delayed_events::schedule_with,
    room_send::{SendQuery, Sent},
};
use crate::{
    ApiError, AppState, ServerConfig,
    extract::{Auth, GuestsNotSuspended, JsonBody, Path, Query},
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
    config: State<Arc<ServerConfig>>,
    Path((room_id, event_type)): Path<(OwnedRoomId, String)>,
    query: Query<SendQuery>,
    content: JsonBody<Box<RawValue>>,
) -> Result<Json<Sent>, ApiError> {
    set(auth, limits, rooms, config, Path((room_id, event_type, String::new())), query, content).await
}

async fn set(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    State(config): State<Arc<ServerConfig>>,
    Path((room_id, event_type, state_key)): Path<(OwnedRoomId, String, String)>,
    Query(query): Query<SendQuery>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Result<Json<Sent>, ApiError> {
    limits.check(Class::Message, &auth)?;
    if let Some(delay_ms) = query.delay_ms {
        let new = NewDelayedEvent {
            room_id,
            event_type: event_type.into(),
            state_key: Some(state_key),
            content: &content,
            delay_ms,
            sticky_duration_ms: None,
            transaction: None,
        };
        return Ok(Json(Sent::Later { delay_id: schedule_with(&auth, &rooms, &config, new).await? }));
    }
    let sender = auth.sender();
    let sent = rooms.send_state(&sender, &room_id, event_type.into(), &state_key, &content);
    Ok(Json(Sent::Now { event_id: sent.await? }))
}
