//! `GET /_matrix/client/v3/pushrules/` and `/pushrules/global/` (Client-Server API, "Push Rules: API"): the server's
//! default rules, with what the user has stored as `m.push_rules` on top. Changing rules is not served yet.

use axum::{Router, extract::State, routing::get};
use myelin_core::RoomNid;
use myelin_store::{Store, tables::ACCOUNT_DATA};
use ruma::push::Ruleset;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiError, AppState, Session, extract::Auth, respond::Json};

pub(super) const PUSH_RULES: &str = "m.push_rules";

/// `m.push_rules` account data.
#[derive(Deserialize)]
struct PushRules {
    global: Ruleset,
}

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/pushrules", get(all))
        .route("/_matrix/client/v3/pushrules/", get(all))
        .route("/_matrix/client/v3/pushrules/global", get(global))
        .route("/_matrix/client/v3/pushrules/global/", get(global))
}

async fn all(auth: Auth, State(store): State<Store>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "global": load(&store, &auth).await? })))
}

async fn global(auth: Auth, State(store): State<Store>) -> Result<Json<Ruleset>, ApiError> {
    load(&store, &auth).await.map(Json)
}

pub(super) async fn load(store: &Store, session: &Session) -> Result<Ruleset, ApiError> {
    let defaults = Ruleset::server_default(&session.user_id);
    let key = (session.user, RoomNid::GLOBAL, PUSH_RULES.to_owned());
    let stored = store.get(&ACCOUNT_DATA, &key).await?;
    let stored = stored.and_then(|row| serde_json::from_str::<PushRules>(&row.value.json).ok());
    Ok(match stored {
        Some(PushRules { mut global }) => {
            global.update_with_server_default(defaults);
            global
        }
        None => defaults,
    })
}
