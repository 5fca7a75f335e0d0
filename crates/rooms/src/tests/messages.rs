//! Messages, state, transactions, relations.

use myelin_store::{
    Direction,
    tables::{RELATIONS, THREAD_ROOTS},
};
use ruma::RoomVersionId;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::world::{World, assert_forbidden, txn};
use crate::{Error, Sender};

#[test]
fn only_members_with_the_power_send() {
    let world = World::new(1);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    let event = world.say(&alice, &room, "hello").unwrap();
    assert_eq!(world.event(&event).pdu.content_field::<String>("body").as_deref(), Some("hello"));
    assert_forbidden(world.say(&bob, &room, "hello"), "not in the room");
    let unknown = "!unknown:localhost".try_into().unwrap();
    assert_forbidden(world.say(&bob, unknown, "hello"), "not in the room");
    world.join(&bob, &room).unwrap();
    world.set(&alice, &room, "m.room.power_levels", "", json!({ "events_default": 20 })).unwrap();
    assert_forbidden(
        world.say(&bob, &room, "hello"),
        "need power level 20 to send m.room.message events, you have 0",
    );
    world.say(&alice, &room, "a creator may").unwrap();
}

#[test]
fn a_repeated_transaction_is_answered_from_the_first() {
    let world = World::new(2);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let content = to_raw_value(&json!({ "body": "once", "msgtype": "m.text" })).unwrap();
    let send = |world: &World, id: &str, kind: &str| {
        world.run(world.rooms.send_message(&alice, &room, kind.into(), &content, &txn(id))).unwrap()
    };
    let first = send(&world, "a", "m.room.message");
    assert_eq!(send(&world, "a", "m.room.message"), first);
    assert_ne!(send(&world, "b", "m.room.message"), first);
    assert_ne!(send(&world, "a", "m.sticker"), first, "another path, another transaction");
    let sent_by = world.event(&first).transaction.clone().unwrap();
    assert_eq!((sent_by.user, sent_by.transaction_id.as_str()), (alice.user, "a"));
    let restarted = world.restarted();
    assert_eq!(send(&restarted, "a", "m.room.message"), first);
    let count = world.kinds(&room).iter().filter(|kind| *kind == "m.room.message").count();
    assert_eq!(count, 2);
    let long = txn(&"x".repeat(256));
    let result = world.run(world.rooms.send_message(&alice, &room, "m.room.message".into(), &content, &long));
    assert!(matches!(result, Err(Error::InvalidParam(_))));
}

