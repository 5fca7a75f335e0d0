//! Single events, state and members, and who may read them.

use myelin_sync::{Error, room_read::MembersRequest};
use ruma::{OwnedRoomId, RoomId, events::room::member::MembershipState};
use serde_json::{Value, json};

use super::{
    client::{Client, kinds},
    world::{User, World},
};

fn scene() -> (World, User, User, OwnedRoomId) {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let room = world.public_room(&ann);
    world.join(&bob, &room).unwrap();
    (world, ann, bob, room)
}

fn json_of(answer: Result<String, Error>) -> Value {
    serde_json::from_str(&answer.unwrap()).expect("an answer is JSON")
}

#[test]
fn events_are_found_in_their_own_room_only() {
    let (world, ann, bob, room) = scene();
    let other = world.public_room(&ann);
    let said = world.say(&ann, &room, "x").unwrap();
    let event = |user: &User, room: &RoomId| world.run(world.sync.event(&user.requester, room, &said));
    let found = json_of(event(&bob, &room));
    assert_eq!((&found["event_id"], &found["room_id"]), (&json!(said), &json!(room)));
    assert!(matches!(event(&ann, &other), Err(Error::NotFound(_))));
    let nowhere = <&RoomId>::try_from("!nowhere:localhost").unwrap();
    assert!(matches!(event(&ann, nowhere), Err(Error::NotFound(_))));
    assert!(matches!(event(&world.user("eve"), &room), Err(Error::NotFound(_))));
    let none = <&ruma::EventId>::try_from("$none").unwrap();
    assert!(matches!(world.run(world.sync.event(&ann.requester, &room, none)), Err(Error::NotFound(_))));
    world.leave(&bob, &room).unwrap();
    event(&bob, &room).unwrap();
    world.forget(&bob, &room).unwrap();
    assert!(matches!(event(&bob, &room), Err(Error::NotFound(_))), "forgotten");
}

#[test]
fn history_is_seen_by_its_visibility() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    // Visibility; then whether bob sees an event from before his invite, after it, and after his join, once he joined.
    let table = [
        ("world_readable", [true, true, true]),
        ("shared", [true, true, true]),
        ("invited", [false, true, true]),
        ("joined", [false, false, true]),
    ];
    for (visibility, expected) in table {
        let content = json!({ "history_visibility": visibility });
        let room = world.room_with(&ann, &[("m.room.history_visibility", content)]);
        let before = world.say(&ann, &room, "before").unwrap();
        world.invite(&ann, &room, &bob).unwrap();
        let invited = world.say(&ann, &room, "invited").unwrap();
        let sees =
            |event: &ruma::OwnedEventId| world.run(world.sync.event(&bob.requester, &room, event)).is_ok();
        assert_eq!(sees(&before), visibility == "world_readable", "{visibility}, not joined yet");
        world.join(&bob, &room).unwrap();
        let joined = world.say(&ann, &room, "joined").unwrap();
        assert_eq!([&before, &invited, &joined].map(sees), expected, "{visibility}");
        world.leave(&bob, &room).unwrap();
        let after = world.say(&ann, &room, "after").unwrap();
        assert_eq!([&before, &invited, &joined].map(sees), expected, "{visibility}, having left");
        assert_eq!(sees(&after), visibility == "world_readable", "{visibility}");
    }
}

#[test]
fn state_is_that_of_now_or_of_the_moment_of_leaving() {
    let (world, ann, bob, room) = scene();
    world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "1" })).unwrap();
    world.leave(&bob, &room).unwrap();
    world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "2" })).unwrap();
    world.set(&ann, &room, "m.room.name", "", json!({ "name": "new" })).unwrap();
    let get = |user: &User, kind: &str, whole| {
        world.run(world.sync.state_event(&user.requester, &room, kind, "", whole))
    };
    assert_eq!(json_of(get(&ann, "m.room.topic", false)), json!({ "topic": "2" }));
    assert_eq!(json_of(get(&bob, "m.room.topic", false)), json!({ "topic": "1" }));
    assert!(matches!(get(&bob, "m.room.name", false), Err(Error::NotFound(_))));
    assert!(matches!(get(&ann, "org.never", false), Err(Error::NotFound(_))));
    let whole = json_of(get(&ann, "m.room.topic", true));
    assert_eq!((&whole["type"], &whole["room_id"]), (&json!("m.room.topic"), &json!(room)));
    let state = |user: &User| world.run(world.sync.state(&user.requester, &room));
    let kinds_of = |user: &User| kinds(&json_of(state(user)));
    assert!(kinds_of(&ann).contains(&"m.room.name".to_owned()));
    assert!(!kinds_of(&bob).contains(&"m.room.name".to_owned()));
    let eve = world.user("eve");
    assert!(matches!(state(&eve), Err(Error::Forbidden(_))));
    assert!(matches!(get(&eve, "m.room.topic", false), Err(Error::Forbidden(_))));
    let readable = json!({ "history_visibility": "world_readable" });
    world.set(&ann, &room, "m.room.history_visibility", "", readable).unwrap();
    assert!(kinds_of(&eve).contains(&"m.room.name".to_owned()), "whoever asks may read");
    assert_eq!(json_of(get(&bob, "m.room.topic", false)), json!({ "topic": "2" }));
}

