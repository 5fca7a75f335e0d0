//! Administration, reports, registration tokens, registration by shared secret.

use hmac::{Hmac, Mac};
use myelin_store::tables::REPORTS;
use myelin_users::{RegistrationMode, registration_tokens::NewRegistrationToken};
use serde_json::json;

use crate::world::World;

#[test]
fn whois_is_for_oneself_and_for_administrators() {
    let world = World::new();
    let (alice, bob, admin) = (world.user("alice"), world.user("bob"), world.admin("root"));
    let path = "/_matrix/client/v3/admin/whois/@alice:localhost";
    for token in [&alice, &admin] {
        let answer = world.get(path, Some(token)).ok();
        assert_eq!(answer["user_id"], "@alice:localhost");
        let devices = answer["devices"].as_object().unwrap();
        let connection = &devices.values().next().unwrap()["sessions"][0]["connections"][0];
        assert!(connection["last_seen"].is_u64(), "{answer}");
    }
    assert_eq!(world.get(path, Some(&bob)).error(), (403, "M_FORBIDDEN"));
    let nobody = "/_matrix/client/v3/admin/whois/@nobody:localhost";
    assert_eq!(world.get(nobody, Some(&admin)).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn locking_and_suspending() {
    let world = World::new();
    let (alice, admin) = (world.user("alice"), world.admin("root"));
    world.admin("other");
    for (action, key) in [("lock", "locked"), ("suspend", "suspended")] {
        let path = |user: &str| format!("/_matrix/client/v1/admin/{action}/{user}");
        let target = path("@alice:localhost");
        let on = json!({ key: true });
        assert_eq!(world.get(&target, Some(&admin)).ok(), json!({ key: false }));
        assert_eq!(world.put(&target, Some(&alice), &on).error(), (403, "M_FORBIDDEN"));
        assert_eq!(world.put(&target, Some(&admin), &on).ok(), on);
        assert_eq!(world.get(&target, Some(&admin)).ok(), on);
        assert_eq!(world.put(&target, Some(&admin), &json!({ key: false })).status, 200);
        for (user, error) in [
            ("@nobody:localhost", (404, "M_NOT_FOUND")),
            ("@alice:elsewhere.org", (400, "M_INVALID_PARAM")),
            ("@other:localhost", (403, "M_FORBIDDEN")),
            ("@root:localhost", (403, "M_FORBIDDEN")),
        ] {
            assert_eq!(world.put(&path(user), Some(&admin), &on).error(), error, "{user}");
        }
        assert_eq!(world.put(&target, Some(&admin), &json!({})).error(), (400, "M_BAD_JSON"));
    }
}

#[test]
fn reports_of_what_does_not_exist() {
    let world = World::new();
    let token = world.user("alice");
    let reason = json!({ "reason": "spam" });
    for path in [
        "/_matrix/client/v3/rooms/!nowhere:localhost/report",
        "/_matrix/client/v3/rooms/!nowhere:localhost/report/$event",
        "/_matrix/client/v3/users/@nobody:localhost/report",
    ] {
        assert_eq!(world.post(path, Some(&token), &reason).error(), (404, "M_NOT_FOUND"), "{path}");
    }
    let path = "/_matrix/client/v3/users/@alice:localhost/report";
    assert_eq!(world.post(path, Some(&token), &json!({})).error(), (400, "M_BAD_JSON"));
    assert_eq!(world.post(path, Some(&token), &reason).ok(), json!({}));
}

#[test]
fn an_event_is_reported_by_who_is_in_its_room() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room_id, event_id) = world.room_with_message(&alice);
    let (other_room, _) = world.room_with_message(&alice);
    let path = |room: &str| format!("/_matrix/client/v3/rooms/{room}/report/{event_id}");
    let report = json!({ "reason": "spam", "score": -100 });
    assert_eq!(world.post(&path(&room_id), Some(&alice), &report).ok(), json!({}));
    assert_eq!(world.post(&path(&room_id), Some(&alice), &json!({})).ok(), json!({}));
    assert_eq!(world.post(&path(&room_id), Some(&bob), &report).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.post(&path(&other_room), Some(&alice), &report).error(), (404, "M_NOT_FOUND"));
    let path = format!("/_matrix/client/v3/rooms/{room_id}/report");
    assert_eq!(world.post(&path, Some(&bob), &report).ok(), json!({}));
    let stored = world.sim.block_on(world.view.store.read().all(&REPORTS, 10)).unwrap();
    assert_eq!(stored.iter().filter(|(_, report)| report.event.is_some()).count(), 2);
    assert_eq!(stored.len(), 3);
}

#[test]
fn validity_of_registration_tokens() {
    let path = "/_matrix/client/v1/register/m.login.registration_token/validity?token=";
    let closed = World::new();
    assert_eq!(closed.get(&format!("{path}x"), None).error(), (403, "M_FORBIDDEN"));

    let world = World::with_users(|config| config.registration = RegistrationMode::Token);
    let new = world.users.create_registration_token(NewRegistrationToken::default());
    let token = world.sim.block_on(new).unwrap().token;
    assert_eq!(world.get(&format!("{path}{token}"), None).ok(), json!({ "valid": true }));
    assert_eq!(world.get(&format!("{path}nonsense"), None).ok(), json!({ "valid": false }));
}

const SECRET_REGISTER: &str = "/_synapse/admin/v1/register";

#[test]
fn registration_by_shared_secret() {
    let world = World::with_users(|config| config.shared_secret = Some("secret".to_owned()));
    let nonce = world.get(SECRET_REGISTER, None).ok()["nonce"].as_str().unwrap().to_owned();
    let request = signed(&nonce, "secret");
    let answer = world.post(SECRET_REGISTER, None, &request).ok();
    assert_eq!(
        (&answer["user_id"], &answer["home_server"]),
        (&json!("@boss:localhost"), &json!("localhost"))
    );
    let token = answer["access_token"].as_str().unwrap();
    world.get("/_matrix/client/v1/admin/lock/@boss:localhost", Some(token)).error();
    let whois = world.get("/_matrix/client/v3/admin/whois/@boss:localhost", Some(token)).ok();
    assert!(whois["devices"][answer["device_id"].as_str().unwrap()].is_object());

    assert_eq!(world.post(SECRET_REGISTER, None, &request).error(), (400, "M_UNKNOWN"), "the nonce is used");
    let nonce = world.get(SECRET_REGISTER, None).ok()["nonce"].as_str().unwrap().to_owned();
    assert_eq!(world.post(SECRET_REGISTER, None, &signed(&nonce, "wrong")).error(), (403, "M_UNKNOWN"));
    assert_eq!(World::new().get(SECRET_REGISTER, None).error(), (400, "M_UNKNOWN"), "it is off");
}

fn signed(nonce: &str, secret: &str) -> serde_json::Value {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update([nonce, "boss", "pass", "admin"].join("\0").as_bytes());
    let mac: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "nonce": nonce, "username": "boss", "password": "pass", "admin": true, "mac": mac })
}
