//! `POST /search`: who finds what, in which order, and who must not find it.

use std::sync::Arc;

use myelin_search::{Criteria, DirectoryVisibility, Place, Search};
use myelin_sync::Requester;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const V3: &str = "/_matrix/client/v3";

impl World {
    fn chat(&self, token: &str, extra: &Value) -> String {
        let room = self.post(&format!("{V3}/createRoom"), Some(token), extra).ok();
        room["room_id"].as_str().unwrap().to_owned()
    }

    fn enter(&self, token: &str, room: &str) {
        self.post(&format!("{V3}/join/{room}"), Some(token), &json!({})).ok();
    }

    fn post_message(&self, token: &str, room: &str, content: &Value) -> String {
        self.sim.block_on(self.sim.env().clock.sleep(std::time::Duration::from_millis(1)));
        let txn = self.sim.env().random_string(8);
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{txn}");
        let sent = self.put(&path, Some(token), content).ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    fn tell(&self, token: &str, room: &str, body: &str) -> String {
        self.post_message(token, room, &json!({ "msgtype": "m.text", "body": body }))
    }

    fn edit(&self, token: &str, room: &str, event: &str, body: &str) -> String {
        let content = json!({
            "msgtype": "m.text", "body": format!("* {body}"),
            "m.new_content": { "msgtype": "m.text", "body": body },
            "m.relates_to": { "rel_type": "m.replace", "event_id": event },
        });
        self.post_message(token, room, &content)
    }

    fn redact(&self, token: &str, room: &str, event: &str) {
        let txn = self.sim.env().random_string(8);
        self.put(&format!("{V3}/rooms/{room}/redact/{event}/{txn}"), Some(token), &json!({})).ok();
    }

    fn search(&self, token: &str, next_batch: Option<&str>, criteria: &Value) -> Answer {
        let query = next_batch.map(|token| format!("?next_batch={token}")).unwrap_or_default();
        let body = json!({ "search_categories": { "room_events": criteria } });
        self.post(&format!("{V3}/search{query}"), Some(token), &body)
    }

    fn found(&self, token: &str, criteria: &Value) -> Value {
        self.search(token, None, criteria).ok()["search_categories"]["room_events"].clone()
    }

    /// The ids of what a term finds, newest first.
    fn ids(&self, token: &str, term: &str) -> Vec<String> {
        results(&self.found(token, &json!({ "search_term": term, "order_by": "recent" })))
    }
}

fn results(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().unwrap();
    results.iter().map(|result| result["result"]["event_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn messages_names_and_topics_are_found() {
    let world = World::new();
    let alice = world.user("alice");
    let room = world.chat(&alice, &json!({ "name": "Harbour café", "topic": "ships and cafes" }));
    let first = world.tell(&alice, &room, "Der Größte im CAFÉ");
    let second = world.tell(&alice, &room, "another cafe, 東京都 and friends");
    assert_eq!(world.ids(&alice, "grösste"), Vec::<String>::new(), "an ß is no ss");
    assert_eq!(world.ids(&alice, "größte"), std::slice::from_ref(&first));
    assert_eq!(world.ids(&alice, "cafe").len(), 3, "two messages and the name; not the plural");
    assert_eq!(world.ids(&alice, "京都"), std::slice::from_ref(&second));
    assert_eq!(world.ids(&alice, "東京 friends"), std::slice::from_ref(&second));
    assert_eq!(world.ids(&alice, "\"cafe another\""), Vec::<String>::new());
    assert_eq!(world.ids(&alice, "\"another cafe\""), std::slice::from_ref(&second));
    assert_eq!(world.ids(&alice, "cafe -another -harbour"), [first]);

    let named = world.found(&alice, &json!({ "search_term": "cafe", "keys": ["content.name"] }));
    assert_eq!((results(&named).len(), &named["results"][0]["result"]["type"]), (1, &json!("m.room.name")));
    let topic = world.found(&alice, &json!({ "search_term": "ships", "keys": ["content.topic"] }));
    assert_eq!(topic["count"], 1);
    let wordy = world.found(&alice, &json!({ "search_term": "cafe 東京", "keys": ["content.body"] }));
    assert_eq!(wordy["highlights"], json!(["cafe", "東京"]));
    assert!(wordy["results"][0]["rank"].as_f64().unwrap() > 0.0);
}

#[test]
fn edits_replace_and_redactions_delete() {
    let world = World::new();
    let alice = world.user("alice");
    let room = world.chat(&alice, &json!({}));
    let event = world.tell(&alice, &room, "apples");
    assert_eq!(world.ids(&alice, "apples"), std::slice::from_ref(&event));
    world.edit(&alice, &room, &event, "pears");
    assert_eq!(world.ids(&alice, "apples"), Vec::<String>::new());
    assert_eq!(world.ids(&alice, "pears"), std::slice::from_ref(&event));
    let second = world.edit(&alice, &room, &event, "plums");
    assert_eq!(world.ids(&alice, "plums"), std::slice::from_ref(&event));
    world.redact(&alice, &room, &second);
    assert_eq!(world.ids(&alice, "plums"), Vec::<String>::new());
    assert_eq!(world.ids(&alice, "pears"), std::slice::from_ref(&event), "the edit before it counts again");
    world.redact(&alice, &room, &event);
    assert_eq!(world.ids(&alice, "pears"), Vec::<String>::new());
}

#[test]
fn nobody_finds_what_they_may_not_see() {
    let world = World::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.user(name));
    let visibility =
        json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let room = world.chat(&alice, &json!({ "preset": "public_chat", "initial_state": [visibility] }));
    world.tell(&alice, &room, "secret before");
    world.enter(&bob, &room);
    let during = world.tell(&alice, &room, "secret during");
    world.post(&format!("{V3}/rooms/{room}/leave"), Some(&bob), &json!({})).ok();
    world.tell(&alice, &room, "secret after");
    let found = world.found(&bob, &json!({ "search_term": "secret" }));
    assert_eq!(
        (results(&found), &found["count"]),
        (vec![during.clone()], &json!(1)),
        "and nothing is counted"
    );
    assert_eq!(world.ids(&carol, "secret"), Vec::<String>::new());
    assert_eq!(world.found(&carol, &json!({ "search_term": "secret" }))["count"], 0);
    assert_eq!(world.ids(&alice, "secret").len(), 3);

    world.post(&format!("{V3}/rooms/{room}/forget"), Some(&bob), &json!({})).ok();
    assert_eq!(world.ids(&bob, "secret"), Vec::<String>::new());

    let shared = world.chat(&alice, &json!({ "preset": "public_chat" }));
    world.enter(&carol, &shared);
    world.tell(&alice, &shared, "noise");
    assert_eq!(world.ids(&carol, "noise").len(), 1);
    let ignoring = json!({ "ignored_users": { "@alice:localhost": {} } });
    let path = format!("{V3}/user/@carol:localhost/account_data/m.ignored_user_list");
    world.put(&path, Some(&carol), &ignoring).ok();
    assert_eq!(world.ids(&carol, "noise"), Vec::<String>::new());
}

#[test]
fn filters_narrow_a_search() {
    let world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.user(name));
    let rooms = [(); 2].map(|()| world.chat(&alice, &json!({ "preset": "public_chat" })));
    rooms.iter().for_each(|room| world.enter(&bob, room));
    let of_alice = world.tell(&alice, &rooms[0], "word");
    let of_bob = world.tell(&bob, &rooms[1], "word");
    let image = json!({ "msgtype": "m.image", "body": "word", "url": "mxc://localhost/x" });
    let with_url = world.post_message(&bob, &rooms[0], &image);
    let ids = |filter: Value| {
        let criteria = json!({ "search_term": "word", "order_by": "recent", "filter": filter });
        results(&world.found(&alice, &criteria))
    };
    assert_eq!(ids(json!({})), [with_url.clone(), of_bob.clone(), of_alice.clone()]);
    assert_eq!(ids(json!({ "rooms": [rooms[1]] })), std::slice::from_ref(&of_bob));
    assert_eq!(ids(json!({ "not_rooms": [rooms[1]] })), [with_url.clone(), of_alice.clone()]);
    assert_eq!(ids(json!({ "senders": ["@alice:localhost"] })), std::slice::from_ref(&of_alice));
    assert_eq!(ids(json!({ "senders": ["@nobody:localhost"] })), Vec::<String>::new());
    assert_eq!(ids(json!({ "not_senders": ["@bob:localhost"] })), [of_alice]);
    assert_eq!(ids(json!({ "contains_url": true })), [with_url]);
    assert_eq!(ids(json!({ "types": ["m.room.name"] })), Vec::<String>::new());
    assert_eq!(ids(json!({ "rooms": ["!elsewhere:localhost"] })), Vec::<String>::new());
}

#[test]
fn pages_and_groups_leave_nothing_out() {
    let world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.user(name));
    let rooms = [(); 2].map(|()| world.chat(&alice, &json!({ "preset": "public_chat" })));
    rooms.iter().for_each(|room| world.enter(&bob, room));
    let mut sent = Vec::new();
    for n in 0..23 {
        let (who, room) = (if n % 3 == 0 { &bob } else { &alice }, &rooms[n % 2]);
        sent.push(world.tell(who, room, &format!("page {n} {}", "filler ".repeat(n))));
    }
    sent.reverse();
    for order in ["recent", "rank"] {
        let criteria = json!({
            "search_term": "page", "order_by": order, "filter": { "limit": 5 },
            "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
        });
        let (mut seen, mut next) = (Vec::new(), None::<String>);
        loop {
            let answer = world.search(&alice, next.as_deref(), &criteria).ok();
            let found = &answer["search_categories"]["room_events"];
            assert!(found["count"].as_u64().unwrap() >= 3, "{found}");
            seen.extend(results(found));
            next = found["next_batch"].as_str().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        if order == "recent" {
            assert_eq!(seen, sent);
        }
        let (mut all, mut expected) = (seen.clone(), sent.clone());
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "{order}");

        let found = world.found(&alice, &criteria);
        let group = &found["groups"]["room_id"][&rooms[0]];
        assert!(group["order"].as_u64().unwrap() >= 1, "{found}");
        let first = group["results"].as_array().unwrap().len();
        let (mut in_room, mut next) = (first, group["next_batch"].as_str().map(str::to_owned));
        while let Some(token) = next {
            let answer = world.search(&alice, Some(&token), &criteria).ok();
            let found = &answer["search_categories"]["room_events"];
            let ids = found["groups"]["room_id"].as_object().unwrap();
            assert!(ids.keys().all(|room| *room == rooms[0]), "{found}");
            in_room += results(found).len();
            next = found["next_batch"].as_str().map(str::to_owned);
        }
        assert_eq!(in_room, 12, "{order}");
        let by_bob = &found["groups"]["sender"]["@bob:localhost"];
        assert!(by_bob["results"].is_array() && by_bob["next_batch"].is_string(), "{found}");
    }
}

