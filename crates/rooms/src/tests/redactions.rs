//! Redactions through both endpoints.

use myelin_store::{Direction, tables::RELATIONS};
use ruma::{OwnedEventId, RoomId, RoomVersionId};
use serde_json::{Map, json};

use super::world::{World, assert_forbidden, content, txn};
use crate::{Error, Sender};

fn redact(world: &World, who: &Sender, room: &RoomId, target: &OwnedEventId) -> Result<OwnedEventId, Error> {
    let reason = Map::from_iter([("reason".to_owned(), json!("spam"))]);
    world.run(world.rooms.redact(who, room, target, reason, &world.transaction()))
}

#[test]
fn a_redaction_removes_content_for_good() {
    for version in myelin_dag::room_version::SUPPORTED {
        let world = World::new(1);
        let alice = world.user("alice");
        let room = world.room_of_version(&alice, version.clone());
        let target = world.say(&alice, &room, "secret").unwrap();
        let redaction = redact(&world, &alice, &room, &target).unwrap();
        for world in [&world, &world.restarted()] {
            let event = world.event(&target);
            assert_eq!(content(&event), json!({}));
            assert_eq!(event.redacted_by, Some(world.event(&redaction).nid));
            assert!(!event.pdu.json.contains("secret"));
            assert!(event.order.is_some());
        }
        let event = world.event(&redaction);
        assert_eq!(event.pdu.redacts.as_ref(), Some(&target));
        assert_eq!(content(&event)["reason"], "spam");
        let inside = content(&event).get("redacts").is_some();
        assert_eq!(inside, matches!(version, RoomVersionId::V11 | RoomVersionId::V12));
        // A second redaction is an event, but the first one counts.
        redact(&world, &alice, &room, &target).unwrap();
        assert_eq!(world.event(&target).redacted_by, Some(event.nid));
    }
}

/// Up to version 10 power levels lose by it who may invite, and servers with and without the redaction would disagree.
#[test]
fn power_levels_are_redacted_only_where_that_changes_nothing_of_what_they_allow() {
    for version in myelin_dag::room_version::SUPPORTED {
        let world = World::new(4);
        let alice = world.user("alice");
        let room = world.room_of_version(&alice, version.clone());
        let levels =
            world.timeline(&room).into_iter().find(|event| event.pdu.is_state_of("m.room.power_levels", ""));
        let redacted = redact(&world, &alice, &room, &levels.unwrap().pdu.event_id);
        match version {
            RoomVersionId::V11 | RoomVersionId::V12 => drop(redacted.unwrap()),
            _ => assert_forbidden(redacted, "cannot be redacted"),
        }
    }
}

#[test]
fn rights() {
    let world = World::new(2);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = world.public_room(&alice);
    world.join(&bob, &room).unwrap();
    let (of_alice, of_bob) = (world.say(&alice, &room, "a").unwrap(), world.say(&bob, &room, "b").unwrap());
    assert_forbidden(
        redact(&world, &bob, &room, &of_alice),
        "need power level 50 to redact other people's events, you have 0",
    );
    assert_forbidden(redact(&world, &carol, &room, &of_bob), "not in the room");
    redact(&world, &bob, &room, &of_bob).unwrap();
    let another = world.say(&bob, &room, "c").unwrap();
    let suspended = Sender { suspended: true, ..alice.clone() };
    assert_forbidden(redact(&world, &suspended, &room, &another), "own events only");
    redact(&world, &alice, &room, &another).unwrap();
    let create = world.timeline(&room)[0].pdu.event_id.clone();
    assert_forbidden(redact(&world, &alice, &room, &create), "cannot be redacted");
    let elsewhere = world.public_room(&alice);
    let foreign = world.say(&alice, &elsewhere, "x").unwrap();
    assert!(matches!(redact(&world, &alice, &room, &foreign), Err(Error::NotFound(_))));
    let unknown = "$unknown".try_into().unwrap();
    assert!(matches!(redact(&world, &alice, &room, &unknown), Err(Error::NotFound(_))));
}

#[test]
fn sending_a_redaction_is_the_same() {
    for version in [RoomVersionId::V10, RoomVersionId::V12] {
        let world = World::new(3);
        let alice = world.user("alice");
        let room = world.room_of_version(&alice, version);
        let target = world.say(&alice, &room, "secret").unwrap();
        let redaction = world.send(&alice, &room, "m.room.redaction", json!({ "redacts": target })).unwrap();
        assert_eq!(content(&world.event(&target)), json!({}));
        assert_eq!(world.event(&redaction).pdu.redacts, Some(target));
        for bad in [json!({}), json!({ "redacts": 5 }), json!({ "redacts": "x" })] {
            assert!(matches!(world.send(&alice, &room, "m.room.redaction", bad), Err(Error::BadJson(_))));
        }
    }
}

#[test]
fn repeated_and_after_a_restart() {
    let world = World::new(4);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let target = world.say(&alice, &room, "x").unwrap();
    let go =
        |world: &World| world.run(world.rooms.redact(&alice, &room, &target, Map::new(), &txn("r"))).unwrap();
    let first = go(&world);
    assert_eq!(go(&world), first);
    assert_eq!(go(&world.restarted()), first);
}

#[test]
fn a_redacted_reaction_may_be_sent_again_and_state_stays() {
    let world = World::new(5);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let target = world.say(&alice, &room, "x").unwrap();
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": target, "key": "k" } });
    let first = world.send(&alice, &room, "m.reaction", reaction.clone()).unwrap();
    redact(&world, &alice, &room, &first).unwrap();
    let key = (world.snapshot(&room).nid(), target.to_string());
    assert!(world.run(world.view.store.scan(&RELATIONS, &key, Direction::Forward, 9)).unwrap().is_empty());
    world.send(&alice, &room, "m.reaction", reaction).unwrap();

    let name = world.set(&alice, &room, "m.room.name", "", json!({ "name": "N" })).unwrap();
    redact(&world, &alice, &room, &name).unwrap();
    assert_eq!(world.state(&room, "m.room.name", ""), Some(json!({})));
    let current =
        world.run(world.view.current_state_event(&world.snapshot(&room), "m.room.name", "")).unwrap();
    assert_eq!(current.unwrap().pdu.event_id, name);
}
