//! What a new session notes about where it was made.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use myelin_users::LoginOrigin;

use super::auth;
use crate::AppState;

pub struct Origin(pub LoginOrigin);

impl FromRequestParts<AppState> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(Self(auth::origin(parts, state)))
    }
}
