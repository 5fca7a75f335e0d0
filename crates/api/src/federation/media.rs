//! `GET /media/download/{mediaId}` and `GET /media/thumbnail/{mediaId}` (Server-Server API, "Content Repository").
//!
//! Only media of this server; the answer is `multipart/mixed`: metadata, then the bytes as they come.

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, header};
use myelin_core::Env;
use myelin_media::{BytesStream, Download, Media};
use myelin_view::View;

use crate::{
    ApiError, AppState,
    extract::{Path, Query, SignedRequest},
    media::{DownloadParams, ThumbnailParams, disposition, known},
};

/// Random letters and digits that do not stand in the bytes by chance.
const BOUNDARY_LENGTH: usize = 40;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/federation/v1/media/download/{mediaId}", get(download))
        .route("/_matrix/federation/v1/media/thumbnail/{mediaId}", get(thumbnail))
}

async fn download(
    State(media): State<Arc<Media>>,
    State(view): State<View>,
    Path(media_id): Path<String>,
    Query(params): Query<DownloadParams>,
    _: SignedRequest,
) -> Result<Response, ApiError> {
    let mxc = known(&view.server_name, &media_id)?;
    let found = media.open(&mxc, &params.wants()).await?;
    in_parts(&view.env, found).await
}

async fn thumbnail(
    State(media): State<Arc<Media>>,
    State(view): State<View>,
    Path(media_id): Path<String>,
    Query(params): Query<ThumbnailParams>,
    _: SignedRequest,
) -> Result<Response, ApiError> {
    let mxc = known(&view.server_name, &media_id)?;
    let found = media.thumbnail(&mxc, params.size()?, &params.wants()).await?;
    in_parts(&view.env, found).await
}

async fn in_parts(env: &Env, found: Download) -> Result<Response, ApiError> {
    let boundary = env.random_string(BOUNDARY_LENGTH);
    let before = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {}\r\n\
         Content-Disposition: {}\r\n\r\n",
        found.content_type,
        disposition::header(&found.content_type, found.file_name.as_deref()),
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let length = found.size.map(|size| size + (before.len() + after.len()) as u64);
    let bytes = found.read(None).await?;
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
    once(before).chain(bytes).chain(once(after)).boxed()
}
