//! `GET /_matrix/client/v1/mutual_rooms` (Client-Server API, "Mutual rooms").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_users::{Users, mutual_rooms::MutualRoomsError};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, Query},
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct With {
    user_id: Option<String>,
    from: Option<String>,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v1/mutual_rooms", get(mutual_rooms))
}

async fn mutual_rooms(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Query(query): Query<With>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Search, &auth)?;
    let user_id = query.user_id.and_then(|text| UserId::parse(text).ok());
    let user_id = user_id.ok_or_else(|| ApiError::invalid_param("'user_id' has to be a user id."))?;
    let found = users.mutual_rooms(auth.user, &user_id, query.from.as_deref()).await?;
    let mut answer = json!({ "joined": found.joined, "count": found.count });
    if let Some(next_batch) = found.next_batch {
        answer["next_batch"] = next_batch.into();
    }
    Ok(Json(answer))
}

impl From<MutualRoomsError> for ApiError {
    fn from(error: MutualRoomsError) -> Self {
        match error {
            MutualRoomsError::Oneself | MutualRoomsError::Token => Self::invalid_param(error.to_string()),
            MutualRoomsError::Failed(error) => error.into(),
        }
    }
}
