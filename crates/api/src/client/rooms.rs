//! Reading a room: `event`, `state`, `members`, `joined_members` (Client-Server API, "Getting events for a room").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_sync::{Sync, room_read::MembersRequest};
use ruma::{OwnedEventId, OwnedRoomId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};

use super::message_pagination::token;
use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query, WithGuests},
    respond::{Json, RawJson},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/joined_rooms", get(joined_rooms))
        .route("/_matrix/client/v3/rooms/{roomId}/event/{eventId}", get(event))
        .route("/_matrix/client/v3/rooms/{roomId}/state", get(state))
        .route("/_matrix/client/v3/rooms/{roomId}/state/{eventType}", get(state_event_without_key))
        .route("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/", get(state_event_without_key))
        .route("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}", get(state_event))
        .route("/_matrix/client/v3/rooms/{roomId}/members", get(members))
        .route("/_matrix/client/v3/rooms/{roomId}/joined_members", get(joined_members))
}

#[derive(Serialize)]
struct JoinedRooms {
    joined_rooms: Vec<String>,
}

async fn joined_rooms(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
) -> Result<Json<JoinedRooms>, ApiError> {
    Ok(Json(JoinedRooms { joined_rooms: sync.joined_rooms(&auth.requester()).await? }))
}

async fn event(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.event(&auth.requester(), &room_id, &event_id).await?.into()))
}

async fn state(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.state(&auth.requester(), &room_id).await?.into()))
}

#[derive(Deserialize)]
struct StateParams {
    format: Option<String>,
}

async fn state_event_without_key(
    auth: Auth<WithGuests>,
    sync: State<Arc<Sync>>,
    Path((room_id, event_type)): Path<(OwnedRoomId, String)>,
    params: Query<StateParams>,
) -> Result<RawJson, ApiError> {
    state_event(auth, sync, Path((room_id, event_type, String::new())), params).await
}

async fn state_event(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path((room_id, event_type, state_key)): Path<(OwnedRoomId, String, String)>,
    Query(params): Query<StateParams>,
) -> Result<RawJson, ApiError> {
    let whole = match params.format.as_deref() {
        None | Some("content") => false,
        Some("event") => true,
        Some(_) => return Err(ApiError::invalid_param("format is 'content' or 'event'.")),
    };
    let json = sync.state_event(&auth.requester(), &room_id, &event_type, &state_key, whole).await?;
    Ok(RawJson(json.into()))
}

#[derive(Deserialize)]
struct MembersParams {
    at: Option<String>,
    membership: Option<MembershipState>,
    not_membership: Option<MembershipState>,
}

async fn members(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(params): Query<MembersParams>,
) -> Result<RawJson, ApiError> {
    let request = MembersRequest {
        at: token("at", params.at.as_deref())?,
        membership: known("membership", params.membership)?,
        not_membership: known("not_membership", params.not_membership)?,
    };
    Ok(RawJson(sync.members(&auth.requester(), &room_id, &request).await?.into()))
}

fn known(name: &str, membership: Option<MembershipState>) -> Result<Option<MembershipState>, ApiError> {
    use MembershipState as M;
    match membership {
        None | Some(M::Ban | M::Invite | M::Join | M::Knock | M::Leave) => Ok(membership),
        Some(other) => {
            let message = format!("{name} is a membership, not '{}'.", other.as_str().escape_debug());
            Err(ApiError::invalid_param(message))
        }
    }
}

async fn joined_members(
    auth: Auth<WithGuests>,
    State(sync): State<Arc<Sync>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(sync.joined_members(&auth.requester(), &room_id).await?.into()))
}
