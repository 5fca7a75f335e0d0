//! `POST /_matrix/client/v3/rooms/{roomId}/join` and `/join/{roomIdOrAlias}` (Client-Server API, "Joining rooms"). A room
//! that is not here is joined through servers that are in it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRef, RawQuery, State},
    routing::post,
};
use myelin_federation::{Handshakes, JoinRequest, Remote, remote::Error};
use myelin_rooms::MembershipChange;
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, RoomAliasId, RoomOrAliasId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ApiError, AppState,
    extract::{Auth, GuestsNotSuspended, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

/// Servers that a client may name.
const VIA_MAX: usize = 20;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{roomId}/join", post(join_by_id))
        .route("/_matrix/client/v3/join/{roomIdOrAlias}", post(join))
}

#[derive(Deserialize)]
struct Body {
    reason: Option<String>,
    third_party_signed: Option<Value>,
}

#[derive(Serialize)]
pub(super) struct RoomId {
    pub room_id: OwnedRoomId,
}

async fn join_by_id(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    state: State<AppState>,
    Path(room_id): Path<OwnedRoomId>,
    query: RawQuery,
    body: OptionalJsonBody<Body>,
) -> Result<Json<RoomId>, ApiError> {
    join(auth, limits, state, Path(room_id.into()), query, body).await
}

async fn join(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(state): State<AppState>,
    Path(room): Path<OwnedRoomOrAliasId>,
    RawQuery(query): RawQuery,
    OptionalJsonBody(body): OptionalJsonBody<Body>,
) -> Result<Json<RoomId>, ApiError> {
    limits.check(Class::Join, &auth)?;
    let (room_id, via) = resolve(&state, &room, query).await?;
    let handshakes = Arc::<Handshakes>::from_ref(&state);
    if let Some(signed) = body.third_party_signed {
        handshakes.redeem_signed(&auth.user_id, &room_id, signed).await?;
    }
    let request = JoinRequest { room_id, via, change: MembershipChange::because(body.reason) };
    handshakes.join(&auth.sender(), &request).await?;
    Ok(Json(RoomId { room_id: request.room_id }))
}

/// The room that is meant, and servers that may be in it.
pub(super) async fn resolve(
    state: &AppState,
    room: &RoomOrAliasId,
    query: Option<String>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    let via = servers_in(query.as_deref().unwrap_or_default());
    if let Ok(room_id) = <&ruma::RoomId>::try_from(room) {
        return Ok((room_id.to_owned(), via));
    }
    let unknown = || ApiError::not_found(format!("Room alias {room} not found."));
    let alias = <&RoomAliasId>::try_from(room.as_str()).map_err(|_| unknown())?;
    let found = Arc::<Remote>::from_ref(state).alias(alias).await;
    let (room_id, known) = found.map_err(|error| match error {
        Error::NotFound(_) => unknown(),
        error => error.into(),
    })?;
    Ok((room_id, via.into_iter().chain(known).collect()))
}

/// The `via` parameters, and `server_name` of earlier versions of the specification.
fn servers_in(query: &str) -> Vec<OwnedServerName> {
    let pairs: Vec<(String, String)> = serde_html_form::from_str(query).unwrap_or_default();
    let named = pairs.into_iter().filter(|(name, _)| matches!(name.as_str(), "via" | "server_name"));
    named.filter_map(|(_, server)| server.try_into().ok()).take(VIA_MAX).collect()
}
