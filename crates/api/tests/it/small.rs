//! The small endpoints: versions, well-known, health, capabilities, push rules.

use myelin_api::{
    Serves,
    config::{SupportContact, Turn, TurnCredentials},
};
use myelin_core::{Position, RoomNid};
use myelin_store::{
    Batch,
    codec::AtPosition,
    tables::{ACCOUNT_DATA, AccountDataRecord},
};
use serde_json::json;

use crate::world::World;

#[test]
fn versions() {
    let versions = World::new().get("/_matrix/client/versions", None).ok();
    let listed: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    for version in ["r0.6.1", "v1.1", "v1.11"] {
        assert!(listed.contains(&version), "{version}");
    }
}

#[test]
fn well_known_documents_are_there_when_there_is_something_to_say() {
    let world = World::new();
    for name in ["client", "server", "support", "policy_server"] {
        assert_eq!(world.get(&format!("/.well-known/matrix/{name}"), None).error(), (404, "M_NOT_FOUND"));
    }
    let world = World::with(|config| {
        config.well_known.client_base_url = Some("https://m.example.org".to_owned());
        config.well_known.server = Some("m.example.org:443".to_owned());
        config.well_known.support_contacts = vec![SupportContact {
            role: "m.role.admin".to_owned(),
            matrix_id: None,
            email_address: Some("admin@example.org".to_owned()),
        }];
    });
    let get = |name: &str| world.get(&format!("/.well-known/matrix/{name}"), None).ok();
    assert_eq!(get("client"), json!({ "m.homeserver": { "base_url": "https://m.example.org" } }));
    assert_eq!(get("server"), json!({ "m.server": "m.example.org:443" }));
    let contact = json!({ "role": "m.role.admin", "email_address": "admin@example.org" });
    assert_eq!(get("support"), json!({ "contacts": [contact] }));
}

#[test]
fn health() {
    let world = World::new();
    assert_eq!(world.get("/_myelin/health/live", None).ok(), json!({ "status": "live" }));
    assert_eq!(world.get("/_myelin/health/ready", None).ok(), json!({ "status": "ready" }));
}

#[test]
fn capabilities_depend_on_who_asks() {
    let world = World::new();
    let get =
        |token: &str| world.get("/_matrix/client/v3/capabilities", Some(token)).ok()["capabilities"].clone();
    let (alice, admin) = (get(&world.user("alice")), get(&world.admin("root")));
    assert_eq!(alice["m.room_versions"]["default"], "12");
    assert_eq!(alice["m.room_versions"]["available"]["12"], "stable");
    assert!(alice["m.account_moderation"].is_null());
    assert_eq!(admin["m.account_moderation"], json!({ "suspend": true, "lock": true }));
}

