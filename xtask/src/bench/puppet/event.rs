//! PDUs of room version 11, made and signed outside the server under test (Server-Server API, "Signing Events").

use base64::{Engine as _, engine::general_purpose};
use ed25519_dalek::Signer as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// The room version of all rooms in these workloads.
pub const ROOM_VERSION: &str = "11";
pub const KEY_ID: &str = "ed25519:puppet";

/// What a redaction leaves of the content (room version 11, "Redactions").
const KEPT_CONTENT: &[(&str, &[&str])] = &[
    ("m.room.member", &["membership"]),
    ("m.room.join_rules", &["join_rule", "allow"]),
    ("m.room.history_visibility", &["history_visibility"]),
    (
        "m.room.power_levels",
        &[
            "ban",
            "events",
            "events_default",
            "invite",
            "kick",
            "redact",
            "state_default",
            "users",
            "users_default",
        ],
    ),
];
const KEPT_FIELDS: &[&str] = &[
    "type",
    "room_id",
    "sender",
    "state_key",
    "hashes",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
];

/// A signed event and its id.
#[derive(Clone, Debug)]
pub struct Pdu {
    pub event_id: String,
    pub json: Value,
}

/// Where an event stands in its room.
pub struct Place<'a> {
    pub room_id: &'a str,
    pub prev_events: Vec<String>,
    pub auth_events: Vec<String>,
    pub depth: u64,
}

pub fn unpadded(bytes: &[u8]) -> String {
    general_purpose::STANDARD_NO_PAD.encode(bytes)
}

/// The object with a signature of the server `name` over its canonical form.
pub fn sign(object: Value, name: &str, key: &ed25519_dalek::SigningKey) -> Value {
    sign_as(object, name, KEY_ID, key)
}

/// The same for any entity and name of its key. serde_json keeps keys sorted.
pub fn sign_as(mut object: Value, name: &str, key_id: &str, key: &ed25519_dalek::SigningKey) -> Value {
    let signature = unpadded(&key.sign(object.to_string().as_bytes()).to_bytes());
    object["signatures"] = json!({ name: { key_id: signature } });
    object
}

/// Hashes, signs and names an event without those. `name` is the server of its sender.
pub fn seal(mut event: Value, name: &str, key: &ed25519_dalek::SigningKey) -> Pdu {
    event["hashes"] = json!({ "sha256": unpadded(&Sha256::digest(event.to_string())) });
    let redacted = redacted(&event);
    let hash = Sha256::digest(redacted.to_string());
    event["signatures"] = sign(redacted, name, key)["signatures"].take();
    let event_id = format!("${}", general_purpose::URL_SAFE_NO_PAD.encode(hash));
    Pdu { event_id, json: event }
}

/// The id of an event that was made elsewhere.
pub fn id_of(event: &Value) -> String {
    format!("${}", general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(redacted(event).to_string())))
}

fn redacted(event: &Value) -> Value {
    let mut kept: Map<String, Value> = KEPT_FIELDS
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), event.get(*field)?.clone())))
        .collect();
    let event_type = event["type"].as_str().unwrap_or_default();
    let content = match event_type {
        // All of it, since version 11.
        "m.room.create" => event["content"].clone(),
        _ => {
            let fields =
                KEPT_CONTENT.iter().find(|(name, _)| *name == event_type).map_or(&[][..], |(_, f)| f);
            fields.iter().filter_map(|f| Some(((*f).to_owned(), event["content"].get(*f)?.clone()))).collect()
        }
    };
    kept.insert("content".to_owned(), content);
    Value::Object(kept)
}
