//! `POST /_matrix/client/v3/user/{userId}/openid/request_token` (Client-Server API, "OpenID").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::Users;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use super::own::require_own;
use crate::{
    ApiError, AppState,
    extract::{Auth, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/user/{user_id}/openid/request_token", post(request_token))
}

/// The body is an object that is reserved.
async fn request_token(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(user_id): Path<OwnedUserId>,
    OptionalJsonBody(_): OptionalJsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    require_own(&auth, &user_id)?;
    limits.check(Class::Write, &auth)?;
    let made = users.create_openid_token(auth.user).await?;
    Ok(Json(json!({
        "access_token": made.token,
        "token_type": "Bearer",
        "matrix_server_name": auth.user_id.server_name(),
        "expires_in": made.expires_in_ms / 1000,
    })))
}
