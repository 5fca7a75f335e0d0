use myelin_dag::SigningKey;
use serde_json::{Value, json};

use super::{password_of, text};
use crate::world::World;

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";
const SIGNING: &str = "/_matrix/client/v3/keys/device_signing/upload";
const SIGNATURES: &str = "/_matrix/client/v3/keys/signatures/upload";
const ALICE: &str = "@alice:localhost";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("1", [seed; 32]).unwrap()
}

fn sign(object: &mut Value, key_id: &str, key: &SigningKey) {
    let canonical: ruma::CanonicalJsonObject = serde_json::from_value(object.clone()).unwrap();
    let signature = key.sign(serde_json::to_string(&canonical).unwrap().as_bytes());
    object["signatures"] = json!({ ALICE: { format!("ed25519:{key_id}"): signature } });
}

fn cross_signing_key(usage: &str, key: &SigningKey) -> Value {
    let public = key.public_key_base64();
    json!({ "user_id": ALICE, "usage": [usage], "keys": { format!("ed25519:{public}"): public } })
}

#[test]
fn what_is_wrong_with_uploaded_keys_is_said() {
    let world = World::new();
    world.user("alice");
    let login = world.log_in_as("alice", "PHONE");
    let token = text(&login, "access_token");
    let upload = |body: Value| world.post(UPLOAD, Some(token), &body);
    let answer = upload(json!({})).ok();
    assert_eq!(answer, json!({ "one_time_key_counts": {} }));
    let mut keys = json!({
        "user_id": ALICE, "device_id": "PHONE", "algorithms": [],
        "keys": { "ed25519:PHONE": key(1).public_key_base64() },
    });
    assert_eq!(upload(json!({ "device_keys": keys })).error(), (400, "M_INVALID_SIGNATURE"));
    sign(&mut keys, "PHONE", &key(1));
    upload(json!({ "device_keys": keys })).ok();
    keys["device_id"] = json!("OTHER");
    assert_eq!(upload(json!({ "device_keys": keys })).error(), (400, "M_INVALID_PARAM"));
    upload(json!({ "one_time_keys": { "a:1": "x" } })).ok();
    let refused = upload(json!({ "one_time_keys": { "a:1": "y" } }));
    assert_eq!(refused.error(), (400, "M_UNKNOWN"));
    assert!(text(&refused.json, "error").contains("already exists"), "{}", refused.json);
    assert_eq!(upload(json!({ "one_time_keys": { "a": "y" } })).error(), (400, "M_INVALID_PARAM"));
}

#[test]
fn cross_signing_keys_are_replaced_with_the_password_only() {
    let world = World::new();
    let token = world.user("alice");
    let upload = |body: &Value| world.post(SIGNING, Some(&token), body);
    let (master, other) = (cross_signing_key("master", &key(1)), cross_signing_key("master", &key(2)));
    let mut signing = cross_signing_key("self_signing", &key(3));
    assert_eq!(upload(&json!({ "self_signing_key": signing })).error(), (400, "M_MISSING_PARAM"));
    let unsigned = json!({ "master_key": master, "self_signing_key": signing });
    assert_eq!(upload(&unsigned).error(), (400, "M_INVALID_SIGNATURE"));
    sign(&mut signing, &key(1).public_key_base64(), &key(1));
    let whole = json!({ "master_key": master, "self_signing_key": signing });
    assert_eq!(upload(&whole).ok(), json!({}));
    assert_eq!(upload(&whole).ok(), json!({}), "again");
    let mut new = json!({ "master_key": other });
    let challenge = upload(&new);
    assert_eq!(challenge.status, 401, "{}", challenge.json);
    new["auth"] = password_of("alice");
    new["auth"]["session"] = challenge.json["session"].clone();
    assert_eq!(upload(&new).ok(), json!({}));
    let asked = json!({ "device_keys": { ALICE: [], "@nobody:localhost": [] } });
    let answer = world.post("/_matrix/client/v3/keys/query", Some(&token), &asked).ok();
    assert_eq!(answer["master_keys"], json!({ ALICE: other }));
    assert_eq!(answer["device_keys"], json!({ ALICE: {} }));
    assert_eq!(answer["failures"], json!({}));
    assert_eq!(upload(&json!({ "master_key": {} })).status, 401, "it would replace the key, too");
}

#[test]
fn signatures_that_are_not_taken_are_listed() {
    let world = World::new();
    let token = world.user("alice");
    let signed = json!({ ALICE: { "NONE": {} }, "@bob:localhost": { "NONE": {} } });
    let answer = world.post(SIGNATURES, Some(&token), &signed).ok();
    for user in [ALICE, "@bob:localhost"] {
        assert_eq!(answer["failures"][user]["NONE"]["errcode"], "M_NOT_FOUND", "{answer}");
    }
    assert_eq!(world.post(SIGNATURES, Some(&token), &json!({ "bob": {} })).error(), (400, "M_BAD_JSON"));
}

#[test]
fn malformed_messages_and_tokens_are_refused() {
    let world = World::new();
    let token = world.user("alice");
    let send = |body: Value| world.put("/_matrix/client/v3/sendToDevice/m.x/1", Some(&token), &body);
    assert_eq!(send(json!({})).error(), (400, "M_BAD_JSON"));
    assert_eq!(send(json!({ "messages": { "@bob:localhost": { "*": 1 } } })).error(), (400, "M_BAD_JSON"));
    let large = json!({ "messages": { "@bob:localhost": { "*": { "x": "x".repeat(70_000) } } } });
    assert_eq!(send(large).error(), (400, "M_BAD_JSON"));
    assert_eq!(send(json!({ "messages": {} })).ok(), json!({}));
    let changes = |query: &str| world.get(&format!("/_matrix/client/v3/keys/changes?{query}"), Some(&token));
    assert_eq!(changes("from=s1_1").error(), (400, "M_MISSING_PARAM"));
    assert_eq!(changes("from=x&to=s1_1").error(), (400, "M_INVALID_PARAM"));
    assert_eq!(changes("from=s0_0&to=s1_1").ok(), json!({ "changed": [], "left": [] }));
}
