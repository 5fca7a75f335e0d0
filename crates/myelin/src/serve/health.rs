//! `/_myelin/health/live` and `/_myelin/health/ready`, on every listener, for whatever watches over the process.

use axum::{Router, http::StatusCode, routing::get};
use myelin_store::{Store, tables};
use tokio::sync::watch;

/// `ready` says no before the start is complete, while stopping, and when the store does not answer.
pub fn router(store: Store, ready: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/_myelin/health/live", get(async || "live\n"))
        .route("/_myelin/health/ready", get(move || is_ready(store.clone(), ready.clone())))
}

async fn is_ready(store: Store, ready: watch::Receiver<bool>) -> (StatusCode, &'static str) {
    if !*ready.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n");
    }
    match store.get(&tables::META, &tables::META_FORMAT.to_owned()).await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n")
        }
    }
}
