//! `/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device` (MSC3814).

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_core::Position;
use myelin_users::{
    Users,
    dehydrated_devices::{DehydratedDeviceError, NewDehydratedDevice},
    keys::Json as JsonObject,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, OptionalJsonBody, Path},
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct PutBody {
    device_id: String,
    device_data: Box<RawValue>,
    initial_device_display_name: Option<String>,
    device_keys: JsonObject,
    #[serde(default)]
    one_time_keys: JsonObject,
    #[serde(default)]
    fallback_keys: JsonObject,
}

#[derive(Deserialize)]
struct EventsBody {
    next_batch: Option<String>,
}

pub fn routes() -> Router<AppState> {
    const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";
    Router::new()
        .route(DEVICE, get(describe).put(replace).delete(delete))
        .route(&format!("{DEVICE}/{{device_id}}/events"), post(events))
}

async fn describe(auth: Auth, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    let device = users.dehydrated_device(auth.user).await?.ok_or(DehydratedDeviceError::None)?;
    let device_data: Value = serde_json::from_str(&device.device_data).map_err(ApiError::internal)?;
    Ok(Json(json!({ "device_id": device.device_id, "device_data": device_data })))
}

async fn replace(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(body): JsonBody<PutBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let new = NewDehydratedDevice {
        device_id: body.device_id,
        device_data: body.device_data.get().to_owned(),
        display_name: body.initial_device_display_name,
        device_keys: body.device_keys,
        one_time_keys: body.one_time_keys,
        fallback_keys: body.fallback_keys,
    };
    users.put_dehydrated_device(&auth, &new).await?;
    Ok(Json(json!({ "device_id": new.device_id })))
}

async fn delete(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    Ok(Json(json!({ "device_id": users.delete_dehydrated_device(auth.user).await? })))
}

async fn events(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path(device_id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody<EventsBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Read, &auth)?;
    let since = body.next_batch.as_deref().map_or(Ok(Position::ZERO), position)?;
    let inbox = users.dehydrated_inbox(auth.user, &device_id, since).await?;
    let mut events = Vec::with_capacity(inbox.messages.len());
    for message in inbox.messages {
        let content: Value = serde_json::from_str(&message.content).map_err(ApiError::internal)?;
        events.push(json!({ "type": message.event_type, "sender": message.sender, "content": content }));
    }
    Ok(Json(json!({ "events": events, "next_batch": format!("d{}", inbox.next.0) })))
}

fn position(token: &str) -> Result<Position, ApiError> {
    let number = token.strip_prefix('d').and_then(|number| number.parse().ok());
    number
        .map(Position)
        .ok_or_else(|| ApiError::invalid_param("'next_batch' is not a token of this endpoint."))
}

impl From<DehydratedDeviceError> for ApiError {
    fn from(error: DehydratedDeviceError) -> Self {
        let message = error.to_string();
        match error {
            DehydratedDeviceError::None => Self::not_found(message),
            DehydratedDeviceError::Another => Self::forbidden(message),
            DehydratedDeviceError::DeviceData | DehydratedDeviceError::LoggedIn => {
                Self::invalid_param(message)
            }
            DehydratedDeviceError::Device(error) => error.into(),
            DehydratedDeviceError::Keys(error) => error.into(),
            DehydratedDeviceError::Failed(error) => error.into(),
        }
    }
}
