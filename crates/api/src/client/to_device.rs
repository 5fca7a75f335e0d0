//! `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}` (Client-Server API, "Send-to-Device messaging").

use std::sync::Arc;

use axum::{Router, extract::State, routing::put};
use myelin_users::{
    Users,
    to_device::{Messages, ToDeviceError},
};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody, Path, WithGuests},
    rate_limit::{Class, Limits},
    respond::Empty,
};

#[derive(Deserialize)]
struct SendBody {
    messages: Messages,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}", put(send))
}

async fn send(
    auth: Auth<WithGuests>,
    limits: Limits,
    State(users): State<Arc<Users>>,
    Path((event_type, txn_id)): Path<(String, String)>,
    JsonBody(body): JsonBody<SendBody>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    users.send_to_device(&auth, &event_type, &txn_id, &body.messages).await?;
    Ok(Empty)
}

impl From<ToDeviceError> for ApiError {
    fn from(error: ToDeviceError) -> Self {
        let message = error.to_string();
        match error {
            ToDeviceError::Content => Self::bad_json(message),
            ToDeviceError::TooMany => Self::too_large(message),
            ToDeviceError::Type | ToDeviceError::TransactionId => Self::invalid_param(message),
            ToDeviceError::Failed(error) => error.into(),
        }
    }
}
