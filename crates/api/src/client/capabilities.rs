//! `GET /_matrix/client/v3/capabilities` (Client-Server API, "Capabilities negotiation").

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::get};
use myelin_dag::room_version::{DEFAULT, SUPPORTED};
use myelin_users::Users;
use serde_json::{Value, json};

use crate::{AppState, Session, extract::Auth, respond::Json};

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/capabilities", get(capabilities))
}

async fn capabilities(auth: Auth, State(users): State<Arc<Users>>) -> Json<Value> {
    Json(json!({ "capabilities": of(&auth, users.mail().is_some()) }))
}

fn of(session: &Session, with_mail: bool) -> Value {
    let available: BTreeMap<_, _> = SUPPORTED.iter().map(|version| (version.as_str(), "stable")).collect();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.room_versions": { "default": DEFAULT.as_str(), "available": available },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": with_mail },
        "m.get_login_token": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
    });
    if session.admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    capabilities
}
