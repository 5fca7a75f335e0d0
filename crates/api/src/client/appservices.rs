//! What application services ask for: `appservice_ping` and `appservice_room_directory` (Application Service API,
//! "Pinging", "Published room directory"). No access token belongs to one as long as none can be registered.

use axum::{
    Router,
    routing::{post, put},
};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, OptionalJsonBody, Path},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v1/appservice/{appserviceId}/ping", post(ping))
        .route("/_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}", put(publish))
}

#[derive(Deserialize)]
struct Ping {
    #[serde(rename = "transaction_id")]
    _transaction_id: Option<String>,
}

async fn ping(_: Auth, Path(_id): Path<String>, OptionalJsonBody(_): OptionalJsonBody<Ping>) -> ApiError {
    no_appservice()
}

#[derive(Deserialize)]
struct Publication {
    #[serde(rename = "visibility")]
    _visibility: Visibility,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    Public,
    Private,
}

async fn publish(
    _: Auth,
    Path(_place): Path<(String, OwnedRoomId)>,
    JsonBody(_): JsonBody<Publication>,
) -> ApiError {
    no_appservice()
}

fn no_appservice() -> ApiError {
    ApiError::forbidden("This access token does not belong to an application service.")
}
