//! `GET /_matrix/client/v1/media/*` (Client-Server API, "Content repository"): limits, downloads and thumbnails, with an
//! access token.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use http::HeaderMap;
use myelin_media::Media;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, Path, Query, WithGuests},
    media::{Audience, DownloadParams, ThumbnailParams, known, respond},
    respond::Json,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v1/media/config", get(config))
        .route("/_matrix/client/v1/media/download/{serverName}/{mediaId}", get(download))
        .route("/_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}", get(download_as))
        .route("/_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}", get(thumbnail))
}

async fn config(_: Auth<WithGuests>, State(media): State<Arc<Media>>) -> Json<Value> {
    limits(&media)
}

/// What clients should know before they upload.
pub(super) fn limits(media: &Media) -> Json<Value> {
    Json(json!({ "m.upload.size": media.config.upload_size_max }))
}

async fn download(
    _: Auth<WithGuests>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
    Query(params): Query<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = media.open(&known(&server, &id)?, &params.wants()).await?;
    respond(found, None, &headers, Audience::Private).await
}

async fn download_as(
    _: Auth<WithGuests>,
    State(media): State<Arc<Media>>,
    Path((server, id, file_name)): Path<(OwnedServerName, String, String)>,
    Query(params): Query<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = media.open(&known(&server, &id)?, &params.wants()).await?;
    respond(found, Some(&file_name), &headers, Audience::Private).await
}

async fn thumbnail(
    _: Auth<WithGuests>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
    Query(params): Query<ThumbnailParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = media.thumbnail(&known(&server, &id)?, params.size()?, &params.wants()).await?;
    respond(found, None, &headers, Audience::Private).await
}
