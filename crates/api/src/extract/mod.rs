//! What handlers take as arguments. Every rejection is an [`crate::ApiError`].

mod address;
mod auth;
mod body;
mod json;
mod origin;
mod params;
mod signed;
mod unverified;

pub use address::ClientAddress;
pub use auth::{
    Access, Admin, Auth, GuestsNotSuspended, Locked, MaybeAuth, NotSuspended, Registered, WithGuests,
};
pub use body::{Form, JsonBody, OptionalJsonBody, read as read_body};
pub use json::parse as parse_json;
pub use origin::Origin;
pub use params::{Path, Query};
pub use signed::{FEDERATION_BODY_SIZE_MAX, SignedRequest};
pub use unverified::Unverified;
