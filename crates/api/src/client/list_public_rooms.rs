//! `/_matrix/client/v3/publicRooms` and `/directory/list/room/{roomId}` (Client-Server API, "Published room directory").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use myelin_federation::{
    Remote,
    remote::{PublicRoomsFilter, PublicRoomsRequest},
};
use myelin_rooms::{PublicRoomsQuery, Rooms, Visibility};
use myelin_view::View;
use ruma::{OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use super::create_room::VisibilityName;
use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, NotSuspended, OptionalJsonBody, Path, Query, WithGuests},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/publicRooms", get(list).post(search))
        .route("/_matrix/client/v3/directory/list/room/{roomId}", get(visibility).put(set_visibility))
}

#[derive(Serialize, Deserialize)]
struct VisibilityBody {
    #[serde(default = "published")]
    visibility: VisibilityName,
}

fn published() -> VisibilityName {
    VisibilityName::Public
}

async fn visibility(
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<VisibilityBody>, ApiError> {
    limits.check_address(Class::Read)?;
    let visibility = match rooms.visibility(&room_id).await? {
        Visibility::Public => VisibilityName::Public,
        Visibility::Private => VisibilityName::Private,
    };
    Ok(Json(VisibilityBody { visibility }))
}

async fn set_visibility(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    Path(room_id): Path<OwnedRoomId>,
    JsonBody(body): JsonBody<VisibilityBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    rooms.set_visibility(&auth.sender(), &room_id, body.visibility.into()).await?;
    Ok(Empty)
}

#[derive(Deserialize)]
struct ListParams {
    limit: Option<usize>,
    since: Option<String>,
    server: Option<OwnedServerName>,
}

async fn list(
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    State(remote): State<Arc<Remote>>,
    State(view): State<View>,
    Query(params): Query<ListParams>,
) -> Result<Response, ApiError> {
    limits.check_address(Class::Search)?;
    let query = PublicRoomsQuery { limit: params.limit, since: params.since, ..Default::default() };
    page(&rooms, &remote, &view, params.server, query).await
}

#[derive(Deserialize)]
struct SearchParams {
    server: Option<OwnedServerName>,
}

#[derive(Deserialize)]
struct Search {
    limit: Option<usize>,
    since: Option<String>,
    filter: Option<Filter>,
    /// Networks are those of application services: there is only this server's.
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
    auth: Auth<WithGuests>,
    limits: Limits,
    State(rooms): State<Arc<Rooms>>,
    State(remote): State<Arc<Remote>>,
    State(view): State<View>,
    Query(params): Query<SearchParams>,
    OptionalJsonBody(body): OptionalJsonBody<Search>,
) -> Result<Response, ApiError> {
    limits.check(Class::Search, &auth)?;
    let filter = body.filter.unwrap_or_default();
    let query = PublicRoomsQuery {
        limit: body.limit,
        since: body.since,
        search_term: filter.generic_search_term,
        room_types: filter.room_types,
    };
    page(&rooms, &remote, &view, params.server, query).await
}

/// A page of this server's directory, or of another's.
async fn page(
    rooms: &Rooms,
    remote: &Remote,
    view: &View,
    server: Option<OwnedServerName>,
    query: PublicRoomsQuery,
) -> Result<Response, ApiError> {
    let Some(server) = server.filter(|server| *server != view.server_name) else {
        return Ok(Json(rooms.public_rooms(&query).await?).into_response());
    };
    let filter = PublicRoomsFilter { generic_search_term: query.search_term, room_types: query.room_types };
    let limit = query.limit.and_then(|limit| u64::try_from(limit).ok());
    let request = PublicRoomsRequest { limit, since: query.since, filter };
    Ok(Json(remote.public_rooms(&server, &request).await?).into_response())
}
