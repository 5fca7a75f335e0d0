//! `GET /_matrix/client/v3/notifications` (Client-Server API, "Listing Notifications").

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use myelin_sync::{Sync, notifications::NotificationsRequest};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Auth, Query},
    respond::RawJson,
};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/notifications", get(notifications))
}

#[derive(Deserialize)]
struct Params {
    from: Option<String>,
    limit: Option<u64>,
    only: Option<String>,
}

async fn notifications(
    auth: Auth,
    State(sync): State<Arc<Sync>>,
    Query(params): Query<Params>,
) -> Result<RawJson, ApiError> {
    let only_highlights = params.only.as_deref() == Some("highlight");
    let request = NotificationsRequest { from: params.from, limit: params.limit, only_highlights };
    Ok(RawJson(sync.notifications(&auth.requester(), &request).await?.into()))
}
