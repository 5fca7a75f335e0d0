//! Request bodies: bounded while they arrive, then parsed.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use myelin_core::limits::REQUEST_BODY_SIZE_MAX;
use serde::de::DeserializeOwned;

use super::json;
use crate::ApiError;

/// A JSON body of at most `MAX` bytes. `T` may be `Box<RawValue>` to take the text as it is.
pub struct JsonBody<T, const MAX: usize = REQUEST_BODY_SIZE_MAX>(pub T);

/// The same, where clients may send nothing at all: an empty body is `{}`.
pub struct OptionalJsonBody<T, const MAX: usize = REQUEST_BODY_SIZE_MAX>(pub T);

/// What a browser sends of a form.
pub struct Form<T>(pub T);

const FORM_SIZE_MAX: usize = 16 * 1024;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request, FORM_SIZE_MAX).await?;
        let form = serde_html_form::from_bytes(&bytes);
        form.map(Self).map_err(|error| ApiError::invalid_param(format!("This is not the form: {error}.")))
    }
}

impl<T: DeserializeOwned, S: Send + Sync, const MAX: usize> FromRequest<S> for JsonBody<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        parse(&read(request, MAX).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync, const MAX: usize> FromRequest<S> for OptionalJsonBody<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request, MAX).await?;
        parse(if bytes.is_empty() { b"{}" } else { &bytes }).map(Self)
    }
}

/// Every body is an object; serde would take a list for a struct.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let parsed = json::parse(bytes)?;
    match bytes.trim_ascii_start().first() {
        Some(b'{') => Ok(parsed),
        _ => Err(ApiError::bad_json("The body has to be a JSON object.")),
    }
}

/// Refuses by `Content-Length` before reading; without it, stops reading at the limit.
pub async fn read(request: Request, max: usize) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    read_parts(&parts.headers, body, max, |_| Ok(())).await
}

/// The same. `arrived` hears of each piece before it is kept, and may refuse it.
pub(super) async fn read_parts(
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
    mut arrived: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::unknown(format!("The request broke off: {error}.")))?;
        let Ok(piece) = frame.into_data() else { continue };
        if read.len() + piece.len() > max {
            return Err(too_large(max));
        }
        arrived(piece.len())?;
        read.extend_from_slice(&piece);
    }
    Ok(read.freeze())
}

fn too_large(max: usize) -> ApiError {
    ApiError::too_large(format!("The request body is larger than {max} bytes."))
}
