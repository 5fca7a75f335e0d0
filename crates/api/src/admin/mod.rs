//! What provisioning tools call (`/_synapse/admin`), as far as they call it on every homeserver.

mod media;
mod partial_rooms;
mod register;
mod retention;
mod server_notices;
mod state_resets;

use axum::Router;

pub use self::server_notices::Notices;

use crate::AppState;

pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(media::routes())
        .merge(partial_rooms::routes())
        .merge(register::routes())
        .merge(retention::routes())
        .merge(server_notices::routes())
        .merge(state_resets::routes())
}
