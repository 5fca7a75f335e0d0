//! `/_matrix/client/v3/user/{userId}/account_data/{type}` and `/user/{userId}/rooms/{roomId}/account_data/{type}`
//! (Client-Server API, "Client Config").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_core::RoomNid;
use myelin_push::edit;
use myelin_users::{Users, account_data::AccountDataError, push_rules::PUSH_RULES};
use myelin_view::View;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{json, value::RawValue};

use super::own::require_own;
use crate::{
    ApiError, AppState, Session,
    extract::{Auth, JsonBody, Path},
    rate_limit::{Class, Limits},
    respond::{Empty, RawJson},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/user/{user_id}/account_data/{kind}", get(global).put(set_global))
        .route(
            "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/account_data/{kind}",
            get(of_room).put(set_of_room),
        )
}

async fn global(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((user_id, kind)): Path<(OwnedUserId, String)>,
) -> Result<RawJson, ApiError> {
    require_own(&auth, &user_id)?;
    if kind == PUSH_RULES {
        // There are always some: the defaults are not stored.
        let rules = users.push_rules(auth.user, &auth.user_id).await?;
        return Ok(RawJson(json!({ "global": edit::to_json(&rules) }).to_string().into()));
    }
    load(&users, &auth, RoomNid::GLOBAL, &kind).await
}

async fn set_global(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((user_id, kind)): Path<(OwnedUserId, String)>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Result<Empty, ApiError> {
    require_own(&auth, &user_id)?;
    limits.check(Class::Write, &auth)?;
    users.set_account_data(auth.user, RoomNid::GLOBAL, &kind, &content).await?;
    Ok(Empty)
}

async fn of_room(
    auth: Auth,
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    Path((user_id, room_id, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<RawJson, ApiError> {
    require_own(&auth, &user_id)?;
    load(&users, &auth, known_room(&view, &room_id).await?, &kind).await
}

async fn set_of_room(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    Path((user_id, room_id, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
    JsonBody(content): JsonBody<Box<RawValue>>,
) -> Result<Empty, ApiError> {
    require_own(&auth, &user_id)?;
    limits.check(Class::Write, &auth)?;
    users.set_account_data(auth.user, known_room(&view, &room_id).await?, &kind, &content).await?;
    Ok(Empty)
}

async fn load(users: &Users, session: &Session, room: RoomNid, kind: &str) -> Result<RawJson, ApiError> {
    let json = users.account_data(session.user, room, kind).await?;
    let json = json.ok_or_else(|| ApiError::not_found("There is no account data of this type."))?;
    Ok(RawJson(json.into()))
}

/// Data is kept for rooms that this server holds.
pub(super) async fn known_room(view: &View, room_id: &RoomId) -> Result<RoomNid, ApiError> {
    let room = view.interner.lookup_room(room_id).await?;
    room.ok_or_else(|| ApiError::not_found("This server does not know the room."))
}

impl From<AccountDataError> for ApiError {
    fn from(error: AccountDataError) -> Self {
        let message = error.to_string();
        match error {
            AccountDataError::ServerManaged(_) => {
                Self::bad_json(message).with_status(http::StatusCode::METHOD_NOT_ALLOWED)
            }
            AccountDataError::NotAnObject => Self::bad_json(message),
            AccountDataError::TooLarge => Self::too_large(message),
            AccountDataError::Type => Self::invalid_param(message),
            AccountDataError::Failed(error) => error.into(),
        }
    }
}
