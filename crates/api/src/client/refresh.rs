//! `POST /_matrix/client/v3/refresh` (Client-Server API, "Refreshing access tokens").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::{RefreshError, Users};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::login;
use crate::{
    ApiError, AppState,
    extract::JsonBody,
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct RefreshBody {
    refresh_token: Option<String>,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/refresh", post(refresh))
}

async fn refresh(
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(body): JsonBody<RefreshBody>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    // Every client of a network comes by every few minutes: this is no log-in.
    limits.check_address(Class::Write)?;
    let token = body.refresh_token.ok_or_else(|| ApiError::missing_param("'refresh_token' is missing."))?;
    let mut answer = login::describe(users.refresh(&token).await?);
    answer.retain(|key, _| ["access_token", "refresh_token", "expires_in_ms"].contains(&key.as_str()));
    Ok(Json(answer))
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        let message = error.to_string();
        match error {
            RefreshError::Unknown => Self::unknown_token(message).with("soft_logout", false),
            RefreshError::Expired => Self::unknown_token(message).with("soft_logout", true),
            RefreshError::Locked => Self::user_locked(message).with("soft_logout", true),
            RefreshError::Failed(error) => error.into(),
        }
    }
}
