//! `/context`, `/timestamp_to_event` and `/initialSync` of a room (Client-Server API, "Getting events for a
//! room", "Room previews").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::Remote;
use myelin_store::Direction;
use myelin_sync::Sync;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use super::message_pagination::direction;
use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query, WithGuests, parse_json},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{roomId}/context/{eventId}", get(context))
        .route("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", get(timestamp_to_event))
        .route("/_matrix/client/v3/rooms/{roomId}/initialSync", get(initial_sync))
}

#[derive(Deserialize)]
struct ContextParams {
    limit: Option<u64>,
    filter: Option<String>,
}

async fn context(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(params): Query<ContextParams>,
) -> Result<RawJson, ApiError> {
    let filter =
        params.filter.as_deref().map_or_else(|| Ok(Default::default()), |f| parse_json(f.as_bytes()))?;
    let json = sync.context(&auth.requester(), &room_id, &event_id, params.limit, &filter).await?;
    Ok(RawJson(json.into()))
}

#[derive(Deserialize)]
struct TimestampParams {
    /// Milliseconds since the epoch.
    ts: u64,
    dir: String,
}

async fn timestamp_to_event(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    State(remote): State<Arc<Remote>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<TimestampParams>,
) -> Result<RawJson, ApiError> {
    let direction = direction(&params.dir)?;
    match sync.event_at(&auth.requester(), &room_id, params.ts, direction).await {
        // Only who may read the room gets this far. Others may hold what came before this server joined.
        Err(myelin_sync::Error::NotFound(nothing)) => {
            let found = remote.event_at(&room_id, params.ts, direction == Direction::Forward).await;
            let (event_id, ts) = found.ok_or_else(|| ApiError::not_found(nothing))?;
            Ok(RawJson(json!({ "event_id": event_id, "origin_server_ts": ts }).to_string().into()))
        }
        found => Ok(RawJson(found?.into())),
    }
}

async fn initial_sync(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.room_initial_sync(&auth.requester(), &room_id).await?.into()))
}
