//! `GET /_matrix/client/v3/admin/whois/{userId}`, `GET` and `PUT /_matrix/client/v1/admin/{lock,suspend}/{userId}`
//! (Client-Server API, "Server Administration").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_users::{Account, ModerationError, Users, devices::Device};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ApiError, AppState, ServerConfig, Session,
    extract::{Admin, Auth, JsonBody, Path},
    respond::Json,
};

#[derive(Deserialize)]
struct Lock {
    locked: bool,
}

#[derive(Deserialize)]
struct Suspend {
    suspended: bool,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/admin/whois/{user_id}", get(whois))
        .route("/_matrix/client/v1/admin/lock/{user_id}", get(is_locked).put(set_locked))
        .route("/_matrix/client/v1/admin/suspend/{user_id}", get(is_suspended).put(set_suspended))
}

/// For administrators, and for everybody about themselves.
async fn whois(
    auth: Auth,
    State(users): State<Arc<Users>>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<Json<Value>, ApiError> {
    if !auth.admin && *auth.user_id != user_id {
        return Err(ApiError::forbidden("Only server administrators may ask about others."));
    }
    let account =
        users.account(&user_id).await?.ok_or_else(|| ApiError::not_found("There is no such account."))?;
    let devices = users.devices(account.user).await?;
    let devices: Map<_, _> =
        devices.iter().map(|device| (device.device_id.clone(), describe(device))).collect();
    Ok(Json(json!({ "user_id": user_id, "devices": devices })))
}

/// This server keeps the newest connection of a device.
fn describe(device: &Device) -> Value {
    let mut connection = json!({ "last_seen": device.last_seen_ms });
    for (key, value) in [("ip", &device.last_seen_ip), ("user_agent", &device.user_agent)] {
        if let Some(value) = value {
            connection[key] = value.as_str().into();
        }
    }
    json!({ "sessions": [{ "connections": [connection] }] })
}

async fn is_locked(
    auth: Auth<Admin>,
    State(users): State<Arc<Users>>,
    State(config): State<Arc<ServerConfig>>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<Json<Value>, ApiError> {
    let account = target(&users, &config, &auth, &user_id).await?;
    Ok(Json(json!({ "locked": account.record.locked })))
}

async fn set_locked(
    auth: Auth<Admin>,
    State(users): State<Arc<Users>>,
    State(config): State<Arc<ServerConfig>>,
    Path(user_id): Path<OwnedUserId>,
    JsonBody(body): JsonBody<Lock>,
) -> Result<Json<Value>, ApiError> {
    let account = target(&users, &config, &auth, &user_id).await?;
    users.set_locked(account.user, body.locked).await?;
    Ok(Json(json!({ "locked": body.locked })))
}

async fn is_suspended(
    auth: Auth<Admin>,
    State(users): State<Arc<Users>>,
    State(config): State<Arc<ServerConfig>>,
    Path(user_id): Path<OwnedUserId>,
) -> Result<Json<Value>, ApiError> {
    let account = target(&users, &config, &auth, &user_id).await?;
    Ok(Json(json!({ "suspended": account.record.suspended })))
}

async fn set_suspended(
    auth: Auth<Admin>,
    State(users): State<Arc<Users>>,
    State(config): State<Arc<ServerConfig>>,
    Path(user_id): Path<OwnedUserId>,
    JsonBody(body): JsonBody<Suspend>,
) -> Result<Json<Value>, ApiError> {
    let account = target(&users, &config, &auth, &user_id).await?;
    users.set_suspended(account.user, body.suspended).await?;
    Ok(Json(json!({ "suspended": body.suspended })))
}

async fn target(
    users: &Users,
    config: &ServerConfig,
    actor: &Session,
    user_id: &UserId,
) -> Result<Account, ApiError> {
    if user_id.server_name() != config.server_name {
        return Err(ApiError::invalid_param("This user does not belong to this server."));
    }
    Ok(users.may_moderate(actor, user_id).await?)
}

impl From<ModerationError> for ApiError {
    fn from(error: ModerationError) -> Self {
        let message = error.to_string();
        match error {
            ModerationError::NotAdmin | ModerationError::Oneself | ModerationError::OtherAdmin => {
                Self::forbidden(message)
            }
            ModerationError::NoAccount => Self::not_found(message),
            ModerationError::Failed(error) => error.into(),
        }
    }
}
