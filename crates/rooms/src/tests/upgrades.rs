//! Room upgrades.

use myelin_store::{
    Batch,
    codec::AtPosition,
    tables::{ACCOUNT_DATA, AccountDataRecord, Membership, USER_STREAM},
};
use ruma::{OwnedRoomAliasId, OwnedRoomId, RoomId, RoomVersionId};
use serde_json::json;

use super::world::{World, assert_forbidden, content};
use crate::{CreateRoom, Error, InitialState, Preset, Sender, Upgrade, Visibility};

fn upgrade(world: &World, who: &Sender, room: &RoomId, to: RoomVersionId) -> Result<OwnedRoomId, Error> {
    let request = Upgrade { new_version: to, additional_creators: Vec::new() };
    world.run(world.rooms.upgrade(who, room, &request))
}

#[test]
fn state_bans_aliases_and_listing_move() {
    let world = World::new(1);
    let (alice, bob, eve) = (world.user("alice"), world.user("bob"), world.user("eve"));
    let request = CreateRoom {
        visibility: Visibility::Public,
        preset: Some(Preset::PublicChat),
        room_version: Some(RoomVersionId::V10),
        room_alias_name: Some("pub".to_owned()),
        name: Some("Pub".to_owned()),
        creation_content: json!({ "type": "m.space", "m.federate": false }).as_object().unwrap().clone(),
        ..CreateRoom::default()
    };
    let old = world.create(&alice, request);
    world.join(&bob, &old).unwrap();
    world.ban(&alice, &old, &eve).unwrap();
    world.set(&alice, &old, "org.example.private", "", json!({})).unwrap();
    let last = world.say(&bob, &old, "last").unwrap();
    let version = world.snapshot(&old).head.version;

    let new = upgrade(&world, &alice, &old, RoomVersionId::V11).unwrap();
    assert_eq!(world.snapshot(&old).head.version, version + 1, "one commit");
    assert_eq!(world.snapshot(&new).head.version, 1);
    let create = content(&world.timeline(&new)[0]);
    assert_eq!(create["predecessor"], json!({ "room_id": old, "event_id": last }));
    assert_eq!((&create["type"], &create["m.federate"]), (&json!("m.space"), &json!(false)));
    assert_eq!(create["room_version"], "11");
    let tombstone = world.state(&old, "m.room.tombstone", "").unwrap();
    assert_eq!(tombstone["replacement_room"], json!(new));
    assert_eq!(world.state(&new, "m.room.name", "").unwrap()["name"], "Pub");
    assert_eq!(world.state(&new, "m.room.join_rules", "").unwrap()["join_rule"], "public");
    assert_eq!(world.state(&new, "org.example.private", ""), None);
    assert_eq!(world.snapshot(&new).membership(eve.user), Some(Membership::Ban));
    assert_eq!(world.snapshot(&new).membership(bob.user), None);
    assert_eq!(world.state(&new, "m.room.power_levels", "").unwrap()["users"]["@alice:localhost"], 100);

    let alias: OwnedRoomAliasId = "#pub:localhost".try_into().unwrap();
    assert_eq!(world.run(world.rooms.resolve_alias(&alias)).unwrap(), Some(new.clone()));
    assert_eq!(world.state(&new, "m.room.canonical_alias", "").unwrap()["alias"], "#pub:localhost");
    assert_eq!(world.state(&old, "m.room.canonical_alias", ""), Some(json!({})));
    assert_eq!(world.run(world.rooms.visibility(&old)).unwrap(), Visibility::Private);
    assert_eq!(world.run(world.rooms.visibility(&new)).unwrap(), Visibility::Public);

    let levels = world.state(&old, "m.room.power_levels", "").unwrap();
    assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
    assert_forbidden(world.say(&bob, &old, "too late"), "need power level 50");
    world.say(&alice, &new, "hello").unwrap();
}

/// The first version knows power levels as strings, and event ids of its server's making.
#[test]
fn a_room_of_the_first_version_moves_to_the_newest() {
    let world = World::new(9);
    let alice = world.user("alice");
    let levels = json!({ "users": { "@alice:localhost": "100" }, "ban": " 060", "invite": 5 });
    let initial_state = vec![InitialState {
        event_type: "m.room.power_levels".to_owned(),
        state_key: String::new(),
        content: serde_json::value::to_raw_value(&levels).unwrap(),
    }];
    let request =
        CreateRoom { room_version: Some(RoomVersionId::V1), initial_state, ..CreateRoom::default() };
    for version in [RoomVersionId::V2, RoomVersionId::V11, RoomVersionId::V12] {
        let old = world.create(&alice, request.clone());
        let last = world.say(&alice, &old, "last").unwrap();
        assert_eq!(last.server_name().map(|server| server.as_str()), Some("localhost"));
        let new = upgrade(&world, &alice, &old, version.clone()).unwrap();
        let levels = world.state(&new, "m.room.power_levels", "").unwrap();
        assert_eq!((&levels["ban"], &levels["invite"]), (&json!(60), &json!(5)), "{version}");
        assert_eq!(world.state(&old, "m.room.power_levels", "").unwrap()["invite"], 50);
        world.say(&alice, &new, "hello").unwrap();
    }
}

