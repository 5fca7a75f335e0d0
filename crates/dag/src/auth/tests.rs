use std::sync::Arc;

use proptest::prelude::*;
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

/// Power levels as strings and floats, in the versions that have them.
#[test]
fn power_levels_of_old_rooms_are_read() {
    use RoomVersionId as V;
    for (version, level, counts) in [
        (V::V1, json!("050"), true),
        (V::V5, json!(" +50 "), true),
        (V::V9, json!("50"), true),
        (V::V10, json!("50"), false),
        (V::V3, json!(50.57), true),
        (V::V5, json!(49.99), false),
        (V::V2, json!(9_223_372_036_854_775_807_u64), true),
    ] {
        let mut room = SampleRoom::new(&version);
        room.send("bob", "m.room.member", Some("@bob:example.org"), json!({ "membership": "join" }));
        let levels = room.send(
            "alice",
            "m.room.power_levels",
            Some(""),
            json!({ "users": { "@alice:example.org": 100 } }),
        );
        let mut value: serde_json::Value = serde_json::from_str(&levels.json).unwrap();
        value["content"]["users"]["@bob:example.org"] = level.clone();
        let levels = Pdu::parse(value.to_string().into(), levels.event_id.clone(), &room.rules).unwrap();
        room.state.insert((StateEventType::RoomPowerLevels, String::new()), Arc::new(levels));
        let topic = room.send("bob", "m.room.topic", Some(""), json!({ "topic": "x" }));
        let judged =
            authorize_by_state(&room.rules, &topic, |event_type, key| room.state_event(event_type, key));
        assert_eq!(judged.is_ok(), counts, "{version} {level}: {judged:?}");
    }
}

/// Versions 1 to 5: whoever has a server there may name its aliases, joined or not.
#[test]
fn aliases_are_the_business_of_their_server() {
    for (version, state_key, allowed) in [
        (RoomVersionId::V1, Some("example.org"), true),
        (RoomVersionId::V5, Some("other.org"), false),
        (RoomVersionId::V5, None, false),
        (RoomVersionId::V6, Some("example.org"), false),
    ] {
        let mut room = SampleRoom::new(&version);
        let aliases = room.send("stranger", "m.room.aliases", state_key, json!({ "aliases": [] }));
        assert_eq!(judge(&room, &aliases).is_ok(), allowed, "{version} {state_key:?}");
    }
}

/// Versions 1 and 2: by power level, or of the same server by the names of the events; later ones do not ask.
#[test]
fn redactions_are_a_matter_of_authorisation_at_first() {
    let table = [
        (RoomVersionId::V1, "alice", "$e:other.org", true),
        (RoomVersionId::V1, "bob", "$e:other.org", false),
        (RoomVersionId::V2, "bob", "$e:example.org", true),
        (RoomVersionId::V3, "bob", "$hash", true),
    ];
    for (version, sender, target, allowed) in table {
        let mut room = SampleRoom::new(&version);
        room.send("bob", "m.room.member", Some("@bob:example.org"), json!({ "membership": "join" }));
        let mut event = room.new_event(sender, "m.room.redaction", None, json!({}));
        event.redacts = Some(target.try_into().unwrap());
        let redaction = room.add(event);
        assert_eq!(judge(&room, &redaction).is_ok(), allowed, "{version} {sender} {target}");
    }
}

#[test]
fn auth_events_are_of_the_same_room_and_state() {
    let mut room = SampleRoom::new(&RoomVersionId::V11);
    let message = message(&mut room, "alice");
    let ids = |room: &SampleRoom| [0, 1, 2].map(|index| room.events[index].event_id.clone()).to_vec();
    let with_message = with_auth_events(&room, [ids(&room), vec![message.event_id.clone()]].concat());
    assert!(judge(&room, &with_message).unwrap_err().reason.contains("state_key"));

    let pdu = with_auth_events(&room, ids(&room));
    let elsewhere = |id: &EventId| {
        let event = Pdu::clone(&*room.event(id)?);
        Some(Pdu { room_id: "!elsewhere:example.org".try_into().unwrap(), ..event })
    };
    let refused = authorize_by_auth_events(&room.rules, &pdu, elsewhere).unwrap_err();
    assert!(refused.reason.contains("same room"), "{refused}");
}