#[test]
fn push_rules_are_the_default_ones() {
    let world = World::new();
    let token = world.user("alice");
    let all = world.get("/_matrix/client/v3/pushrules/", Some(&token)).ok();
    let global = world.get("/_matrix/client/v3/pushrules/global/", Some(&token)).ok();
    assert_eq!(all["global"], global);
    let rules = |kind: &str| {
        global[kind].as_array().unwrap().iter().map(|r| r["rule_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(rules("override")[0], ".m.rule.master");
    assert!(rules("underride").contains(&json!(".m.rule.message")));
}

#[test]
fn stored_push_rules_are_kept_and_completed() {
    let world = World::new();
    let token = world.user("alice");
    let rule = json!({
        "rule_id": "!quiet:localhost",
        "default": false,
        "enabled": true,
        "actions": [],
    });
    let json = json!({ "global": { "room": [rule] } }).to_string();
    world.sim.block_on(async {
        let user = world.users.session(&token).await.unwrap().user;
        let key = (user, RoomNid::GLOBAL, "m.push_rules".to_owned());
        let mut batch = Batch::new();
        let value = AccountDataRecord { json };
        batch.put(&ACCOUNT_DATA, &key, &AtPosition { position: Position(1), value });
        world.view.store.commit(batch).await.unwrap();
    });
    let global = world.get("/_matrix/client/v3/pushrules/global/", Some(&token)).ok();
    assert_eq!(global["room"][0]["rule_id"], "!quiet:localhost");
    assert_eq!(global["override"][0]["rule_id"], ".m.rule.master");
}

#[test]
fn state_after_comes_under_the_name_it_was_asked_by() {
    let world = World::new();
    let token = world.user("alice");
    let (room_id, _) = world.room_with_message(&token);
    let keys = |query: &str| {
        let answer = world.get(&format!("/_matrix/client/v3/sync?timeout=0&{query}"), Some(&token)).ok();
        let room = answer["rooms"]["join"][&room_id].as_object().unwrap().clone();
        let keys = room.keys().filter(|key| key.contains("state")).cloned();
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(""), ["state"]);
    assert_eq!(keys("use_state_after=true"), ["state_after"]);
    let unstable = "org.matrix.msc4222.use_state_after=true";
    assert_eq!(keys(unstable), ["org.matrix.msc4222.state_after"]);
    assert_eq!(keys(&format!("use_state_after=true&{unstable}")), ["state_after"]);
}

#[test]
fn federation_version() {
    let version = World::new().get("/_matrix/federation/v1/version", None).ok();
    assert_eq!(version["server"]["name"], "Myelin");
}

#[test]
fn no_turn_server() {
    let world = World::new();
    let token = world.user("alice");
    assert_eq!(world.get("/_matrix/client/v3/voip/turnServer", Some(&token)).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn calls_get_what_is_configured() {
    const TURN: &str = "/_matrix/client/v3/voip/turnServer";
    const TRANSPORTS: &str = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
    let world = World::new();
    let alice = world.user("alice");
    assert_eq!(world.get(TURN, Some(&alice)).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.get(TRANSPORTS, Some(&alice)).ok(), json!({ "rtc_transports": [] }));
    let with = |credentials| {
        let world = World::with(|config| {
            config.well_known.client_base_url = Some("https://m.example.org".to_owned());
            config.well_known.policy_server_key = Some("key".to_owned());
            config.livekit_services = vec!["https://livekit.example.org/".to_owned()];
            let uris = vec!["turn:turn.example.org".to_owned()];
            config.turn = Some(Turn { uris, credentials, lifetime_s: 600 });
        });
        let alice = world.user("alice");
        (world, alice)
    };
    let (world, alice) = with(TurnCredentials::Secret("secret".to_owned()));
    let answer = world.get(TURN, Some(&alice)).ok();
    assert_eq!((&answer["ttl"], &answer["uris"]), (&json!(600), &json!(["turn:turn.example.org"])));
    let until_s = world.sim.env().now_ms() / 1000 + 600;
    assert_eq!(answer["username"], format!("{until_s}:@alice:localhost"));
    assert_eq!(world.get(TURN, None).error(), (401, "M_MISSING_TOKEN"));
    let transport = json!({ "type": "livekit", "livekit_service_url": "https://livekit.example.org/" });
    assert_eq!(world.get(TRANSPORTS, Some(&alice)).ok(), json!({ "rtc_transports": [transport] }));
    let known = world.get("/.well-known/matrix/client", None).ok();
    assert_eq!(known["org.matrix.msc4143.rtc_foci"], json!([transport]));
    let policy = world.get("/.well-known/matrix/policy_server", None).ok();
    assert_eq!(policy, json!({ "public_keys": { "ed25519": "key" } }));

    let account = TurnCredentials::Account { username: "u".to_owned(), password: "p".to_owned() };
    let (world, alice) = with(account);
    let answer = world.get(TURN, Some(&alice)).ok();
    assert_eq!((&answer["username"], &answer["password"]), (&json!("u"), &json!("p")));
}

#[test]
fn servers_find_the_delegate_on_listeners_that_are_for_them_alone() {
    let world = World::with(|config| config.well_known.server = Some("matrix.example.org:443".to_owned()));
    let nothing = Serves { client: false, federation: false, admin: false, metrics: false };
    let path = "/.well-known/matrix/server";
    let world = world.serving(Serves { federation: true, ..nothing });
    assert_eq!(world.get(path, None).ok(), json!({ "m.server": "matrix.example.org:443" }));
    assert_eq!(world.get("/.well-known/matrix/client", None).error(), (404, "M_UNRECOGNIZED"));
    let world = world.serving(Serves { client: true, ..nothing });
    assert_eq!(world.get(path, None).ok(), json!({ "m.server": "matrix.example.org:443" }));
    let world = world.serving(Serves { metrics: true, ..nothing });
    assert_eq!(world.get(path, None).error(), (404, "M_UNRECOGNIZED"));
}
