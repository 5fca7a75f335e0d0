//! Where accounts and rooms meet.

use std::sync::Arc;

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use myelin_core::UserNid;
use myelin_rooms::Rooms;
use myelin_users::departure;
use serde_json::{Value, json};

use super::{password_of, text};
use crate::world::World;

const V3: &str = "/_matrix/client/v3";

/// As in the binary's composition root.
struct Departing(Arc<Rooms>);

impl departure::Rooms for Departing {
    fn leave_all(&self, user: UserNid) -> BoxFuture<'_, Result<(), String>> {
        self.0.leave_all(user).map_err(|error| error.to_string()).boxed()
    }
}

impl World {
    fn room(&self, token: &str, preset: &str) -> String {
        let created = self.post(&format!("{V3}/createRoom"), Some(token), &json!({ "preset": preset })).ok();
        text(&created, "room_id").to_owned()
    }

    fn in_room(&self, token: &str, room: &str, path: &str, body: &Value) -> Value {
        self.post(&format!("{V3}/rooms/{room}/{path}"), Some(token), body).ok()
    }

    fn bodies(&self, token: &str, room: &str) -> Vec<Value> {
        let page = self.get(&format!("{V3}/rooms/{room}/messages?dir=b&limit=50"), Some(token)).ok();
        let events = page["chunk"].as_array().unwrap().iter();
        events.filter(|event| event["type"] == "m.room.message").map(|e| e["content"].clone()).collect()
    }

    fn say(&self, token: &str, room: &str, body: &str) {
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{body}");
        self.put(&path, Some(token), &json!({ "msgtype": "m.text", "body": body })).ok();
    }
}

#[test]
fn a_deactivated_user_leaves_all_rooms() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let rooms = [world.room(&alice, "public_chat"), world.room(&alice, "private_chat")];
    world.in_room(&bob, &rooms[0], "join", &json!({}));
    world.in_room(&alice, &rooms[1], "invite", &json!({ "user_id": "@bob:localhost" }));
    let departing = Arc::new(Departing(world.rooms.clone()));
    let task = world.users.clone().run_departures(departing);
    world.sim.env().spawner.spawn("departures", task.boxed());
    let deactivate = json!({ "auth": password_of("bob") });
    world.post(&format!("{V3}/account/deactivate"), Some(&bob), &deactivate).ok();
    world.sim.settle();
    for room in &rooms {
        let member = format!("{V3}/rooms/{room}/state/m.room.member/@bob:localhost");
        assert_eq!(world.get(&member, Some(&alice)).ok()["membership"], "leave");
    }
}

#[test]
fn what_an_erased_user_said_is_redacted_for_who_was_not_there() {
    let world = World::new();
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = world.room(&alice, "public_chat");
    world.in_room(&bob, &room, "join", &json!({}));
    world.say(&bob, &room, "secret");
    world.say(&alice, &room, "hello");
    let deactivate = json!({ "erase": true, "auth": password_of("bob") });
    world.post(&format!("{V3}/account/deactivate"), Some(&bob), &deactivate).ok();
    world.in_room(&carol, &room, "join", &json!({}));
    let hello = json!({ "msgtype": "m.text", "body": "hello" });
    let secret = json!({ "msgtype": "m.text", "body": "secret" });
    assert_eq!(world.bodies(&alice, &room), [hello.clone(), secret]);
    assert_eq!(world.bodies(&carol, &room), [hello, json!({})]);
}

#[test]
fn users_in_a_common_or_public_room_are_found() {
    let world = World::new();
    let tokens = ["alice", "bob", "carol", "dave"].map(|name| world.user(name));
    let [alice, bob, carol, dave] = &tokens;
    let shared = world.room(alice, "private_chat");
    world.in_room(alice, &shared, "invite", &json!({ "user_id": "@bob:localhost" }));
    world.in_room(bob, &shared, "join", &json!({}));
    world.room(carol, "public_chat");
    world.room(dave, "private_chat");
    let search = json!({ "search_term": "localhost" });
    let found = world.post(&format!("{V3}/user_directory/search"), Some(alice), &search).ok();
    let found: Vec<_> =
        found["results"].as_array().unwrap().iter().map(|user| text(user, "user_id")).collect();
    assert_eq!(found, ["@bob:localhost", "@carol:localhost"]);

    let mutual = world.get("/_matrix/client/v1/mutual_rooms?user_id=@bob:localhost", Some(alice)).ok();
    assert_eq!(mutual, json!({ "joined": [shared], "count": 1 }));
    let none = world.get("/_matrix/client/v1/mutual_rooms?user_id=@carol:localhost", Some(alice)).ok();
    assert_eq!(none["count"], 0);
}

#[test]
fn account_data_and_tags_come_with_the_next_sync() {
    let world = World::new();
    let alice = world.user("alice");
    let room = world.room(&alice, "private_chat");
    let since = text(&world.get(&format!("{V3}/sync"), Some(&alice)).ok(), "next_batch").to_owned();
    let own = format!("{V3}/user/@alice:localhost");
    world.put(&format!("{own}/account_data/org.x"), Some(&alice), &json!({ "a": 1 })).ok();
    world.put(&format!("{own}/rooms/{room}/tags/u.work"), Some(&alice), &json!({ "order": 0.5 })).ok();
    let delta = world.get(&format!("{V3}/sync?since={since}"), Some(&alice)).ok();
    let events = |data: &Value| data["events"].clone();
    assert_eq!(events(&delta["account_data"]), json!([{ "type": "org.x", "content": { "a": 1 } }]));
    let tags = json!([{ "type": "m.tag", "content": { "tags": { "u.work": { "order": 0.5 } } } }]);
    assert_eq!(events(&delta["rooms"]["join"][&room]["account_data"]), tags);
}

#[test]
fn guests_join_where_guests_may() {
    let world = World::with_users(|config| config.guests = true);
    let alice = world.user("alice");
    let guest = world.post(&format!("{V3}/register?kind=guest"), None, &json!({})).ok();
    let guest = text(&guest, "access_token");
    let room = world.room(&alice, "public_chat");
    let join = || world.post(&format!("{V3}/rooms/{room}/join"), Some(guest), &json!({}));
    assert_eq!(join().status, 403);
    let access = format!("{V3}/rooms/{room}/state/m.room.guest_access/");
    world.put(&access, Some(&alice), &json!({ "guest_access": "can_join" })).ok();
    join().ok();
    world.say(guest, &room, "hello");
    let create = world.post(&format!("{V3}/createRoom"), Some(guest), &json!({}));
    assert_eq!(create.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
}
