use std::time::Duration;

use serde_json::json;

use super::{password_of, text};
use crate::world::World;

#[test]
fn flows() {
    let flows = World::new().get("/_matrix/client/v3/login", None).ok();
    let types: Vec<_> = flows["flows"].as_array().unwrap().iter().map(|flow| text(flow, "type")).collect();
    assert_eq!(types, ["m.login.password", "m.login.token"]);
}

#[test]
fn ways_to_say_who_logs_in() {
    let world = World::new();
    world.user("alice");
    let identifier = |user: &str| json!({ "type": "m.id.user", "user": user });
    for body in [
        json!({ "identifier": identifier("alice") }),
        json!({ "identifier": identifier("@alice:localhost") }),
        json!({ "user": "alice" }),
        json!({ "user": "@alice:localhost" }),
    ] {
        let mut body = body;
        body["type"] = "m.login.password".into();
        body["password"] = "alice's password".into();
        let answer = world.login(&body).ok();
        assert_eq!(text(&answer, "user_id"), "@alice:localhost");
        assert_eq!(text(&answer, "home_server"), "localhost");
        world.whoami(text(&answer, "access_token")).ok();
    }
}

#[test]
fn refused_logins() {
    let world = World::new();
    world.user("alice");
    let alice = json!({ "type": "m.id.user", "user": "alice" });
    for (body, error) in [
        (json!({ "identifier": alice, "password": "wrong" }), (403, "M_FORBIDDEN")),
        (json!({ "user": "nobody", "password": "alice's password" }), (403, "M_FORBIDDEN")),
        (json!({ "identifier": { "type": "m.id.thirdparty" }, "password": "x" }), (400, "M_MISSING_PARAM")),
        (json!({ "identifier": { "type": "org.example" }, "password": "x" }), (400, "M_UNKNOWN")),
        (json!({ "identifier": { "type": "m.id.user" }, "password": "x" }), (400, "M_MISSING_PARAM")),
        (json!({ "password": "x" }), (400, "M_MISSING_PARAM")),
        (json!({ "identifier": alice }), (400, "M_MISSING_PARAM")),
        (json!({ "type": "m.login.token" }), (400, "M_MISSING_PARAM")),
        (json!({ "type": "m.login.token", "token": "x" }), (403, "M_FORBIDDEN")),
        (json!({ "type": "org.example" }), (400, "M_UNKNOWN")),
    ] {
        let mut body = body;
        if body.get("type").is_none() {
            body["type"] = "m.login.password".into();
        }
        assert_eq!(world.login(&body).error(), error, "{body}");
    }
    assert_eq!(world.login(&json!({})).error(), (400, "M_BAD_JSON"));
}

#[test]
fn guessing_is_slowed_down_by_account() {
    let world = World::with(|config| config.rate_limits.enabled = true);
    world.user("alice");
    let guess =
        || world.login(&json!({ "type": "m.login.password", "user": "alice", "password": "x" })).status;
    let answers: Vec<_> = (0..7).map(|_| guess().as_u16()).collect();
    assert_eq!(answers, [403, 403, 403, 403, 403, 429, 429]);
}

