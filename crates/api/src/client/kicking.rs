//! `POST /_matrix/client/v3/rooms/{roomId}/kick` (Client-Server API, "Leaving rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_rooms::{MembershipChange, Rooms};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, Path},
    rate_limit::{Class, Limits},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/kick", post(kick))
}

/// As for bans.
#[derive(Deserialize)]
pub(super) struct Body {
    pub user_id: OwnedUserId,
    pub reason: Option<String>,
}

async fn kick(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.kick(&auth.sender(), &room_id, &body.user_id, MembershipChange::because(body.reason)).await?;
    Ok(Empty)
}
