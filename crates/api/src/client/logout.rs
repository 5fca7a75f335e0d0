//! `POST /_matrix/client/v3/logout` and `/logout/all` (Client-Server API, "Logout"). Locked accounts may, too.

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::Users;

use crate::{
    ApiError, AppState,
    extract::{Auth, Locked},
    respond::Empty,
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/logout", post(logout))
        .route("/_matrix/client/v3/logout/all", post(logout_all))
}

async fn logout(auth: Auth<Locked>, State(users): State<Arc<Users>>) -> Result<Empty, ApiError> {
    users.logout(&auth).await?;
    Ok(Empty)
}

async fn logout_all(auth: Auth<Locked>, State(users): State<Arc<Users>>) -> Result<Empty, ApiError> {
    users.logout_all(auth.user).await?;
    Ok(Empty)
}
