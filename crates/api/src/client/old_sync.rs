//! `GET /_matrix/client/v3/initialSync`, `/events` and `/events/{eventId}` (Client-Server API, "Syncing", deprecated).
//! `/events` with a room is peeking, and needs no membership.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_core::SyncToken;
use myelin_sync::Sync;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use super::message_pagination::token;
use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query, WithGuests},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/initialSync", get(initial_sync))
        .route("/_matrix/client/v3/events", get(events))
        .route("/_matrix/client/v3/events/{eventId}", get(event))
}

#[derive(Deserialize)]
struct InitialSyncParams {
    limit: Option<usize>,
    #[serde(default)]
    archived: bool,
}

#[derive(Deserialize)]
struct EventsParams {
    room_id: Option<OwnedRoomId>,
    from: Option<String>,
    /// Milliseconds.
    #[serde(default)]
    timeout: u64,
}

async fn initial_sync(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    Query(params): Query<InitialSyncParams>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.initial_sync(&auth.requester(), params.limit, params.archived).await?.into()))
}

async fn events(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Query(params): Query<EventsParams>,
) -> Result<RawJson, ApiError> {
    let requester = auth.requester();
    if let Some(room_id) = params.room_id {
        let from = token("from", params.from.as_deref())?;
        return Ok(RawJson(sync.peek(&requester, &room_id, from, params.timeout).await?.into()));
    }
    let from = params.from.as_deref().map(str::parse::<SyncToken>).transpose();
    let from = from.map_err(|error| ApiError::invalid_param(format!("from: {error}.")))?;
    Ok(RawJson(sync.event_stream(&requester, from, params.timeout).await?.into()))
}

async fn event(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    Path(event_id): Path<OwnedEventId>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.event_anywhere(&auth.requester(), &event_id).await?.into()))
}
