//! Keys, cross-signing, to-device messages, backups.

use http::Method;
use myelin_dag::SigningKey;
use ruma::CanonicalJsonObject;
use serde_json::{Value, json};

use super::{
    super::{
        call::Call,
        place::{Person, Place, text},
    },
    Row,
};

const NEW_ALGORITHMS: &str = "what keys are encrypted with is between the clients of a user";
const ANY_ROOM: &str = "!old:here.test";

pub const ROWS: &[Row] = &[
    ("uploadKeys", |at| {
        let one_time = signed_key(&at.alice, "one-time");
        let fallback = signed_key(&at.alice, "fallback");
        at.call().json(json!({
            "device_keys": device_keys(&at.alice),
            "one_time_keys": { "signed_curve25519:AAAAAQ": one_time },
            "fallback_keys": { "signed_curve25519:AAAAAg": fallback },
        }))
    }),
    ("queryKeys", |at| {
        uploads(at);
        at.call().json(json!({ "timeout": 10_000, "device_keys": { at.bob.id.clone(): [at.bob.device] } }))
    }),
    ("claimKeys", |at| {
        uploads(at);
        let wanted = json!({ at.bob.id.clone(): { at.bob.device.clone(): "signed_curve25519" } });
        at.call().json(json!({ "timeout": 10_000, "one_time_keys": wanted }))
    }),
    ("getKeysChanges", |at| {
        let since = text(&at.gets(&at.alice, "v3/sync?set_presence=offline")["next_batch"]);
        uploads(at);
        let now = text(&at.gets(&at.alice, "v3/sync?set_presence=offline")["next_batch"]);
        at.call().query("from", &since).query("to", &now)
    }),
    ("uploadCrossSigningKeys", |at| at.call().json(cross_signing(at))),
    ("uploadCrossSigningSignatures", |at| {
        let whole = cross_signing(at);
        at.does(&at.alice, Method::POST, "v3/keys/device_signing/upload", whole);
        let mut keys = device_keys(&at.alice);
        at.does(&at.alice, Method::POST, "v3/keys/upload", json!({ "device_keys": keys }));
        let key = key(3);
        sign(&mut keys, &at.alice.id, &key.public_key_base64(), &key);
        at.call().json(json!({ at.alice.id.clone(): { at.alice.device.clone(): keys } }))
    }),
    ("sendToDevice", |at| {
        let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        let messages = json!({ at.bob.id.clone(): { "*": content } });
        at.call().path("eventType", "m.dummy").json(json!({ "messages": messages }))
    }),
    // Backups.
    ("postRoomKeysVersion", |at| at.call().json(backup()).lenient("an unknown algorithm", NEW_ALGORITHMS)),
    ("getRoomKeysVersionCurrent", |at| stored(at, at.call(), false)),
    ("getRoomKeysVersion", |at| stored(at, at.call(), false)),
    ("putRoomKeysVersion", |at| stored(at, at.call(), false).json(backup())),
    ("deleteRoomKeysVersion", |at| stored(at, at.call(), false)),
    ("putRoomKeyBySessionId", |at| stored(at, at.call(), true).json(session())),
    ("getRoomKeyBySessionId", |at| stored(at, at.call(), true)),
    ("deleteRoomKeyBySessionId", |at| stored(at, at.call(), true)),
    ("putRoomKeysByRoomId", |at| {
        stored(at, at.call(), true).json(json!({ "sessions": { "session": session() } }))
    }),
    ("getRoomKeysByRoomId", |at| stored(at, at.call(), true)),
    ("deleteRoomKeysByRoomId", |at| stored(at, at.call(), true)),
    ("putRoomKeys", |at| {
        let rooms = json!({ ANY_ROOM: { "sessions": { "session": session() } } });
        stored(at, at.call(), true).json(json!({ "rooms": rooms }))
    }),
    ("getRoomKeys", |at| stored(at, at.call(), true)),
    ("deleteRoomKeys", |at| stored(at, at.call(), true)),
];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("1", [seed; 32]).expect("a key from a seed")
}

fn sign(object: &mut Value, user_id: &str, key_id: &str, key: &SigningKey) {
    let mut canonical: CanonicalJsonObject = serde_json::from_value(object.clone()).expect("canonical JSON");
    canonical.remove("signatures");
    let signature = key.sign(serde_json::to_string(&canonical).expect("text").as_bytes());
    object["signatures"] = json!({ user_id: { format!("ed25519:{key_id}"): signature } });
}

fn device_keys(person: &Person) -> Value {
    let (curve, ed) = (format!("curve25519:{}", person.device), format!("ed25519:{}", person.device));
    let mut keys = json!({
        "user_id": person.id,
        "device_id": person.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { curve: key(9).public_key_base64(), ed: key(1).public_key_base64() },
    });
    sign(&mut keys, &person.id, &person.device, &key(1));
    keys
}

fn signed_key(person: &Person, name: &str) -> Value {
    let mut one_time = json!({ "key": format!("{name}+key+of+{}", person.device) });
    if name == "fallback" {
        one_time["fallback"] = true.into();
    }
    sign(&mut one_time, &person.id, &person.device, &key(1));
    one_time
}

/// Bob's device has keys.
fn uploads(at: &Place) {
    let keys = json!({
        "device_keys": device_keys(&at.bob),
        "one_time_keys": { "signed_curve25519:AAAAAQ": signed_key(&at.bob, "one-time") },
    });
    at.does(&at.bob, Method::POST, "v3/keys/upload", keys);
}

/// The three keys of Alice, signed as they have to be.
fn cross_signing(at: &Place) -> Value {
    let made = |usage: &str, own: u8| {
        let public = key(own).public_key_base64();
        let mut made = json!({ "user_id": at.alice.id, "usage": [usage], "keys": { format!("ed25519:{public}"): public } });
        if own != 2 {
            sign(&mut made, &at.alice.id, &key(2).public_key_base64(), &key(2));
        }
        made
    };
    json!({
        "master_key": made("master", 2),
        "self_signing_key": made("self_signing", 3),
        "user_signing_key": made("user_signing", 4),
        "auth": at.password("alice"),
    })
}

fn backup() -> Value {
    let auth_data = json!({ "public_key": "abcdefg", "signatures": {} });
    json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": auth_data })
}

fn session() -> Value {
    let data = json!({ "ephemeral": "base64", "ciphertext": "base64", "mac": "base64" });
    json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": false, "session_data": data })
}

/// A backup with one key in it; the room is long gone.
fn stored(at: &Place, call: Call, named: bool) -> Call {
    let version = text(&at.does(&at.alice, Method::POST, "v3/room_keys/version", backup())["version"]);
    let rooms = json!({ "rooms": { ANY_ROOM: { "sessions": { "session": session() } } } });
    at.does(&at.alice, Method::PUT, &format!("v3/room_keys/keys?version={version}"), rooms);
    let call =
        call.path("version", &version).path("roomId", ANY_ROOM).path("sessionId", "session").any_room();
    if named { call.query("version", &version) } else { call }
}
