//! `/_matrix/media/*` (Client-Server API, "Content repository"): uploads, and the deprecated ways to download, which take
//! no access token and serve what `unauthenticated_media` says.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::{get, post, put},
};
use http::{HeaderMap, header};
use myelin_media::{Media, Upload, Wants};
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::authed_content_repo::limits;
use crate::{
    ApiError, AppState, ServerConfig,
    config::UnauthenticatedMedia,
    extract::{Auth, NotSuspended, Path, Query, WithGuests},
    media::{Audience, DownloadParams, ThumbnailParams, body_of, known, respond},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

/// The versions of the deprecated paths that clients still use.
const VERSIONS: [&str; 3] = ["v3", "r0", "v1"];

pub fn routes() -> Router<AppState> {
    let mut routes = Router::new()
        .route("/_matrix/media/v1/create", post(create))
        .route("/_matrix/media/v3/upload/{serverName}/{mediaId}", put(upload_to));
    for version in VERSIONS {
        let path = |rest| format!("/_matrix/media/{version}/{rest}");
        routes = routes
            .route(&path("upload"), post(upload))
            .route(&path("config"), get(config))
            .route(&path("download/{serverName}/{mediaId}"), get(download))
            .route(&path("download/{serverName}/{mediaId}/{fileName}"), get(download_as))
            .route(&path("thumbnail/{serverName}/{mediaId}"), get(thumbnail));
    }
    routes
}

#[derive(Deserialize)]
struct UploadParams {
    filename: Option<String>,
}

async fn upload(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(media): State<Arc<Media>>,
    Query(params): Query<UploadParams>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let mxc = media.upload(auth.user, sent(request, params)).await?;
    Ok(Json(json!({ "content_uri": mxc.to_string() })))
}

async fn create(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(media): State<Arc<Media>>,
) -> Result<Json<Value>, ApiError> {
    limits.check(Class::Write, &auth)?;
    let created = media.create(auth.user).await?;
    Ok(Json(json!({ "content_uri": created.mxc.to_string(), "unused_expires_at": created.expires_ms })))
}

async fn upload_to(
    auth: Auth<NotSuspended>,
    limits: Limits,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
    Query(params): Query<UploadParams>,
    request: Request,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    media.upload_to(auth.user, &known(&server, &id)?, sent(request, params)).await?;
    Ok(Empty)
}

fn sent(request: Request, params: UploadParams) -> Upload {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Upload {
        content_type: text(header::CONTENT_TYPE),
        file_name: params.filename,
        size: text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        body: body_of(request),
    }
}

async fn config(_: Auth<WithGuests>, State(media): State<Arc<Media>>) -> Json<Value> {
    limits(&media)
}

async fn download(
    limits: Limits,
    State(config): State<Arc<ServerConfig>>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
    Query(params): Query<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wants = unauthenticated(&limits, &config, params.wants())?;
    let found = media.open(&known(&server, &id)?, &wants).await?;
    respond(found, None, &headers, Audience::Public).await
}

async fn download_as(
    limits: Limits,
    State(config): State<Arc<ServerConfig>>,
    State(media): State<Arc<Media>>,
    Path((server, id, file_name)): Path<(OwnedServerName, String, String)>,
    Query(params): Query<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wants = unauthenticated(&limits, &config, params.wants())?;
    let found = media.open(&known(&server, &id)?, &wants).await?;
    respond(found, Some(&file_name), &headers, Audience::Public).await
}

async fn thumbnail(
    limits: Limits,
    State(config): State<Arc<ServerConfig>>,
    State(media): State<Arc<Media>>,
    Path((server, id)): Path<(OwnedServerName, String)>,
    Query(params): Query<ThumbnailParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wants = unauthenticated(&limits, &config, params.wants())?;
    let found = media.thumbnail(&known(&server, &id)?, params.size()?, &wants).await?;
    respond(found, None, &headers, Audience::Public).await
}

/// What somebody without an access token gets ("freeze" in the specification). Media that is not here yet would be newer
/// than any freeze: it is fetched only where everything is served.
fn unauthenticated(limits: &Limits, config: &ServerConfig, wants: Wants) -> Result<Wants, ApiError> {
    limits.check_address(Class::Read)?;
    match config.unauthenticated_media {
        UnauthenticatedMedia::Everything => Ok(wants),
        UnauthenticatedMedia::StoredBefore(before_ms) => {
            Ok(Wants { stored_before_ms: Some(before_ms), allow_remote: false, timeout: Duration::ZERO })
        }
        UnauthenticatedMedia::Nothing => Err(frozen()),
    }
}

/// Of everything that is deprecated here, where it is not served.
pub(super) fn frozen() -> ApiError {
    ApiError::not_found("This server serves media with an access token only, at /_matrix/client/v1/media.")
}
