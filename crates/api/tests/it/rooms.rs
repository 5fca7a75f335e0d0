//! Creating, joining, sending and the rest of the writing side, as clients do it.

use http::Method;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const V3: &str = "/_matrix/client/v3";

fn encode(id: &str) -> String {
    id.replace('#', "%23").replace('/', "%2F").replace('$', "%24")
}

struct Chat {
    world: World,
    alice: String,
    bob: String,
    room: String,
}

impl Chat {
    /// A public room of Alice.
    fn new() -> Self {
        let world = World::new();
        let (alice, bob) = (world.user("alice"), world.user("bob"));
        let body = json!({ "preset": "public_chat" });
        let created = world.post(&format!("{V3}/createRoom"), Some(&alice), &body).ok();
        let room = created["room_id"].as_str().unwrap().to_owned();
        Self { world, alice, bob, room }
    }

    fn post(&self, who: &str, path: &str, body: Value) -> Answer {
        self.world.post(&format!("{V3}/rooms/{}/{path}", self.room), Some(who), &body)
    }

    fn put(&self, who: &str, path: &str, body: Value) -> Answer {
        self.world.put(&format!("{V3}/rooms/{}/{path}", self.room), Some(who), &body)
    }

    fn get(&self, who: &str, path: &str) -> Answer {
        self.world.get(&format!("{V3}/rooms/{}/{path}", self.room), Some(who))
    }
}

#[test]
fn a_chat() {
    let chat = Chat::new();
    assert_eq!(
        chat.put(&chat.bob, "send/m.room.message/1", json!({ "body": "no" })).error(),
        (403, "M_FORBIDDEN")
    );
    assert_eq!(chat.post(&chat.bob, "join", json!({})).ok()["room_id"], json!(chat.room));
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    let sent = chat.put(&chat.bob, "send/m.room.message/1", content.clone()).ok();
    assert_eq!(chat.put(&chat.bob, "send/m.room.message/1", content).ok(), sent);
    let event_id = encode(sent["event_id"].as_str().unwrap());
    let event = chat.get(&chat.alice, &format!("event/{event_id}")).ok();
    assert_eq!((&event["content"]["body"], &event["sender"]), (&json!("hello"), &json!("@bob:localhost")));
    chat.put(&chat.alice, &format!("redact/{event_id}/2"), json!({ "reason": "rude" })).ok();
    let event = chat.get(&chat.alice, &format!("event/{event_id}")).ok();
    assert_eq!(event["content"], json!({}));
    let named = chat.put(&chat.alice, "state/m.room.name", json!({ "name": "Pub" })).ok();
    assert_eq!(chat.put(&chat.alice, "state/m.room.name/", json!({ "name": "Pub" })).ok(), named);
    assert_eq!(chat.get(&chat.bob, "state/m.room.name").ok()["name"], "Pub");
    chat.post(&chat.bob, "leave", json!({})).ok();
    assert_eq!(chat.get(&chat.alice, "joined_members").ok()["joined"].as_object().unwrap().len(), 1);
    chat.post(&chat.bob, "forget", json!({})).ok();
}

