//! Push rules, pushers and notifications over HTTP.

use http::Method;
use serde_json::{Value, json};

use crate::world::World;

const RULES: &str = "/_matrix/client/v3/pushrules/global";

#[test]
fn rules_are_added_changed_and_deleted() {
    let world = World::new();
    let token = world.user("alice");
    let (auth, rule) = (Some(token.as_str()), format!("{RULES}/content/tea"));
    assert_eq!(world.get(&rule, auth).error(), (404, "M_NOT_FOUND"));
    world.put(&rule, auth, &json!({ "pattern": "tea", "actions": ["notify"] })).ok();
    let expected = json!({
        "rule_id": "tea", "default": false, "enabled": true, "pattern": "tea", "actions": ["notify"],
    });
    assert_eq!(world.get(&rule, auth).ok(), expected);
    world.put(&format!("{rule}/enabled"), auth, &json!({ "enabled": false })).ok();
    assert_eq!(world.get(&format!("{rule}/enabled"), auth).ok(), json!({ "enabled": false }));
    let actions = json!({ "actions": ["notify", { "set_tweak": "sound", "value": "bing" }] });
    world.put(&format!("{rule}/actions"), auth, &actions).ok();
    assert_eq!(world.get(&format!("{rule}/actions"), auth).ok(), actions);
    let before = json!({ "pattern": "time", "actions": [] });
    world.put(&format!("{RULES}/content/time?after=tea"), auth, &before).ok();
    let all = world.get(&format!("{RULES}/"), auth).ok();
    let ids: Vec<_> = all["content"].as_array().unwrap().iter().map(|rule| &rule["rule_id"]).collect();
    assert_eq!(ids, ["tea", "time"]);
    for kind in ["override", "content", "room", "sender", "underride"] {
        assert!(all[kind].is_array(), "{kind}");
    }
    world.request(Method::DELETE, &rule, auth, "").ok();
    assert_eq!(world.request(Method::DELETE, &rule, auth, "").error(), (404, "M_NOT_FOUND"));
}

#[test]
fn default_rules_can_be_changed_but_not_deleted() {
    let world = World::new();
    let token = world.user("alice");
    let (auth, rule) = (Some(token.as_str()), format!("{RULES}/underride/.m.rule.message"));
    world.put(&format!("{rule}/enabled"), auth, &json!({ "enabled": false })).ok();
    world.put(&format!("{rule}/actions"), auth, &json!({ "actions": ["dont_notify"] })).ok();
    let held = world.get(&rule, auth).ok();
    assert_eq!((&held["enabled"], &held["actions"]), (&json!(false), &json!([])));
    assert_eq!(world.request(Method::DELETE, &rule, auth, "").error(), (400, "M_INVALID_PARAM"));
    let sync = world.get("/_matrix/client/v3/sync?timeout=0", auth).ok();
    let events = sync["account_data"]["events"].as_array().unwrap();
    let rules = events.iter().find(|event| event["type"] == "m.push_rules").unwrap();
    let message = rules["content"]["global"]["underride"].as_array().unwrap();
    assert!(message.iter().any(|rule| rule["rule_id"] == ".m.rule.message" && rule["enabled"] == false));
}

#[test]
fn refused_rules() {
    let world = World::new();
    let token = world.user("alice");
    let auth = Some(token.as_str());
    let table: [(&str, Value, (u16, &str)); 8] = [
        ("override/.m.rule.own", json!({ "actions": [] }), (400, "M_INVALID_PARAM")),
        ("override/a%5Cb", json!({ "actions": [] }), (400, "M_INVALID_PARAM")),
        ("override/x", json!({}), (400, "M_BAD_JSON")),
        ("override/x", json!({ "actions": [7] }), (400, "M_INVALID_PARAM")),
        ("room/x", json!({ "actions": [] }), (400, "M_INVALID_PARAM")),
        ("content/x", json!({ "actions": [] }), (400, "M_INVALID_PARAM")),
        ("override/x?before=nobody", json!({ "actions": [] }), (400, "M_UNKNOWN")),
        ("device/x", json!({ "actions": [] }), (400, "M_UNRECOGNIZED")),
    ];
    for (path, body, expected) in table {
        assert_eq!(world.put(&format!("{RULES}/{path}"), auth, &body).error(), expected, "{path} {body}");
    }
    let missing = format!("{RULES}/override/none/enabled");
    assert_eq!(world.put(&missing, auth, &json!({ "enabled": true })).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.get(&missing, auth).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.get(&format!("{RULES}/"), None).error(), (401, "M_MISSING_TOKEN"));
}

