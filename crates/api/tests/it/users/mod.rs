//! Accounts and what belongs to them.

mod data;
mod devices;
mod keys;
mod profile;
mod registration;
mod rooms;
mod sessions;

use myelin_users::RegistrationMode;
use serde_json::{Value, json};

use crate::world::{Answer, World};

fn open() -> World {
    World::with_users(|config| config.registration = RegistrationMode::Open)
}

impl World {
    fn delete(&self, path: &str, token: &str, json: &Value) -> Answer {
        self.request(http::Method::DELETE, path, Some(token), json.to_string())
    }

    fn login(&self, body: &Value) -> Answer {
        self.post("/_matrix/client/v3/login", None, body)
    }

    /// Logs in with the password that `World::user` gives.
    fn log_in_as(&self, name: &str, device_id: &str) -> Value {
        self.login(&json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": name },
            "password": format!("{name}'s password"),
            "device_id": device_id,
        }))
        .ok()
    }

    fn whoami(&self, token: &str) -> Answer {
        self.get("/_matrix/client/v3/account/whoami", Some(token))
    }
}

fn text<'a>(answer: &'a Value, key: &str) -> &'a str {
    answer[key].as_str().unwrap_or_else(|| panic!("no '{key}' in {answer}"))
}

/// `auth` with the password of `name`.
fn password_of(name: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": name },
        "password": format!("{name}'s password"),
    })
}
