//! `/thirdparty/*` (Client-Server API, "Third-party Lookups"). The networks are those of application services; as long
//! as none can be registered there are no protocols, and nothing is found.

use axum::{Router, routing::get};
use ruma::{OwnedRoomAliasId, OwnedUserId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/thirdparty/protocols", get(protocols))
        .route("/_matrix/client/v3/thirdparty/protocol/{protocol}", get(of_protocol))
        .route("/_matrix/client/v3/thirdparty/location/{protocol}", get(of_protocol))
        .route("/_matrix/client/v3/thirdparty/user/{protocol}", get(of_protocol))
        .route("/_matrix/client/v3/thirdparty/location", get(location_by_alias))
        .route("/_matrix/client/v3/thirdparty/user", get(user_by_id))
}

async fn protocols(_: Auth) -> Empty {
    Empty
}

async fn of_protocol(_: Auth, Path(_protocol): Path<String>) -> ApiError {
    ApiError::not_found("This server knows no such third-party protocol.")
}

#[derive(Deserialize)]
struct ByAlias {
    #[serde(rename = "alias")]
    _alias: OwnedRoomAliasId,
}

async fn location_by_alias(_: Auth, Query(_): Query<ByAlias>) -> ApiError {
    ApiError::not_found("This room belongs to no third-party network.")
}

#[derive(Deserialize)]
struct ById {
    #[serde(rename = "userid")]
    _user_id: OwnedUserId,
}

async fn user_by_id(_: Auth, Query(_): Query<ById>) -> ApiError {
    ApiError::not_found("This user belongs to no third-party network.")
}
