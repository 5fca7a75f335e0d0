//! `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}` and `PUT /_matrix/federation/v1/3pid/onbind`
//! (Server-Server API, "Third-party invites").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_federation::{BoundInvite, Handshakes, PartialInvite};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{JsonBody, Path, SignedRequest},
    rate_limit::{Class, Limits},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/exchange_third_party_invite/{roomId}", put(exchange))
        // Sydent says POST, and Synapse understands nothing else.
        .route("/_matrix/federation/v1/3pid/onbind", put(onbind).post(onbind))
}

#[derive(Deserialize)]
struct Bound {
    #[serde(rename = "medium")]
    _medium: String,
    #[serde(rename = "address")]
    _address: String,
    mxid: OwnedUserId,
    invites: Vec<BoundInvite>,
}

async fn exchange(
    State(handshakes): State<Arc<Handshakes>>,
    Path(room_id): Path<OwnedRoomId>,
    request: SignedRequest<PartialInvite>,
) -> Result<Empty, ApiError> {
    handshakes.exchange_third_party_invite(&request.origin, &room_id, request.content).await?;
    Ok(Empty)
}

/// From identity servers, which do not sign requests: what counts is what they signed in the invites.
async fn onbind(
    limits: Limits,
    State(handshakes): State<Arc<Handshakes>>,
    JsonBody(body): JsonBody<Bound>,
) -> Result<Empty, ApiError> {
    limits.check_address(Class::Write)?;
    handshakes.bound(&body.mxid, body.invites).await?;
    Ok(Empty)
}