fn pusher(with: &[(&str, Value)]) -> Value {
    let mut pusher = json!({
        "app_id": "org.example.app", "pushkey": "key", "kind": "http", "lang": "en",
        "app_display_name": "App", "device_display_name": "Phone", "profile_tag": "tag",
        "data": { "url": "https://push.example.org/_matrix/push/v1/notify", "format": "event_id_only" },
    });
    for (key, value) in with {
        pusher[*key] = value.clone();
    }
    pusher
}

#[test]
fn pushers_are_set_listed_and_deleted() {
    let world = World::new();
    let token = world.user("alice");
    let auth = Some(token.as_str());
    let pushers = || world.get("/_matrix/client/v3/pushers", auth).ok()["pushers"].clone();
    let set = |pusher: &Value| world.post("/_matrix/client/v3/pushers/set", auth, pusher);
    assert_eq!(pushers(), json!([]));
    set(&pusher(&[])).ok();
    assert_eq!(pushers(), json!([pusher(&[])]));
    set(&pusher(&[("lang", json!("de"))])).ok();
    assert_eq!(pushers(), json!([pusher(&[("lang", json!("de"))])]));
    let email = [("kind", json!("email")), ("app_id", json!("m.email")), ("pushkey", json!("a@example.org"))];
    set(&pusher(&email)).ok();
    assert_eq!(pushers().as_array().unwrap().len(), 2);
    set(&json!({ "app_id": "org.example.app", "pushkey": "key", "kind": null })).ok();
    assert_eq!(pushers().as_array().unwrap().len(), 1);
    // Somebody else logs in on the phone.
    let bob = world.user("bob");
    world.post("/_matrix/client/v3/pushers/set", Some(&bob), &pusher(&email)).ok();
    assert_eq!(pushers(), json!([]));
}

#[test]
fn refused_pushers() {
    let world = World::new();
    let token = world.user("alice");
    let with = |key: &'static str, value: Value| {
        let answer = world.post("/_matrix/client/v3/pushers/set", Some(&token), &pusher(&[(key, value)]));
        let (status, errcode) = answer.error();
        (status, errcode.to_owned())
    };
    let (invalid, missing) = ((400, "M_INVALID_PARAM".to_owned()), (400, "M_MISSING_PARAM".to_owned()));
    for url in [
        "http://push.example.org/_matrix/push/v1/notify",
        "https://push.example.org/other",
        "not a url",
        "https:///_matrix/push/v1/notify",
    ] {
        assert_eq!(with("data", json!({ "url": url })), invalid, "{url}");
    }
    assert_eq!(with("data", json!({})), missing);
    assert_eq!(with("lang", Value::Null), missing);
    assert_eq!(with("kind", json!("pigeon")), invalid);
    assert_eq!(with("kind", json!("email")), invalid, "of another app");
    assert_eq!(with("pushkey", json!("x".repeat(513))), invalid);
    assert_eq!(with("app_id", json!("x".repeat(65))), invalid);
    assert_eq!(with("lang", json!("x".repeat(256))), invalid);
    let without = json!({ "app_id": "a", "pushkey": "k" });
    let answer = world.post("/_matrix/client/v3/pushers/set", Some(&token), &without);
    assert_eq!(answer.error(), (400, "M_MISSING_PARAM"));
}

#[test]
fn notifications_are_listed() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room_id, _) = world.room_with_message(&alice);
    let invite = json!({ "user_id": "@bob:localhost" });
    world.post(&format!("/_matrix/client/v3/rooms/{room_id}/invite"), Some(&alice), &invite).ok();
    world.post(&format!("/_matrix/client/v3/join/{room_id}"), Some(&bob), &json!({})).ok();
    let send = |n: u32, content: Value| {
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/n{n}");
        world.put(&path, Some(&alice), &content).ok()["event_id"].clone()
    };
    send(1, json!({ "msgtype": "m.text", "body": "hello" }));
    let mention = json!({ "body": "bob", "m.mentions": { "user_ids": ["@bob:localhost"] } });
    let mention = send(2, mention);
    let list = |query: &str| world.get(&format!("/_matrix/client/v3/notifications{query}"), Some(&bob));
    let all = list("").ok();
    assert_eq!(all["notifications"].as_array().unwrap().len(), 2);
    assert_eq!(all["notifications"][0]["event"]["event_id"], mention);
    assert!(all["next_token"].is_null());
    let first = list("?limit=1").ok();
    let token = first["next_token"].as_str().unwrap();
    let second = list(&format!("?limit=1&from={token}")).ok();
    assert_eq!(second["notifications"][0]["event"]["content"]["body"], "hello");
    assert_eq!(list("?only=highlight").ok()["notifications"].as_array().unwrap().len(), 1);
    assert_eq!(list("?from=nonsense").error(), (400, "M_INVALID_PARAM"));
}
