//! `POST /_matrix/client/v3/rooms/{roomId}/ban` and `/unban` (Client-Server API, "Banning users in a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_rooms::{MembershipChange, Rooms};
use ruma::OwnedRoomId;

use super::kicking::Body;
use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, Path},
    rate_limit::{Class, Limits},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{roomId}/ban", post(ban))
        .route("/_matrix/client/v3/rooms/{roomId}/unban", post(unban))
}

async fn ban(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.ban(&auth.sender(), &room_id, &body.user_id, MembershipChange::because(body.reason)).await?;
    Ok(Empty)
}

async fn unban(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.unban(&auth.sender(), &room_id, &body.user_id, MembershipChange::because(body.reason)).await?;
    Ok(Empty)
}
