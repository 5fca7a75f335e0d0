//! `GET /_matrix/key/v2/server` (Server-Server API, "Publishing Keys"): not signed as a request, signed as an answer.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::{Keyring, keys::own::OwnKeysError};
use ruma::CanonicalJsonObject;

use crate::{ApiError, AppState, respond::Json};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/key/v2/server", get(server_keys))
}

async fn server_keys(State(keys): State<Arc<Keyring>>) -> Result<Json<CanonicalJsonObject>, ApiError> {
    Ok(Json(keys.own().signed().await?))
}

impl From<OwnKeysError> for ApiError {
    fn from(error: OwnKeysError) -> Self {
        Self::internal(error)
    }
}
