//! `POST /_matrix/client/v3/rooms/{roomId}/upgrade` (Client-Server API, "Room upgrades").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_rooms::{Rooms, Upgrade};
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/upgrade", post(upgrade))
}

#[derive(Deserialize)]
struct Body {
    new_version: RoomVersionId,
    #[serde(default)]
    additional_creators: Vec<OwnedUserId>,
}

#[derive(Serialize)]
struct Upgraded {
    replacement_room: OwnedRoomId,
}

async fn upgrade(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Upgraded>, ApiError> {
    limits.check(Class::RoomCreation, &auth)?;
    let request = Upgrade { new_version: body.new_version, additional_creators: body.additional_creators };
    let replacement_room = rooms.upgrade(&auth.sender(), &room_id, &request).await?;
    Ok(Json(Upgraded { replacement_room }))
}
