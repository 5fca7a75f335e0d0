//! Answers: always `application/json`.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::ApiError;

/// `200` with `T` as JSON.
pub struct Json<T>(pub T);

/// `200` with bytes that are JSON already.
pub struct RawJson(pub Bytes);

/// `200` with `{}`.
pub struct Empty;

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => json_response(StatusCode::OK, bytes),
            Err(error) => ApiError::internal(error).into_response(),
        }
    }
}

impl IntoResponse for RawJson {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, self.0)
    }
}

impl IntoResponse for Empty {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, Bytes::from_static(b"{}"))
    }
}

pub fn json_response(status: StatusCode, json: impl Into<Body>) -> Response {
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
