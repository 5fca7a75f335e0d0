//! What is served to other servers: a file per family of endpoints, named as in the specification.
//!
//! A handler takes a [`SignedRequest`](crate::extract::SignedRequest), makes one call of `myelin-federation` and maps its result.

mod backfill;
mod errors;
mod event_auth;
mod events;
mod invites;
mod joins;
mod keys_query;
mod knocks;
mod leaving;
mod media;
mod openid;
mod public_rooms;
mod query;
mod serve_errors;
mod server_keys;
mod space_hierarchy;
mod third_party_invite;
mod transactions;
mod user_devices;
mod user_keys;
mod version;

use axum::Router;

use crate::AppState;

pub fn routes() -> Router<AppState> {
    let handshakes = Router::new()
        .merge(invites::routes())
        .merge(joins::routes())
        .merge(knocks::routes())
        .merge(leaving::routes())
        .merge(third_party_invite::routes());
    Router::new()
        .merge(backfill::routes())
        .merge(event_auth::routes())
        .merge(events::routes())
        .merge(keys_query::routes())
        .merge(public_rooms::routes())
        .merge(query::routes())
        .merge(handshakes)
        .merge(media::routes())
        .merge(space_hierarchy::routes())
        .merge(openid::routes())
        .merge(server_keys::routes())
        .merge(transactions::routes())
        .merge(user_devices::routes())
        .merge(user_keys::routes())
        .merge(version::routes())
}
