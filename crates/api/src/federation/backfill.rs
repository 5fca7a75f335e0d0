//! `GET /backfill/{roomId}` and `POST /get_missing_events/{roomId}` (Server-Server API, "Backfilling and retrieving
//! missing events").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_federation::{Serve, serve::history::MissingEvents};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/backfill/{roomId}", get(backfill))
        .route("/_matrix/federation/v1/get_missing_events/{roomId}", post(get_missing_events))
}

#[derive(Deserialize)]
struct From {
    v: Vec<OwnedEventId>,
    limit: u64,
}

async fn backfill(
    State(serve): State<Arc<Serve>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(from): Query<From>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(serve.backfill(&request.origin, &room_id, &from.v, from.limit).await?.into()))
}

async fn get_missing_events(
    State(serve): State<Arc<Serve>>,
    Path(room_id): Path<OwnedRoomId>,
    request: SignedRequest<MissingEvents>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(serve.missing_events(&request.origin, &room_id, &request.content).await?.into()))
}
