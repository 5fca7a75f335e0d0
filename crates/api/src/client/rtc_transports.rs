//! `GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports` (MSC4143): over what this server's users hold calls.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use serde_json::{Value, json};

use crate::{
    AppState, ServerConfig,
    extract::{Auth, WithGuests},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", get(transports))
}

async fn transports(_: Auth<WithGuests>, State(config): State<Arc<ServerConfig>>) -> Json<Value> {
    Json(json!({ "rtc_transports": livekit(&config) }))
}

/// As the transports endpoint and the well-known document have them.
pub(super) fn livekit(config: &ServerConfig) -> Vec<Value> {
    let services = config.livekit_services.iter();
    services.map(|url| json!({ "type": "livekit", "livekit_service_url": url })).collect()
}
