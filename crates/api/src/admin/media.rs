//! `/_myelin/admin/v1/media/*`: what lies here, quarantine by URI, user and room, deletion.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    routing::{get, post, put},
};
use myelin_core::{RoomNid, TimelineOrder, UserNid};
use myelin_media::{After, Deleted, Kind, Media, MediaInfo, Mxc, mentioned};
use myelin_store::{Direction, tables::TIMELINE};
use myelin_view::View;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Admin, Auth, JsonBody, Path, Query},
    media::known,
    respond::Json,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Events of a room that are looked at in one go.
const PAGE: usize = 500;
/// Media of one room, in one request.
const ROOM_MEDIA_MAX: usize = 100_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_myelin/admin/v1/media/usage", get(usage))
        .route("/_myelin/admin/v1/media/quarantined", get(quarantined))
        .route("/_myelin/admin/v1/media/purge_remote", post(purge_remote))
        .route("/_myelin/admin/v1/media/item/{serverName}/{mediaId}", get(item).delete(delete_item))
        .route(
            "/_myelin/admin/v1/media/item/{serverName}/{mediaId}/quarantine",
            put(quarantine_item).delete(unquarantine_item),
        )
        .route("/_myelin/admin/v1/media/user/{userId}", get(of_user).delete(delete_of_user))
        .route("/_myelin/admin/v1/media/user/{userId}/quarantine", put(quarantine_of_user))
        .route("/_myelin/admin/v1/media/room/{roomId}/quarantine", put(quarantine_of_room))
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    /// `next` of the page before.
    from: Option<String>,
}

impl Page {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
    }

    fn after(&self) -> Result<Option<After>, ApiError> {
        let Some(from) = &self.from else { return Ok(None) };
        let parsed = from.split_once('_').and_then(|(at_ms, id)| Some((at_ms.parse().ok()?, id.to_owned())));
        parsed.map(Some).ok_or_else(|| ApiError::invalid_param("'from' is not the 'next' of a page."))
    }
}

async fn usage(
    _: Auth<Admin>,
    State(view): State<View>,
    State(media): State<Arc<Media>>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let all = media.usage().await?;
    let total: u64 = all.iter().map(|(_, usage)| usage.bytes).sum();
    let mut users = Vec::new();
    for (user, usage) in all.iter().take(page.limit()) {
        let user_id = view.interner.user_id(*user).await?;
        users.push(json!({ "user_id": user_id, "bytes": usage.bytes, "files": usage.files }));
    }
    Ok(Json(json!({ "users": users, "total_users": all.len(), "total_bytes": total })))
}

