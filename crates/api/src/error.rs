//! The standard error response (Client-Server API, "Standard error response").
//!
//! Domain errors become an [`ApiError`] once, in the `RouteError` of the endpoint that meets them.

use std::{borrow::Cow, fmt};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::respond::json_response;

/// An error as a client sees it.
pub struct ApiError(Box<Body>);

struct Body {
    status: StatusCode,
    /// Empty in a challenge.
    errcode: &'static str,
    message: Cow<'static, str>,
    /// Further keys of the error object (`soft_logout`, `room_version`, ...).
    fields: Map<String, Value>,
}

macro_rules! errcodes {
    ($($name:ident: $status:ident $errcode:literal;)*) => {$(
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(StatusCode::$status, $errcode, message)
        }
    )*};
}

/// One constructor per errcode of the specification, with the status that it goes with.
impl ApiError {
    errcodes! {
        forbidden: FORBIDDEN "M_FORBIDDEN";
        unknown_token: UNAUTHORIZED "M_UNKNOWN_TOKEN";
        missing_token: UNAUTHORIZED "M_MISSING_TOKEN";
        user_locked: UNAUTHORIZED "M_USER_LOCKED";
        user_suspended: FORBIDDEN "M_USER_SUSPENDED";
        bad_json: BAD_REQUEST "M_BAD_JSON";
        not_json: BAD_REQUEST "M_NOT_JSON";
        not_found: NOT_FOUND "M_NOT_FOUND";
        unrecognized: NOT_FOUND "M_UNRECOGNIZED";
        unknown_method: METHOD_NOT_ALLOWED "M_UNRECOGNIZED";
        unknown: BAD_REQUEST "M_UNKNOWN";
        unauthorized: UNAUTHORIZED "M_UNAUTHORIZED";
        user_deactivated: FORBIDDEN "M_USER_DEACTIVATED";
        user_in_use: BAD_REQUEST "M_USER_IN_USE";
        invalid_username: BAD_REQUEST "M_INVALID_USERNAME";
        room_in_use: BAD_REQUEST "M_ROOM_IN_USE";
        alias_in_use: CONFLICT "M_UNKNOWN";
        invalid_room_state: BAD_REQUEST "M_INVALID_ROOM_STATE";
        threepid_in_use: BAD_REQUEST "M_THREEPID_IN_USE";
        threepid_not_found: BAD_REQUEST "M_THREEPID_NOT_FOUND";
        threepid_auth_failed: FORBIDDEN "M_THREEPID_AUTH_FAILED";
        threepid_denied: FORBIDDEN "M_THREEPID_DENIED";
        server_not_trusted: BAD_REQUEST "M_SERVER_NOT_TRUSTED";
        unsupported_room_version: BAD_REQUEST "M_UNSUPPORTED_ROOM_VERSION";
        incompatible_room_version: BAD_REQUEST "M_INCOMPATIBLE_ROOM_VERSION";
        bad_state: BAD_REQUEST "M_BAD_STATE";
        guest_access_forbidden: FORBIDDEN "M_GUEST_ACCESS_FORBIDDEN";
        captcha_needed: UNAUTHORIZED "M_CAPTCHA_NEEDED";
        captcha_invalid: UNAUTHORIZED "M_CAPTCHA_INVALID";
        missing_param: BAD_REQUEST "M_MISSING_PARAM";
        invalid_param: BAD_REQUEST "M_INVALID_PARAM";
        too_large: PAYLOAD_TOO_LARGE "M_TOO_LARGE";
        exclusive: BAD_REQUEST "M_EXCLUSIVE";
        resource_limit_exceeded: FORBIDDEN "M_RESOURCE_LIMIT_EXCEEDED";
        cannot_leave_server_notice_room: FORBIDDEN "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
        weak_password: BAD_REQUEST "M_WEAK_PASSWORD";
        bad_alias: BAD_REQUEST "M_BAD_ALIAS";
        duplicate_annotation: BAD_REQUEST "M_DUPLICATE_ANNOTATION";
        unable_to_authorise_join: BAD_REQUEST "M_UNABLE_TO_AUTHORISE_JOIN";
        unable_to_grant_join: BAD_REQUEST "M_UNABLE_TO_GRANT_JOIN";
        unable_due_to_partial_state: SERVICE_UNAVAILABLE "M_UNABLE_DUE_TO_PARTIAL_STATE";
        invite_blocked: FORBIDDEN "M_INVITE_BLOCKED";
        profile_too_large: BAD_REQUEST "M_PROFILE_TOO_LARGE";
        key_too_large: BAD_REQUEST "M_KEY_TOO_LARGE";
        unknown_device: NOT_FOUND "M_UNKNOWN_DEVICE";
        wrong_room_keys_version: FORBIDDEN "M_WRONG_ROOM_KEYS_VERSION";
        invalid_signature: BAD_REQUEST "M_INVALID_SIGNATURE";
        unavailable: SERVICE_UNAVAILABLE "M_UNKNOWN";
    }