#[test]
fn context_profiles_and_state_come_along() {
    let world = World::new();
    let alice = world.user("alice");
    let room = world.chat(&alice, &json!({ "name": "x" }));
    let ids: Vec<_> = (0..5).map(|n| world.tell(&alice, &room, &format!("word{n}"))).collect();
    let criteria = json!({
        "search_term": "word2", "include_state": true,
        "event_context": { "before_limit": 1, "after_limit": 2, "include_profile": true },
    });
    let found = world.found(&alice, &criteria);
    let context = &found["results"][0]["context"];
    let of = |key: &str| -> Vec<&str> {
        context[key].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect()
    };
    assert_eq!(of("events_before"), [&ids[1]]);
    assert_eq!(of("events_after"), [&ids[3], &ids[4]]);
    assert!(context["start"].is_string() && context["end"].is_string());
    assert_eq!(context["profile_info"]["@alice:localhost"]["displayname"], "alice");
    let state = found["state"][&room].as_array().unwrap();
    assert!(state.iter().any(|event| event["type"] == "m.room.name"), "{found}");
}

#[test]
fn bad_searches_are_refused() {
    let world = World::new();
    let alice = world.user("alice");
    for criteria in [
        json!({ "search_term": "x", "order_by": "random" }),
        json!({ "search_term": "x", "keys": ["content.url"] }),
        json!({ "search_term": "x", "groupings": { "group_by": [{ "key": "type" }] } }),
        json!({ "search_term": "x".repeat(5000) }),
    ] {
        assert_eq!(world.search(&alice, None, &criteria).error(), (400, "M_INVALID_PARAM"), "{criteria}");
    }
    assert_eq!(world.search(&alice, None, &json!({})).error(), (400, "M_BAD_JSON"));
    assert_eq!(world.post(&format!("{V3}/search"), Some(&alice), &json!({})).error(), (400, "M_BAD_JSON"));
    let token = world.search(&alice, Some("nonsense"), &json!({ "search_term": "x" }));
    assert_eq!(token.error(), (400, "M_INVALID_PARAM"));
    let nothing = world.post(&format!("{V3}/search"), Some(&alice), &json!({ "search_categories": {} }));
    assert_eq!(nothing.ok(), json!({ "search_categories": {} }));
    for term in ["", "!!!", "-x", "\"\""] {
        assert_eq!(world.found(&alice, &json!({ "search_term": term }))["count"], 0, "{term}");
    }
}

