//! `GET /_matrix/client/v3/voip/turnServer` (Client-Server API, "Voice over IP"). TURN cannot be configured yet, which
//! clients learn as `M_NOT_FOUND`.

use axum::{Router, routing::get};

use crate::{ApiError, AppState, extract::Auth};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/voip/turnServer", get(turn_server))
}

async fn turn_server(_: Auth) -> ApiError {
    ApiError::not_found("This server has no TURN server.")
}
