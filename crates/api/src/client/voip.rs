//! `GET /_matrix/client/v3/voip/turnServer` (Client-Server API, "Voice over IP"), with credentials for a while as TURN
//! servers with a shared secret make them (draft-uberti-behave-turn-rest-00), or those that are configured.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use hmac::{Hmac, Mac};
use myelin_core::Env;
use ruma::{UserId, serde::Base64};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{ApiError, AppState, ServerConfig, config::TurnCredentials, extract::Auth, respond::Json};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/voip/turnServer", get(turn_server))
}

async fn turn_server(
    auth: Auth,
    State(config): State<Arc<ServerConfig>>,
    State(env): State<Env>,
) -> Result<Json<Value>, ApiError> {
    let turn = config.turn.as_ref().ok_or_else(|| ApiError::not_found("This server has no TURN server."))?;
    let (username, password) = match &turn.credentials {
        TurnCredentials::Secret(secret) => {
            timed(secret, &auth.user_id, env.now_ms() / 1000 + turn.lifetime_s)
        }
        TurnCredentials::Account { username, password } => (username.clone(), password.clone()),
    };
    Ok(Json(json!({
        "username": username, "password": password, "uris": turn.uris, "ttl": turn.lifetime_s
    })))
}

fn timed(secret: &str, user_id: &UserId, until_s: u64) -> (String, String) {
    let username = format!("{until_s}:{user_id}");
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("a mac takes keys of any length");
    mac.update(username.as_bytes());
    let password = Base64::<ruma::serde::base64::Standard, _>::new(mac.finalize().into_bytes().to_vec());
    // With padding, as the TURN server compares texts.
    let mut password = password.encode();
    password.extend(std::iter::repeat_n('=', (4 - password.len() % 4) % 4));
    (username, password)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn the_password_is_the_mac_of_the_username() {
        let (username, password) = timed("secret", user_id!("@user:example.com"), 1_443_779_631);
        assert_eq!(username, "1443779631:@user:example.com");
        assert_eq!(password.len(), 28);
        assert!(password.ends_with('='));
        assert_ne!(timed("other", user_id!("@user:example.com"), 1_443_779_631).1, password);
    }
}