#[test]
fn memberships() {
    let chat = Chat::new();
    let (alice, bob) = (&chat.alice, &chat.bob);
    let target = json!({ "user_id": "@bob:localhost", "reason": "because" });
    chat.post(alice, "invite", target.clone()).ok();
    chat.world.request(Method::POST, &format!("{V3}/join/{}", chat.room), Some(bob), "").ok();
    assert_eq!(chat.post(alice, "invite", target.clone()).error(), (403, "M_FORBIDDEN"));
    assert_eq!(
        chat.post(bob, "kick", json!({ "user_id": "@alice:localhost" })).error(),
        (403, "M_FORBIDDEN")
    );
    chat.post(alice, "kick", target.clone()).ok();
    chat.post(alice, "ban", target.clone()).ok();
    assert_eq!(chat.post(bob, "join", json!({})).error(), (403, "M_FORBIDDEN"));
    chat.post(alice, "unban", target.clone()).ok();
    assert_eq!(chat.post(alice, "unban", target).error(), (403, "M_BAD_STATE"));
    let knock = format!("{V3}/knock/{}", chat.room);
    assert_eq!(chat.world.post(&knock, Some(bob), &json!({})).error(), (403, "M_FORBIDDEN"));
    chat.put(alice, "state/m.room.join_rules", json!({ "join_rule": "knock" })).ok();
    let knocked = chat.world.post(&knock, Some(bob), &json!({ "reason": "let me in" })).ok();
    assert_eq!(knocked["room_id"], json!(chat.room));
    assert_eq!(chat.post(bob, "forget", json!({})).error(), (400, "M_UNKNOWN"));
    assert_eq!(chat.post(alice, "invite", json!({})).error(), (400, "M_BAD_JSON"));
    let by_mail = json!({ "medium": "email", "address": "a@b.c", "id_server": "x", "id_access_token": "y" });
    assert_eq!(chat.post(alice, "invite", by_mail).error(), (400, "M_SERVER_NOT_TRUSTED"));
    let elsewhere = json!({ "user_id": "@x:elsewhere" });
    assert_eq!(chat.post(alice, "invite", elsewhere).error(), (403, "M_FORBIDDEN"));
    let join = |room: &str| chat.world.post(&format!("{V3}/join/{}", encode(room)), Some(bob), &json!({}));
    assert_eq!(join("!unknown:localhost").error(), (404, "M_NOT_FOUND"));
    assert_eq!(join("#unknown:localhost").error(), (404, "M_NOT_FOUND"));
    assert_eq!(join("nonsense").error(), (400, "M_INVALID_PARAM"));
}

