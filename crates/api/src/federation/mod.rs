//! What is served to other servers. Federation itself is not built yet; what does not need it is here.

mod openid;
mod version;

use axum::Router;

use crate::AppState;

pub fn routes() -> Router<AppState> {
    Router::new().merge(openid::routes()).merge(version::routes())
}
