//! `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}` (Client-Server API, "Redactions").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_rooms::Rooms;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::room_send::{Sent, transaction};
use crate::{
    ApiError, AppState,
    extract::{Auth, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}", put(redact))
}

#[derive(Deserialize)]
struct Body {
    reason: Option<String>,
}

/// Suspended users may redact their own events.
async fn redact(
    auth: Auth,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path((room_id, event_id, txn_id)): Path<(OwnedRoomId, OwnedEventId, String)>,
    OptionalJsonBody(body): OptionalJsonBody<Body>,
) -> Result<Json<Sent>, ApiError> {
    limits.check(Class::Message, &auth)?;
    let reason = body.reason.map(|reason| ("reason".to_owned(), Value::from(reason)));
    let content: Map<String, Value> = reason.into_iter().collect();
    let transaction = transaction(&auth, txn_id);
    let sender = auth.sender();
    let sent = rooms.redact(&sender, &room_id, &event_id, content, &transaction);
    Ok(Json(Sent::Now { event_id: sent.await? }))
}
