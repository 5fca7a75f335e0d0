//! `POST /_matrix/client/v3/rooms/{roomId}/invite` (Client-Server API, "Joining rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_federation::{AddressInvite, Handshakes, Identity};
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
    address: Option<String>,
    id_server: Option<String>,
    #[serde(default)]
    id_access_token: String,
}

async fn invite(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(handshakes): State<Arc<Handshakes>>,
    State(identity): State<Arc<Identity>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Invite, &auth)?;
    let change = MembershipChange::because(body.reason);
    let Some(user_id) = body.user_id else {
        let (Some(medium), Some(address), Some(id_server)) = (body.medium, body.address, body.id_server)
        else {
            let message = "The user_id of the invited user is missing, or id_server, medium and address.";
            return Err(ApiError::bad_json(message));
        };
        let invite = AddressInvite { id_server, id_access_token: body.id_access_token, medium, address };
        identity.invite(&auth.sender(), &room_id, &invite, change).await?;
        return Ok(Empty);
    };
    handshakes.invite(&auth.sender(), &room_id, &user_id, change).await?;
    Ok(Empty)
}
