//! Creating rooms.

use ruma::RoomVersionId;
use serde_json::{Map, Value, json, value::to_raw_value};

use super::world::{World, content};
use crate::{CreateRoom, Error, InitialState, Preset, Visibility};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn initial(event_type: &str, content: Value) -> InitialState {
    InitialState {
        event_type: event_type.to_owned(),
        state_key: String::new(),
        content: to_raw_value(&content).unwrap(),
    }
}

#[test]
fn everything_in_the_order_of_the_specification_and_in_one_commit() {
    let world = World::new(1);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let request = CreateRoom {
        visibility: Visibility::Public,
        room_alias_name: Some("pub".to_owned()),
        name: Some("The Pub".to_owned()),
        topic: Some("Beer".to_owned()),
        invite: vec![bob.user_id.clone(), alice.user_id.clone()],
        initial_state: vec![
            initial("m.room.name", json!({ "name": "overridden" })),
            initial("m.room.history_visibility", json!({ "history_visibility": "joined" })),
            initial("m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2" })),
        ],
        is_direct: true,
        ..CreateRoom::default()
    };
    let room = world.create(&alice, request);
    assert_eq!(
        world.kinds(&room),
        [
            "m.room.create",
            "m.room.member join",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.guest_access",
            "m.room.history_visibility",
            "m.room.encryption",
            "m.room.name",
            "m.room.topic",
            "m.room.member invite",
        ]
    );
    assert_eq!(world.state(&room, "m.room.join_rules", "").unwrap(), json!({ "join_rule": "public" }));
    assert_eq!(world.state(&room, "m.room.name", "").unwrap(), json!({ "name": "The Pub" }));
    assert_eq!(world.state(&room, "m.room.topic", "").unwrap()["m.topic"]["m.text"][0]["body"], "Beer");
    assert_eq!(world.state(&room, "m.room.canonical_alias", "").unwrap()["alias"], "#pub:localhost");
    let invite = world.state(&room, "m.room.member", "@bob:localhost").unwrap();
    assert_eq!(invite, json!({ "membership": "invite", "is_direct": true }));
    assert_eq!(world.run(world.rooms.visibility(&room)).unwrap(), Visibility::Public);
    let alias = "#pub:localhost".try_into().unwrap();
    assert_eq!(world.run(world.rooms.resolve_alias(alias)).unwrap(), Some(room.clone()));
    let snapshot = world.snapshot(&room);
    assert_eq!((snapshot.head.version, snapshot.joined_count, snapshot.invited_count), (1, 1, 1));

    let before = world.counts.commits.load(std::sync::atomic::Ordering::Relaxed);
    world.create(&alice, CreateRoom { invite: vec![bob.user_id.clone()], ..CreateRoom::default() });
    assert_eq!(world.counts.commits.load(std::sync::atomic::Ordering::Relaxed), before + 1);
}

#[test]
fn every_version_and_its_kind_of_room_id() {
    let world = World::new(2);
    let alice = world.user("alice");
    for version in myelin_dag::room_version::SUPPORTED {
        let room = world.room_of_version(&alice, version.clone());
        let create = world.timeline(&room)[0].clone();
        assert_eq!(content(&create)["room_version"], version.as_str());
        let hashed = *version == RoomVersionId::V12;
        assert_eq!(room.server_name().is_none(), hashed, "{version}");
        assert_eq!(room.strip_sigil() == create.pdu.event_id.localpart(), hashed, "{version}");
        let named = content(&create).get("creator").is_some();
        assert_eq!(named, !matches!(version, RoomVersionId::V11 | RoomVersionId::V12), "{version}");
        world.say(&alice, &room, "hello").unwrap();
    }
    let default = world.public_room(&alice);
    assert_eq!(world.snapshot(&default).info.version, RoomVersionId::V12);
}

#[test]
fn presets() {
    let world = World::new(3);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let create = |preset, version: RoomVersionId| {
        let (preset, room_version) = (Some(preset), Some(version));
        let invite = vec![bob.user_id.clone()];
        world.create(&alice, CreateRoom { preset, room_version, invite, ..CreateRoom::default() })
    };
    let table = [
        (Preset::PrivateChat, "invite", "can_join"),
        (Preset::PublicChat, "public", "forbidden"),
        (Preset::TrustedPrivateChat, "invite", "can_join"),
    ];
    for (preset, join_rule, guest_access) in table {
        let room = create(preset, RoomVersionId::V11);
        assert_eq!(world.state(&room, "m.room.join_rules", "").unwrap()["join_rule"], join_rule);
        assert_eq!(world.state(&room, "m.room.guest_access", "").unwrap()["guest_access"], guest_access);
        let shared = world.state(&room, "m.room.history_visibility", "").unwrap();
        assert_eq!(shared["history_visibility"], "shared");
        let levels = world.state(&room, "m.room.power_levels", "").unwrap();
        let trusted = preset == Preset::TrustedPrivateChat;
        assert_eq!(levels["users"].get("@bob:localhost") == Some(&json!(100)), trusted, "{preset:?}");
        assert_eq!(levels["users"]["@alice:localhost"], 100);
    }
    let room = create(Preset::TrustedPrivateChat, RoomVersionId::V12);
    let create = content(&world.timeline(&room)[0]);
    assert_eq!(create["additional_creators"], json!(["@bob:localhost"]));
    let levels = world.state(&room, "m.room.power_levels", "").unwrap();
    assert_eq!((&levels["users"], &levels["events"]["m.room.tombstone"]), (&json!({}), &json!(150)));
    world.join(&bob, &room).unwrap();
    world.set(&bob, &room, "m.room.tombstone", "", json!({ "body": "", "replacement_room": "!x" })).unwrap();
}

