//! `GET /_matrix/client/v3/account/whoami` (Client-Server API, "Current account information").

use axum::{Router, routing::get};
use serde_json::{Value, json};

use crate::{
    AppState,
    extract::{Auth, WithGuests},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/account/whoami", get(whoami))
}

async fn whoami(auth: Auth<WithGuests>) -> Json<Value> {
    Json(json!({ "user_id": auth.user_id, "device_id": auth.device_id, "is_guest": auth.guest }))
}
