//! Branches of a room that meet: state resolution changes the state beside what the timeline says.

use std::collections::BTreeMap;

use myelin_dag::{NewEvent, Parents, SigningKey, Verdict, build};
use myelin_rooms::Received;
use myelin_sync::v2::StateForm;
use ruma::OwnedEventId;
use serde_json::{json, value::RawValue};

use super::{client::Client, world::World};

/// A topic that was set on a branch, with a timestamp before or after that of the topic set here.
fn fork(ts_offset_ms: i64) {
    let world = World::new(1);
    let ann = world.user("ann");
    let room = world.public_room(&ann);
    let base = world.say(&ann, &room, "where the branches part").unwrap();
    world.sim.clock().advance(std::time::Duration::from_secs(60));
    world.set(&ann, &room, "m.room.topic", "", json!({ "topic": "here" })).unwrap();
    let mut clients: Vec<_> = (0..2).map(|_| Client::new(&ann)).collect();
    clients[1].state_form = StateForm::After;
    clients.iter_mut().for_each(|client| client.follow(&world));
    let id_of = |kind: &str, key: &str| -> OwnedEventId {
        let snapshot = world.snapshot(&room);
        let event = world.run(world.view.current_state_event(&snapshot, kind, key)).unwrap();
        event.unwrap().pdu.event_id.clone()
    };
    let event = NewEvent::state(ann.sender.user_id.clone(), "m.room.topic", "", &json!({ "topic": "there" }));
    let parents = Parents {
        room_id: Some(room.clone()),
        prev_events: vec![base],
        auth_events: vec![id_of("m.room.power_levels", ""), id_of("m.room.member", "@ann:localhost")],
        depth: 20,
        names: None,
    };
    let key = SigningKey::from_seed("1", [7; 32]).unwrap();
    let rules = world.snapshot(&room).info.rules.clone();
    let now_ms = world.sim.env().now_ms().saturating_add_signed(ts_offset_ms);
    let pdu = build(&rules, event.unwrap(), parents, now_ms, &key).unwrap();
    let raw = RawValue::from_string(pdu.json.to_string()).unwrap();
    let keys = BTreeMap::from([("localhost".to_owned(), key.public_key_set())]);
    let received = world.run(world.rooms.receive(&room, &raw, &keys)).unwrap();
    assert_eq!(received, Received::Stored(Verdict::Accepted));
    clients.iter_mut().for_each(|client| client.follow(&world));
    world.say(&ann, &room, "both branches go on here").unwrap();
    clients.iter_mut().for_each(|client| client.follow(&world));
    let truth: Vec<_> = world.timeline(&room).iter().map(|event| event.pdu.event_id.to_string()).collect();
    for client in &clients {
        assert_eq!(client.rooms[room.as_str()].timeline, truth, "each event once, in the order of arrival");
    }
    let topic = ("m.room.topic".to_owned(), String::new());
    let shown = &clients[1].rooms[room.as_str()].state[&topic];
    assert_eq!(*shown, id_of("m.room.topic", "").to_string(), "state_after is the resolved state");
}

#[test]
fn clients_follow_through_a_fork_that_wins_or_loses() {
    fork(-30_000);
    fork(30_000);
}
