//! `POST /_matrix/client/v1/login/get_token` (Client-Server API, "Token-based login").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::Users;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::Auth,
    rate_limit::{Class, Limits},
    respond::Json,
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct Nothing {}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v1/login/get_token", post(get_token))
}

async fn get_token(
    auth: Auth,
    limits: Limits,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<Nothing>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Login, &auth)?;
    uia.confirm("POST /login/get_token", &auth, &body).await?;
    let made = users.create_login_token(auth.user).await?;
    Ok(Json(json!({ "login_token": made.token, "expires_in_ms": made.expires_in_ms })))
}
