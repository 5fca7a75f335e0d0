//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}` (Client-Server API, "Sending events to a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_rooms::{Rooms, Transaction};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    ApiError, AppState, Session,
    extract::{Auth, GuestsNotSuspended, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", put(send))
}

#[derive(Serialize)]
pub(super) struct EventId {
    pub event_id: OwnedEventId,
}

async fn send(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path((room_id, event_type, txn_id)): Path<(OwnedRoomId, String, String)>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Result<Json<EventId>, ApiError> {
    limits.check(Class::Message, &auth)?;
    let transaction = transaction(&auth, txn_id);
    let sender = auth.sender();
    let sent = rooms.send_message(&sender, &room_id, event_type.into(), &content, &transaction);
    Ok(Json(EventId { event_id: sent.await? }))
}

pub(super) fn transaction(session: &Session, transaction_id: String) -> Transaction {
    Transaction { device_id: session.device_id.clone(), transaction_id }
}
