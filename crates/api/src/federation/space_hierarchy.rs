//! `GET /_matrix/federation/v1/hierarchy/{roomId}` (Server-Server API, "Spaces").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_sync::Sync;
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/hierarchy/{roomId}", get(hierarchy))
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    suggested_only: bool,
}

async fn hierarchy(
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<Params>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    let answer = sync.space_for_server(&request.origin, &room_id, params.suggested_only).await?;
    Ok(RawJson(answer.into()))
}
