//! `GET /event/{eventId}`, `/state/{roomId}`, `/state_ids/{roomId}` and `/timestamp_to_event/{roomId}` (Server-Server API,
//! "Retrieving events").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::Serve;
use myelin_store::Direction;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/event/{eventId}", get(event))
        .route("/_matrix/federation/v1/timestamp_to_event/{roomId}", get(timestamp_to_event))
}

pub fn state_routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/state/{roomId}", get(state))
        .route("/_matrix/federation/v1/state_ids/{roomId}", get(state_ids))
}

async fn event(
    State(serve): State<Arc<Serve>>,
    Path(event_id): Path<OwnedEventId>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(serve.event(&request.origin, &event_id).await?.into()))
}

#[derive(Deserialize)]
struct At {
    event_id: OwnedEventId,
}

async fn state(
    State(serve): State<Arc<Serve>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(at): Query<At>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(serve.state(&request.origin, &room_id, &at.event_id).await?.into()))
}

async fn state_ids(
    State(serve): State<Arc<Serve>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(at): Query<At>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(serve.state_ids(&request.origin, &room_id, &at.event_id).await?.into()))
}

#[derive(Deserialize)]
struct Moment {
    ts: u64,
    dir: Way,
}

#[derive(Deserialize)]
enum Way {
    #[serde(rename = "f")]
    Forward,
    #[serde(rename = "b")]
    Backward,
}

async fn timestamp_to_event(
    State(serve): State<Arc<Serve>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(Moment { ts, dir }): Query<Moment>,
    request: SignedRequest,
) -> Result<RawJson, ApiError> {
    let direction = match dir {
        Way::Forward => Direction::Forward,
        Way::Backward => Direction::Reverse,
    };
    Ok(RawJson(serve.event_at(&request.origin, &room_id, ts, direction).await?.into()))
}
