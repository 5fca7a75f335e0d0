use myelin_core::RoomNid;
use myelin_store::{Batch, tables::ROOM_NIDS};
use serde_json::json;

use super::text;
use crate::world::World;

const OWN: &str = "/_matrix/client/v3/user/@alice:localhost";
const ROOM: &str = "!room:localhost";

/// A room of which this server knows no more than its name.
fn with_room(world: &World) {
    let mut batch = Batch::new();
    batch.put(&ROOM_NIDS, &ROOM.to_owned(), &RoomNid(1));
    world.sim.block_on(world.view.store.commit(batch)).unwrap();
}

#[test]
fn account_data() {
    let world = World::new();
    let token = world.user("alice");
    with_room(&world);
    for path in [format!("{OWN}/account_data/org.x"), format!("{OWN}/rooms/{ROOM}/account_data/org.x")] {
        assert_eq!(world.get(&path, Some(&token)).error(), (404, "M_NOT_FOUND"));
        let content = json!({ "path": path });
        world.put(&path, Some(&token), &content).ok();
        assert_eq!(world.get(&path, Some(&token)).ok(), content);
    }
}

#[test]
fn refused_account_data() {
    let world = World::new();
    let (token, bob) = (world.user("alice"), world.user("bob"));
    with_room(&world);
    for kind in ["m.fully_read", "m.push_rules"] {
        for path in [format!("{OWN}/account_data/{kind}"), format!("{OWN}/rooms/{ROOM}/account_data/{kind}")]
        {
            assert_eq!(world.put(&path, Some(&token), &json!({})).error(), (405, "M_BAD_JSON"), "{path}");
        }
    }
    let path = format!("{OWN}/account_data/org.x");
    assert_eq!(world.put(&path, Some(&token), &json!([])).error(), (400, "M_BAD_JSON"));
    assert_eq!(world.put(&path, Some(&bob), &json!({})).error(), (403, "M_FORBIDDEN"));
    assert_eq!(world.get(&path, Some(&bob)).error(), (403, "M_FORBIDDEN"));
    let large = json!({ "x": "x".repeat(300_000) });
    assert_eq!(world.put(&path, Some(&token), &large).error(), (413, "M_TOO_LARGE"));
    let room =
        |room: &str| world.put(&format!("{OWN}/rooms/{room}/account_data/x"), Some(&token), &json!({}));
    assert_eq!(room("nonsense").error(), (400, "M_INVALID_PARAM"));
    assert_eq!(room("!unknown:localhost").error(), (404, "M_NOT_FOUND"));
}

#[test]
fn push_rules_can_be_read() {
    let world = World::new();
    let token = world.user("alice");
    let rules = world.get(&format!("{OWN}/account_data/m.push_rules"), Some(&token)).ok();
    assert!(rules["global"]["override"].is_array(), "{rules}");
}

#[test]
fn tags() {
    let world = World::new();
    let (token, bob) = (world.user("alice"), world.user("bob"));
    with_room(&world);
    let path = format!("{OWN}/rooms/{ROOM}/tags");
    assert_eq!(world.get(&path, Some(&token)).ok(), json!({ "tags": {} }));
    let favourite = format!("{path}/m.favourite");
    world.put(&favourite, Some(&token), &json!({ "order": 0.25 })).ok();
    world.request(http::Method::PUT, &format!("{path}/u.work"), Some(&token), "").ok();
    let tags = json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.work": {} } });
    assert_eq!(world.get(&path, Some(&token)).ok(), tags);
    world.delete(&favourite, &token, &json!({})).ok();
    assert_eq!(world.get(&path, Some(&token)).ok(), json!({ "tags": { "u.work": {} } }));
    assert_eq!(world.put(&favourite, Some(&token), &json!({ "order": 2 })).error(), (400, "M_INVALID_PARAM"));
    assert_eq!(world.put(&favourite, Some(&bob), &json!({})).error(), (403, "M_FORBIDDEN"));
}

#[test]
fn filters() {
    let world = World::new();
    let (token, bob) = (world.user("alice"), world.user("bob"));
    let path = format!("{OWN}/filter");
    let definition = json!({ "room": { "timeline": { "limit": 10 } } });
    let made = world.post(&path, Some(&token), &definition).ok();
    let id = text(&made, "filter_id");
    assert!(!id.starts_with('{'));
    assert_eq!(world.get(&format!("{path}/{id}"), Some(&token)).ok(), definition);
    assert_eq!(world.post(&path, Some(&token), &definition).ok(), made);
    assert_eq!(world.get(&format!("{path}/77"), Some(&token)).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.post(&path, Some(&token), &json!({ "room": [] })).error(), (400, "M_BAD_JSON"));
    assert_eq!(world.post(&path, Some(&token), &json!([])).error(), (400, "M_BAD_JSON"));
    assert_eq!(world.post(&path, Some(&bob), &definition).error(), (403, "M_FORBIDDEN"));
    let large = json!({ "x": "x".repeat(40_000) });
    assert_eq!(world.post(&path, Some(&token), &large).error(), (413, "M_TOO_LARGE"));
}

#[test]
fn openid() {
    let world = World::new();
    let token = world.user("alice");
    let made = world.post(&format!("{OWN}/openid/request_token"), Some(&token), &json!({})).ok();
    assert_eq!((&made["token_type"], &made["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(text(&made, "matrix_server_name"), "localhost");
    let userinfo = |query: &str| world.get(&format!("/_matrix/federation/v1/openid/userinfo{query}"), None);
    let found = userinfo(&format!("?access_token={}", text(&made, "access_token"))).ok();
    assert_eq!(found, json!({ "sub": "@alice:localhost" }));
    assert_eq!(userinfo("?access_token=x").error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(userinfo("").error(), (401, "M_MISSING_TOKEN"));
    let other = "/_matrix/client/v3/user/@bob:localhost/openid/request_token";
    assert_eq!(world.post(other, Some(&token), &json!({})).error(), (403, "M_FORBIDDEN"));
}
