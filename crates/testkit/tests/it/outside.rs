//! Rooms seen from outside: summaries and hierarchies.

use myelin_rooms::{CreateRoom, Preset};
use myelin_sync::{
    Error,
    spaces::{Alone, HierarchyRequest},
};
use ruma::{OwnedRoomId, RoomOrAliasId};
use serde_json::{Value, json};

use super::world::{User, World};

fn json_of(answer: Result<String, Error>) -> Value {
    serde_json::from_str(&answer.unwrap()).expect("an answer is JSON")
}

fn private_room(world: &World, user: &User) -> OwnedRoomId {
    world.create(user, CreateRoom { preset: Some(Preset::PrivateChat), ..CreateRoom::default() })
}

fn space(world: &World, user: &User, preset: Preset) -> OwnedRoomId {
    let creation_content = json!({ "type": "m.space" }).as_object().unwrap().clone();
    world.create(user, CreateRoom { preset: Some(preset), creation_content, ..CreateRoom::default() })
}

fn add(world: &World, user: &User, space: &OwnedRoomId, child: &OwnedRoomId, content: Value) {
    world.set(user, space, "m.space.child", child.as_str(), content).unwrap();
}

fn rooms(answer: &Value) -> Vec<&str> {
    answer["rooms"].as_array().unwrap().iter().map(|room| room["room_id"].as_str().unwrap()).collect()
}

#[test]
fn summaries_are_for_those_whom_the_room_is_open_to() {
    let world = World::new(1);
    let (ann, eve) = (world.user("ann"), world.user("eve"));
    let request = CreateRoom {
        preset: Some(Preset::PublicChat),
        room_alias_name: Some("lobby".to_owned()),
        name: Some("The lobby".to_owned()),
        topic: Some("hello".to_owned()),
        ..CreateRoom::default()
    };
    let public = world.create(&ann, request);
    let private = private_room(&world, &ann);
    let summary = |user: Option<&User>, room: &str| {
        let room = <&RoomOrAliasId>::try_from(room).unwrap();
        world.run(world.sync.room_summary(user.map(|user| &user.requester), room, &[], &Alone))
    };
    for room in [public.as_str(), "#lobby:localhost"] {
        let answer = json_of(summary(None, room));
        let expected = [
            ("room_id", json!(public)),
            ("name", json!("The lobby")),
            ("topic", json!("hello")),
            ("canonical_alias", json!("#lobby:localhost")),
            ("num_joined_members", json!(1)),
            ("join_rule", json!("public")),
            ("guest_can_join", json!(false)),
            ("world_readable", json!(false)),
            ("room_version", json!("12")),
        ];
        for (field, value) in expected {
            assert_eq!(answer[field], value, "{field}");
        }
        assert!(answer["membership"].is_null());
    }
    assert_eq!(json_of(summary(Some(&ann), public.as_str()))["membership"], "join");
    assert_eq!(json_of(summary(Some(&eve), public.as_str()))["membership"], "leave");
    assert_eq!(json_of(summary(Some(&ann), private.as_str()))["membership"], "join");
    for user in [None, Some(&eve)] {
        assert!(matches!(summary(user, private.as_str()), Err(Error::NotFound(_))));
        assert!(matches!(summary(user, "#none:localhost"), Err(Error::NotFound(_))));
        assert!(matches!(summary(user, "!none:localhost"), Err(Error::NotFound(_))));
    }
    world.invite(&ann, &private, &eve).unwrap();
    assert_eq!(json_of(summary(Some(&eve), private.as_str()))["membership"], "invite");
    world.join(&eve, &public).unwrap();
    world.ban(&ann, &public, &eve).unwrap();
    assert!(matches!(summary(Some(&eve), public.as_str()), Err(Error::NotFound(_))), "banned");
}

