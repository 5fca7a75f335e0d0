//! `POST /_matrix/client/v3/user/{userId}/filter` and `GET /user/{userId}/filter/{filterId}` (Client-Server API,
//! "Filtering").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_core::limits::FILTER_SIZE_MAX;
use myelin_users::{Users, filters::FilterError};
use ruma::OwnedUserId;
use serde_json::{Value, json, value::RawValue};

use super::own::require_own;
use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::{Json, RawJson},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/user/{user_id}/filter", post(define))
        .route("/_matrix/client/v3/user/{user_id}/filter/{filter_id}", get(load))
}

async fn define(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(user_id): Path<OwnedUserId>,
    JsonBody(definition): JsonBody<Box<RawValue>, FILTER_SIZE_MAX>,
) -> Result<Json<Value>, ApiError> {
    require_own(&auth, &user_id)?;
    limits.check(Class::Write, &auth)?;
    Ok(Json(json!({ "filter_id": users.define_filter(auth.user, &definition).await? })))
}

async fn load(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((user_id, filter_id)): Path<(OwnedUserId, String)>,
) -> Result<RawJson, ApiError> {
    require_own(&auth, &user_id)?;
    let filter = users.filter(auth.user, &filter_id).await?;
    filter.map(|json| RawJson(json.into())).ok_or_else(|| ApiError::not_found("You have no such filter."))
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        let message = error.to_string();
        match error {
            FilterError::Invalid(_) => Self::bad_json(message),
            FilterError::TooLarge => Self::too_large(message),
            FilterError::Failed(error) => error.into(),
        }
    }
}