#[test]
fn bad_content_is_refused() {
    let world = World::new(3);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let send = |kind: &str, content: &str| {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        world.run(world.rooms.send_message(&alice, &room, kind.into(), &content, &world.transaction()))
    };
    for content in ["[]", "1", r#"{"a":1.5}"#, r#"{"a":9007199254740992}"#] {
        assert!(matches!(send("m.room.message", content), Err(Error::BadJson(_))), "{content}");
    }
    let large = format!(r#"{{"body":"{}"}}"#, "x".repeat(66_000));
    assert!(matches!(send("m.room.message", &large), Err(Error::TooLarge(_))));
    assert!(matches!(send(&"x".repeat(256), "{}"), Err(Error::TooLarge(_))));
    assert!(matches!(send("a\0b", "{}"), Err(Error::InvalidParam(_))));
}

#[test]
fn state_is_set_and_the_same_again_is_the_same_event() {
    let world = World::new(4);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    let first = world.set(&alice, &room, "m.room.name", "", json!({ "name": "A", "x": 1 })).unwrap();
    assert_eq!(world.set(&alice, &room, "m.room.name", "", json!({ "x": 1, "name": "A" })).unwrap(), first);
    assert_ne!(world.set(&alice, &room, "m.room.name", "", json!({ "name": "B" })).unwrap(), first);
    assert_forbidden(world.set(&bob, &room, "m.room.name", "", json!({})), "not in the room");
    world.join(&bob, &room).unwrap();
    let words = "need power level 50 to set m.room.name events, you have 0";
    assert_forbidden(world.set(&bob, &room, "m.room.name", "", json!({})), words);
    assert_forbidden(world.set(&alice, &room, "m.room.create", "", json!({})), "once");
    let long = "k".repeat(256);
    assert!(matches!(world.set(&alice, &room, "org.example", &long, json!({})), Err(Error::TooLarge(_))));
    assert!(matches!(world.set(&alice, &room, "org.example", "\0", json!({})), Err(Error::InvalidParam(_))));
    let foreign_key = world.set(&alice, &room, "org.example", "@bob:localhost", json!({}));
    assert_forbidden(foreign_key, "");
}

#[test]
fn canonical_aliases_lead_to_the_room() {
    let world = World::new(5);
    let alice = world.user("alice");
    let (room, other) = (world.public_room(&alice), world.public_room(&alice));
    let alias = |name: &str| -> ruma::OwnedRoomAliasId { format!("#{name}:localhost").try_into().unwrap() };
    world.run(world.rooms.set_alias(&alice, &alias("here"), &room)).unwrap();
    world.run(world.rooms.set_alias(&alice, &alias("there"), &other)).unwrap();
    let set = |content| world.set(&alice, &room, "m.room.canonical_alias", "", content);
    set(json!({ "alias": "#here:localhost" })).unwrap();
    assert!(matches!(set(json!({ "alias": "#there:localhost" })), Err(Error::BadAlias(_))));
    assert!(matches!(set(json!({ "alias": "#none:localhost" })), Err(Error::BadAlias(_))));
    assert!(matches!(set(json!({ "alt_aliases": ["#there:localhost"] })), Err(Error::BadAlias(_))));
    assert!(matches!(set(json!({ "alias": "nonsense" })), Err(Error::InvalidParam(_))));
    assert!(matches!(set(json!({ "alt_aliases": "nonsense" })), Err(Error::BadJson(_))));
    world.run(world.rooms.delete_alias(&world.user("alice"), &alias("here"))).unwrap();
    assert_eq!(world.state(&room, "m.room.canonical_alias", ""), Some(json!({})), "taken out with the alias");
    set(json!({})).unwrap();
}

#[test]
fn aliases_that_were_there_before_are_not_checked_again() {
    let world = World::new(6);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room_of_version(&alice, RoomVersionId::V11);
    world.join(&bob, &room).unwrap();
    let alias: ruma::OwnedRoomAliasId = "#bobs:localhost".try_into().unwrap();
    world.run(world.rooms.set_alias(&bob, &alias, &room)).unwrap();
    world.set(&alice, &room, "m.room.canonical_alias", "", json!({ "alias": alias })).unwrap();
    // Bob deletes his alias, but may not change what the room shows.
    world.run(world.rooms.delete_alias(&bob, &alias)).unwrap();
    assert_eq!(world.state(&room, "m.room.canonical_alias", "").unwrap()["alias"], "#bobs:localhost");
    let content = json!({ "alias": alias, "org.example": 1 });
    world.set(&alice, &room, "m.room.canonical_alias", "", content).unwrap();
}

#[test]
fn relations_are_stored_and_guarded() {
    let world = World::new(7);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    world.join(&bob, &room).unwrap();
    let root = world.say(&alice, &room, "root").unwrap();
    let relation = |rel_type: &str, target: &str| json!({ "m.relates_to": { "rel_type": rel_type, "event_id": target } });
    let react = |who: &Sender, key: &str| {
        let content = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root, "key": key } });
        world.send(who, &room, "m.reaction", content)
    };
    react(&alice, "👍").unwrap();
    react(&alice, "👎").unwrap();
    react(&bob, "👍").unwrap();
    assert!(matches!(react(&bob, "👍"), Err(Error::DuplicateAnnotation)));

    let in_thread = world.send(&bob, &room, "m.room.message", relation("m.thread", root.as_str())).unwrap();
    let nested = world.send(&bob, &room, "m.room.message", relation("m.thread", in_thread.as_str()));
    assert!(matches!(nested, Err(Error::Unknown(_))));
    let nid = world.snapshot(&room).nid();
    let key = (nid, root.to_string());
    let row = world.run(world.view.store.get(&THREAD_ROOTS, &key)).unwrap().unwrap();
    assert_eq!(row.value.latest, world.event(&in_thread).nid);
    let rows = world.run(world.view.store.scan(&RELATIONS, &key, Direction::Forward, 10)).unwrap();
    let kinds: Vec<_> = rows.iter().map(|(_, record)| record.rel_type.as_str()).collect();
    assert_eq!(kinds, ["m.annotation", "m.annotation", "m.annotation", "m.thread"]);
    // What is not understood is a message like any other.
    world.send(&bob, &room, "m.room.message", json!({ "m.relates_to": 5 })).unwrap();
    world.send(&bob, &room, "m.room.message", relation("m.thread", "$unknown")).unwrap();
}

#[test]
fn malformed_power_levels_are_the_fault_of_the_request() {
    let world = World::new(8);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    world.join(&bob, &room).unwrap();
    let set = |who: &Sender, content| world.set(who, &room, "m.room.power_levels", "", content);
    for content in [
        json!({ "users": { "@bob:example.org": "50" } }),
        json!({ "users": { "bob": 50 } }),
        json!({ "events": { "m.room.name": {} } }),
        json!({ "notifications": 5 }),
        json!({ "users_default": "0" }),
        json!({ "ban": "50" }),
        json!({ "events_default": [] }),
        json!({ "invite": {} }),
    ] {
        assert!(matches!(set(&alice, content.clone()), Err(Error::BadJson(_))), "{content}");
        assert!(matches!(set(&bob, content), Err(Error::Forbidden(_))));
    }
}
