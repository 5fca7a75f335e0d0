//! `GET /_matrix/client/v1/register/m.login.registration_token/validity` (Client-Server API, "Token-authenticated
//! registration").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_users::{RegistrationMode, Users};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::Query,
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct Validity {
    token: String,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v1/register/m.login.registration_token/validity", get(validity))
}

async fn validity(
    limits: Limits,
    State(users): State<Arc<Users>>,
    Query(query): Query<Validity>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    if users.config().registration == RegistrationMode::Closed {
        return Err(ApiError::forbidden("Registration is not enabled on this homeserver."));
    }
    Ok(Json(json!({ "valid": users.is_valid_registration_token(&query.token).await? })))
}
