//! What a sync holds.

use myelin_rooms::CreateRoom;
use myelin_sync::{Error, parse_filter, v2::StateForm};
use serde_json::{Value, json};

use super::{
    client::{Client, ids, kinds},
    world::{User, World},
};

fn scene() -> (World, User, User, ruma::OwnedRoomId) {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let room = world.public_room(&ann);
    world.join(&bob, &room).unwrap();
    (world, ann, bob, room)
}

fn joined<'a>(answer: &'a Value, room: &ruma::RoomId) -> &'a Value {
    &answer["rooms"]["join"][room.as_str()]
}

#[test]
fn an_initial_sync_has_state_before_the_timeline_and_push_rules() {
    let (world, ann, _, room) = scene();
    for n in 0..5 {
        world.say(&ann, &room, &n.to_string()).unwrap();
    }
    let answer = Client::with_filter(&ann, r#"{"room":{"timeline":{"limit":6}}}"#).sync(&world);
    assert_eq!(kinds(&answer["account_data"]["events"]), ["m.push_rules"]);
    let here = joined(&answer, &room);
    let timeline = kinds(&here["timeline"]["events"]);
    assert_eq!(timeline[0], "m.room.member/@bob:localhost");
    assert_eq!(timeline.len(), 6);
    assert_eq!(here["timeline"]["limited"], true);
    let mut state = kinds(&here["state"]["events"]);
    state.sort();
    let expected = [
        "m.room.create",
        "m.room.guest_access",
        "m.room.history_visibility",
        "m.room.join_rules",
        "m.room.member/@ann:localhost",
        "m.room.power_levels",
    ];
    assert_eq!(state, expected);
    for part in ["ephemeral", "account_data"] {
        assert_eq!(here[part]["events"], json!([]));
    }
    let events = here["timeline"]["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event.get("room_id").is_none() && event["unsigned"]["age"].is_u64()));
}

#[test]
fn a_client_that_wants_no_timeline_gets_state_only() {
    let (world, ann, bob, room) = scene();
    let mut client = Client::with_filter(&ann, r#"{"room":{"timeline":{"limit":0}}}"#);
    let first = client.sync(&world);
    let here = joined(&first, &room);
    assert_eq!(here["timeline"]["events"], json!([]));
    assert_eq!(here["timeline"]["limited"], true);
    assert!(kinds(&here["state"]["events"]).contains(&"m.room.member/@bob:localhost".to_owned()));
    world.set(&ann, &room, "m.room.name", "", json!({ "name": "n" })).unwrap();
    world.say(&bob, &room, "unseen").unwrap();
    let second = client.sync(&world);
    let here = joined(&second, &room);
    assert_eq!(here["timeline"]["events"], json!([]));
    assert_eq!(kinds(&here["state"]["events"]), ["m.room.name"]);
    let from = here["timeline"]["prev_batch"].as_str().unwrap();
    assert!(!client.backwards(&world, room.as_str(), from, None).unwrap().is_empty());
    assert!(joined(&client.sync(&world), &room).is_null(), "nothing is new");
}

#[test]
fn summaries_name_heroes_only_where_the_room_has_no_name() {
    let (world, ann, bob, room) = scene();
    let mut client = Client::new(&ann);
    let answer = client.sync(&world);
    let expected =
        json!({ "m.heroes": ["@bob:localhost"], "m.joined_member_count": 2, "m.invited_member_count": 0 });
    assert_eq!(joined(&answer, &room)["summary"], expected);
    world.say(&bob, &room, "no news about members").unwrap();
    assert!(joined(&client.sync(&world), &room)["summary"].is_null());
    world.set(&ann, &room, "m.room.name", "", json!({ "name": "a name" })).unwrap();
    let expected = json!({ "m.joined_member_count": 2, "m.invited_member_count": 0 });
    assert_eq!(joined(&client.sync(&world), &room)["summary"], expected);
    world.set(&ann, &room, "m.room.name", "", json!({})).unwrap();
    world.leave(&bob, &room).unwrap();
    let expected =
        json!({ "m.heroes": ["@bob:localhost"], "m.joined_member_count": 1, "m.invited_member_count": 0 });
    assert_eq!(joined(&client.sync(&world), &room)["summary"], expected);
}

#[test]
fn members_are_loaded_lazily_and_once_per_device() {
    let (world, ann, bob, room) = scene();
    let cid = world.user("cid");
    world.join(&cid, &room).unwrap();
    world.set(&ann, &room, "m.room.name", "", json!({ "name": "n" })).unwrap();
    for n in 0..3 {
        world.say(&bob, &room, &n.to_string()).unwrap();
    }
    let lazy = r#"{"room":{"timeline":{"limit":2},"state":{"lazy_load_members":true}}}"#;
    let members = |answer: &Value| {
        let mut kinds = kinds(&joined(answer, &room)["state"]["events"]);
        kinds.retain(|kind| kind.starts_with("m.room.member/"));
        kinds.sort();
        kinds
    };
    let mut client = Client::with_filter(&ann, lazy);
    let answer = client.sync(&world);
    assert_eq!(members(&answer), ["m.room.member/@ann:localhost", "m.room.member/@bob:localhost"]);
    world.say(&bob, &room, "known").unwrap();
    let before = client.since;
    assert!(members(&client.sync(&world)).is_empty(), "bob has been sent");
    world.say(&cid, &room, "unknown").unwrap();
    let token = client.since;
    assert_eq!(members(&client.sync(&world)), ["m.room.member/@cid:localhost"]);
    client.since = token;
    assert_eq!(members(&client.sync(&world)), ["m.room.member/@cid:localhost"], "that answer was lost");
    world.say(&cid, &room, "known").unwrap();
    assert!(members(&client.sync(&world)).is_empty());
    let mut other = Client::with_filter(&ann, lazy).device("OTHER");
    other.since = before;
    let expected = ["m.room.member/@cid:localhost"];
    assert_eq!(members(&other.sync(&world)), expected, "another device knows nobody yet");
    world.say(&cid, &room, "again").unwrap();
    let redundant = r#"{"room":{"state":{"lazy_load_members":true,"include_redundant_members":true}}}"#;
    client.filter = std::sync::Arc::new(parse_filter(redundant).unwrap());
    assert_eq!(members(&client.sync(&world)), ["m.room.member/@cid:localhost"]);
}

#[test]
fn timelines_are_filtered_and_state_that_they_leave_out_comes_as_state() {
    let (world, ann, _, room) = scene();
    let filter = r#"{"room":{"timeline":{"types":["org.*"],"not_types":["org.no"]}}}"#;
    let mut client = Client::with_filter(&ann, filter);
    client.sync(&world);
    world.send(&ann, &room, "org.yes", json!({})).unwrap();
    world.send(&ann, &room, "org.no", json!({})).unwrap();
    world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "t" })).unwrap();
    let answer = client.sync(&world);
    assert_eq!(kinds(&joined(&answer, &room)["timeline"]["events"]), ["org.yes"]);
    assert_eq!(kinds(&joined(&answer, &room)["state"]["events"]), ["m.room.topic"]);
    world.set(&ann, &room, "m.room.name", "", json!({ "name": "n" })).unwrap();
    let answer = client.sync(&world);
    assert_eq!(joined(&answer, &room)["timeline"]["events"], json!([]));
    assert_eq!(kinds(&joined(&answer, &room)["state"]["events"]), ["m.room.name"]);
    let elsewhere = r#"{"room":{"rooms":[]}}"#;
    assert!(Client::with_filter(&ann, elsewhere).sync(&world)["rooms"].is_null());
    let without = json!({ "room": { "not_rooms": [room] } }).to_string();
    assert!(Client::with_filter(&ann, &without).sync(&world)["rooms"].is_null());
    let with_url = r#"{"room":{"timeline":{"contains_url":true},"state":{"types":[]}}}"#;
    let said = world.send(&ann, &room, "org.x", json!({ "url": "mxc://a/b" })).unwrap();
    let answer = Client::with_filter(&ann, with_url).sync(&world);
    assert_eq!(ids(&joined(&answer, &room)["timeline"]["events"]), [said.to_string()]);
    assert_eq!(joined(&answer, &room)["state"]["events"], json!([]));
}

