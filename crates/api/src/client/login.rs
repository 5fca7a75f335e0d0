//! `GET` and `POST /_matrix/client/v3/login` (Client-Server API, "Legacy login").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_users::{
    DeviceRequest, Grant, LoginOrigin, Users,
    login::{Identifier, LoginError},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ApiError, AppState, ServerConfig,
    extract::{ClientAddress, JsonBody, Origin},
    rate_limit::{Class, Limits, RateLimiter, Subject},
    respond::Json,
};

#[derive(Deserialize)]
struct LoginBody {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Identifier>,
    /// Old form of `identifier`.
    user: Option<String>,
    /// Old form of `identifier`, which is not read.
    #[serde(rename = "medium")]
    _medium: Option<String>,
    #[serde(rename = "address")]
    _address: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/login", get(flows).post(login))
}

async fn flows() -> Json<Value> {
    Json(json!({ "flows": [
        { "type": "m.login.password" },
        { "type": "m.login.token", "get_login_token": true },
    ] }))
}

async fn login(
    limits: Limits,
    address: ClientAddress,
    Origin(origin): Origin,
    State(users): State<Arc<Users>>,
    State(limiter): State<Arc<RateLimiter>>,
    State(config): State<Arc<ServerConfig>>,
    JsonBody(body): JsonBody<LoginBody>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::Login)?;
    let device = body.device(origin);
    let grant = match body.kind.as_str() {
        "m.login.password" => with_password(&users, &limiter, address, &body, &device).await?,
        "m.login.token" => {
            let token = body.token.ok_or_else(|| ApiError::missing_param("'token' is missing."))?;
            users.login_with_token(&token, &device).await?
        }
        _ => return Err(ApiError::unknown("This server does not know this type of login.")),
    };
    let mut answer = describe(grant);
    if let Some(base_url) = &config.well_known.client_base_url {
        answer.insert("well_known".to_owned(), json!({ "m.homeserver": { "base_url": base_url } }));
    }
    Ok(Json(Value::Object(answer)))
}

/// Wrong passwords count against the account that is guessed at, else against the address.
async fn with_password(
    users: &Users,
    limiter: &RateLimiter,
    address: ClientAddress,
    body: &LoginBody,
    device: &DeviceRequest,
) -> Result<Grant, ApiError> {
    let name = body.user_name(users).await?;
    let name = name.as_str();
    let password =
        body.password.as_deref().ok_or_else(|| ApiError::missing_param("'password' is missing."))?;
    let account = users.named_account(name).await?;
    let guesses = account.map_or(Subject::address(address.0), |account| Subject::User(account.user));
    limiter.peek(Class::FailedLogin, guesses)?;
    let result = users.login_with_password(name, password, device).await;
    if matches!(result, Err(LoginError::WrongCredentials | LoginError::Deactivated)) {
        limiter.check_subject(Class::FailedLogin, guesses)?;
    }
    Ok(result?)
}

impl LoginBody {
    async fn user_name(&self, users: &Users) -> Result<String, ApiError> {
        let Some(identifier) = &self.identifier else {
            return self.user.clone().ok_or_else(|| ApiError::missing_param("'identifier' is missing."));
        };
        if !matches!(identifier.kind.as_str(), "m.id.user" | "m.id.thirdparty" | "m.id.phone") {
            return Err(ApiError::unknown("This server does not know this type of identifier."));
        }
        let name = users.identified(identifier).await?;
        name.ok_or_else(|| {
            ApiError::missing_param(
                "The identifier names nobody: 'user', or 'medium' and 'address', is missing.",
            )
        })
    }

    fn device(&self, origin: LoginOrigin) -> DeviceRequest {
        DeviceRequest {
            device_id: self.device_id.clone(),
            initial_display_name: self.initial_device_display_name.clone(),
            refresh: self.refresh_token,
            origin,
        }
    }
}

/// A new session as clients get it from `/login`, `/register` and `/refresh`.
pub(super) fn describe(grant: Grant) -> Map<String, Value> {
    let mut answer = Map::from_iter([
        ("home_server".to_owned(), json!(grant.user_id.server_name())),
        ("user_id".to_owned(), json!(grant.user_id)),
        ("device_id".to_owned(), json!(grant.device_id)),
        ("access_token".to_owned(), json!(grant.access_token)),
    ]);
    if let Some(refresh_token) = grant.refresh_token {
        answer.insert("refresh_token".to_owned(), refresh_token.into());
    }
    if let Some(expires_in_ms) = grant.expires_in_ms {
        answer.insert("expires_in_ms".to_owned(), expires_in_ms.into());
    }
    answer
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let message = error.to_string();
        match error {
            LoginError::WrongCredentials | LoginError::LoginToken => Self::forbidden(message),
            LoginError::Deactivated => Self::user_deactivated(message),
            LoginError::Locked => Self::user_locked(message).with("soft_logout", true),
            LoginError::Device(error) => error.into(),
            LoginError::Failed(error) => error.into(),
        }
    }
}
