//! What provisioning tools call (`/_synapse/admin`), as far as they call it on every homeserver.

mod register;

use axum::Router;

use crate::AppState;

pub fn routes() -> Router<AppState> {
    register::routes()
}