#[test]
fn full_state_comes_again_without_repeating_the_timeline() {
    let (world, ann, _, room) = scene();
    let quiet = world.public_room(&ann);
    let mut client = Client::new(&ann);
    client.sync(&world);
    world.say(&ann, &room, "new").unwrap();
    let mut request = client.request(30_000);
    request.full_state = true;
    let started = world.sim.env().now_ms();
    let answer = client.take(&world.run(world.sync.sync(request)).unwrap());
    assert_eq!(world.sim.env().now_ms(), started, "full state does not wait");
    assert_eq!(kinds(&joined(&answer, &room)["timeline"]["events"]), ["m.room.message"]);
    assert_eq!(joined(&answer, &room)["state"]["events"].as_array().unwrap().len(), 7);
    assert_eq!(joined(&answer, &quiet)["timeline"]["events"], json!([]));
    assert_eq!(joined(&answer, &quiet)["state"]["events"].as_array().unwrap().len(), 6);
}

#[test]
fn state_after_is_the_state_at_the_end_under_the_name_asked_for() {
    let (world, ann, _, room) = scene();
    for (form, key, size) in [
        (StateForm::After, "state_after", 7),
        (StateForm::AfterUnstable, "org.matrix.msc4222.state_after", 8),
    ] {
        let mut client = Client::new(&ann);
        client.state_form = form;
        let answer = client.sync(&world);
        assert_eq!(joined(&answer, &room)[key]["events"].as_array().unwrap().len(), size, "initial");
        assert!(joined(&answer, &room)["state"].is_null());
        world.say(&ann, &room, "no state").unwrap();
        assert_eq!(joined(&client.sync(&world), &room)[key]["events"], json!([]));
        let topic = world.set(&ann, &room, "m.room.topic", "", json!({ "topic": key })).unwrap();
        let answer = client.sync(&world);
        assert_eq!(ids(&joined(&answer, &room)[key]["events"]), [topic.to_string()]);
        assert_eq!(ids(&joined(&answer, &room)["timeline"]["events"]), [topic.to_string()]);
    }
}

