//! `requestToken` for e-mail addresses and phone numbers, in its three places, and the page behind the link in a mail.
//!
//! There is no gateway for SMS: requests about phone numbers are refused with `M_THREEPID_DENIED`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use myelin_store::tables::ValidationPurpose;
use myelin_users::{
    Users,
    validation::{LINK_PATH, TokenRequest, ValidationError, is_opaque},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Form, JsonBody, Query},
    rate_limit::{Class, Limits},
    respond::Json,
};

#[derive(Deserialize)]
struct EmailBody {
    client_secret: String,
    email: String,
    send_attempt: u64,
    next_link: Option<String>,
    #[serde(flatten)]
    _identity: IdentityServer,
}

/// Of servers that left mail to others.
#[derive(Deserialize)]
struct IdentityServer {
    #[serde(rename = "id_server")]
    _id_server: Option<String>,
    #[serde(rename = "id_access_token")]
    _id_access_token: Option<String>,
}

/// Read although nothing comes of it: a request that is none is told so.
#[derive(Deserialize)]
struct PhoneBody {
    #[serde(rename = "client_secret")]
    _client_secret: String,
    #[serde(rename = "country")]
    _country: String,
    #[serde(rename = "phone_number")]
    _phone_number: String,
    #[serde(rename = "send_attempt")]
    _send_attempt: u64,
    #[serde(rename = "next_link")]
    _next_link: Option<String>,
    #[serde(flatten)]
    _identity: IdentityServer,
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    sid: String,
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    token: String,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/register/email/requestToken", post(for_registration))
        .route("/_matrix/client/v3/register/msisdn/requestToken", post(no_phones))
        .route("/_matrix/client/v3/account/password/email/requestToken", post(for_password))
        .route("/_matrix/client/v3/account/password/msisdn/requestToken", post(no_phones))
        .route("/_matrix/client/v3/account/3pid/email/requestToken", post(for_account))
        .route("/_matrix/client/v3/account/3pid/msisdn/requestToken", post(no_phones))
        .route(LINK_PATH, get(show).post(confirm))
}

async fn for_registration(
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(body): JsonBody<EmailBody>,
) -> Result<Json<Value>, ApiError> {
    if users.registration_flows().is_none() {
        return Err(ApiError::forbidden("Registration is not enabled on this homeserver."));
    }
    request(&limits, &users, ValidationPurpose::Register, body).await
}

async fn for_password(
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(body): JsonBody<EmailBody>,
) -> Result<Json<Value>, ApiError> {
    request(&limits, &users, ValidationPurpose::ResetPassword, body).await
}

/// Without an access token, as the specification has it: what is added to an account is asked about again then.
async fn for_account(
    limits: Limits,
    State(users): State<Arc<Users>>,
    JsonBody(body): JsonBody<EmailBody>,
) -> Result<Json<Value>, ApiError> {
    request(&limits, &users, ValidationPurpose::Add, body).await
}

async fn request(
    limits: &Limits,
    users: &Users,
    purpose: ValidationPurpose,
    body: EmailBody,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    let EmailBody { client_secret, email, send_attempt, next_link, .. } = body;
    let request = TokenRequest { purpose, email, client_secret, send_attempt, next_link };
    let sid = users.request_validation(&request).await?;
    Ok(Json(json!({ "sid": sid })))
}

async fn no_phones(limits: Limits, JsonBody(_): JsonBody<PhoneBody>) -> Result<Json<Value>, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    Err(ApiError::threepid_denied("This server does not use phone numbers."))
}

/// Mail programs and their guards open links: only the button behind this one does something.
async fn show(
    limits: Limits,
    State(users): State<Arc<Users>>,
    Query(link): Query<Link>,
) -> Result<Response, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    let sound = [&link.sid, &link.client_secret, &link.token].into_iter().all(|text| is_opaque(text));
    if !sound || !users.is_awaiting(&link.sid, &link.client_secret).await? {
        return Ok(page(StatusCode::BAD_REQUEST, NO_LINK));
    }
    let Link { sid, client_secret, token } = link;
    // Nothing but letters, digits and four harmless marks.
    let form = format!(
        "<p>Confirm that this e-mail address is yours.</p><form method=\"post\">\
         <input type=\"hidden\" name=\"sid\" value=\"{sid}\">\
         <input type=\"hidden\" name=\"client_secret\" value=\"{client_secret}\">\
         <input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <button type=\"submit\">Confirm</button></form>"
    );
    Ok(page(StatusCode::OK, &form))
}

async fn confirm(
    limits: Limits,
    State(users): State<Arc<Users>>,
    Form(link): Form<Link>,
) -> Result<Response, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    match users.validate(&link.sid, &link.client_secret, &link.token).await {
        Ok(Some(next)) => Ok(see_other(&next)),
        Ok(None) => Ok(page(StatusCode::OK, "<p>Thank you. You can go back to your app now.</p>")),
        Err(ValidationError::WrongToken) => Ok(page(StatusCode::BAD_REQUEST, NO_LINK)),
        Err(error) => Err(error.into()),
    }
}

const NO_LINK: &str = "<p>This link is not valid (any more). Ask your app for a new one.</p>";

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>E-mail address</title></head>\
         <body>{body}</body></html>"
    );
    let mut response = (status, html).into_response();
    let policy = "default-src 'none'; form-action *; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn see_other(location: &str) -> Response {
    let mut response = page(StatusCode::SEE_OTHER, "<p>Thank you.</p>");
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

impl From<ValidationError> for ApiError {
    fn from(error: ValidationError) -> Self {
        let message = error.to_string();
        match error {
            ValidationError::NoMail => Self::threepid_denied("This server does not use e-mail addresses."),
            ValidationError::NoAddress(_) | ValidationError::InvalidParam(_) => Self::invalid_param(message),
            ValidationError::InUse => Self::threepid_in_use(message),
            ValidationError::NotFound => Self::threepid_not_found(message),
            ValidationError::TooManyMails { retry_after_ms } => Self::limit_exceeded(retry_after_ms),
            ValidationError::NotSent => Self::unknown(message).with_status(StatusCode::INTERNAL_SERVER_ERROR),
            ValidationError::WrongToken | ValidationError::NotValidated => {
                Self::threepid_auth_failed(message)
            }
            ValidationError::Failed(error) => error.into(),
        }
    }
}
