//! `GET /_matrix/federation/v1/version` (Server-Server API, "Server implementation").

use axum::{Router, routing::get};
use serde_json::{Value, json};

use crate::{AppState, respond::Json};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/version", get(version))
}

async fn version() -> Json<Value> {
    Json(json!({ "server": { "name": "Myelin", "version": env!("CARGO_PKG_VERSION") } }))
}
