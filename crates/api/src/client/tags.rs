//! `/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags` (Client-Server API, "Room Tagging").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use myelin_users::{Users, tags::TagError};
use myelin_view::View;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

use super::{account_data::known_room, own::require_own};
use crate::{
    ApiError, AppState,
    extract::{Auth, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags", get(list))
        .route("/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}", put(set).delete(delete))
}

async fn list(
    auth: Auth,
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    Path((user_id, room_id)): Path<(OwnedUserId, OwnedRoomId)>,
) -> Result<Json<Value>, ApiError> {
    require_own(&auth, &user_id)?;
    let tags = users.tags(auth.user, known_room(&view, &room_id).await?).await?;
    Ok(Json(json!({ "tags": tags })))
}

async fn set(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    Path((user_id, room_id, tag)): Path<(OwnedUserId, OwnedRoomId, String)>,
    OptionalJsonBody(info): OptionalJsonBody<Map<String, Value>>,
) -> Result<Empty, ApiError> {
    require_own(&auth, &user_id)?;
    limits.check(Class::Write, &auth)?;
    users.set_tag(auth.user, known_room(&view, &room_id).await?, &tag, info).await?;
    Ok(Empty)
}

async fn delete(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    Path((user_id, room_id, tag)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Empty, ApiError> {
    require_own(&auth, &user_id)?;
    limits.check(Class::Write, &auth)?;
    users.delete_tag(auth.user, known_room(&view, &room_id).await?, &tag).await?;
    Ok(Empty)
}

impl From<TagError> for ApiError {
    fn from(error: TagError) -> Self {
        match error {
            TagError::Name | TagError::Order => Self::invalid_param(error.to_string()),
            TagError::Data(error) => error.into(),
        }
    }
}
