//! `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}` and `PUT /_matrix/federation/{v1,v2}/send_leave/{roomId}/
//! {eventId}` (Server-Server API, "Leaving Rooms (Rejecting Invites)").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use bytes::Bytes;
use myelin_federation::Handshakes;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, events::room::member::MembershipState};
use serde_json::value::RawValue;

use super::joins::{TemplateBody, make};
use crate::{
    ApiError, AppState,
    extract::{Path, SignedRequest},
    respond::{Empty, Json, RawJson},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/make_leave/{roomId}/{userId}", get(make_leave))
        .route("/_matrix/federation/v1/send_leave/{roomId}/{eventId}", put(send_leave_v1))
        .route("/_matrix/federation/v2/send_leave/{roomId}/{eventId}", put(send_leave))
}

async fn make_leave(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, user_id)): Path<(OwnedRoomId, OwnedUserId)>,
    request: SignedRequest,
) -> Result<Json<TemplateBody>, ApiError> {
    make(&handshakes, &request.origin, (&room_id, &user_id), MembershipState::Leave, None).await
}

async fn send_leave(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest<Box<RawValue>>,
) -> Result<Empty, ApiError> {
    handshakes.take_leave(&request.origin, &room_id, &event_id, &request.content).await?;
    Ok(Empty)
}

async fn send_leave_v1(
    state: State<Arc<Handshakes>>,
    path: Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest<Box<RawValue>>,
) -> Result<RawJson, ApiError> {
    send_leave(state, path, request).await?;
    Ok(RawJson(Bytes::from_static(b"[200,{}]")))
}
