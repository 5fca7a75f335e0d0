//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}` (Client-Server API, "Sending events to a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_rooms::{Rooms, Transaction, delayed::NewDelayedEvent};
use myelin_view::STICKY_MS_MAX;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::delayed_events::schedule_with;
use crate::{
    ApiError, AppState, ServerConfig, Session,
    extract::{Auth, GuestsNotSuspended, JsonBody, Path, Query},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", put(send))
}

#[derive(Deserialize)]
pub(super) struct SendQuery {
    /// MSC4140.
    #[serde(rename = "org.matrix.msc4140.delay")]
    pub delay_ms: Option<u64>,
    /// MSC4354.
    #[serde(rename = "org.matrix.msc4354.sticky_duration_ms")]
    sticky_duration_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Sent {
    Now { event_id: OwnedEventId },
    Later { delay_id: String },
}

async fn send(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    State(config): State<Arc<ServerConfig>>,
    Path((room_id, event_type, txn_id)): Path<(OwnedRoomId, String, String)>,
    Query(query): Query<SendQuery>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Result<Json<Sent>, ApiError> {
    limits.check(Class::Message, &auth)?;
    let transaction = transaction(&auth, txn_id);
    let sticky_duration_ms = query.sticky_duration_ms.map(check_sticky).transpose()?;
    if let Some(delay_ms) = query.delay_ms {
        let new = NewDelayedEvent {
            room_id,
            event_type: event_type.into(),
            state_key: None,
            content: &content,
            delay_ms,
            sticky_duration_ms,
            transaction: Some(transaction),
        };
        return Ok(Json(Sent::Later { delay_id: schedule_with(&auth, &rooms, &config, new).await? }));
    }
    let sender = auth.sender();
    let sent =
        rooms.send_sticky(&sender, &room_id, event_type.into(), &content, sticky_duration_ms, &transaction);
    Ok(Json(Sent::Now { event_id: sent.await? }))
}

pub(super) fn transaction(session: &Session, transaction_id: String) -> Transaction {
    Transaction { device_id: session.device_id.clone(), transaction_id }
}

pub(super) fn check_sticky(duration_ms: u64) -> Result<u64, ApiError> {
    if duration_ms <= STICKY_MS_MAX {
        return Ok(duration_ms);
    }
    Err(ApiError::invalid_param(format!("An event is sticky for {STICKY_MS_MAX} ms at most.")))
}