#[test]
fn members_now_then_and_by_membership() {
    let (world, ann, bob, room) = scene();
    let (cid, dot, eve) = (world.user("cid"), world.user("dot"), world.user("eve"));
    let mut client = Client::new(&ann);
    client.sync(&world);
    let then = client.since.unwrap().to_string();
    world.join(&cid, &room).unwrap();
    world.invite(&ann, &room, &dot).unwrap();
    world.leave(&bob, &room).unwrap();
    world.join(&eve, &room).unwrap();
    let ask = |user: &User, request: &MembersRequest| {
        let answer = json_of(world.run(world.sync.members(&user.requester, &room, request)));
        let chunk = answer["chunk"].as_array().unwrap();
        let mut names: Vec<_> =
            chunk.iter().map(|e| e["state_key"].as_str().unwrap()[1..4].to_owned()).collect();
        names.sort();
        names
    };
    let all = MembersRequest::default();
    assert_eq!(ask(&ann, &all), ["ann", "bob", "cid", "dot", "eve"]);
    let at = MembersRequest { at: Some(then.parse().unwrap()), ..all.clone() };
    assert_eq!(ask(&ann, &at), ["ann", "bob"]);
    let joined = MembersRequest { membership: Some(MembershipState::Join), ..all.clone() };
    assert_eq!(ask(&ann, &joined), ["ann", "cid", "eve"]);
    let not_joined = MembersRequest { not_membership: Some(MembershipState::Join), ..all.clone() };
    assert_eq!(ask(&ann, &not_joined), ["bob", "dot"]);
    let either = MembersRequest { membership: Some(MembershipState::Join), ..not_joined };
    assert_eq!(ask(&ann, &either), ["ann", "bob", "cid", "dot", "eve"], "one of the two is enough");
    assert_eq!(ask(&cid, &at), ["ann", "bob"], "from before their time, as the history is shared");
    assert_eq!(ask(&bob, &all), ["ann", "bob", "cid", "dot"], "as of leaving");
    client.sync(&world);
    let now = MembersRequest { at: Some(client.since.unwrap().to_string().parse().unwrap()), ..all.clone() };
    assert_eq!(ask(&ann, &now), ["ann", "bob", "cid", "dot", "eve"]);
    assert_eq!(ask(&bob, &now), ["ann", "bob", "cid", "dot"], "as of leaving, with a token from after that");
    let refused = world.run(world.sync.members(&dot.requester, &room, &all));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

#[test]
fn members_of_a_time_that_is_not_shared() {
    for (visibility, allowed) in
        [("world_readable", true), ("shared", true), ("invited", false), ("joined", false)]
    {
        let (world, ann, bob, room) = scene();
        let content = json!({ "history_visibility": visibility });
        world.set(&ann, &room, "m.room.history_visibility", "", content).unwrap();
        let mut client = Client::new(&ann);
        client.sync(&world);
        let at = Some(client.since.unwrap().to_string().parse().unwrap());
        let cid = world.user("cid");
        world.join(&cid, &room).unwrap();
        let request = MembersRequest { at, ..MembersRequest::default() };
        let ask = |user: &User| world.run(world.sync.members(&user.requester, &room, &request));
        assert!(ask(&bob).is_ok(), "{visibility}");
        match allowed {
            true => assert!(ask(&cid).is_ok(), "{visibility}"),
            false => assert!(matches!(ask(&cid), Err(Error::Forbidden(_))), "{visibility}"),
        }
        world.leave(&bob, &room).unwrap();
        client.sync(&world);
        let now = Some(client.since.unwrap().to_string().parse().unwrap());
        for request in [&request, &MembersRequest { at: now, ..MembersRequest::default() }] {
            let answer = world.run(world.sync.members(&bob.requester, &room, request));
            assert!(answer.is_ok(), "{visibility}, having left");
        }
    }
}

#[test]
fn joined_members_and_joined_rooms() {
    let (world, ann, bob, room) = scene();
    let content = json!({ "membership": "join", "displayname": "Ann", "avatar_url": "mxc://a/b" });
    world.set(&ann, &room, "m.room.member", "@ann:localhost", content).unwrap();
    let answer = json_of(world.run(world.sync.joined_members(&bob.requester, &room)));
    let members = &answer["joined"];
    assert_eq!(members["@ann:localhost"], json!({ "display_name": "Ann", "avatar_url": "mxc://a/b" }));
    assert!(members["@bob:localhost"].is_object());
    let rooms = |user: &User| world.run(world.sync.joined_rooms(&user.requester)).unwrap();
    assert_eq!(rooms(&bob), [room.to_string()]);
    world.leave(&bob, &room).unwrap();
    assert!(rooms(&bob).is_empty());
    let refused = world.run(world.sync.joined_members(&bob.requester, &room));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

#[test]
fn an_initial_sync_of_one_room() {
    let (world, ann, bob, room) = scene();
    world.put_account_data(&bob, Some(&room), "org.x", json!({ "a": 1 }));
    world.say(&ann, &room, "hello").unwrap();
    let answer = json_of(world.run(world.sync.room_initial_sync(&bob.requester, &room)));
    assert_eq!((&answer["membership"], &answer["visibility"]), (&json!("join"), &json!("private")));
    assert_eq!(kinds(&answer["messages"]["chunk"]).last().unwrap(), "m.room.message");
    assert!(answer["messages"]["start"].is_string() && answer["messages"]["end"].is_string());
    assert_eq!(answer["state"].as_array().unwrap().len(), 7);
    assert_eq!(answer["account_data"], json!([{ "type": "org.x", "content": { "a": 1 } }]));
    let refused = world.run(world.sync.room_initial_sync(&world.user("eve").requester, &room));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}
