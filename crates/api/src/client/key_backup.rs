//! `/_matrix/client/v3/room_keys/version` and `/room_keys/keys` (Client-Server API, "Server-side key backups").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_store::tables::BackedUpKeyRecord;
use myelin_users::{
    Users,
    key_backup::{Backup, BackupError, KeyData, Keys, Scope},
};
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Path, Query},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

/// Body of an upload: some thousand keys.
const UPLOAD_SIZE_MAX: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct VersionBody {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

#[derive(Deserialize)]
struct VersionQuery {
    version: String,
}

#[derive(Deserialize)]
struct Rooms {
    rooms: std::collections::BTreeMap<OwnedRoomId, Sessions>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: std::collections::BTreeMap<String, KeyData>,
}

pub fn routes() -> Router<AppState> {
    const KEYS: &str = "/_matrix/client/v3/room_keys/keys";
    Router::new()
        .route("/_matrix/client/v3/room_keys/version", post(create).get(newest))
        .route("/_matrix/client/v3/room_keys/version/{version}", get(one).put(update).delete(delete))
        .route(KEYS, get(all_keys).put(put_all).delete(delete_all))
        .route(&format!("{KEYS}/{{room_id}}"), get(room_keys).put(put_room).delete(delete_room))
        .route(
            &format!("{KEYS}/{{room_id}}/{{session_id}}"),
            get(session_key).put(put_session).delete(delete_session),
        )
}

async fn create(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(body): JsonBody<VersionBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let version =
        users.create_key_backup(auth.user, &body.algorithm, object("auth_data", &body.auth_data)?).await?;
    Ok(Json(json!({ "version": version.to_string() })))
}

async fn newest(auth: Auth, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    describe(&users.key_backup(auth.user, None).await?)
}

async fn one(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path(version): Path<String>,
) -> Result<Json<Value>, ApiError> {
    describe(&users.key_backup(auth.user, Some(number(&version)?)).await?)
}

async fn update(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(version): Path<String>,
    JsonBody(body): JsonBody<VersionBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    if body.version.is_some_and(|named| named != version) {
        return Err(ApiError::invalid_param("The version in the body is not the one in the path."));
    }
    let auth_data = object("auth_data", &body.auth_data)?;
    users.update_key_backup(auth.user, number(&version)?, &body.algorithm, auth_data).await?;
    Ok(Empty)
}

async fn delete(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(version): Path<String>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    users.delete_key_backup(auth.user, number(&version)?).await?;
    Ok(Empty)
}

async fn all_keys(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Value>, ApiError> {
    let keys = users.backed_up_keys(auth.user, number(&query.version)?, &Scope::All).await?;
    let mut rooms = Map::new();
    for (room, sessions) in keys {
        rooms.insert(room, json!({ "sessions": sessions_json(sessions)? }));
    }
    Ok(Json(json!({ "rooms": rooms })))
}

async fn room_keys(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Value>, ApiError> {
    let scope = Scope::Room(room_id.to_string());
    let keys = users.backed_up_keys(auth.user, number(&query.version)?, &scope).await?;
    let sessions = keys.into_values().next().unwrap_or_default();
    Ok(Json(json!({ "sessions": sessions_json(sessions)? })))
}

async fn session_key(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((room_id, session_id)): Path<(OwnedRoomId, String)>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Value>, ApiError> {
    let scope = Scope::Session(room_id.to_string(), session_id);
    let keys = users.backed_up_keys(auth.user, number(&query.version)?, &scope).await?;
    let key = keys.into_values().flat_map(std::collections::BTreeMap::into_values).next();
    let key = key.ok_or_else(|| ApiError::not_found("This key is not in the backup."))?;
    Ok(Json(key_json(&key)?))
}

async fn put_all(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Query(query): Query<VersionQuery>,
    JsonBody(body): JsonBody<Rooms, UPLOAD_SIZE_MAX>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let keys = body.rooms.into_iter().map(|(room, sessions)| (room.to_string(), sessions.sessions)).collect();
    put(&users, &auth, &query, keys).await
}

async fn put_room(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(query): Query<VersionQuery>,
    JsonBody(body): JsonBody<Sessions, UPLOAD_SIZE_MAX>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    put(&users, &auth, &query, [(room_id.to_string(), body.sessions)].into()).await
}

async fn put_session(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((room_id, session_id)): Path<(OwnedRoomId, String)>,
    Query(query): Query<VersionQuery>,
    JsonBody(key): JsonBody<KeyData>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    put(&users, &auth, &query, [(room_id.to_string(), [(session_id, key)].into())].into()).await
}

async fn put(
    users: &Users,
    auth: &Auth,
    query: &VersionQuery,
    keys: Keys<KeyData>,
) -> Result<Json<Value>, ApiError> {
    for key in keys.values().flat_map(|sessions| sessions.values()) {
        object("session_data", &key.session_data)?;
    }
    Ok(state(&users.back_up_keys(auth.user, number(&query.version)?, &keys).await?))
}

async fn delete_all(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Value>, ApiError> {
    let backup = users.delete_backed_up_keys(auth.user, number(&query.version)?, &Scope::All).await?;
    Ok(state(&backup))
}

async fn delete_room(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path(room_id): Path<OwnedRoomId>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Value>, ApiError> {
    let scope = Scope::Room(room_id.to_string());
    Ok(state(&users.delete_backed_up_keys(auth.user, number(&query.version)?, &scope).await?))
}

async fn delete_session(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path((room_id, session_id)): Path<(OwnedRoomId, String)>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Value>, ApiError> {
    let scope = Scope::Session(room_id.to_string(), session_id);
    Ok(state(&users.delete_backed_up_keys(auth.user, number(&query.version)?, &scope).await?))
}

/// Versions are numbers here; any other text names none.
fn number(version: &str) -> Result<u64, ApiError> {
    version.parse().map_err(|_| BackupError::NotFound.into())
}

fn object<'a>(name: &str, json: &'a RawValue) -> Result<&'a str, ApiError> {
    match json.get().starts_with('{') {
        true => Ok(json.get()),
        false => Err(ApiError::bad_json(format!("'{name}' is an object."))),
    }
}

fn state(backup: &Backup) -> Json<Value> {
    Json(json!({ "count": backup.record.count, "etag": backup.record.etag.to_string() }))
}

fn describe(backup: &Backup) -> Result<Json<Value>, ApiError> {
    let auth_data: Value = serde_json::from_str(&backup.record.auth_data).map_err(ApiError::internal)?;
    Ok(Json(json!({
        "algorithm": backup.record.algorithm,
        "auth_data": auth_data,
        "count": backup.record.count,
        "etag": backup.record.etag.to_string(),
        "version": backup.version.to_string(),
    })))
}

fn sessions_json(
    sessions: std::collections::BTreeMap<String, BackedUpKeyRecord>,
) -> Result<Map<String, Value>, ApiError> {
    sessions.into_iter().map(|(session, key)| Ok((session, key_json(&key)?))).collect()
}

fn key_json(key: &BackedUpKeyRecord) -> Result<Value, ApiError> {
    let session_data: Value = serde_json::from_str(&key.session_data).map_err(ApiError::internal)?;
    Ok(json!({
        "first_message_index": key.first_message_index,
        "forwarded_count": key.forwarded_count,
        "is_verified": key.is_verified,
        "session_data": session_data,
    }))
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        let message = error.to_string();
        match error {
            BackupError::NotFound => Self::not_found(message),
            BackupError::Algorithm => Self::invalid_param(message),
            BackupError::WrongVersion(current) => {
                Self::wrong_room_keys_version(message).with("current_version", current.to_string())
            }
            BackupError::TooLarge => Self::too_large(message),
            BackupError::Full => Self::resource_limit_exceeded(message),
            BackupError::Failed(error) => error.into(),
        }
    }
}
