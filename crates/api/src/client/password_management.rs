//! `POST /_matrix/client/v3/account/password` and its requests for e-mail and SMS validation (Client-Server API,
//! "Password management").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::{SetPasswordError, Users};
use serde::Deserialize;

use super::registration::no_threepids;
use crate::{
    ApiError, AppState,
    extract::Auth,
    respond::Empty,
    uia::{Uia, UiaBody},
};

#[derive(Deserialize)]
struct PasswordBody {
    new_password: Option<String>,
    #[serde(default = "yes")]
    logout_devices: bool,
}

fn yes() -> bool {
    true
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/account/password", post(change))
        .route("/_matrix/client/v3/account/password/email/requestToken", post(no_threepids))
        .route("/_matrix/client/v3/account/password/msisdn/requestToken", post(no_threepids))
}

async fn change(
    auth: Auth,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<PasswordBody>,
) -> Result<Empty, ApiError> {
    uia.confirm("POST /account/password", &auth, &body).await?;
    let PasswordBody { new_password, logout_devices } = body.body;
    let new_password = new_password.ok_or_else(|| ApiError::missing_param("'new_password' is missing."))?;
    users.set_password(auth.user, &new_password, logout_devices, Some(&auth.device_id)).await?;
    Ok(Empty)
}

impl From<SetPasswordError> for ApiError {
    fn from(error: SetPasswordError) -> Self {
        match error {
            SetPasswordError::NoAccount => Self::not_found(error.to_string()),
            SetPasswordError::Password(error) => error.into(),
            SetPasswordError::Failed(error) => error.into(),
        }
    }
}
