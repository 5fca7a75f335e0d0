//! `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}` (Client-Server API, "Typing Notifications").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_sync::Sync;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, GuestsNotSuspended, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/typing/{userId}", put(typing))
}

#[derive(Deserialize)]
struct Body {
    typing: bool,
    /// Milliseconds.
    timeout: Option<u64>,
}

async fn typing(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    Path((room_id, user_id)): Path<(OwnedRoomId, OwnedUserId)>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    if user_id != auth.user_id {
        return Err(ApiError::forbidden("You cannot type for somebody else."));
    }
    sync.set_typing(&auth.requester(), &room_id, body.typing, body.timeout).await?;
    Ok(Empty)
}
