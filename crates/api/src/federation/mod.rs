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

use crate::{
    AppState,
    per_origin::{Work, limited},
};

pub fn routes() -> Router<AppState> {
    let unsigned = Router::new()
        .merge(keys_query::routes())
        .merge(openid::routes())
        .merge(server_keys::routes())
        .merge(version::routes());
    let ordinary = Router::new()
        .merge(backfill::routes())
        .merge(events::routes())
        .merge(public_rooms::routes())
        .merge(query::routes())
        .merge(space_hierarchy::routes())
        .merge(user_devices::routes())
        .merge(user_keys::routes());
    let states = Router::new().merge(event_auth::routes()).merge(events::state_routes());
    let joins = Router::new().merge(joins::routes()).merge(knocks::routes()).merge(leaving::routes());
    let invites = Router::new().merge(invites::routes()).merge(third_party_invite::routes());
    unsigned
        .merge(transactions::routes())
        .merge(limited(Work::Ordinary, ordinary))
        .merge(limited(Work::State, states))
        .merge(limited(Work::Join, joins))
        .merge(limited(Work::Invite, invites))
        .merge(limited(Work::Media, media::routes()))
}
