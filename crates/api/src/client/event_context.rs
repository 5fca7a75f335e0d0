//! `/context`, `/timestamp_to_event` and `/initialSync` of a room (Client-Server API, "Getting events for a
//! room", "Room previews").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::{Inbound, Reach, Reached, Remote};
use myelin_store::Direction;
use myelin_sync::Sync;
use myelin_view::View;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

use super::message_pagination::{direction, is_or_was_member};
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
    State(inbound): State<Arc<Inbound>>,
    State(view): State<View>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<TimestampParams>,
) -> Result<RawJson, ApiError> {
    let direction = direction(&params.dir)?;
    let requester = auth.requester();
    let reached = match is_or_was_member(&view, &room_id, &requester).await? {
        true => inbound.backfill(&room_id, Reach::Time { ts_ms: params.ts }).await.reached,
        false => Reached::Enough,
    };
    // Only who may read the room gets any further.
    let here = match sync.event_at(&requester, &room_id, params.ts, direction).await {
        Err(myelin_sync::Error::NotFound(_)) => None,
        found => Some(found?),
    };
    // Others may hold what came before this server joined.
    let elsewhere = match here.is_none() || reached == Reached::Less {
        true => remote.event_at(&room_id, params.ts, direction == Direction::Forward).await,
        false => None,
    };
    let distance = |(_, ts_ms): &(OwnedEventId, u64)| ts_ms.abs_diff(params.ts);
    let found = here.into_iter().chain(elsewhere).min_by_key(distance);
    let found = found.ok_or_else(|| ApiError::not_found("There is no event in that direction."))?;
    let (event_id, ts) = found;
    Ok(RawJson(json!({ "event_id": event_id, "origin_server_ts": ts }).to_string().into()))
}

async fn initial_sync(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.room_initial_sync(&auth.requester(), &room_id).await?.into()))
}
