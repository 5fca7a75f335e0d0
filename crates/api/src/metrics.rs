//! `GET /metrics`, for monitoring: numbers of this process in the Prometheus text format. Only on listeners that serve
//! `metrics`; there is no authentication, so they belong on an address that only the monitoring reaches.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use myelin_view::View;

use crate::AppState;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn routes() -> Router<AppState> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(view): State<View>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], view.metrics.render())
}
