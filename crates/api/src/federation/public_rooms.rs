//! `GET` and `POST /_matrix/federation/v1/publicRooms` (Server-Server API, "Published Room Directory").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_rooms::{Page, PublicRoomsQuery, Rooms};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Query, SignedRequest},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/publicRooms", get(list).post(search))
}

#[derive(Deserialize)]
struct Params {
    limit: Option<usize>,
    since: Option<String>,
    /// Networks are those of application services: there is only this server's.
    #[serde(rename = "include_all_networks", default)]
    _all_networks: bool,
}

async fn list(
    State(rooms): State<Arc<Rooms>>,
    Query(params): Query<Params>,
    _: SignedRequest,
) -> Result<Json<Page>, ApiError> {
    let query = PublicRoomsQuery { limit: params.limit, since: params.since, ..Default::default() };
    Ok(Json(rooms.public_rooms(&query).await?))
}

#[derive(Deserialize)]
struct Search {
    limit: Option<usize>,
    since: Option<String>,
    filter: Option<Filter>,
    #[serde(rename = "include_all_networks", default)]
    _all_networks: bool,
    #[serde(rename = "third_party_instance_id")]
    _network: Option<String>,
}

#[derive(Deserialize, Default)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

async fn search(
    State(rooms): State<Arc<Rooms>>,
    request: SignedRequest<Search>,
) -> Result<Json<Page>, ApiError> {
    let Search { limit, since, filter, .. } = request.content;
    let filter = filter.unwrap_or_default();
    let query = PublicRoomsQuery {
        limit,
        since,
        search_term: filter.generic_search_term,
        room_types: filter.room_types,
    };
    Ok(Json(rooms.public_rooms(&query).await?))
}
