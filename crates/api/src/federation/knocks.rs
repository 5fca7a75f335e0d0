//! `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}` and `PUT /_matrix/federation/v1/send_knock/{roomId}/
//! {eventId}` (Server-Server API, "Knocking upon a room").

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
    routing::{get, put},
};
use bytes::Bytes;
use myelin_federation::Handshakes;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, events::room::member::MembershipState};
use serde_json::value::RawValue;

use super::joins::{TemplateBody, make, versions};
use crate::{
    ApiError, AppState,
    extract::{Path, SignedRequest},
    respond::{Json, RawJson},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/make_knock/{roomId}/{userId}", get(make_knock))
        .route("/_matrix/federation/v1/send_knock/{roomId}/{eventId}", put(send_knock))
}

async fn make_knock(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, user_id)): Path<(OwnedRoomId, OwnedUserId)>,
    RawQuery(query): RawQuery,
    request: SignedRequest,
) -> Result<Json<TemplateBody>, ApiError> {
    let knock = MembershipState::Knock;
    make(&handshakes, &request.origin, (&room_id, &user_id), knock, Some(versions(query))).await
}

async fn send_knock(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest<Box<RawValue>>,
) -> Result<RawJson, ApiError> {
    let state = handshakes.take_knock(&request.origin, &room_id, &event_id, &request.content).await?;
    Ok(RawJson(Bytes::from(format!(r#"{{"knock_room_state":{state}}}"#))))
}