#[test]
fn gaps_come_with_the_state_at_the_start_of_the_timeline() {
    let (world, ann, _, room) = scene();
    let mut client = Client::with_filter(&ann, r#"{"room":{"timeline":{"limit":2}}}"#);
    client.sync(&world);
    let early = world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "1" })).unwrap();
    world.say(&ann, &room, "in the gap").unwrap();
    world.say(&ann, &room, "shown").unwrap();
    let late = world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "2" })).unwrap();
    let answer = client.sync(&world);
    let here = joined(&answer, &room);
    assert_eq!(ids(&here["state"]["events"]), [early.to_string()]);
    assert_eq!(ids(&here["timeline"]["events"])[1], late.to_string());
    assert_eq!(here["timeline"]["limited"], true);
}

#[test]
fn rooms_that_were_left_come_once_and_initially_only_on_request() {
    let (world, ann, bob, room) = scene();
    let mut client = Client::new(&bob);
    client.sync(&world);
    world.say(&ann, &room, "before").unwrap();
    world.put_account_data(&bob, Some(&room), "org.x", json!({}));
    world.kick(&ann, &room, &bob).unwrap();
    world.say(&ann, &room, "after").unwrap();
    let answer = client.sync(&world);
    let left = &answer["rooms"]["leave"][room.as_str()];
    let expected = ["m.room.message", "m.room.member/@bob:localhost"];
    assert_eq!(kinds(&left["timeline"]["events"]), expected);
    assert_eq!(kinds(&left["account_data"]["events"]), ["org.x"]);
    assert!(client.sync(&world)["rooms"].is_null());
    assert!(Client::new(&bob).sync(&world)["rooms"].is_null());
    let include = r#"{"room":{"include_leave":true}}"#;
    let answer = Client::with_filter(&bob, include).sync(&world);
    let timeline = kinds(&answer["rooms"]["leave"][room.as_str()]["timeline"]["events"]);
    assert_eq!(timeline.last().unwrap(), "m.room.member/@bob:localhost");
    world.forget(&bob, &room).unwrap();
    assert!(Client::with_filter(&bob, include).sync(&world)["rooms"].is_null());
}

#[test]
fn invites_and_knocks_come_with_stripped_state() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let mut client = Client::new(&bob);
    client.sync(&world);
    let request = CreateRoom { name: Some("a room".to_owned()), ..CreateRoom::default() };
    let room = world.create(&ann, request);
    world.invite(&ann, &room, &bob).unwrap();
    let answer = client.sync(&world);
    let events = &answer["rooms"]["invite"][room.as_str()]["invite_state"]["events"];
    let kinds_of = kinds(events);
    for kind in ["m.room.create", "m.room.name", "m.room.join_rules", "m.room.member/@ann:localhost"] {
        assert!(kinds_of.iter().any(|k| k == kind), "{kind} in {kinds_of:?}");
    }
    assert_eq!(kinds_of.last().unwrap(), "m.room.member/@bob:localhost");
    let keys: Vec<_> = events[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["content", "sender", "state_key", "type"]);
    world.leave(&bob, &room).unwrap();
    let left = &client.sync(&world)["rooms"]["leave"][room.as_str()];
    assert_eq!(kinds(&left["timeline"]["events"]), ["m.room.member/@bob:localhost"]);
    assert_eq!(left["state"]["events"], json!([]), "the state was never theirs to see");
    world.set(&ann, &room, "m.room.join_rules", "", json!({ "join_rule": "knock" })).unwrap();
    world.knock(&bob, &room).unwrap();
    let answer = client.sync(&world);
    let knock = kinds(&answer["rooms"]["knock"][room.as_str()]["knock_state"]["events"]);
    assert_eq!(knock.last().unwrap(), "m.room.member/@bob:localhost");
    world.ignore(&bob, &ann);
    let other = world.public_room(&ann);
    world.invite(&ann, &other, &bob).unwrap();
    assert!(client.sync(&world)["rooms"]["invite"].is_null(), "invites of ignored users are hidden");
}

