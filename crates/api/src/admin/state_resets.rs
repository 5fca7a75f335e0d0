//! `GET /_myelin/admin/v1/state_resets`: changes of rooms' states that no accepted event asked for, newest first.

use axum::{Router, extract::State, routing::get};
use myelin_core::EventNid;
use myelin_store::{
    Direction,
    tables::{STATE_RESETS, StateResetRecord},
};
use myelin_view::View;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Admin, Auth, Query},
    respond::Json,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Params {
    limit: Option<usize>,
    /// Only those found before this time, in milliseconds.
    before: Option<u64>,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_myelin/admin/v1/state_resets", get(state_resets))
}

async fn state_resets(
    _: Auth<Admin>,
    State(view): State<View>,
    Query(params): Query<Params>,
) -> Result<Json<Value>, ApiError> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let from = (0_u64, String::new());
    let until = (params.before.unwrap_or(u64::MAX), String::new());
    let rows = view.store.range(&STATE_RESETS, &from, &until, Direction::Reverse, limit);
    let mut resets = Vec::new();
    for ((at_ms, _), record) in rows.await.map_err(ApiError::internal)? {
        resets.push(show(&view, at_ms, &record).await.map_err(ApiError::internal)?);
    }
    Ok(Json(json!({ "state_resets": resets })))
}

async fn show(view: &View, at_ms: u64, record: &StateResetRecord) -> Result<Value, myelin_view::Error> {
    let room = view.interner.room_info(record.room).await?;
    let root = |root: &[u8; 16]| format!("{:032x}", u128::from_be_bytes(*root));
    Ok(json!({
        "at": at_ms,
        "room_id": room.map(|room| room.room_id.clone()),
        "kind": record.kind,
        "type": record.event_type,
        "state_key": record.state_key,
        "by": event(view, Some(record.by)).await?,
        "before": event(view, record.before).await?,
        "after": event(view, record.after).await?,
        "state_before": root(&record.state_before),
        "state_after": root(&record.state_after),
    }))
}

async fn event(view: &View, nid: Option<EventNid>) -> Result<Option<Value>, myelin_view::Error> {
    let Some(nid) = nid else { return Ok(None) };
    let event = view.events.load(nid).await?;
    Ok(event.map(|event| {
        json!({ "event_id": event.pdu.event_id, "sender": event.pdu.sender, "type": event.pdu.event_type, "content": event.pdu.content })
    }))
}
