//! What is served to other servers: a file per family of endpoints, named as in the specification.
//!
//! A handler takes a [`SignedRequest`](crate::extract::SignedRequest), makes one call of `myelin-federation` and maps its result.

mod openid;
mod server_keys;
mod transactions;
mod version;

use axum::Router;

use crate::AppState;

pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(openid::routes())
        .merge(server_keys::routes())
        .merge(transactions::routes())
        .merge(version::routes())
}
