//! `POST /_matrix/client/v3/rooms/{roomId}/leave` and `/forget` (Client-Server API, "Leaving rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_federation::Handshakes;
use myelin_rooms::{MembershipChange, Rooms};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, OptionalJsonBody, Path, WithGuests},
    rate_limit::{Class, Limits},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/rooms/{roomId}/leave", post(leave))
        .route("/_matrix/client/v3/rooms/{roomId}/forget", post(forget))
}

#[derive(Deserialize)]
struct Body {
    reason: Option<String>,
}

/// Suspended users may leave.
async fn leave(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(handshakes): State<Arc<Handshakes>>,
    Path(room_id): Path<OwnedRoomId>,
    OptionalJsonBody(body): OptionalJsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    handshakes.leave(&auth.sender(), &room_id, MembershipChange::because(body.reason)).await?;
    Ok(Empty)
}

async fn forget(
    auth: Auth,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.forget(&auth.sender(), &room_id).await?;
    Ok(Empty)
}
