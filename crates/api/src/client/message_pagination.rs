//! `GET /_matrix/client/v3/rooms/{roomId}/messages` (Client-Server API, "Getting events for a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_core::TimelineToken;
use myelin_federation::{Inbound, Reach, Reached};
use myelin_store::Direction;
use myelin_sync::{
    Requester, Sync,
    messages::{Beyond, MessagesRequest},
};
use myelin_view::View;
use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query, WithGuests, parse_json},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/messages", get(messages))
}

#[derive(Deserialize)]
struct Params {
    dir: String,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    filter: Option<String>,
}

async fn messages(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    State(inbound): State<Arc<Inbound>>,
    State(view): State<View>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    let request = MessagesRequest {
        from: token("from", params.from.as_deref())?,
        to: token("to", params.to.as_deref())?,
        direction: direction(&params.dir)?,
        limit: params.limit,
        filter: params
            .filter
            .as_deref()
            .map_or_else(|| Ok(Default::default()), |f| parse_json(f.as_bytes()))?,
    };
    let beyond = match request.backwards() {
        Some((from, limit)) if is_or_was_member(&view, &room_id, &auth.requester()).await? => {
            let reach = Reach::Count { before: from, count: limit };
            let extent = inbound.backfill(&room_id, reach).await;
            Beyond { older: extent.reached != Reached::Everything, gap: extent.gap }
        }
        _ => Beyond::default(),
    };
    Ok(RawJson(sync.messages_held(&auth.requester(), &room_id, &request, beyond).await?.into()))
}

/// Others may not make this server ask for history.
pub async fn is_or_was_member(
    view: &View,
    room_id: &RoomId,
    requester: &Requester,
) -> Result<bool, ApiError> {
    let room = view.room_by_id(room_id).await.map_err(ApiError::internal)?;
    Ok(room.is_some_and(|room| room.servers.len() > 1 && room.members.contains_key(&requester.user)))
}

/// `dir`: `b` or `f`.
pub fn direction(dir: &str) -> Result<Direction, ApiError> {
    match dir {
        "b" => Ok(Direction::Reverse),
        "f" => Ok(Direction::Forward),
        _ => Err(ApiError::invalid_param("dir is 'b' (backwards) or 'f' (forwards).")),
    }
}

/// A pagination token, or the token of a sync; an empty one is none.
pub fn token(name: &str, value: Option<&str>) -> Result<Option<TimelineToken>, ApiError> {
    let value = value.filter(|value| !value.is_empty());
    let parsed = value.map(str::parse).transpose();
    parsed.map_err(|error| ApiError::invalid_param(format!("{name}: {error}.")))
}
