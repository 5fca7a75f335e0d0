//! `GET /_matrix/client/v3/capabilities` (Client-Server API, "Capabilities negotiation").

use std::collections::BTreeMap;

use axum::{Router, routing::get};
use serde_json::{Value, json};

use crate::{AppState, Session, extract::Auth, respond::Json};

/// Versions in which this server makes rooms; older ones are read, not made.
const ROOM_VERSIONS: [&str; 7] = ["6", "7", "8", "9", "10", "11", "12"];
const ROOM_VERSION_DEFAULT: &str = "12";

pub fn routes() -> Router<AppState> {
    Router::new().route("/_matrix/client/v3/capabilities", get(capabilities))
}

async fn capabilities(auth: Auth) -> Json<Value> {
    Json(json!({ "capabilities": of(&auth) }))
}

fn of(session: &Session) -> Value {
    let available: BTreeMap<_, _> = ROOM_VERSIONS.iter().map(|version| (version, "stable")).collect();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.room_versions": { "default": ROOM_VERSION_DEFAULT, "available": available },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
    });
    if session.admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    capabilities
}
