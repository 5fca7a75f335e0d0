//! `/_matrix/client/v3/profile/{userId}` and `/profile/{userId}/{keyName}` (Client-Server API, "Profiles").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::Remote;
use myelin_users::{
    Users,
    profile::{DISPLAYNAME, ProfileError},
};
use myelin_view::View;
use ruma::OwnedUserId;
use serde_json::{Map, Value};

use super::own::require_own;
use crate::{
    ApiError, AppState, Session,
    extract::{Auth, GuestsNotSuspended, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/profile/{user_id}", get(profile)).route(
        "/_matrix/client/v3/profile/{user_id}/{key_name}",
        get(field).put(set_field).delete(delete_field),
    )
}

async fn profile(
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(remote): State<Arc<Remote>>,
    State(view): State<View>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    if !view.is_local(&user_id) {
        limits.check_address(Class::Read)?;
        return Ok(Json(Map::clone(&*remote.profile(&user_id).await?)));
    }
    let profile = users.profile(&user_id).await?;
    profile.map(Json).ok_or_else(|| ApiError::not_found("There is no such profile."))
}

async fn field(
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(remote): State<Arc<Remote>>,
    State(view): State<View>,
    Path((user_id, key_name)): Path<(OwnedUserId, String)>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let value = if view.is_local(&user_id) {
        users.profile_field(&user_id, &key_name).await?
    } else {
        limits.check_address(Class::Read)?;
        remote.profile(&user_id).await?.get(&key_name).cloned()
    };
    let value = value.ok_or_else(|| ApiError::not_found("There is no such field in this profile."))?;
    Ok(Json(Map::from_iter([(key_name, value)])))
}

async fn set_field(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((user_id, key_name)): Path<(OwnedUserId, String)>,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Empty, ApiError> {
    require_own(&auth, &user_id)?;
    require_allowed(&auth, &key_name)?;
    limits.check(Class::Profile, &auth)?;
    let value =
        body.get(&key_name).ok_or_else(|| ApiError::missing_param(format!("'{key_name}' is missing.")))?;
    users.set_profile_field(auth.user, &key_name, value).await?;
    Ok(Empty)
}

async fn delete_field(
    auth: Auth<GuestsNotSuspended>,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((user_id, key_name)): Path<(OwnedUserId, String)>,
) -> Result<Empty, ApiError> {
    require_own(&auth, &user_id)?;
    require_allowed(&auth, &key_name)?;
    limits.check(Class::Profile, &auth)?;
    users.delete_profile_field(auth.user, &key_name).await?;
    Ok(Empty)
}

/// Guests have a display name only (Guest Access).
fn require_allowed(session: &Session, key_name: &str) -> Result<(), ApiError> {
    if session.guest && key_name != DISPLAYNAME {
        return Err(ApiError::guest_access_forbidden("Guests can only change their display name."));
    }
    Ok(())
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        let message = error.to_string();
        match error {
            ProfileError::InvalidKey(_) | ProfileError::InvalidValue(_) => Self::invalid_param(message),
            ProfileError::KeyTooLarge => Self::key_too_large(message),
            ProfileError::TooLarge => Self::profile_too_large(message),
            ProfileError::Failed(error) => error.into(),
        }
    }
}
