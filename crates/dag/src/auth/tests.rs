use std::sync::Arc;

use ruma::RoomVersionId;
use serde_json::json;

use super::*;
use crate::{
    NewEvent, Parents, build, room_version,
    samples::{SampleRoom, user},
};

fn judge(room: &SampleRoom, pdu: &Pdu) -> Result<(), Rejection> {
    authorize(&room.rules, pdu, |id| room.event(id), |event_type, key| room.state_event(event_type, key))
}

fn message(room: &mut SampleRoom, sender: &str) -> Arc<Pdu> {
    room.send(sender, "m.room.message", None, json!({ "body": "hi" }))
}

#[test]
fn members_may_speak_and_strangers_may_not() {
    for version in room_version::SUPPORTED {
        let mut room = SampleRoom::new(version);
        let allowed = message(&mut room, "alice");
        assert_eq!(judge(&room, &allowed), Ok(()), "{version}");
        let forbidden = message(&mut room, "mallory");
        assert!(judge(&room, &forbidden).unwrap_err().reason.contains("join"), "{version}");
    }
}

#[test]
fn every_event_of_a_fresh_room_is_authorised_by_what_came_before() {
    for version in room_version::SUPPORTED {
        let whole = SampleRoom::new(version);
        let mut room =
            SampleRoom { state: Default::default(), events: Vec::new(), ..SampleRoom::new(version) };
        for pdu in &whole.events {
            assert_eq!(judge(&room, pdu), Ok(()), "{version} {}", pdu.event_type);
            let key = (pdu.event_type.to_string().into(), pdu.state_key.clone().unwrap());
            room.state.insert(key, pdu.clone());
            room.events.push(pdu.clone());
        }
    }
}

#[test]
fn power_levels_are_obeyed() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    room.send("bob", "m.room.member", Some("@bob:example.org"), json!({ "membership": "join" }));
    let topic = room.send("bob", "m.room.topic", Some(""), json!({ "topic": "mine" }));
    assert!(judge(&room, &topic).is_err());
    let topic = room.send("alice", "m.room.topic", Some(""), json!({ "topic": "ours" }));
    assert_eq!(judge(&room, &topic), Ok(()));
}

fn with_auth_events(room: &SampleRoom, auth_events: Vec<ruma::OwnedEventId>) -> Pdu {
    let event = NewEvent::message(user("alice"), "m.room.message", &json!({ "body": "x" })).unwrap();
    let parents = Parents {
        room_id: Some(room.events[0].room_id.clone()),
        prev_events: vec![room.events[3].event_id.clone()],
        auth_events,
        depth: 9,
        names: None,
    };
    build(&room.rules, event, parents, 5, &room.key).unwrap()
}

#[test]
fn auth_events_must_be_the_right_ones() {
    let room = SampleRoom::new(&RoomVersionId::V11);
    let id = |index: usize| room.events[index].event_id.clone();
    let (create, member, power_levels, join_rules) = (id(0), id(1), id(2), id(3));
    let refused = |auth_events| judge(&room, &with_auth_events(&room, auth_events)).unwrap_err().reason;

    let right = vec![create.clone(), member.clone(), power_levels.clone()];
    assert_eq!(judge(&room, &with_auth_events(&room, right.clone())), Ok(()));
    assert!(refused(vec![member.clone(), power_levels.clone()]).contains("create"));
    assert!(refused([right.clone(), vec![join_rules]].concat()).contains("unexpected"));
    assert!(refused([right.clone(), vec![member.clone()]].concat()).contains("duplicate"));
    assert!(
        refused([right.clone(), vec!["$unknown".try_into().unwrap()]].concat()).contains("failed to find")
    );

    let pdu = with_auth_events(&room, right);
    let fetch = |id: &EventId| {
        let event = Pdu::clone(&*room.event(id)?);
        Some(if *id == *member { event.into_rejected() } else { event })
    };
    assert!(authorize_by_auth_events(&room.rules, &pdu, fetch).unwrap_err().reason.contains("rejected"));
}

#[test]
fn auth_types_are_those_of_the_version() {
    let v11 = room_version::rules(&RoomVersionId::V11).unwrap();
    let v12 = room_version::rules(&RoomVersionId::V12).unwrap();
    let content = serde_json::value::to_raw_value(&json!({ "membership": "join" })).unwrap();
    let types = |rules: &RoomVersionRules, event_type: &str, state_key| {
        let event_type = TimelineEventType::from(event_type);
        let types = auth_types(rules, &event_type, &user("a"), state_key, &content).unwrap();
        types.into_iter().map(|(event_type, _)| event_type.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        types(&v11, "m.room.message", None),
        ["m.room.power_levels", "m.room.member", "m.room.create"]
    );
    assert_eq!(types(&v12, "m.room.message", None), ["m.room.power_levels", "m.room.member"]);
    let joining = types(&v12, "m.room.member", Some("@a:example.org"));
    assert_eq!(joining, ["m.room.power_levels", "m.room.member", "m.room.join_rules"]);
    assert!(types(&v12, "m.room.create", Some("")).is_empty());
    let malformed = auth_types(&v12, &TimelineEventType::RoomMember, &user("a"), None, &content);
    assert!(malformed.is_err(), "a member event without a state key");
}
