//! `GET /event_auth/{roomId}/{eventId}` (Server-Server API, "Retrieving event authorization information").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::Serve;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::{
    ApiError, AppState,
    extract::{Path, SignedRequest},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/event_auth/{roomId}/{eventId}", get(event_auth))
}

async fn event_auth(
    State(serve): State<Arc<Serve>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(serve.event_auth(&request.origin, &room_id, &event_id).await?.into()))
}