#[test]
fn wishes_for_content_are_fulfilled() {
    let world = World::new(4);
    let alice = world.user("alice");
    let request = CreateRoom {
        creation_content: object(
            json!({ "m.federate": false, "type": "m.space", "creator": "@x:y", "room_version": "9" }),
        ),
        power_level_content_override: object(
            json!({ "events_default": 10, "users": { "@alice:localhost": 100, "@bob:localhost": 1 } }),
        ),
        room_version: Some(RoomVersionId::V10),
        ..CreateRoom::default()
    };
    let room = world.create(&alice, request);
    let create = content(&world.timeline(&room)[0]);
    assert_eq!((&create["m.federate"], &create["type"]), (&json!(false), &json!("m.space")));
    assert_eq!((&create["creator"], &create["room_version"]), (&json!("@alice:localhost"), &json!("10")));
    assert_eq!(world.snapshot(&room).info.room_type.as_deref(), Some("m.space"));
    let levels = world.state(&room, "m.room.power_levels", "").unwrap();
    assert_eq!((&levels["events_default"], &levels["ban"]), (&json!(10), &json!(50)));
    assert_eq!(levels["users"], json!({ "@alice:localhost": 100, "@bob:localhost": 1 }));

    let own = json!({ "users": { "@alice:localhost": 77 }, "events": {} });
    let initial_state = vec![initial("m.room.power_levels", own.clone())];
    let room_version = Some(RoomVersionId::V11);
    let room = world.create(&alice, CreateRoom { initial_state, room_version, ..CreateRoom::default() });
    assert_eq!(world.state(&room, "m.room.power_levels", "").unwrap(), own);
}

#[test]
fn what_cannot_be_created_leaves_nothing() {
    let world = World::new(5);
    let alice = world.user("alice");
    let room_alias_name = Some("taken".to_owned());
    world.create(&alice, CreateRoom { room_alias_name: room_alias_name.clone(), ..CreateRoom::default() });
    let before = world.view.store.position();
    let refuse = |request: CreateRoom| world.run(world.rooms.create_room(&alice, &request)).unwrap_err();
    let default = CreateRoom::default;

    let error = refuse(CreateRoom { room_version: Some("13".try_into().unwrap()), ..default() });
    assert!(matches!(error, Error::UnsupportedRoomVersion(_)), "{error}");
    let error = refuse(CreateRoom { room_alias_name, ..default() });
    assert!(matches!(error, Error::RoomInUse(_)), "{error}");
    for odd in ["", "a b", "a:b", "#a"] {
        let error = refuse(CreateRoom { room_alias_name: Some(odd.to_owned()), ..default() });
        assert!(matches!(error, Error::InvalidParam(_)), "{error}");
    }
    let invite = vec![alice.user_id.clone(); 1_001];
    let error = refuse(CreateRoom { invite, ..default() });
    assert!(matches!(error, Error::InvalidParam(_)), "{error}");
    let levels = object(json!({ "users": { "@alice:localhost": 10 } }));
    let request = CreateRoom {
        power_level_content_override: levels.clone(),
        room_version: Some(RoomVersionId::V11),
        name: Some("no".to_owned()),
        ..default()
    };
    assert!(matches!(refuse(request), Error::InvalidRoomState(_)));
    let request = CreateRoom { power_level_content_override: levels, ..default() };
    assert!(matches!(refuse(request), Error::InvalidRoomState(_)), "creators are not named in version 12");
    let creation_content = object(json!({ "additional_creators": "no" }));
    let error = refuse(CreateRoom { creation_content: creation_content.clone(), ..default() });
    assert!(matches!(error, Error::BadJson(_)), "{error}");
    let preset = Some(Preset::TrustedPrivateChat);
    let error = refuse(CreateRoom { creation_content, preset, ..default() });
    assert!(matches!(error, Error::BadJson(_)), "{error}");
    let floating = vec![initial("org.example.float", json!({ "f": 1.5 }))];
    let error = refuse(CreateRoom { initial_state: floating, ..default() });
    assert!(matches!(error, Error::BadJson(_)), "{error}");
    let long = vec![initial(&"x".repeat(256), json!({}))];
    let error = refuse(CreateRoom { initial_state: long, ..default() });
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    let foreign = vec![initial("m.room.canonical_alias", json!({ "alias": "#taken:localhost" }))];
    let error = refuse(CreateRoom { initial_state: foreign, ..default() });
    assert!(matches!(error, Error::BadAlias(_)), "{error}");
    assert_eq!(world.view.store.position(), before);
}
