//! `/relations` and `/threads` (Client-Server API, "Relationships API", "Querying threads in a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_store::Direction;
use myelin_sync::{
    Sync,
    relations::{Include, RelationsRequest},
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::Deserialize;

use super::message_pagination::{direction, token};
use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query, WithGuests},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v1/rooms/{roomId}/relations/{eventId}", get(of_event))
        .route("/_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}", get(of_type))
        .route(
            "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}",
            get(of_event_type),
        )
        .route("/_matrix/client/v1/rooms/{roomId}/threads", get(threads))
}

#[derive(Deserialize)]
struct Params {
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    dir: Option<String>,
    #[serde(default)]
    recurse: bool,
}

impl Params {
    fn request(
        self,
        rel_type: Option<String>,
        event_type: Option<String>,
    ) -> Result<RelationsRequest, ApiError> {
        Ok(RelationsRequest {
            rel_type,
            event_type,
            from: token("from", self.from.as_deref())?,
            to: token("to", self.to.as_deref())?,
            direction: self.dir.as_deref().map_or(Ok(Direction::Reverse), direction)?,
            limit: self.limit,
            recurse: self.recurse,
        })
    }
}

async fn answer(
    auth: &Auth<WithGuests>,
    sync: &Sync,
    room_id: &RoomId,
    event_id: &EventId,
    request: RelationsRequest,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.relations(&auth.requester(), room_id, event_id, &request).await?.into()))
}

async fn of_event(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    answer(&auth, &sync, &room_id, &event_id, params.request(None, None)?).await
}

async fn of_type(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path((room_id, event_id, rel_type)): Path<(OwnedRoomId, OwnedEventId, String)>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    answer(&auth, &sync, &room_id, &event_id, params.request(Some(rel_type), None)?).await
}

async fn of_event_type(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path((room_id, event_id, rel_type, event_type)): Path<(OwnedRoomId, OwnedEventId, String, String)>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    answer(&auth, &sync, &room_id, &event_id, params.request(Some(rel_type), Some(event_type))?).await
}

#[derive(Deserialize)]
struct ThreadsParams {
    include: Option<String>,
    limit: Option<u64>,
    from: Option<String>,
}

async fn threads(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<ThreadsParams>,
) -> Result<RawJson, ApiError> {
    let include = match params.include.as_deref() {
        None | Some("all") => Include::All,
        Some("participated") => Include::Participated,
        Some(_) => return Err(ApiError::invalid_param("include is 'all' or 'participated'.")),
    };
    let from = token("from", params.from.as_deref())?;
    Ok(RawJson(sync.threads(&auth.requester(), &room_id, include, params.limit, from).await?.into()))
}
