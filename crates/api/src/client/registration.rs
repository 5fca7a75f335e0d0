//! `POST /_matrix/client/v3/register` and `GET /register/available` (Client-Server API, "Account registration").

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_users::{
    DeviceRequest, LoginOrigin, Users,
    registration::{Registered, Registration},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::login;
use crate::{
    ApiError, AppState,
    extract::{Origin, Query},
    rate_limit::{Class, Limits},
    respond::Json,
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct RegisterBody {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    /// Of a guest who becomes a user.
    guest_access_token: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(Deserialize)]
struct Available {
    username: String,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/register", post(register))
        .route("/_matrix/client/v3/register/available", get(available))
}

async fn register(
    limits: Limits,
    uia: Uia,
    Origin(origin): Origin,
    State(users): State<Arc<Users>>,
    Query(Kind { kind }): Query<Kind>,
    body: UiaBody<RegisterBody>,
) -> Result<Json<Value>, ApiError> {
    // The first request of most clients only asks which flows there are.
    limits.check_address(if body.auth.is_some() { Class::Registration } else { Class::RegistrationCheck })?;
    let registered = match kind.as_deref() {
        None | Some("user") => register_user(&users, &uia, body, origin).await?,
        Some("guest") => {
            limits.check_address(Class::Registration)?;
            users.register_guest(body.body.device(origin)).await?
        }
        Some(_) => return Err(ApiError::invalid_param("The kind of an account is 'user' or 'guest'.")),
    };
    Ok(Json(describe(registered)))
}

async fn register_user(
    users: &Users,
    uia: &Uia,
    body: UiaBody<RegisterBody>,
    origin: LoginOrigin,
) -> Result<Registered, ApiError> {
    let flows = users.registration_flows();
    let flows =
        flows.ok_or_else(|| ApiError::forbidden("Registration is not enabled on this homeserver."))?;
    let mut registration = Registration {
        username: body.body.username.clone().filter(|name| !name.is_empty()),
        password: body.body.password.clone(),
        guest: match &body.body.guest_access_token {
            Some(token) => Some(users.session(token).await?.user),
            None => None,
        },
        login: (!body.body.inhibit_login).then(|| body.body.device(origin)),
        ..Registration::default()
    };
    users.check_registration(&registration).await?;
    registration.proof = uia.admit(myelin_users::uia::REGISTER, flows, &body).await?;
    if registration.password.is_none() {
        return Err(ApiError::missing_param("'password' is missing."));
    }
    Ok(users.register(&registration).await?)
}

impl RegisterBody {
    fn device(&self, origin: LoginOrigin) -> DeviceRequest {
        DeviceRequest {
            device_id: self.device_id.clone(),
            initial_display_name: self.initial_device_display_name.clone(),
            refresh: self.refresh_token,
            origin,
        }
    }
}

fn describe(registered: Registered) -> Value {
    let grant = registered.grant.map(login::describe).unwrap_or_default();
    let mut answer = Map::from_iter([
        ("user_id".to_owned(), json!(registered.user_id)),
        ("home_server".to_owned(), json!(registered.user_id.server_name())),
    ]);
    answer.extend(grant);
    Value::Object(answer)
}

async fn available(
    limits: Limits,
    State(users): State<Arc<Users>>,
    Query(query): Query<Available>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    users.check_available(&query.username).await?;
    Ok(Json(json!({ "available": true })))
}
