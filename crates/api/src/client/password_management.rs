//! `POST /_matrix/client/v3/account/password`: with a session and the old password, or without both and the proof of an
//! e-mail address (Client-Server API, "Password management").

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use myelin_users::{SetPasswordError, Users, uia::Operation};
use serde::Deserialize;

use crate::{
    ApiError, AppState,
    extract::MaybeAuth,
    rate_limit::{Class, Limits},
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
    Router::new().route("/_matrix/client/v3/account/password", post(change))
}

const PURPOSE: &str = "POST /account/password";

async fn change(
    MaybeAuth(auth): MaybeAuth,
    limits: Limits,
    uia: Uia,
    State(users): State<Arc<Users>>,
    body: UiaBody<PasswordBody>,
) -> Result<Empty, ApiError> {
    let Some(auth) = auth else { return reset(&limits, &uia, &users, body).await };
    let auth = auth.narrow()?;
    uia.confirm(PURPOSE, &auth, &body).await?;
    let PasswordBody { new_password, logout_devices } = body.body;
    let new_password = new_password.ok_or_else(missing_password)?;
    users.set_password(auth.user, &new_password, logout_devices, Some(&auth.device_id)).await?;
    Ok(Empty)
}

/// A forgotten password: who reads the mail of an account's address may set it.
async fn reset(
    limits: &Limits,
    uia: &Uia,
    users: &Users,
    body: UiaBody<PasswordBody>,
) -> Result<Empty, ApiError> {
    limits.check_address(Class::RegistrationCheck)?;
    let flows = users.password_reset_flows();
    let flows = flows.ok_or_else(|| ApiError::missing_token("This needs an access token."))?;
    let operation = Operation { purpose: PURPOSE, user: None, request: body.request(), flows: &flows };
    let proof = uia.check(operation, &body).await?;
    let new_password = body.body.new_password.ok_or_else(missing_password)?;
    users.check_password(&new_password)?;
    let sid =
        proof.email_session.ok_or_else(|| ApiError::unauthorized("The e-mail address is not proven."))?;
    let user = users.redeem_password_reset(&sid).await?;
    users.set_password(user, &new_password, body.body.logout_devices, None).await?;
    Ok(Empty)
}

fn missing_password() -> ApiError {
    ApiError::missing_param("'new_password' is missing.")
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