#[test]
fn creation_is_refused_with_the_codes_of_the_specification() {
    let chat = Chat::new();
    let create = |body: Value| chat.world.post(&format!("{V3}/createRoom"), Some(&chat.alice), &body);
    assert_eq!(create(json!({ "room_version": "13" })).error(), (400, "M_UNSUPPORTED_ROOM_VERSION"));
    create(json!({ "room_alias_name": "pub" })).ok();
    assert_eq!(create(json!({ "room_alias_name": "pub" })).error(), (400, "M_ROOM_IN_USE"));
    assert_eq!(create(json!({ "room_alias_name": "a b" })).error(), (400, "M_INVALID_PARAM"));
    assert_eq!(create(json!({ "preset": "odd" })).error(), (400, "M_BAD_JSON"));
    assert_eq!(create(json!({ "invite": ["bob"] })).error(), (400, "M_BAD_JSON"));
    let levels = json!({ "power_level_content_override": { "users": { "@alice:localhost": 5 } } });
    assert_eq!(create(levels).error(), (400, "M_INVALID_ROOM_STATE"));
    let by_mail = json!({ "invite_3pid": [{ "medium": "email" }] });
    assert_eq!(create(by_mail).error(), (400, "M_BAD_JSON"));
    let state =
        json!({ "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "x" } }] });
    create(state).ok();
}

#[test]
fn aliases_and_the_directory() {
    let chat = Chat::new();
    let (world, alice, bob) = (&chat.world, Some(chat.alice.as_str()), Some(chat.bob.as_str()));
    let alias = format!("{V3}/directory/room/%23pub:localhost");
    assert_eq!(world.get(&alias, None).error(), (404, "M_NOT_FOUND"));
    let body = json!({ "room_id": chat.room });
    assert_eq!(world.put(&alias, bob, &body).error(), (403, "M_FORBIDDEN"));
    world.put(&alias, alice, &body).ok();
    assert_eq!(world.put(&alias, alice, &body).error(), (409, "M_UNKNOWN"));
    let resolved = world.get(&alias, None).ok();
    assert_eq!(resolved, json!({ "room_id": chat.room, "servers": ["localhost"] }));
    assert_eq!(chat.get(&chat.alice, "aliases").ok()["aliases"], json!(["#pub:localhost"]));
    assert_eq!(chat.get(&chat.bob, "aliases").error(), (403, "M_FORBIDDEN"));
    let bad = chat.put(&chat.alice, "state/m.room.canonical_alias", json!({ "alias": "#other:localhost" }));
    assert_eq!(bad.error(), (400, "M_BAD_ALIAS"));
    world.post(&format!("{V3}/join/%23pub:localhost"), bob, &json!({})).ok();

    let listing = format!("{V3}/directory/list/room/{}", chat.room);
    assert_eq!(world.get(&listing, None).ok()["visibility"], "private");
    assert_eq!(world.put(&listing, bob, &json!({})).error(), (403, "M_FORBIDDEN"));
    world.put(&listing, alice, &json!({})).ok();
    assert_eq!(world.get(&listing, None).ok()["visibility"], "public");
    let page = world.get(&format!("{V3}/publicRooms?limit=10"), None).ok();
    assert_eq!(page["chunk"][0]["room_id"], json!(chat.room));
    assert_eq!(
        (&page["chunk"][0]["num_joined_members"], &page["total_room_count_estimate"]),
        (&json!(2), &json!(1))
    );
    let search = json!({ "filter": { "generic_search_term": "nothing like it" } });
    let found = world.post(&format!("{V3}/publicRooms"), bob, &search).ok();
    assert_eq!(found["chunk"], json!([]));
    let types = json!({ "filter": { "room_types": [null] } });
    assert_eq!(
        world.post(&format!("{V3}/publicRooms"), bob, &types).ok()["chunk"].as_array().unwrap().len(),
        1
    );
    assert_eq!(world.get(&format!("{V3}/publicRooms?since=x"), None).error(), (400, "M_INVALID_PARAM"));
    assert_eq!(world.get(&format!("{V3}/publicRooms?server=elsewhere"), None).error(), (403, "M_FORBIDDEN"));
    assert_eq!(world.request(Method::DELETE, &alias, bob, "").error(), (403, "M_FORBIDDEN"));
    world.request(Method::DELETE, &alias, alice, "").ok();
    assert_eq!(world.request(Method::DELETE, &alias, alice, "").error(), (404, "M_NOT_FOUND"));
}

#[test]
fn sending_is_refused_with_the_codes_of_the_specification() {
    let chat = Chat::new();
    let send = |path: &str, body: Value| chat.put(&chat.alice, path, body);
    assert_eq!(send("send/m.room.message/1", json!({ "n": 1.5 })).error(), (400, "M_BAD_JSON"));
    assert_eq!(send("send/m.room.message/1", json!([])).error(), (400, "M_BAD_JSON"));
    assert_eq!(
        send("send/m.room.message/1", json!({ "body": "x".repeat(70_000) })).error(),
        (413, "M_TOO_LARGE")
    );
    assert_eq!(send("send/m.room.redaction/2", json!({})).error(), (400, "M_BAD_JSON"));
    assert_eq!(send("redact/$unknown/3", json!({})).error(), (404, "M_NOT_FOUND"));
    let root = send("send/m.room.message/4", json!({ "body": "root" })).ok();
    let reaction =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root["event_id"], "key": "+" } });
    send("send/m.reaction/5", reaction.clone()).ok();
    assert_eq!(send("send/m.reaction/6", reaction).error(), (400, "M_DUPLICATE_ANNOTATION"));
    let suspended = send("send/m.room.redaction/7", json!({ "redacts": root["event_id"] })).ok();
    assert!(suspended["event_id"].is_string());
}

#[test]
fn an_upgrade() {
    let chat = Chat::new();
    let upgrade = |who: &str, version: &str| chat.post(who, "upgrade", json!({ "new_version": version }));
    assert_eq!(upgrade(&chat.alice, "13").error(), (400, "M_UNSUPPORTED_ROOM_VERSION"));
    assert_eq!(upgrade(&chat.bob, "12").error(), (403, "M_FORBIDDEN"));
    let replacement = upgrade(&chat.alice, "12").ok()["replacement_room"].clone();
    assert_eq!(chat.get(&chat.alice, "state/m.room.tombstone").ok()["replacement_room"], replacement);
}
