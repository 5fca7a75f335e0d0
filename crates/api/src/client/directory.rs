//! `/_matrix/client/v3/directory/room/{roomAlias}` and `GET /rooms/{roomId}/aliases` (Client-Server API, "Room aliases").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use myelin_federation::{Remote, remote::Error};
use myelin_rooms::Rooms;
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, Path},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route(
            "/_matrix/client/v3/directory/room/{roomAlias}",
            put(set_alias).get(resolve_alias).delete(delete_alias),
        )
        .route("/_matrix/client/v3/rooms/{roomId}/aliases", get(aliases))
}

#[derive(Deserialize)]
struct Body {
    room_id: OwnedRoomId,
}

async fn set_alias(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(alias): Path<OwnedRoomAliasId>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.set_alias(&auth.sender(), &alias, &body.room_id).await?;
    Ok(Empty)
}

#[derive(Serialize)]
struct Resolved {
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
}

async fn resolve_alias(
    limits: Limits,
    State(remote): State<Arc<Remote>>,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Json<Resolved>, ApiError> {
    limits.check_address(Class::Read)?;
    let (room_id, servers) = remote.alias(&alias).await.map_err(|error| match error {
        Error::NotFound(_) => ApiError::not_found(format!("Room alias {alias} not found.")),
        error => error.into(),
    })?;
    Ok(Json(Resolved { room_id, servers }))
}

async fn delete_alias(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.delete_alias(&auth.sender(), &alias).await?;
    Ok(Empty)
}

#[derive(Serialize)]
struct Aliases {
    aliases: Vec<OwnedRoomAliasId>,
}

async fn aliases(
    auth: Auth,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Aliases>, ApiError> {
    limits.check(Class::Read, &auth)?;
    Ok(Json(Aliases { aliases: rooms.aliases(&auth.sender(), &room_id).await? }))
}
