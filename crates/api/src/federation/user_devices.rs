//! `GET /_matrix/federation/v1/user/devices/{userId}` (Server-Server API, "Device Management").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_users::Users;
use ruma::OwnedUserId;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Path, SignedRequest},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/user/devices/{user_id}", get(devices))
}

async fn devices(
    State(users): State<Arc<Users>>,
    Path(user_id): Path<OwnedUserId>,
    _: SignedRequest,
) -> Result<Json<Value>, ApiError> {
    let list = users.device_list(&user_id).await?;
    let list = list.ok_or_else(|| ApiError::not_found("There is no such user here."))?;
    let devices = list.keys.devices.into_iter();
    let devices: Vec<_> = devices.map(|(id, keys)| json!({ "device_id": id, "keys": keys })).collect();
    let mut answer = json!({ "user_id": user_id, "stream_id": list.stream_id, "devices": devices });
    for (name, key) in [("master_key", list.keys.master), ("self_signing_key", list.keys.self_signing)] {
        if let Some(key) = key {
            answer[name] = Value::Object(key);
        }
    }
    Ok(Json(answer))
}
