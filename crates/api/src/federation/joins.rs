//! `GET /_matrix/federation/v1/make_join/{roomId}/{userId}` and `PUT /_matrix/federation/{v1,v2}/send_join/{roomId}/
//! {eventId}` (Server-Server API, "Joining Rooms").

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
    routing::{get, put},
};
use bytes::Bytes;
use myelin_federation::{Handshakes, SendJoin};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
    respond::{Json, RawJson},
};

/// Room versions that a server may name.
const VERSIONS_MAX: usize = 100;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/make_join/{roomId}/{userId}", get(make_join))
        .route("/_matrix/federation/v1/send_join/{roomId}/{eventId}", put(send_join_v1))
        .route("/_matrix/federation/v2/send_join/{roomId}/{eventId}", put(send_join))
}

#[derive(Serialize)]
pub(super) struct TemplateBody {
    pub room_version: String,
    pub event: Map<String, Value>,
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    omit_members: bool,
}

async fn make_join(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, user_id)): Path<(OwnedRoomId, OwnedUserId)>,
    RawQuery(query): RawQuery,
    request: SignedRequest,
) -> Result<Json<TemplateBody>, ApiError> {
    let join = MembershipState::Join;
    make(&handshakes, &request.origin, (&room_id, &user_id), join, Some(versions(query))).await
}

pub(super) async fn make(
    handshakes: &Handshakes,
    origin: &OwnedServerName,
    (room_id, user_id): (&OwnedRoomId, &OwnedUserId),
    membership: MembershipState,
    versions: Option<Vec<String>>,
) -> Result<Json<TemplateBody>, ApiError> {
    let made = handshakes.make_member(origin, room_id, user_id, membership, versions.as_deref()).await?;
    Ok(Json(TemplateBody { room_version: made.room_version.to_string(), event: made.event }))
}

/// The `ver` parameters; without any, version 1 is meant.
pub(super) fn versions(query: Option<String>) -> Vec<String> {
    let query = query.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("ver="));
    let versions: Vec<_> = pairs.take(VERSIONS_MAX).map(ToOwned::to_owned).collect();
    if versions.is_empty() { vec!["1".to_owned()] } else { versions }
}

async fn send_join(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(options): Query<Options>,
    request: SignedRequest<Box<RawValue>>,
) -> Result<RawJson, ApiError> {
    let send = SendJoin {
        room_id: &room_id,
        event_id: &event_id,
        event: &request.content,
        omit_members: options.omit_members,
    };
    let body = handshakes.take_join(&request.origin, send).await?;
    Ok(RawJson(Bytes::from(body)))
}

async fn send_join_v1(
    State(handshakes): State<Arc<Handshakes>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    request: SignedRequest<Box<RawValue>>,
) -> Result<RawJson, ApiError> {
    let send =
        SendJoin { room_id: &room_id, event_id: &event_id, event: &request.content, omit_members: false };
    let body = handshakes.take_join(&request.origin, send).await?;
    Ok(RawJson(Bytes::from(format!("[200,{body}]"))))
}
