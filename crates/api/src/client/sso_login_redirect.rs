//! `/login/sso/redirect` (Client-Server API, "SSO client login") and `/auth_metadata` ("Server metadata discovery" of the
//! OAuth 2.0 API). Neither a provider of single sign-on nor OAuth 2.0 can be configured yet: the answers are those of a
//! server that does not support them.

use axum::{Router, routing::get};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::{Path, Query},
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/login/sso/redirect", get(redirect))
        .route("/_matrix/client/v3/login/sso/redirect/{idpId}", get(redirect_to_provider))
        .route("/_matrix/client/v1/auth_metadata", get(auth_metadata))
}

#[derive(Deserialize)]
struct Redirect {
    #[serde(rename = "redirectUrl")]
    _redirect_url: String,
    #[serde(rename = "action")]
    _action: Option<Action>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Login,
    Register,
}

async fn redirect(Query(_): Query<Redirect>) -> ApiError {
    ApiError::unrecognized("This server has no single sign-on.")
}

async fn redirect_to_provider(Path(_provider): Path<String>, Query(_): Query<Redirect>) -> ApiError {
    ApiError::not_found("This server knows no such identity provider.")
}

async fn auth_metadata() -> ApiError {
    ApiError::unrecognized("This server does not support the OAuth 2.0 API.")
}