#[test]
fn unsigned_says_what_concerns_the_reader() {
    let (world, ann, bob, room) = scene();
    let (mut own, mut other) = (Client::new(&ann), Client::new(&ann).device("OTHER"));
    let mut theirs = Client::new(&bob);
    [&mut own, &mut other, &mut theirs].into_iter().for_each(|client| drop(client.sync(&world)));
    let first = world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "1" })).unwrap();
    world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "2" })).unwrap();
    let said = world.say(&ann, &room, "oops").unwrap();
    let redaction = world.redact(&ann, &room, &said).unwrap();
    let unsigned = |client: &mut Client| -> Vec<Value> {
        let answer = client.sync(&world);
        let events = joined(&answer, &room)["timeline"]["events"].as_array().unwrap().clone();
        assert_eq!(events[2]["content"], json!({}), "redacted");
        events.iter().map(|event| event["unsigned"].clone()).collect()
    };
    let seen = unsigned(&mut own);
    assert!(seen[0]["prev_content"].is_null());
    assert_eq!(seen[1]["prev_content"], json!({ "topic": "1" }));
    assert_eq!(seen[1]["replaces_state"], first.as_str());
    assert!(seen[3]["transaction_id"].is_string());
    assert_eq!(seen[2]["redacted_because"]["event_id"], redaction.as_str());
    assert!(seen.iter().all(|unsigned| unsigned["membership"] == "join"));
    for client in [&mut other, &mut theirs] {
        assert!(unsigned(client).iter().all(|unsigned| unsigned["transaction_id"].is_null()));
    }
}

#[test]
fn membership_is_that_of_the_reader_at_the_event() {
    let (world, ann, _, room) = scene();
    let cid = world.user("cid");
    world.say(&ann, &room, "before").unwrap();
    world.invite(&ann, &room, &cid).unwrap();
    world.join(&cid, &room).unwrap();
    let answer = Client::with_filter(&cid, r#"{"room":{"timeline":{"limit":3}}}"#).sync(&world);
    let events = joined(&answer, &room)["timeline"]["events"].as_array().unwrap();
    let seen: Vec<_> = events.iter().map(|event| event["unsigned"]["membership"].clone()).collect();
    assert_eq!(seen, ["leave", "invite", "join"]);
}

#[test]
fn formats_of_events() {
    let (world, ann, _, room) = scene();
    world.say(&ann, &room, "x").unwrap();
    let fields = r#"{"event_fields":["type","content.body"],"room":{"timeline":{"limit":1}}}"#;
    let answer = Client::with_filter(&ann, fields).sync(&world);
    let expected = json!([{ "type": "m.room.message", "content": { "body": "x" } }]);
    assert_eq!(joined(&answer, &room)["timeline"]["events"], expected);
    let federation = r#"{"event_format":"federation","room":{"timeline":{"limit":1}}}"#;
    let answer = Client::with_filter(&ann, federation).sync(&world);
    assert!(joined(&answer, &room)["timeline"]["events"][0]["signatures"].is_object());
}

#[test]
fn filters_that_are_none() {
    let world = World::new(1);
    let ann = world.user("ann");
    for bad in
        ["{", "[]", r#"{"room":7}"#, r#"{"room":{"timeline":{"limit":-1}}}"#, r#"{"event_format":"x"}"#]
    {
        assert!(matches!(parse_filter(bad), Err(Error::InvalidParam(_))), "{bad}");
    }
    for id in ["0", "x", "-1"] {
        let found = world.run(world.sync.stored_filter(ann.sender.user, id));
        assert!(matches!(found, Err(Error::InvalidParam(_))), "{id}");
    }
}

#[test]
fn a_restarted_server_goes_on_from_the_same_token() {
    let (world, ann, bob, room) = scene();
    let mut client = Client::new(&bob);
    client.sync(&world);
    let said = world.say(&ann, &room, "before the restart").unwrap();
    let world = World::on(world.disk.clone(), 2);
    let answer = client.sync(&world);
    assert_eq!(ids(&joined(&answer, &room)["timeline"]["events"]), [said.to_string()]);
    assert!(client.sync(&world)["rooms"].is_null());
}

#[test]
fn a_room_joined_again_starts_anew_with_its_history_behind_prev_batch() {
    let (world, ann, bob, room) = scene();
    let mut client = Client::new(&bob);
    client.sync(&world);
    world.leave(&bob, &room).unwrap();
    client.sync(&world);
    world.say(&ann, &room, "while bob was away").unwrap();
    world.join(&bob, &room).unwrap();
    let answer = client.sync(&world);
    let here = joined(&answer, &room);
    assert_eq!(here["timeline"]["limited"], true, "what the client holds does not join on to this");
    let both = kinds(&here["timeline"]["events"]).into_iter().chain(kinds(&here["state"]["events"]));
    assert!(both.into_iter().any(|kind| kind == "m.room.create"), "all of the state comes again: {here}");
}
