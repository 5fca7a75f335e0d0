//! `/hierarchy` and `/room_summary` (Client-Server API, "Spaces", "Room summaries").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_sync::{Sync, spaces::HierarchyRequest};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, MaybeAuth, Path, Query, WithGuests},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v1/rooms/{roomId}/hierarchy", get(hierarchy))
        .route("/_matrix/client/v1/room_summary/{roomIdOrAlias}", get(summary))
        // The names before v1.15 (MSC3266), which clients still use.
        .route("/_matrix/client/unstable/im.nheko.summary/summary/{roomIdOrAlias}", get(summary))
        .route("/_matrix/client/unstable/im.nheko.summary/rooms/{roomIdOrAlias}/summary", get(summary))
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    suggested_only: bool,
    max_depth: Option<u64>,
    limit: Option<u64>,
    from: Option<String>,
}

async fn hierarchy(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    let Params { suggested_only, max_depth, limit, from } = params;
    let request = HierarchyRequest { suggested_only, max_depth, limit, from };
    Ok(RawJson(sync.hierarchy(&auth.requester(), &room_id, &request).await?.into()))
}

async fn summary(
    MaybeAuth(auth): MaybeAuth,
    State(sync): State<Arc<Sync>>,
    Path(room): Path<OwnedRoomOrAliasId>,
) -> Result<RawJson, ApiError> {
    let requester = auth.as_ref().map(Auth::requester);
    Ok(RawJson(sync.room_summary(requester.as_ref(), &room).await?.into()))
}
