//! `/_matrix/client/v3/devices`, `/devices/{deviceId}` and `/delete_devices` (Client-Server API, "Device Management").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_core::limits::DEVICES_PER_USER_MAX;
use myelin_users::{Users, devices::Device};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Path, WithGuests},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct RenameBody {
    display_name: Option<String>,
}

#[derive(Deserialize)]
struct DeleteBody {
    devices: Vec<String>,
}

#[derive(Deserialize)]
struct Nothing {}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/devices", get(list))
        .route("/_matrix/client/v3/devices/{device_id}", get(get_one).put(rename).delete(delete))
        .route("/_matrix/client/v3/delete_devices", post(delete_many))
}

async fn list(auth: Auth<WithGuests>, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    let devices: Vec<_> = users.devices(auth.user).await?.into_iter().map(describe).collect();
    Ok(Json(json!({ "devices": devices })))
}

async fn get_one(
    auth: Auth<WithGuests>,
    State(users): State<Arc<Users>>,
    Path(device_id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let device = users.device(auth.user, &device_id).await?;
    device.map(|device| Json(describe(device))).ok_or_else(no_device)
}

async fn rename(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(device_id): Path<String>,
    JsonBody(body): JsonBody<RenameBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let found = users.rename_device(auth.user, &device_id, body.display_name).await?;
    if found { Ok(Empty) } else { Err(no_device()) }
}

async fn delete(
    auth: Auth,
    uia: Uia,
    State(users): State<Arc<Users>>,
    Path(device_id): Path<String>,
    body: UiaBody<Nothing>,
) -> Result<Empty, ApiError> {
    uia.confirm(&format!("DELETE /devices/{device_id}"), &auth, &body).await?;
    users.delete_devices(auth.user, &[device_id]).await?;
    Ok(Empty)
}

async fn delete_many(
    auth: Auth,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<DeleteBody>,
) -> Result<Empty, ApiError> {
    if body.body.devices.len() > DEVICES_PER_USER_MAX {
        return Err(ApiError::invalid_param("These are more devices than an account can have."));
    }
    uia.confirm("POST /delete_devices", &auth, &body).await?;
    users.delete_devices(auth.user, &body.body.devices).await?;
    Ok(Empty)
}

fn describe(device: Device) -> Value {
    let mut answer = json!({ "device_id": device.device_id, "last_seen_ts": device.last_seen_ms });
    for (key, value) in [("display_name", device.display_name), ("last_seen_ip", device.last_seen_ip)] {
        if let Some(value) = value {
            answer[key] = value.into();
        }
    }
    answer
}

fn no_device() -> ApiError {
    ApiError::not_found("You have no such device.")
}
