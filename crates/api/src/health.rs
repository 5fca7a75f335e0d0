//! `/_myelin/health/live` and `/_myelin/health/ready`, for process supervisors and load balancers.

use axum::{Router, extract::State, routing::get};
use myelin_store::{Store, tables::META};
use serde_json::json;

use crate::{ApiError, AppState, Shutdown, respond::Json};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_myelin/health/live", get(live)).route("/_myelin/health/ready", get(ready))
}

/// The process answers.
async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": "live" }))
}

/// The store answers and the server is not going down.
async fn ready(
    State(store): State<Store>,
    State(shutdown): State<Shutdown>,
) -> Result<Json<serde_json::Value>, ApiError> {
    if shutdown.is_requested() {
        return Err(ApiError::unavailable("The server is going down."));
    }
    store.get(&META, &String::new()).await.map_err(|e| ApiError::unavailable(e.to_string()))?;
    Ok(Json(json!({ "status": "ready" })))
}
