//! `POST /_matrix/client/v3/rooms/{roomId}/join` and `/join/{roomIdOrAlias}` (Client-Server API, "Joining rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_rooms::{Join, MembershipChange, Rooms};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, RoomAliasId, RoomOrAliasId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ApiError, AppState,
    extract::{Auth, GuestsNotSuspended, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

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
    rooms: State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
    body: OptionalJsonBody<Body>,
) -> Result<Json<RoomId>, ApiError> {
    join(auth, limits, rooms, Path(room_id.into()), body).await
}

async fn join(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room): Path<OwnedRoomOrAliasId>,
    OptionalJsonBody(body): OptionalJsonBody<Body>,
) -> Result<Json<RoomId>, ApiError> {
    limits.check(Class::Join, &auth)?;
    if body.third_party_signed.is_some() {
        return Err(super::inviting::no_third_parties());
    }
    let room_id = resolve(&rooms, &room).await?;
    let join = Join { change: MembershipChange::because(body.reason), update: false };
    rooms.join(&auth.sender(), &room_id, join).await?;
    Ok(Json(RoomId { room_id }))
}

/// The room that is meant.
pub(super) async fn resolve(rooms: &Rooms, room: &RoomOrAliasId) -> Result<OwnedRoomId, ApiError> {
    if let Ok(room_id) = <&ruma::RoomId>::try_from(room) {
        return Ok(room_id.to_owned());
    }
    let unknown = || ApiError::not_found(format!("Room alias {room} not found."));
    let alias = <&RoomAliasId>::try_from(room.as_str()).map_err(|_| unknown())?;
    rooms.resolve_alias(alias).await?.ok_or_else(unknown)
}
