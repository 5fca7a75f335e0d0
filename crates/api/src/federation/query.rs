//! `GET /query/directory`, `/query/profile` and `/query/{queryType}` (Server-Server API, "Querying for information").

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::get};
use myelin_federation::Serve;
use myelin_users::Users;
use myelin_view::View;
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/query/directory", get(directory))
        .route("/_matrix/federation/v1/query/profile", get(profile))
        .route("/_matrix/federation/v1/query/{queryType}", get(unknown))
}

#[derive(Deserialize)]
struct Alias {
    room_alias: OwnedRoomAliasId,
}

#[derive(Serialize)]
struct Resolved {
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
}

async fn directory(
    State(serve): State<Arc<Serve>>,
    Query(query): Query<Alias>,
    _: SignedRequest,
) -> Result<Json<Resolved>, ApiError> {
    let found = serve.alias(&query.room_alias).await?;
    let not_found = || ApiError::not_found("There is no such alias on this server.");
    let (room_id, servers) = found.ok_or_else(not_found)?;
    Ok(Json(Resolved { room_id, servers }))
}

#[derive(Deserialize)]
struct Profile {
    user_id: OwnedUserId,
    field: Option<String>,
}

async fn profile(
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    Query(query): Query<Profile>,
    _: SignedRequest,
) -> Result<Json<Map<String, Value>>, ApiError> {
    if !view.is_local(&query.user_id) {
        return Err(ApiError::invalid_param("This server is asked for profiles of its own users only."));
    }
    let found = match query.field {
        None => users.profile(&query.user_id).await?,
        Some(field) => {
            let value = users.profile_field(&query.user_id, &field).await?;
            match value {
                Some(value) => Some([(field, value)].into_iter().collect()),
                // The field may be unset; an account without any is there all the same.
                None => users.profile(&query.user_id).await?.map(|_| Map::new()),
            }
        }
    };
    found.map(Json).ok_or_else(|| ApiError::not_found("There is no such user."))
}

async fn unknown(
    Path(query_type): Path<String>,
    Query(_): Query<BTreeMap<String, String>>,
    _: SignedRequest,
) -> ApiError {
    ApiError::unrecognized(format!(
        "This server does not know queries of the type '{}'.",
        query_type.escape_debug()
    ))
}
