//! `POST /_matrix/client/v3/knock/{roomIdOrAlias}` (Client-Server API, "Knocking on rooms").

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRef, RawQuery, State},
    routing::post,
};
use myelin_federation::Handshakes;
use myelin_rooms::MembershipChange;
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
    State(state): State<AppState>,
    Path(room): Path<OwnedRoomOrAliasId>,
    RawQuery(query): RawQuery,
    OptionalJsonBody(body): OptionalJsonBody<Body>,
) -> Result<Json<RoomId>, ApiError> {
    limits.check(Class::Join, &auth)?;
    let (room_id, via) = resolve(&state, &room, query).await?;
    let handshakes = Arc::<Handshakes>::from_ref(&state);
    handshakes.knock(&auth.sender(), &room_id, &via, MembershipChange::because(body.reason)).await?;
    Ok(Json(RoomId { room_id }))
}
