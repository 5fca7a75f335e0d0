//! `/hierarchy` and `/room_summary` (Client-Server API, "Spaces", "Room summaries").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_federation::Remote;
use myelin_sync::{Sync, spaces::HierarchyRequest};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, RoomAliasId};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, MaybeAuth, Path, Query, WithGuests},
    rate_limit::{Class, Limits},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v1/rooms/{roomId}/hierarchy", get(hierarchy))
        .route("/_matrix/client/v1/room_summary/{roomIdOrAlias}", get(summary))
        // The names before v1.15 (MSC3266), which clients still use.
        .route("/_matrix/client/unstable/im.nheko.summary/summary/{roomIdOrAlias}", get(summary))
        .route("/_matrix/client/unstable/im.nheko.summary/rooms/{roomIdOrAlias}/summary", get(summary))
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    suggested_only: bool,
    max_depth: Option<u64>,
    limit: Option<u64>,
    from: Option<String>,
}

async fn hierarchy(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    State(remote): State<Arc<Remote>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    let Params { suggested_only, max_depth, limit, from } = params;
    let request = HierarchyRequest { suggested_only, max_depth, limit, from };
    Ok(RawJson(sync.hierarchy(&auth.requester(), &room_id, &request, &*remote).await?.into()))
}

async fn summary(
    MaybeAuth(auth): MaybeAuth,
    limits: Limits,
    State(sync): State<Arc<Sync>>,
    State(remote): State<Arc<Remote>>,
    Path(room): Path<OwnedRoomOrAliasId>,
    Query(Via { mut via }): Query<Via>,
) -> Result<RawJson, ApiError> {
    limits.check_address(Class::Read)?;
    let requester = auth.as_ref().map(Auth::requester);
    let mut room = room;
    if let Ok(alias) = <&RoomAliasId>::try_from(&*room) {
        let (room_id, servers) = remote.alias(alias).await?;
        (room, via) = (room_id.into(), servers);
    }
    Ok(RawJson(sync.room_summary(requester.as_ref(), &room, &via, &*remote).await?.into()))
}

#[derive(Deserialize)]
struct Via {
    #[serde(default)]
    via: Vec<OwnedServerName>,
}
