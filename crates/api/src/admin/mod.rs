//! What provisioning tools call (`/_synapse/admin`), as far as they call it on every homeserver.

mod register;
mod state_resets;

use axum::Router;

use crate::AppState;

pub fn routes() -> Router<AppState> {
    Router::new().merge(register::routes()).merge(state_resets::routes())
}
