//! `GET /_matrix/client/v1/media/preview_url` (Client-Server API, "Content repository").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use bytes::Bytes;
use myelin_media::preview::{PreviewError, Previews};
use serde::Deserialize;

use super::content_repo;
use crate::{
    ApiError, AppState, ServerConfig,
    config::UnauthenticatedMedia,
    extract::{Auth, Query},
    rate_limit::{Class, Limits},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v1/media/preview_url", get(preview))
}

/// The same at the paths of specifications before 1.11. They always needed an access token; they are served where the
/// other deprecated paths of media are.
pub fn deprecated_routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/media/v3/preview_url", get(deprecated_preview))
        .route("/_matrix/media/r0/preview_url", get(deprecated_preview))
        .route("/_matrix/media/v1/preview_url", get(deprecated_preview))
}

#[derive(Deserialize)]
struct Params {
    url: String,
    ts: Option<i64>,
}

async fn preview(
    auth: Auth,
    limits: Limits,
    State(previews): State<Arc<Previews>>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    limits.check(Class::UrlPreview, &auth)?;
    let ts_ms = params.ts.and_then(|ts| u64::try_from(ts).ok());
    let json = previews.preview(&params.url, ts_ms).await?;
    Ok(RawJson(Bytes::copy_from_slice(json.as_bytes())))
}

async fn deprecated_preview(
    auth: Auth,
    limits: Limits,
    State(config): State<Arc<ServerConfig>>,
    previews: State<Arc<Previews>>,
    params: Query<Params>,
) -> Result<RawJson, ApiError> {
    if config.unauthenticated_media == UnauthenticatedMedia::Nothing {
        return Err(content_repo::frozen());
    }
    preview(auth, limits, previews, params).await
}

impl From<PreviewError> for ApiError {
    fn from(error: PreviewError) -> Self {
        match error {
            PreviewError::Off => Self::unrecognized("This server makes no previews of URLs."),
            PreviewError::InvalidUrl(message) => Self::invalid_param(message),
            // Where the name leads is nobody's business.
            PreviewError::Refused(reason) => {
                tracing::debug!(reason, "a preview was refused");
                Self::forbidden("This server makes no previews of this URL.")
            }
            PreviewError::Busy => Self::limit_exceeded(1_000),
            PreviewError::Failed(reason) => {
                tracing::debug!(reason, "a preview failed");
                Self::new(http::StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The page could not be fetched.")
            }
            PreviewError::Media(error) => Self::internal(error),
        }
    }
}
