//! `/_matrix/client/v3/presence/{userId}/status` (Client-Server API, "Presence").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_core::Env;
use myelin_sync::{Sync, v2::presence_content};
use ruma::OwnedUserId;
use serde::Deserialize;

use super::sync::presence_of;
use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, Path},
    rate_limit::{Class, Limits},
    respond::{Empty, RawJson},
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/presence/{userId}/status", get(status).put(set_status))
}

async fn status(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    State(env): State<Env>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<RawJson, ApiError> {
    let presence = sync.presence(&auth.requester(), &user_id).await?;
    Ok(RawJson(presence_content(&presence, env.now_ms()).into()))
}

#[derive(Deserialize)]
struct Body {
    presence: String,
    status_msg: Option<String>,
}

async fn set_status(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    Path(user_id): Path<OwnedUserId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    if user_id != auth.user_id {
        return Err(ApiError::forbidden("You cannot set the presence of somebody else."));
    }
    let state = presence_of(Some(&body.presence))?;
    sync.set_presence(&auth.requester(), state, body.status_msg).await?;
    Ok(Empty)
}
