use serde_json::json;

use crate::world::World;

const ALICE: &str = "/_matrix/client/v3/profile/@alice:localhost";

#[test]
fn a_profile_is_set_and_read() {
    let world = World::new();
    let token = world.user("alice");
    assert_eq!(world.get(ALICE, None).ok(), json!({ "displayname": "alice" }));
    for (key, value) in [
        ("displayname", json!("Alice")),
        ("avatar_url", json!("mxc://localhost/abc")),
        ("m.tz", json!("Europe/Paris")),
        ("org.example.job", json!({ "title": "tester" })),
    ] {
        world.put(&format!("{ALICE}/{key}"), Some(&token), &json!({ key: value })).ok();
        assert_eq!(world.get(&format!("{ALICE}/{key}"), None).ok(), json!({ key: value }));
    }
    world.delete(&format!("{ALICE}/m.tz"), &token, &json!({})).ok();
    world.put(&format!("{ALICE}/avatar_url"), Some(&token), &json!({ "avatar_url": "" })).ok();
    let left = json!({ "displayname": "Alice", "org.example.job": { "title": "tester" } });
    assert_eq!(world.get(ALICE, None).ok(), left);
    assert_eq!(world.get(&format!("{ALICE}/m.tz"), None).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn refused_profiles() {
    let world = World::new();
    let (token, bob) = (world.user("alice"), world.user("bob"));
    let set = |key: &str, body| world.put(&format!("{ALICE}/{key}"), Some(&token), &body);
    assert_eq!(set("displayname", json!({})).error(), (400, "M_MISSING_PARAM"));
    assert_eq!(set("displayname", json!([])).error(), (400, "M_BAD_JSON"));
    assert_eq!(set("displayname", json!({ "displayname": 7 })).error(), (400, "M_INVALID_PARAM"));
    assert_eq!(set("avatar_url", json!({ "avatar_url": "http://x" })).error(), (400, "M_INVALID_PARAM"));
    assert_eq!(set("nick", json!({ "nick": "x" })).error(), (400, "M_INVALID_PARAM"));
    let long = format!("a.{}", "x".repeat(254));
    assert_eq!(set(&long, json!({ &long: "x" })).error(), (400, "M_KEY_TOO_LARGE"));
    let large = json!({ "a.b": "x".repeat(65_536) });
    assert_eq!(set("a.b", large).error(), (400, "M_PROFILE_TOO_LARGE"));
    let other = world.put(&format!("{ALICE}/displayname"), Some(&bob), &json!({ "displayname": "x" }));
    assert_eq!(other.error(), (403, "M_FORBIDDEN"));
    assert_eq!(world.delete(&format!("{ALICE}/displayname"), &bob, &json!({})).error(), (403, "M_FORBIDDEN"));
    // A server that keeps to itself asks no other.
    for (nobody, error) in
        [("@nobody:localhost", (404, "M_NOT_FOUND")), ("@alice:elsewhere.org", (403, "M_FORBIDDEN"))]
    {
        let path = format!("/_matrix/client/v3/profile/{nobody}");
        assert_eq!(world.get(&path, None).error(), error);
    }
}

#[test]
fn a_suspended_user_keeps_the_profile() {
    let world = World::new();
    let token = world.user("alice");
    let user = world.sim.block_on(world.users.session(&token)).unwrap().user;
    world.sim.block_on(world.users.set_suspended(user, true)).unwrap();
    let set = world.put(&format!("{ALICE}/displayname"), Some(&token), &json!({ "displayname": "x" }));
    assert_eq!(set.error(), (403, "M_USER_SUSPENDED"));
}

#[test]
fn the_user_directory_is_searched() {
    let world = World::where_everybody_is_found();
    let token = world.user("alice");
    world.user("bob");
    let search = |body| world.post("/_matrix/client/v3/user_directory/search", Some(&token), &body);
    let found = search(json!({ "search_term": "BO" })).ok();
    let bob = json!({ "user_id": "@bob:localhost", "display_name": "bob" });
    assert_eq!(found, json!({ "results": [bob], "limited": false }));
    assert_eq!(search(json!({ "search_term": "bo", "limit": 0 })).ok()["limited"], true);
    assert_eq!(search(json!({})).error(), (400, "M_BAD_JSON"));
}

#[test]
fn mutual_rooms_of_strangers() {
    let world = World::new();
    let token = world.user("alice");
    let ask = |query: &str| world.get(&format!("/_matrix/client/v1/mutual_rooms{query}"), Some(&token));
    let none = json!({ "joined": [], "count": 0 });
    assert_eq!(ask("?user_id=@nobody:localhost").ok(), none);
    for query in ["", "?user_id=x", "?user_id=@alice:localhost", "?user_id=@nobody:localhost&from=x"] {
        assert_eq!(ask(query).error(), (400, "M_INVALID_PARAM"), "{query}");
    }
}