async fn quarantined(
    _: Auth<Admin>,
    State(media): State<Arc<Media>>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let found = media.quarantined(page.limit()).await?;
    let found =
        found.into_iter().map(|(mxc, row)| json!({ "mxc": mxc.to_string(), "by": row.by, "at": row.at_ms }));
    Ok(Json(json!({ "quarantined": found.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
struct Purge {
    /// Days that nobody has asked for it.
    unused_days: u32,
}

async fn purge_remote(
    _: Auth<Admin>,
    State(media): State<Arc<Media>>,
    JsonBody(body): JsonBody<Purge>,
) -> Result<Json<Value>, ApiError> {
    let deleted = media.delete_unused(DAY * body.unused_days, Kind::Remote).await?;
    Ok(gone(deleted))
}

async fn item(
    _: Auth<Admin>,
    State(view): State<View>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
) -> Result<Json<Value>, ApiError> {
    let info = media.info(&known(&server, &id)?).await?.ok_or_else(nothing)?;
    Ok(Json(show(&view, &info).await?))
}

async fn delete_item(
    _: Auth<Admin>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
) -> Result<Json<Value>, ApiError> {
    match media.remove(&known(&server, &id)?).await? {
        true => Ok(Json(json!({ "deleted": 1 }))),
        false => Err(nothing()),
    }
}

async fn quarantine_item(
    admin: Auth<Admin>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
) -> Result<Json<Value>, ApiError> {
    match media.quarantine(&known(&server, &id)?, admin.user_id.as_str()).await? {
        true => Ok(Json(json!({ "quarantined": 1 }))),
        false => Err(nothing()),
    }
}

async fn unquarantine_item(
    _: Auth<Admin>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
) -> Result<Json<Value>, ApiError> {
    match media.unquarantine(&known(&server, &id)?).await? {
        true => Ok(Json(json!({ "unquarantined": 1 }))),
        false => Err(nothing()),
    }
}

async fn of_user(
    _: Auth<Admin>,
    State(view): State<View>,
    State(media): State<Arc<Media>>,
    Path(user_id): Path<OwnedUserId>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let user = user(&view, &user_id).await?;
    let (found, next) = media.media_of(user, page.after()?.as_ref(), page.limit()).await?;
    let usage = media.usage_of(user).await?;
    let mut shown = Vec::new();
    for info in &found {
        shown.push(show(&view, info).await?);
    }
    let mut answer = json!({ "media": shown, "bytes": usage.bytes, "files": usage.files });
    if let Some((at_ms, id)) = next {
        answer["next"] = format!("{at_ms}_{id}").into();
    }
    Ok(Json(answer))
}

async fn delete_of_user(
    _: Auth<Admin>,
    State(view): State<View>,
    State(media): State<Arc<Media>>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<Json<Value>, ApiError> {
    Ok(gone(media.remove_of(user(&view, &user_id).await?).await?))
}

async fn quarantine_of_user(
    admin: Auth<Admin>,
    State(view): State<View>,
    State(media): State<Arc<Media>>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<Json<Value>, ApiError> {
    let user = user(&view, &user_id).await?;
    let count = media.quarantine_of(user, admin.user_id.as_str()).await?;
    Ok(Json(json!({ "quarantined": count })))
}

/// What events of a room name. In an encrypted room that is avatars and little else: the server cannot read the rest.
async fn quarantine_of_room(
    admin: Auth<Admin>,
    State(view): State<View>,
    State(media): State<Arc<Media>>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Value>, ApiError> {
    let room = view.interner.lookup_room(&room_id).await?;
    let room = room.ok_or_else(|| ApiError::not_found("This server does not know this room."))?;
    let mut count = 0_u64;
    for mxc in mentioned_in(&view, room).await? {
        count += u64::from(media.quarantine(&mxc, admin.user_id.as_str()).await?);
    }
    Ok(Json(json!({ "quarantined": count })))
}

async fn mentioned_in(view: &View, room: RoomNid) -> Result<BTreeSet<Mxc>, ApiError> {
    let (mut from, mut found) = (TimelineOrder(i64::MIN), BTreeSet::new());
    let to = (room, TimelineOrder(i64::MAX));
    while found.len() < ROOM_MEDIA_MAX {
        let rows = view.store.range(&TIMELINE, &(room, from), &to, Direction::Forward, PAGE).await?;
        let Some(((_, last), _)) = rows.last() else { break };
        from = TimelineOrder(last.0.saturating_add(1));
        for (_, event) in &rows {
            if let Some(event) = view.events.load(*event).await? {
                found.extend(mentioned(event.pdu.content.get()));
            }
        }
    }
    Ok(found)
}

async fn user(view: &View, user_id: &UserId) -> Result<UserNid, ApiError> {
    let user = view.interner.lookup_user(user_id).await?.filter(|_| view.is_local(user_id));
    user.ok_or_else(|| ApiError::not_found("This is no user of this server."))
}

async fn show(view: &View, info: &MediaInfo) -> Result<Value, ApiError> {
    let record = &info.record;
    let uploader = match record.uploader {
        Some(user) => Some(view.interner.user_id(user).await?),
        None => None,
    };
    Ok(json!({
        "mxc": info.mxc.to_string(),
        "uploader": uploader,
        "created_at": record.created_ms,
        "size": record.content.as_ref().map(|content| content.size),
        "content_type": record.content.as_ref().map(|content| &content.content_type),
        "file_name": record.content.as_ref().and_then(|content| content.file_name.as_ref()),
        "stored_at": record.content.as_ref().map(|content| content.stored_ms),
        "last_access_day": info.last_access_day,
        "quarantined_by": info.quarantine.as_ref().map(|quarantine| &quarantine.by),
        "quarantined": record.quarantined,
    }))
}

fn gone(deleted: Deleted) -> Json<Value> {
    Json(json!({ "deleted": deleted.media, "bytes": deleted.bytes }))
}

fn nothing() -> ApiError {
    ApiError::not_found("There is no such media.")
}
