//! `GET /_matrix/federation/v1/openid/userinfo` (Server-Server API, "OpenID"): for third parties, without signatures.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_users::Users;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiError, AppState, extract::Query, respond::Json};

#[derive(Deserialize)]
struct UserInfo {
    access_token: Option<String>,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
}

async fn userinfo(
    State(users): State<Arc<Users>>,
    Query(query): Query<UserInfo>,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::missing_token("'access_token' is missing.");
    let user_id = users.openid_user(&query.access_token.ok_or_else(missing)?).await?;
    let user_id = user_id.ok_or_else(|| ApiError::unknown_token("The token is not known or has expired."))?;
    Ok(Json(json!({ "sub": user_id })))
}