#[test]
fn logging_out() {
    let world = World::new();
    let first = world.user("alice");
    let second = world.log_in_as("alice", "SECOND");
    let second = text(&second, "access_token");
    world.post("/_matrix/client/v3/logout", Some(second), &json!({})).ok();
    let gone = world.whoami(second);
    assert_eq!((gone.error(), &gone.json["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(false)));
    world.whoami(&first).ok();
    let third = world.log_in_as("alice", "THIRD");
    world.post("/_matrix/client/v3/logout/all", Some(&first), &json!({})).ok();
    for token in [&first, text(&third, "access_token")] {
        assert_eq!(world.whoami(token).error(), (401, "M_UNKNOWN_TOKEN"));
    }
}

#[test]
fn refreshing() {
    let world = World::new();
    world.user("alice");
    let login = json!({
        "type": "m.login.password", "user": "alice", "password": "alice's password", "refresh_token": true,
    });
    let grant = world.login(&login).ok();
    let access_token = text(&grant, "access_token");
    let lifetime = Duration::from_millis(grant["expires_in_ms"].as_u64().unwrap());
    world.sim.clock().advance(lifetime);
    let expired = world.whoami(access_token);
    assert_eq!((expired.error(), &expired.json["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(true)));
    let refresh =
        |token: &str| world.post("/_matrix/client/v3/refresh", None, &json!({ "refresh_token": token }));
    let renewed = refresh(text(&grant, "refresh_token")).ok();
    assert_eq!(renewed.as_object().unwrap().len(), 3, "{renewed}");
    world.whoami(text(&renewed, "access_token")).ok();
    assert_eq!(refresh(text(&grant, "refresh_token")).error(), (401, "M_UNKNOWN_TOKEN"));
    refresh(text(&renewed, "refresh_token")).ok();
    let missing = world.post("/_matrix/client/v3/refresh", None, &json!({}));
    assert_eq!(missing.error(), (400, "M_MISSING_PARAM"));
}

#[test]
fn a_login_token_for_another_device() {
    let world = World::new();
    let token = world.user("alice");
    let path = "/_matrix/client/v1/login/get_token";
    let challenge = world.post(path, Some(&token), &json!({}));
    assert_eq!(
        (challenge.status.as_u16(), &challenge.json["flows"][0]["stages"][0]),
        (401, &json!("m.login.password"))
    );
    let made = world.post(path, Some(&token), &json!({ "auth": password_of("alice") })).ok();
    assert_eq!(made["expires_in_ms"], 120_000);
    let login = json!({ "type": "m.login.token", "token": made["login_token"], "device_id": "TV" });
    let answer = world.login(&login).ok();
    assert_eq!((text(&answer, "user_id"), text(&answer, "device_id")), ("@alice:localhost", "TV"));
    assert_eq!(world.login(&login).error(), (403, "M_FORBIDDEN"), "only once");
}

#[test]
fn a_locked_account() {
    let world = World::new();
    let token = world.user("alice");
    let user = world.sim.block_on(world.users.session(&token)).unwrap().user;
    world.sim.block_on(world.users.set_locked(user, true)).unwrap();
    let login = json!({ "type": "m.login.password", "user": "alice", "password": "alice's password" });
    for refused in [world.whoami(&token), world.login(&login)] {
        assert_eq!((refused.error(), &refused.json["soft_logout"]), ((401, "M_USER_LOCKED"), &json!(true)));
    }
    world.post("/_matrix/client/v3/logout", Some(&token), &json!({})).ok();
}

#[test]
fn changing_the_password() {
    let world = World::new();
    let token = world.user("alice");
    let other = world.log_in_as("alice", "OTHER");
    let path = "/_matrix/client/v3/account/password";
    let mut body = json!({ "new_password": "new" });
    assert_eq!(world.post(path, Some(&token), &body).status, 401);
    body["auth"] = password_of("alice");
    world.post(path, Some(&token), &body).ok();
    world.whoami(&token).ok();
    assert_eq!(world.whoami(text(&other, "access_token")).error(), (401, "M_UNKNOWN_TOKEN"));
    let old = json!({ "type": "m.login.password", "user": "alice", "password": "alice's password" });
    assert_eq!(world.login(&old).error(), (403, "M_FORBIDDEN"));
    let new = json!({ "type": "m.login.password", "user": "alice", "password": "new" });
    let other = world.login(&new).ok();
    let auth = json!({ "type": "m.login.password", "password": "new" });
    let keep = json!({ "new_password": "newer", "logout_devices": false, "auth": auth });
    world.post(path, Some(&token), &keep).ok();
    world.whoami(text(&other, "access_token")).ok();
    let weak = json!({ "new_password": "", "auth": { "type": "m.login.password", "password": "newer" } });
    assert_eq!(world.post(path, Some(&token), &weak).error(), (400, "M_WEAK_PASSWORD"));
}

#[test]
fn deactivating() {
    let world = World::new();
    let token = world.user("alice");
    let path = "/_matrix/client/v3/account/deactivate";
    let wrong = json!({ "auth": { "type": "m.login.password", "password": "x" } });
    assert_eq!(world.post(path, Some(&token), &wrong).error(), (401, "M_FORBIDDEN"));
    let body = json!({ "erase": true, "auth": password_of("alice") });
    let answer = world.post(path, Some(&token), &body).ok();
    assert_eq!(answer, json!({ "id_server_unbind_result": "success" }));
    assert_eq!(world.whoami(&token).error(), (401, "M_UNKNOWN_TOKEN"));
    let login = json!({ "type": "m.login.password", "user": "alice", "password": "alice's password" });
    assert_eq!(world.login(&login).error(), (403, "M_USER_DEACTIVATED"));
    let profile = world.get("/_matrix/client/v3/profile/@alice:localhost", None);
    assert_eq!(profile.error(), (404, "M_NOT_FOUND"));
}
