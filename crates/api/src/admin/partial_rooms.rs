//! `GET /_myelin/admin/v1/partial_rooms`: rooms that were joined elsewhere and whose members are still to come.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Router, extract::State, routing::get};
use myelin_federation::Handshakes;
use myelin_rooms::Rooms;
use myelin_view::View;
use serde::Serialize;

use crate::{
    ApiError, AppState,
    extract::{Admin, Auth},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_myelin/admin/v1/partial_rooms", get(partial_rooms))
}

#[derive(Serialize)]
struct PartialRooms {
    rooms: Vec<PartialRoom>,
}

#[derive(Serialize)]
struct PartialRoom {
    room_id: String,
    /// Who let this server in; asked first for the rest.
    resident: String,
    servers: usize,
    /// Milliseconds since the Unix epoch.
    since_ms: u64,
    /// Whether members are still to come; else only what `keyless` signed.
    members_omitted: bool,
    /// Servers whose keys are not to be had.
    keyless: BTreeSet<String>,
    /// Attempts that have failed since this server started, and why the last of them did.
    tries: u32,
    last_error: Option<String>,
}

async fn partial_rooms(
    _: Auth<Admin>,
    State(rooms): State<Arc<Rooms>>,
    State(handshakes): State<Arc<Handshakes>>,
    State(view): State<View>,
) -> Result<Json<PartialRooms>, ApiError> {
    let mut partial = Vec::new();
    for (nid, record) in rooms.partial_rooms().await? {
        let info = view.interner.room_info(nid).await.map_err(ApiError::internal)?;
        let tries = handshakes.tries_to_complete(nid);
        partial.push(PartialRoom {
            room_id: info.map(|info| info.room_id.to_string()).unwrap_or_default(),
            resident: record.resident,
            servers: record.servers.len(),
            since_ms: record.since_ms,
            members_omitted: record.members_omitted,
            keyless: record.keyless.into_iter().map(|keyless| keyless.server).collect(),
            tries: tries.failed,
            last_error: tries.last_error.map(|error| error.to_string()),
        });
    }
    Ok(Json(PartialRooms { rooms: partial }))
}
