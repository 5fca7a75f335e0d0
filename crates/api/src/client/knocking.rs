//! `POST /_matrix/client/v3/knock/{roomIdOrAlias}` (Client-Server API, "Knocking on rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_rooms::{MembershipChange, Rooms};
use ruma::OwnedRoomOrAliasId;
use serde::Deserialize;

use super::joining::{RoomId, resolve};
use crate::{
    ApiError, AppState,
    extract::{Auth, NotSuspended, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/knock/{roomIdOrAlias}", post(knock))
}

#[derive(Deserialize)]
struct Body {
    reason: Option<String>,
}

async fn knock(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room): Path<OwnedRoomOrAliasId>,
    OptionalJsonBody(body): OptionalJsonBody<Body>,
) -> Result<Json<RoomId>, ApiError> {
    limits.check(Class::Join, &auth)?;
    let room_id = resolve(&rooms, &room).await?;
    rooms.knock(&auth.sender(), &room_id, MembershipChange::because(body.reason)).await?;
    Ok(Json(RoomId { room_id }))
}