    pub fn new(status: StatusCode, errcode: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Body { status, errcode, message: message.into(), fields: Map::new() }))
    }

    /// `401` of user-interactive authentication: no error yet, just what the client has to do.
    pub fn challenge(fields: Map<String, Value>) -> Self {
        let body = Body { status: StatusCode::UNAUTHORIZED, errcode: "", message: "".into(), fields };
        Self(Box::new(body))
    }

    /// Adds a key to the error object.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.fields.insert(key.to_owned(), value.into());
        self
    }

    /// The same error with another status, where an endpoint's specification says so.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// `429` with `retry_after_ms` and the `Retry-After` header.
    pub fn limit_exceeded(retry_after_ms: u64) -> Self {
        let seconds = retry_after_ms.div_ceil(1000);
        let message = format!("Too many requests. Try again in {seconds} s.");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", message)
            .with("retry_after_ms", retry_after_ms)
    }

    /// `500` without details; the reason goes to the log.
    pub fn internal(reason: impl fmt::Display) -> Self {
        tracing::error!(%reason, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "M_UNKNOWN",
            "The server failed to do this. Its log says why.",
        )
    }

    /// Other writers were first, time and again.
    pub fn conflict() -> Self {
        Self::unavailable("The server is busy with other changes to the same thing. Try again.")
            .with("retry_after_ms", 1000)
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub fn errcode(&self) -> &'static str {
        self.0.errcode
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Body { status, errcode, message, mut fields } = *self.0;
        let retry_after_ms = fields.get("retry_after_ms").and_then(Value::as_u64);
        if !errcode.is_empty() {
            fields.insert("errcode".to_owned(), json!(errcode));
            fields.insert("error".to_owned(), json!(message));
        }
        let mut response = json_response(status, Value::Object(fields).to_string());
        if let Some(ms) = retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        response
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.0.errcode, self.0.message)
    }
}

impl From<myelin_store::Error> for ApiError {
    fn from(error: myelin_store::Error) -> Self {
        match error {
            myelin_store::Error::TooLarge { .. } => Self::too_large("This is larger than the server stores."),
            other => Self::internal(other),
        }
    }
}

impl From<myelin_store::CommitError> for ApiError {
    fn from(error: myelin_store::CommitError) -> Self {
        match error {
            myelin_store::CommitError::Conflict { .. } => Self::conflict(),
            myelin_store::CommitError::Store(error) => error.into(),
        }
    }
}

impl From<myelin_view::Error> for ApiError {
    fn from(error: myelin_view::Error) -> Self {
        Self::internal(error)
    }
}

impl From<myelin_users::Error> for ApiError {
    fn from(error: myelin_users::Error) -> Self {
        match error {
            myelin_users::Error::Contended => Self::conflict(),
            myelin_users::Error::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<myelin_search::Error> for ApiError {
    fn from(error: myelin_search::Error) -> Self {
        match error {
            myelin_search::Error::Sync(error) => error.into(),
            myelin_search::Error::InvalidParam(message) => Self::invalid_param(message),
            other => Self::internal(other),
        }
    }
}

impl From<myelin_sync::Error> for ApiError {
    fn from(error: myelin_sync::Error) -> Self {
        match error {
            myelin_sync::Error::View(error) => error.into(),
            myelin_sync::Error::Forbidden(message) => Self::forbidden(message),
            myelin_sync::Error::NotFound(message) => Self::not_found(message),
            myelin_sync::Error::InvalidParam(message) => Self::invalid_param(message),
            myelin_sync::Error::UnknownPos => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", error.to_string())
            }
            myelin_sync::Error::Busy => Self::conflict(),
        }
    }
}
