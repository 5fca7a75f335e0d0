//! `GET /media/download/{mediaId}` and `GET /media/thumbnail/{mediaId}` (Server-Server API, "Content Repository").
//!
//! Only media of this server; the answer is `multipart/mixed`: metadata, then the bytes as they come.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use myelin_core::Env;
use myelin_media::{BytesStream, Download, Error, Media, Mxc, Wants};
use myelin_view::View;
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
};

/// Random letters and digits that do not stand in the bytes by chance.
const BOUNDARY_LENGTH: usize = 40;
const TIMEOUT_MS_DEFAULT: u64 = 20_000;

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/federation/v1/media/download/{mediaId}", get(download))
}

#[derive(Deserialize)]
struct Waiting {
    timeout_ms: Option<u64>,
}

impl Waiting {
    fn wants(&self) -> Wants {
        let timeout = Duration::from_millis(self.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT));
        Wants { allow_remote: false, timeout, stored_before_ms: None }
    }
}

async fn download(
    State(media): State<Arc<Media>>,
    State(view): State<View>,
    Path(media_id): Path<String>,
    Query(waiting): Query<Waiting>,
    _: SignedRequest,
) -> Result<Response, ApiError> {
    let mxc = local(&view, &media_id)?;
    let found = media.open(&mxc, &waiting.wants()).await.map_err(refused)?;
    in_parts(&view.env, found).await
}

fn local(view: &View, media_id: &str) -> Result<Mxc, ApiError> {
    Mxc::new(&view.server_name, media_id).ok_or_else(|| refused(Error::NotFound))
}

fn refused(error: Error) -> ApiError {
    match error {
        Error::NotFound => ApiError::not_found("There is no such media on this server."),
        Error::NotYetUploaded => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "M_NOT_YET_UPLOADED",
            "The content has not been uploaded yet.",
        ),
        Error::CannotThumbnail(reason) => ApiError::unknown(format!("No thumbnail can be made: {reason}.")),
        Error::TooLarge { .. } | Error::TooManyPixels { .. } => {
            ApiError::too_large("This is too large to make a thumbnail of.")
        }
        Error::Contended => ApiError::conflict(),
        error => ApiError::internal(error),
    }
}

async fn in_parts(env: &Env, found: Download) -> Result<Response, ApiError> {
    let boundary = env.random_string(BOUNDARY_LENGTH);
    let before = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {}\r\n\
         Content-Disposition: {}\r\n\r\n",
        found.content_type,
        disposition(found.file_name.as_deref()),
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let length = found.size.map(|size| size + (before.len() + after.len()) as u64);
    let bytes = found.read(None).await.map_err(refused)?;
    let mut response = Response::new(Body::from_stream(surrounded(before, bytes, after)));
    let content_type = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.map_err(ApiError::internal)?);
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(response)
}

/// What comes after is sent only if the bytes came to their end.
fn surrounded(before: String, bytes: BytesStream, after: String) -> BytesStream {
    let once = |text: String| stream::once(std::future::ready(Ok(Bytes::from(text))));
    once(before).chain(bytes.into_stream()).chain(once(after)).boxed()
}

/// Whoever gets it decides what may be shown; here it is a file with a name (RFC 6266).
fn disposition(file_name: Option<&str>) -> String {
    use myelin_federation::uri::segment;
    match file_name {
        Some(name) => format!("inline; filename*=utf-8''{}", segment(name)),
        None => "inline".to_owned(),
    }
}
