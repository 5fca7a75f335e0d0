//! `GET /_myelin/admin/v1/retention`: from which rooms expired messages were purged.

use axum::{Router, extract::State, routing::get};
use myelin_store::tables::PURGED;
use myelin_view::View;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Admin, Auth},
    respond::Json,
};

const ROOMS_MAX: usize = 10_000;

pub fn routes() -> Router<AppState> {
    Router::new().route("/_myelin/admin/v1/retention", get(retention))
}

async fn retention(_: Auth<Admin>, State(view): State<View>) -> Result<Json<Value>, ApiError> {
    let policy = view.retention.policy();
    let mut rooms = Vec::new();
    for (nid, purged) in view.store.read().all(&PURGED, ROOMS_MAX).await?.into_iter() {
        if purged.events == 0 {
            continue;
        }
        let room = view.interner.room_info(nid).await?;
        rooms.push(json!({
            "room_id": room.map(|room| room.room_id.clone()),
            "purged_events": purged.events,
            "last_ts": purged.last_ms,
        }));
    }
    Ok(Json(json!({
        "default_lifetime_ms": policy.default_ms,
        "shortest_lifetime_ms": policy.shortest_ms,
        "longest_lifetime_ms": policy.longest_ms,
        "rooms": rooms,
    })))
}
