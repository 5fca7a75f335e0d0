use myelin_users::{RegistrationMode, registration_tokens::NewRegistrationToken};
use serde_json::json;

use super::{open, text};
use crate::world::World;

const REGISTER: &str = "/_matrix/client/v3/register";

#[test]
fn a_client_registers_in_two_steps() {
    let world = open();
    let body = json!({ "username": "alice", "password": "pw", "initial_device_display_name": "phone" });
    let challenge = world.post(REGISTER, None, &body);
    assert_eq!(challenge.status, 401);
    assert_eq!(challenge.json["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert_eq!(challenge.json.get("errcode"), None);
    let mut full = body;
    full["auth"] = json!({ "type": "m.login.dummy", "session": challenge.json["session"] });
    let answer = world.post(REGISTER, None, &full).ok();
    assert_eq!(text(&answer, "user_id"), "@alice:localhost");
    assert_eq!(answer.get("refresh_token"), None);
    let whoami = world.whoami(text(&answer, "access_token")).ok();
    assert_eq!(whoami["device_id"], answer["device_id"]);
    assert_eq!((&whoami["user_id"], &whoami["is_guest"]), (&json!("@alice:localhost"), &json!(false)));
}

#[test]
fn a_client_registers_in_one_step() {
    let world = open();
    let body = json!({
        "username": "Alice", "password": "pw", "device_id": "D", "refresh_token": true,
        "auth": { "type": "m.login.dummy" },
    });
    let answer = world.post(REGISTER, None, &body).ok();
    assert_eq!((text(&answer, "user_id"), text(&answer, "device_id")), ("@alice:localhost", "D"));
    assert!(answer["refresh_token"].is_string() && answer["expires_in_ms"].is_u64());
    let quiet = json!({ "password": "pw", "inhibit_login": true, "auth": { "type": "m.login.dummy" } });
    let answer = world.post(REGISTER, None, &quiet).ok();
    assert_eq!((answer.get("access_token"), answer.get("device_id")), (None, None));
}

#[test]
fn clients_may_begin_with_an_empty_request_and_with_null() {
    let world = open();
    for body in [json!({}), json!({ "auth": null }), json!({ "auth": {} })] {
        let challenge = world.post(REGISTER, None, &body);
        assert_eq!((challenge.status.as_u16(), challenge.json["session"].is_string()), (401, true), "{body}");
    }
}

#[test]
fn refused_registrations() {
    let world = open();
    world.user("taken");
    let dummy = json!({ "type": "m.login.dummy" });
    for (body, error) in [
        (json!({ "username": "taken", "password": "pw" }), (400, "M_USER_IN_USE")),
        (json!({ "username": "_x", "password": "pw" }), (400, "M_INVALID_USERNAME")),
        (json!({ "username": "a b", "password": "pw" }), (400, "M_INVALID_USERNAME")),
        (json!({ "username": "x", "password": "" }), (400, "M_WEAK_PASSWORD")),
        (json!({ "username": "x", "auth": dummy }), (400, "M_MISSING_PARAM")),
        (json!({ "username": 7 }), (400, "M_BAD_JSON")),
        (
            json!({ "username": "x", "password": "pw", "auth": { "type": "m.login.sso" } }),
            (401, "M_UNRECOGNIZED"),
        ),
        (
            json!({ "username": "x", "password": "pw", "device_id": "", "auth": dummy }),
            (400, "M_INVALID_PARAM"),
        ),
    ] {
        assert_eq!(world.post(REGISTER, None, &body).error(), error, "{body}");
    }
    assert_eq!(world.post(&format!("{REGISTER}?kind=x"), None, &json!({})).error(), (400, "M_INVALID_PARAM"));
}

#[test]
fn closed_registration_is_forbidden() {
    let world = World::new();
    let body = json!({ "username": "a", "password": "pw", "auth": { "type": "m.login.dummy" } });
    assert_eq!(world.post(REGISTER, None, &body).error(), (403, "M_FORBIDDEN"));
}

#[test]
fn registration_with_a_token() {
    let world = World::with_users(|config| config.registration = RegistrationMode::Token);
    let new = NewRegistrationToken { uses_allowed: Some(1), ..NewRegistrationToken::default() };
    let token = world.sim.block_on(world.users.create_registration_token(new)).unwrap().token;
    let register = |name: &str, token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        world.post(REGISTER, None, &json!({ "username": name, "password": "pw", "auth": auth }))
    };
    let wrong = register("alice", "wrong");
    assert_eq!(wrong.error(), (401, "M_UNAUTHORIZED"));
    assert!(wrong.json["session"].is_string());
    register("alice", &token).ok();
    assert_eq!(register("bob", &token).error(), (401, "M_UNAUTHORIZED"));
}

#[test]
fn availability() {
    let world = World::new();
    world.user("taken");
    let available = |name: &str| world.get(&format!("{REGISTER}/available?username={name}"), None);
    assert_eq!(available("free").ok(), json!({ "available": true }));
    assert_eq!(available("taken").error(), (400, "M_USER_IN_USE"));
    assert_eq!(available("%40x").error(), (400, "M_INVALID_USERNAME"));
    assert_eq!(world.get(&format!("{REGISTER}/available"), None).error(), (400, "M_MISSING_PARAM"));
}

#[test]
fn guests() {
    let path = format!("{REGISTER}?kind=guest");
    assert_eq!(World::new().post(&path, None, &json!({})).error(), (403, "M_FORBIDDEN"));
    let world = World::with_users(|config| config.guests = true);
    let body =
        json!({ "initial_device_display_name": "web", "username": "x", "password": "y", "device_id": "D" });
    let answer = world.post(&path, None, &body).ok();
    let token = text(&answer, "access_token");
    assert_ne!(text(&answer, "device_id"), "D");
    assert_eq!(world.whoami(token).ok()["is_guest"], true);
    let profile = format!("/_matrix/client/v3/profile/{}", text(&answer, "user_id"));
    let name = json!({ "displayname": "Visitor" });
    world.put(&format!("{profile}/displayname"), Some(token), &name).ok();
    let avatar = json!({ "avatar_url": "mxc://x.org/a" });
    let refused = world.put(&format!("{profile}/avatar_url"), Some(token), &avatar);
    assert_eq!(refused.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    let refused = world.post("/_matrix/client/v3/user_directory/search", Some(token), &json!({}));
    assert_eq!(refused.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
}

#[test]
fn a_guest_becomes_a_user() {
    let world = World::with_users(|config| {
        config.guests = true;
        config.registration = RegistrationMode::Open;
    });
    let guest = world.post(&format!("{REGISTER}?kind=guest"), None, &json!({})).ok();
    let token = text(&guest, "access_token");
    let localpart = text(&guest, "user_id").strip_prefix('@').unwrap().strip_suffix(":localhost").unwrap();
    let register = |username: &str, token: &str| {
        let auth = json!({ "type": "m.login.dummy" });
        let body =
            json!({ "username": username, "password": "pw", "guest_access_token": token, "auth": auth });
        world.post(REGISTER, None, &body)
    };
    assert_eq!(register("alice", token).error(), (403, "M_FORBIDDEN"));
    assert_eq!(register(localpart, "x").error(), (401, "M_UNKNOWN_TOKEN"));
    let user = register(localpart, token).ok();
    assert_eq!(user["user_id"], guest["user_id"]);
    assert_eq!(world.whoami(token).ok()["is_guest"], false);
}