#[test]
fn restricted_rooms_are_open_to_members_of_the_rooms_they_name() {
    let world = World::new(1);
    let (ann, bob, eve) = (world.user("ann"), world.user("bob"), world.user("eve"));
    let (club, room) = (world.public_room(&ann), private_room(&world, &ann));
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    world.set(&ann, &room, "m.room.join_rules", "", rules).unwrap();
    world.join(&bob, &club).unwrap();
    let id = <&RoomOrAliasId>::try_from(room.as_str()).unwrap();
    let answer = json_of(world.run(world.sync.room_summary(Some(&bob.requester), id, &[], &Alone)));
    assert_eq!(answer["join_rule"], "restricted");
    assert_eq!(answer["allowed_room_ids"], json!([club]));
    for user in [None, Some(&eve.requester)] {
        assert!(matches!(world.run(world.sync.room_summary(user, id, &[], &Alone)), Err(Error::NotFound(_))));
    }
}

#[test]
fn hierarchies_hold_what_the_user_may_know_in_order() {
    let world = World::new(1);
    let (ann, eve) = (world.user("ann"), world.user("eve"));
    let root = space(&world, &ann, Preset::PublicChat);
    let sub = space(&world, &ann, Preset::PublicChat);
    let leaf = world.public_room(&ann);
    let first = world.public_room(&ann);
    let secret = private_room(&world, &ann);
    let via = json!(["localhost"]);
    add(&world, &ann, &root, &sub, json!({ "via": via, "order": "b", "suggested": true }));
    add(&world, &ann, &root, &first, json!({ "via": via, "order": "a" }));
    add(&world, &ann, &root, &secret, json!({ "via": via, "order": "c" }));
    add(&world, &ann, &root, &leaf, json!({ "no": "via" }));
    add(&world, &ann, &sub, &leaf, json!({ "via": via }));
    add(&world, &ann, &sub, &root, json!({ "via": via, "order": "z" }));
    let ask = |user: &User, request: HierarchyRequest| {
        world.run(world.sync.hierarchy(&user.requester, &root, &request, &Alone))
    };
    let whole = json_of(ask(&ann, HierarchyRequest::default()));
    assert_eq!(rooms(&whole), [&*root, &*first, &*sub, &*leaf, &*secret].map(|room| room.as_str()));
    assert_eq!(whole["rooms"][0]["room_type"], "m.space");
    let children = whole["rooms"][0]["children_state"].as_array().unwrap();
    assert_eq!(children.len(), 3);
    assert!(children.iter().all(|child| child["origin_server_ts"].is_u64() && child["sender"].is_string()));
    assert_eq!(whole["rooms"][1]["children_state"], json!([]));
    let theirs = json_of(ask(&eve, HierarchyRequest::default()));
    assert_eq!(rooms(&theirs), [&*root, &*first, &*sub, &*leaf].map(|room| room.as_str()));
    let suggested = json_of(ask(&ann, HierarchyRequest { suggested_only: true, ..Default::default() }));
    assert_eq!(rooms(&suggested), [&*root, &*sub].map(|room| room.as_str()));
    let flat = json_of(ask(&ann, HierarchyRequest { max_depth: Some(1), ..Default::default() }));
    assert_eq!(rooms(&flat), [&*root, &*first, &*sub, &*secret].map(|room| room.as_str()));
    let mut paged = Vec::new();
    let mut request = HierarchyRequest { limit: Some(2), ..Default::default() };
    loop {
        let answer = json_of(ask(&ann, request.clone()));
        paged.extend(rooms(&answer).into_iter().map(str::to_owned));
        request.from = answer["next_batch"].as_str().map(str::to_owned);
        if request.from.is_none() {
            break;
        }
    }
    assert_eq!(paged, rooms(&whole));
    for from in ["nonsense", "h2_1_50"] {
        let request = HierarchyRequest { from: Some(from.to_owned()), ..Default::default() };
        assert!(matches!(ask(&ann, request), Err(Error::InvalidParam(_))), "{from}");
    }
    let hidden = space(&world, &ann, Preset::PrivateChat);
    let refused =
        world.run(world.sync.hierarchy(&eve.requester, &hidden, &HierarchyRequest::default(), &Alone));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}
