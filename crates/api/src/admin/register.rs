//! `GET` and `POST /_synapse/admin/v1/register`: registration by a shared secret. Requests, answers and errors are
//! Synapse's, since its tools speak this.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use myelin_users::{
    DeviceRequest, DeviceRequestError, Users,
    registration::RegisterError,
    shared_secret::{SharedSecretError, SharedSecretRegistration},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState, ServerConfig,
    extract::{JsonBody, Origin},
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct RegisterBody {
    nonce: String,
    username: String,
    displayname: Option<String>,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: String,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_synapse/admin/v1/register", get(nonce).post(register))
}

async fn nonce(State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "nonce": users.new_nonce()? })))
}

async fn register(
    limits: Limits,
    Origin(origin): Origin,
    State(users): State<Arc<Users>>,
    State(config): State<Arc<ServerConfig>>,
    JsonBody(body): JsonBody<RegisterBody>,
) -> Result<Json<Value>, ApiError> {
    let registration = SharedSecretRegistration {
        nonce: body.nonce,
        username: body.username,
        display_name: body.displayname,
        password: body.password,
        admin: body.admin,
        user_type: body.user_type,
        mac: body.mac,
        login: Some(DeviceRequest { origin, ..DeviceRequest::default() }),
    };
    let registered = match users.register_with_secret(registration).await {
        Err(error @ SharedSecretError::Mac) => {
            limits.check_address(Class::FailedLogin)?;
            return Err(error.into());
        }
        other => other?,
    };
    let mut answer = json!({ "user_id": registered.user_id, "home_server": config.server_name });
    if let Some(grant) = registered.grant {
        answer["access_token"] = grant.access_token.into();
        answer["device_id"] = grant.device_id.into();
    }
    Ok(Json(answer))
}

impl From<SharedSecretError> for ApiError {
    fn from(error: SharedSecretError) -> Self {
        match error {
            SharedSecretError::Disabled => Self::unknown("Shared secret registration is not enabled"),
            SharedSecretError::Nonce => Self::unknown("unrecognised nonce"),
            SharedSecretError::Mac => Self::unknown("HMAC incorrect").with_status(StatusCode::FORBIDDEN),
            SharedSecretError::Register(error) => error.into(),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        let message = error.to_string();
        match error {
            RegisterError::InvalidUsername(_) => Self::invalid_username(message),
            RegisterError::InUse => Self::user_in_use(message),
            RegisterError::Password(error) => error.into(),
            RegisterError::RegistrationToken => Self::unauthorized(message),
            RegisterError::EmailInUse => Self::threepid_in_use(message),
            RegisterError::EmailNotValidated => Self::threepid_auth_failed(message),
            RegisterError::GuestsDisabled | RegisterError::NotThatGuest => Self::forbidden(message),
            RegisterError::Device(error) => error.into(),
            RegisterError::Failed(error) => error.into(),
        }
    }
}

impl From<myelin_users::PasswordError> for ApiError {
    fn from(error: myelin_users::PasswordError) -> Self {
        Self::weak_password(error.to_string())
    }
}

impl From<DeviceRequestError> for ApiError {
    fn from(error: DeviceRequestError) -> Self {
        match error {
            DeviceRequestError::Failed(error) => error.into(),
            refused => Self::invalid_param(refused.to_string()),
        }
    }
}
