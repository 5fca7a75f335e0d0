//! All routes of a listener.

use axum::{Router, extract::FromRef};

use crate::{
    AppState, admin, client, federation,
    front::{Front, unknown_method, unknown_path},
    health, metrics,
};

/// What a listener answers to, besides the health endpoints, which are everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serves {
    pub client: bool,
    pub federation: bool,
    pub admin: bool,
    pub metrics: bool,
}

impl Serves {
    pub const ALL: Self = Self { client: true, federation: true, admin: true, metrics: true };
}

pub fn router(state: AppState, serves: Serves) -> Router {
    let env = FromRef::from_ref(&state);
    let mut routes = health::routes();
    if serves.client {
        routes = routes.merge(client::routes());
    }
    if serves.federation {
        routes = routes.merge(federation::routes());
    }
    if serves.client || serves.federation {
        routes = routes.merge(client::server_well_known());
    }
    if serves.admin {
        routes = routes.merge(admin::routes());
    }
    if serves.metrics {
        routes = routes.merge(metrics::routes());
    }
    let routes = routes.fallback(unknown_path).method_not_allowed_fallback(unknown_method).with_state(state);
    Router::new().fallback_service(Front::new(routes, env))
}
