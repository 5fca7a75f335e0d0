//! `GET /.well-known/matrix/{client,support,server,policy_server}` (Client-Server API, "Server discovery"; Server-Server API,
//! "Resolving server names").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use serde_json::{Map, Value, json};

use super::rtc_transports::livekit;
use crate::{ApiError, AppState, ServerConfig, respond::Json};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/.well-known/matrix/client", get(client))
        .route("/.well-known/matrix/support", get(support))
        .route("/.well-known/matrix/policy_server", get(policy_server))
}

/// On the listeners of other servers, too.
pub fn server_routes() -> Router<AppState> {
    Router::new().route("/.well-known/matrix/server", get(server))
}

async fn client(State(config): State<Arc<ServerConfig>>) -> Result<Json<Value>, ApiError> {
    let base_url = config.well_known.client_base_url.as_ref().ok_or_else(nothing)?;
    let mut answer = json!({ "m.homeserver": { "base_url": base_url } });
    let transports = livekit(&config);
    if !transports.is_empty() {
        answer["org.matrix.msc4143.rtc_foci"] = Value::Array(transports);
    }
    Ok(Json(answer))
}

async fn support(State(config): State<Arc<ServerConfig>>) -> Result<Json<Value>, ApiError> {
    let mut answer = Map::new();
    if !config.well_known.support_contacts.is_empty() {
        answer.insert("contacts".to_owned(), json!(config.well_known.support_contacts));
    }
    if let Some(page) = &config.well_known.support_page {
        answer.insert("support_page".to_owned(), json!(page));
    }
    if answer.is_empty() { Err(nothing()) } else { Ok(Json(Value::Object(answer))) }
}

async fn server(State(config): State<Arc<ServerConfig>>) -> Result<Json<Value>, ApiError> {
    let server = config.well_known.server.as_ref().ok_or_else(nothing)?;
    Ok(Json(json!({ "m.server": server })))
}

async fn policy_server(State(config): State<Arc<ServerConfig>>) -> Result<Json<Value>, ApiError> {
    let key = config.well_known.policy_server_key.as_ref().ok_or_else(nothing)?;
    Ok(Json(json!({ "public_keys": { "ed25519": key } })))
}

fn nothing() -> ApiError {
    ApiError::not_found("This server does not announce this.")
}