/// Opens the index of a directory, as a start does, and counts what a term finds.
fn count_in(world: &World, directory: &std::path::Path, token: &str, term: &str) -> usize {
    let place = Place::Directory(directory.to_owned());
    let search: Arc<Search> =
        Search::new(world.view.clone(), world.sync.clone(), place, DirectoryVisibility::default());
    world.sim.block_on(async {
        let session = world.users.session(token).await.unwrap();
        let user_id = world.view.interner.user_id(session.user).await.unwrap();
        let requester = Requester { user: session.user, user_id, device_id: session.device_id.clone() };
        let criteria = Criteria { term: term.to_owned(), ..Criteria::default() };
        let found: Value =
            serde_json::from_str(&search.room_events(&requester, &criteria).await.unwrap()).unwrap();
        results(&found).len()
    })
}

#[test]
fn an_index_is_made_from_what_was_there_and_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new();
    let alice = world.user("alice");
    let room = world.chat(&alice, &json!({}));
    let gone = world.tell(&alice, &room, "harvest one");
    world.redact(&alice, &room, &gone);
    let edited = world.tell(&alice, &room, "sowing");
    world.edit(&alice, &room, &edited, "harvest two");
    assert_eq!(count_in(&world, directory.path(), &alice, "harvest"), 1, "back-filled");
    world.tell(&alice, &room, "harvest three");
    assert_eq!(count_in(&world, directory.path(), &alice, "harvest"), 2, "followed");
    let inside = directory.path().join("search-index");
    std::fs::write(inside.join("meta.json"), "torn").unwrap();
    assert_eq!(count_in(&world, directory.path(), &alice, "harvest"), 2, "made anew");

    let other = World::new();
    let bob = other.user("bob");
    let room = other.chat(&bob, &json!({}));
    for n in 0..40 {
        other.tell(&bob, &room, &format!("chaff {n}"));
    }
    other.tell(&bob, &room, "harvest");
    assert_eq!(count_in(&other, directory.path(), &bob, "harvest"), 1, "another store has another index");
}

#[test]
fn users_are_found_by_the_beginning_of_their_names() {
    let world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.user(name));
    let room = world.chat(&alice, &json!({ "preset": "public_chat" }));
    let name = json!({ "displayname": "Łukasz Müller 東京" });
    world.put(&format!("{V3}/profile/@bob:localhost/displayname"), Some(&bob), &name).ok();
    world.enter(&bob, &room);
    let found = |term: &str| {
        let body = json!({ "search_term": term });
        let answer = world.post(&format!("{V3}/user_directory/search"), Some(&alice), &body).ok();
        answer["results"].as_array().unwrap().len()
    };
    let terms = ["bo", "@bob", "@bob:local", "mull", "muller", "東", "東京", "bob mül", "localhost"];
    assert_eq!(terms.map(found), [1; 9]);
    assert_eq!(["ob", "uller", "x", "", "bob y", "京都"].map(found), [0; 6]);
    world.post(&format!("{V3}/rooms/{room}/leave"), Some(&bob), &json!({})).ok();
    assert_eq!(found("bob"), 0, "no room in common any more");
}