#[test]
fn to_version_12_creators_leave_the_power_levels() {
    let world = World::new(2);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let old = world.room_of_version(&alice, RoomVersionId::V11);
    world.join(&bob, &old).unwrap();
    let users = json!({ "@alice:localhost": 100, "@bob:localhost": 60, "@carol:localhost": 50 });
    world.set(&alice, &old, "m.room.power_levels", "", json!({ "users": users })).unwrap();
    let request = Upgrade { new_version: RoomVersionId::V12, additional_creators: vec![bob.user_id.clone()] };
    let new = world.run(world.rooms.upgrade(&alice, &old, &request)).unwrap();
    let create = content(&world.timeline(&new)[0]);
    assert_eq!(create["predecessor"], json!({ "room_id": old }));
    assert_eq!(create["additional_creators"], json!(["@bob:localhost"]));
    let levels = world.state(&new, "m.room.power_levels", "").unwrap();
    assert_eq!(levels["users"], json!({ "@carol:localhost": 50 }));
    assert_eq!(levels["events"]["m.room.tombstone"], 150);
    // And on: additional creators are not taken along by themselves.
    let next = upgrade(&world, &alice, &new, RoomVersionId::V12).unwrap();
    assert_eq!(content(&world.timeline(&next)[0]).get("additional_creators"), None);
    // Back to a version that names its creators.
    let back = upgrade(&world, &alice, &next, RoomVersionId::V11).unwrap();
    let levels = world.state(&back, "m.room.power_levels", "").unwrap();
    assert_eq!(levels["users"]["@alice:localhost"], 100);
}

#[test]
fn tags_come_along_with_their_user() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let old = world.room_of_version(&alice, RoomVersionId::V11);
    world.join(&bob, &old).unwrap();
    let key = |room: &RoomId| (bob.user, world.snapshot(room).nid(), "m.tag".to_owned());
    let json = json!({ "tags": { "m.favourite": {} } }).to_string();
    let value = AtPosition { position: myelin_core::Position(1), value: AccountDataRecord { json } };
    let mut batch = Batch::new();
    batch.put(&ACCOUNT_DATA, &key(&old), &value);
    world.run(world.view.store.commit(batch)).unwrap();
    let new = upgrade(&world, &alice, &old, RoomVersionId::V12).unwrap();
    world.join(&bob, &new).unwrap();
    let brought = world.run(world.view.store.get(&ACCOUNT_DATA, &key(&new))).unwrap().unwrap();
    assert_eq!(brought.value, value.value);
    let stream = (bob.user, brought.position);
    assert!(world.run(world.view.store.get(&USER_STREAM, &stream)).unwrap().is_some());
    // Not again: the tags of the new room are the user's own by then.
    world.leave(&bob, &new).unwrap();
    world.join(&bob, &new).unwrap();
    let after = world.run(world.view.store.get(&ACCOUNT_DATA, &key(&new))).unwrap().unwrap();
    assert_eq!(after.position, brought.position);
}

#[test]
fn who_may_not_upgrade_changes_nothing() {
    let world = World::new(3);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room_of_version(&alice, RoomVersionId::V11);
    assert_forbidden(upgrade(&world, &bob, &room, RoomVersionId::V12), "not in the room");
    world.join(&bob, &room).unwrap();
    let before = world.view.store.position();
    assert_forbidden(
        upgrade(&world, &bob, &room, RoomVersionId::V12),
        "need power level 100 to upgrade this room, you have 0",
    );
    let odd = "org.example".try_into().unwrap();
    assert!(matches!(upgrade(&world, &alice, &room, odd), Err(Error::UnsupportedRoomVersion(_))));
    let unknown = "!unknown:localhost".try_into().unwrap();
    assert_forbidden(upgrade(&world, &alice, unknown, RoomVersionId::V12), "not in the room");
    assert_eq!(world.view.store.position(), before);
}
