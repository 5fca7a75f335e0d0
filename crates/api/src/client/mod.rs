//! The Client-Server API: one file per endpoint family, named like its file in the specification's `data/api`.
//!
//! # How a handler reads
//!
//! Guard, guard, guard, act, map:
//!
//! ```ignore
//! /// `POST /_matrix/client/v3/rooms/{roomId}/invite`
//! async fn invite(
//!     auth: Auth<NotSuspended>,             // who, and who may: Registered (default), WithGuests, Admin, ...
//!     limits: Limits,                       // counts by user or by address
//!     State(rooms): State<Arc<Rooms>>,      // the one domain service that it calls
//!     Path(room_id): Path<OwnedRoomId>,     // M_INVALID_PARAM if it is no room id
//!     JsonBody(body): JsonBody<InviteBody>, // bounded, M_NOT_JSON, M_BAD_JSON
//! ) -> Result<Empty, RouteError> {
//!     limits.check(Class::Invite, &auth)?;
//!     rooms.invite(&auth.user_id, &room_id, body.user_id, body.reason).await?;
//!     Ok(Empty)
//! }
//! ```
//!
//! - The body is a private struct with the specification's field names; unknown fields are ignored. Fields that the
//!   specification requires are plain (their lack is `M_BAD_JSON`); where it asks for `M_MISSING_PARAM`, they are
//!   `Option`s and the handler says [`crate::ApiError::missing_param`].
//! - Endpoints whose body clients may leave out take [`crate::extract::OptionalJsonBody`].
//! - Domain errors: a `RouteError` enum per file with one `From<RouteError> for ApiError`, or, if the domain has one
//!   error for the family, one `fn` from it to [`crate::ApiError`]. Nothing else knows status codes.
//! - Answers: [`crate::respond::Json`], [`crate::respond::RawJson`] for bytes that are JSON already,
//!   [`crate::respond::Empty`] for `{}`.
//! - A file has `pub fn routes() -> Router<AppState>`, merged below. `r0` is an alias of `v3` for all of them.
//! - Nothing is answered before the store said that it is durable.

mod account_data;
mod account_deactivation;
mod admin;
mod administrative_contact;
mod appservices;
mod authed_content_repo;
mod banning;
mod capabilities;
mod content_repo;
mod create_room;
mod cross_signing;
mod dehydrated_devices;
mod delayed_events;
mod device_management;
mod directory;
mod elsewhere;
mod event_context;
mod filter;
mod inviting;
mod joining;
mod key_backup;
pub(crate) mod keys;
mod kicking;
mod knocking;
mod leaving;
mod list_public_rooms;
mod login;
mod login_token;
mod logout;
mod message_pagination;
mod mutual_rooms;
mod notifications;
mod old_sync;
mod openid;
mod own;
mod password_management;
mod presence;
mod profile;
mod pusher;
mod pushrules;
mod receipts;
mod redaction;
mod refresh;
mod registration;
mod registration_tokens;
mod relations;
mod rendezvous;
mod report_content;
mod request_token;
mod room_errors;
mod room_send;
mod room_state;
mod room_upgrades;
mod rooms;
mod rtc_transports;
mod search;
mod sliding_sync;
mod space_hierarchy;
mod sso_login_redirect;
mod sync;
mod tags;
mod third_party_lookup;
mod thread_subscriptions;
mod to_device;
mod typing;
mod url_preview;
mod users;
mod versions;
mod voip;
mod wellknown;
mod whoami;

use axum::Router;

use crate::AppState;

pub(crate) use wellknown::server_routes as server_well_known;

pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(account_data::routes())
        .merge(account_deactivation::routes())
        .merge(admin::routes())
        .merge(administrative_contact::routes())
        .merge(appservices::routes())
        .merge(authed_content_repo::routes())
        .merge(banning::routes())
        .merge(capabilities::routes())
        .merge(content_repo::routes())
        .merge(create_room::routes())
        .merge(cross_signing::routes())
        .merge(dehydrated_devices::routes())
        .merge(delayed_events::routes())
        .merge(device_management::routes())
        .merge(directory::routes())
        .merge(event_context::routes())
        .merge(filter::routes())
        .merge(inviting::routes())
        .merge(joining::routes())
        .merge(key_backup::routes())
        .merge(keys::routes())
        .merge(kicking::routes())
        .merge(knocking::routes())
        .merge(leaving::routes())
        .merge(list_public_rooms::routes())
        .merge(login::routes())
        .merge(login_token::routes())
        .merge(logout::routes())
        .merge(message_pagination::routes())
        .merge(mutual_rooms::routes())
        .merge(old_sync::routes())
        .merge(openid::routes())
        .merge(password_management::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(notifications::routes())
        .merge(pusher::routes())
        .merge(pushrules::routes())
        .merge(receipts::routes())
        .merge(redaction::routes())
        .merge(refresh::routes())
        .merge(registration::routes())
        .merge(registration_tokens::routes())
        .merge(relations::routes())
        .merge(rendezvous::routes())
        .merge(report_content::routes())
        .merge(request_token::routes())
        .merge(room_send::routes())
        .merge(room_state::routes())
        .merge(room_upgrades::routes())
        .merge(rooms::routes())
        .merge(rtc_transports::routes())
        .merge(search::routes())
        .merge(sliding_sync::routes())
        .merge(space_hierarchy::routes())
        .merge(sso_login_redirect::routes())
        .merge(sync::routes())
        .merge(tags::routes())
        .merge(thread_subscriptions::routes())
        .merge(third_party_lookup::routes())
        .merge(to_device::routes())
        .merge(typing::routes())
        .merge(url_preview::routes())
        .merge(url_preview::deprecated_routes())
        .merge(users::routes())
        .merge(versions::routes())
        .merge(voip::routes())
        .merge(wellknown::routes())
        .merge(whoami::routes())
}
