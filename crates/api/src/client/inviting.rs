//! `POST /_matrix/client/v3/rooms/{roomId}/invite` (Client-Server API, "Joining rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_federation::Handshakes;
use myelin_rooms::MembershipChange;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, Path},
    rate_limit::{Class, Limits},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/invite", post(invite))
}

/// Either form of the endpoint: by user id, or by third-party identifier.
#[derive(Deserialize)]
struct Body {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    medium: Option<String>,
}

async fn invite(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(handshakes): State<Arc<Handshakes>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Invite, &auth)?;
    let Some(user_id) = body.user_id else {
        return Err(match body.medium {
            Some(_) => no_third_parties(),
            None => ApiError::bad_json("The user_id of the invited user is missing."),
        });
    };
    let change = MembershipChange::because(body.reason);
    handshakes.invite(&auth.sender(), &room_id, &user_id, change).await?;
    Ok(Empty)
}

pub(super) fn no_third_parties() -> ApiError {
    ApiError::threepid_denied("This server does not invite by e-mail address or phone number.")
}