#[test]
fn create_events_say_which_version_they_are_of() {
    let room = SampleRoom::new(&RoomVersionId::V11);
    let create = &room.events[0];
    let with_version = |version: &str| {
        let content = serde_json::value::to_raw_value(&json!({ "room_version": version })).unwrap();
        judge(&room, &Pdu { content, ..Pdu::clone(create) })
    };
    assert_eq!(with_version("11"), Ok(()));
    assert!(with_version("org.example.42").unwrap_err().reason.contains("not recognised"));
}

/// The rules as ruma has them, over whole power levels.
fn judge_whole(room: &SampleRoom, pdu: &Pdu) -> Result<(), String> {
    let fetch = |event_type: &StateEventType, key: &str| room.state_event(event_type, key);
    ruma::state_res::check_state_dependent_auth_rules(&room.rules.authorization, pdu, fetch)
}

fn level() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        6 => prop::sample::select(vec![0, 1, 49, 50, 51, 100, -1]).prop_map(|n| json!(n)),
        1 => Just(json!("50")),
        1 => Just(json!("fifty")),
        1 => Just(json!({})),
    ]
}

fn levels_content() -> impl Strategy<Value = serde_json::Value> {
    let fields =
        vec!["ban", "kick", "invite", "redact", "events_default", "state_default", "users_default", "odd"];
    let users = vec!["@alice:example.org", "@bob:example.org", "@carol:example.org", "@other:example.org"];
    let types = vec!["m.room.topic", "m.room.message", "m.room.redaction", "m.room.power_levels", "x\"y"];
    let some =
        |names: Vec<&'static str>| prop::collection::hash_map(prop::sample::select(names), level(), 0..4);
    (some(fields), prop::option::of(some(users)), prop::option::of(some(types))).prop_map(
        |(fields, users, events)| {
            let mut content = json!(fields);
            users.into_iter().for_each(|users| content["users"] = json!(users));
            events.into_iter().for_each(|events| content["events"] = json!(events));
            content
        },
    )
}

proptest! {
    #[test]
    fn an_excerpt_of_the_power_levels_is_as_good_as_the_whole(
        content in levels_content(), bob_joined: bool, carol in prop::sample::select(vec!["join", "leave", "ban", "invite"]),
        version in prop::sample::select(room_version::SUPPORTED.to_vec()),
    ) {
        let mut room = SampleRoom::new(&version);
        if bob_joined {
            room.send("bob", "m.room.member", Some("@bob:example.org"), json!({ "membership": "join" }));
        }
        room.send("alice", "m.room.member", Some("@carol:example.org"), json!({ "membership": carol }));
        room.send("alice", "m.room.power_levels", Some(""), content.clone());
        if carol == "join" {
            room.send("alice", "m.room.join_rules", Some(""), json!({ "join_rule": "restricted" }));
        }
        let of_carol = |membership: &str| json!({ "membership": membership });
        let via = json!({ "membership": "join", "join_authorised_via_users_server": "@carol:example.org" });
        let attempts = [
            ("bob", "m.room.topic", Some(""), json!({})),
            ("bob", "m.room.message", None, json!({})),
            ("carol", "x\"y", Some("@bob:example.org"), json!({})),
            ("bob", "m.room.redaction", None, json!({})),
            ("bob", "m.room.third_party_invite", Some("t"), json!({})),
            ("bob", "m.room.power_levels", Some(""), content),
            ("bob", "m.room.member", Some("@carol:example.org"), of_carol("ban")),
            ("alice", "m.room.member", Some("@carol:example.org"), of_carol("ban")),
            ("bob", "m.room.member", Some("@carol:example.org"), of_carol("leave")),
            ("bob", "m.room.member", Some("@carol:example.org"), of_carol("invite")),
            ("dave", "m.room.member", Some("@dave:example.org"), via),
        ];
        for (sender, event_type, state_key, content) in attempts {
            let event = room.new_event(sender, event_type, state_key, content);
            let pdu = room.make(event, &[room.events.last().unwrap()], &room.state, 7);
            let judged = authorize_by_state(&room.rules, &pdu, |event_type, key| room.state_event(event_type, key));
            prop_assert_eq!(judged.map_err(|rejection| rejection.reason), judge_whole(&room, &pdu), "{} {}", sender, event_type);
        }
    }
}
