use ruma::RoomVersionId;
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::{room_version, samples::SampleRoom};

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).unwrap()
}

/// A message of the sample room as JSON, changed.
fn changed(room: &mut SampleRoom, change: impl Fn(&mut Value)) -> Box<RawValue> {
    let pdu = room.send("alice", "m.room.message", None, json!({ "body": "hi" }));
    let mut value: Value = serde_json::from_str(&pdu.json).unwrap();
    change(&mut value);
    raw(&value)
}

#[test]
fn an_event_reads_the_same_from_the_store_and_from_the_network() {
    for version in room_version::SUPPORTED {
        let room = SampleRoom::new(version);
        for made in &room.events {
            let parsed = Pdu::parse(made.json.clone(), made.event_id.clone(), &room.rules).unwrap();
            let mut with_unsigned: Value = serde_json::from_str(&made.json).unwrap();
            with_unsigned["unsigned"] = json!({ "age": 3 });
            let received = Pdu::receive(&raw(&with_unsigned), &room.rules).unwrap();
            for other in [parsed, received] {
                assert_eq!(format!("{other:?}"), format!("{made:?}"), "{version}");
            }
        }
    }
}

#[test]
fn create_events_of_version_12_give_the_room_its_id() {
    let room = SampleRoom::new(&RoomVersionId::V12);
    let create = &room.events[0];
    assert_eq!(create.room_id.as_str(), create.event_id.as_str().replacen('$', "!", 1));
    assert!(!create.json.contains("room_id"));
    assert_eq!(state_res::Event::room_id(&**create), None);
    assert_eq!(room.events[1].room_id, create.room_id);
}

#[test]
fn redacts_is_read_where_the_version_has_it() {
    for version in room_version::SUPPORTED {
        let mut room = SampleRoom::new(version);
        let target = room.events[0].event_id.clone();
        let mut event = room.new_event("alice", "m.room.redaction", None, json!({ "reason": "spam" }));
        event.redacts = Some(target.clone());
        let made = room.add(event);
        let parsed = Pdu::parse(made.json.clone(), made.event_id.clone(), &room.rules).unwrap();
        assert_eq!(parsed.redacts, Some(target), "{version}");
        let in_content = made.content_field::<String>("redacts").is_some();
        assert_eq!(in_content, room.rules.redaction.content_field_redacts, "{version}");
    }
}

#[test]
fn content_is_read_leniently() {
    let mut room = SampleRoom::new(&RoomVersionId::V11);
    let pdu =
        room.send("alice", "x", None, json!({ "n": 1, "s": "\"quoted\"", "deep": { "n": 2 }, "e\"": 3 }));
    assert_eq!(pdu.content_field("n"), Some(1));
    assert_eq!(pdu.content_field::<String>("s").as_deref(), Some("\"quoted\""));
    assert_eq!(pdu.content_field("e\""), Some(3));
    assert_eq!(pdu.content_field::<String>("n"), None, "of another type");
    assert_eq!(pdu.content_field::<u64>("absent"), None);
    assert_eq!(pdu.membership(), None);
    assert_eq!(room.events[1].membership(), Some(MembershipState::Join));
    assert!(room.events[1].is_state_of("m.room.member", "@alice:example.org"));
    assert!(!room.events[1].is_state_of("m.room.member", ""));
}

#[test]
fn relations_need_a_type_and_a_target() {
    let mut room = SampleRoom::new(&RoomVersionId::V11);
    let mut relation = |relates_to: Value| {
        room.send("alice", "m.room.message", None, json!({ "body": "x", "m.relates_to": relates_to }))
            .relates_to()
    };
    let thread = relation(json!({
        "rel_type": "m.thread", "event_id": "$root", "is_falling_back": true, "m.in_reply_to": { "event_id": "$last" },
    }));
    let expected = Relation {
        rel_type: "m.thread".to_owned(),
        event_id: "$root".try_into().unwrap(),
        key: None,
        is_falling_back: true,
        in_reply_to: Some("$last".try_into().unwrap()),
    };
    assert_eq!(thread, Some(expected));
    let reaction =
        relation(json!({ "rel_type": "m.annotation", "event_id": "$x", "key": "👍", "is_falling_back": 1 }));
    assert_eq!(reaction.unwrap().key.as_deref(), Some("👍"));
    let none =
        [json!({ "m.in_reply_to": { "event_id": "$x" } }), json!("x"), json!(null), json!({ "rel_type": 1 })];
    for relates_to in none {
        assert_eq!(relation(relates_to), None);
    }
    assert_eq!(relation(json!({ "rel_type": "m.thread", "event_id": "not an id" })), None);
}

#[test]
fn what_is_no_event_is_dropped() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let rules = room.rules.clone();
    let mut refuse = |change: fn(&mut Value)| Pdu::receive(&changed(&mut room, change), &rules).unwrap_err();
    let missing = |error: ReceiveError| {
        matches!(error, ReceiveError::Format(_) | ReceiveError::Parse(_) | ReceiveError::FieldTooLong(_))
    };
    for change in [
        (|v| drop(v.as_object_mut().unwrap().remove("sender"))) as fn(&mut Value),
        |v| drop(v.as_object_mut().unwrap().remove("room_id")),
        |v| drop(v.as_object_mut().unwrap().remove("type")),
        |v| drop(v.as_object_mut().unwrap().remove("depth")),
        |v| drop(v.as_object_mut().unwrap().remove("content")),
        |v| drop(v.as_object_mut().unwrap().remove("auth_events")),
        |v| drop(v.as_object_mut().unwrap().remove("origin_server_ts")),
        |v| v["depth"] = json!(-1),
        |v| v["origin_server_ts"] = json!(-1),
        |v| v["content"] = json!("text"),
        |v| v["sender"] = json!("nobody"),
        |v| v["state_key"] = json!(1),
        |v| v["prev_events"] = json!(vec!["$x"; 21]),
        |v| v["auth_events"] = json!(vec!["$x"; 11]),
        |v| v["type"] = json!("x".repeat(256)),
        |v| v["auth_events"] = json!([v["room_id"].as_str().unwrap().replacen('!', "$", 1)]),
    ] {
        assert!(missing(refuse(change)));
    }
    assert!(matches!(refuse(|v| v["depth"] = json!(1.5)), ReceiveError::Json(_)));
    assert!(matches!(refuse(|v| v["content"]["n"] = json!(1_u64 << 53)), ReceiveError::Json(_)));
    assert!(matches!(refuse(|v| *v = json!([])), ReceiveError::NotAnObject));
    assert!(matches!(refuse(|v| v["content"]["b"] = json!("x".repeat(65_536))), ReceiveError::TooLarge(_)));
}

/// The limit is 65,536 bytes, signatures included (Client-Server API, "Size limits").
#[test]
fn the_largest_event_is_received() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let empty = changed(&mut room, |v| v["content"]["body"] = json!(""));
    for (size, fits) in [(65_535, true), (65_536, true), (65_537, false)] {
        let mut value: Value = serde_json::from_str(empty.get()).unwrap();
        value["content"]["body"] = json!("x".repeat(size - empty.get().len()));
        assert_eq!(Pdu::receive(&raw(&value), &room.rules).is_ok(), fits, "{size}");
    }
}

/// What the change makes of an event of that version.
fn receive(version: &RoomVersionId, change: impl Fn(&mut Value)) -> Result<Pdu, ReceiveError> {
    let mut room = SampleRoom::new(version);
    Pdu::receive(&changed(&mut room, change), &room.rules)
}

#[test]
fn versions_1_and_2_name_their_events() {
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let with_id = |id: Value| receive(&version, |v| v["event_id"] = id.clone());
        let named = with_id(json!("$any.thing:elsewhere.org:8448")).unwrap();
        assert_eq!(named.event_id, "$any.thing:elsewhere.org:8448");
        for id in [
            json!("$opaque"),
            json!("$:example.org"),
            json!("$a:"),
            json!("$a:b c"),
            json!("x:example.org"),
            json!(""),
            json!(1),
            json!(null),
            json!(format!("${}:example.org", "x".repeat(256))),
        ] {
            let error = with_id(id.clone()).unwrap_err();
            assert!(matches!(error, ReceiveError::EventId(_) | ReceiveError::Format(_)), "{id}: {error}");
        }
        let nameless = receive(&version, |v| drop(v.as_object_mut().unwrap().remove("event_id")));
        assert!(matches!(nameless, Err(ReceiveError::Format(_))));
    }
    let ignored = receive(&RoomVersionId::V3, |v| v["event_id"] = json!("$other:example.org")).unwrap();
    assert!(ignored.event_id.server_name().is_none(), "later versions take the hash");
}

#[test]
fn events_are_referred_to_as_the_version_wants_it() {
    let pair = json!([["$a:b", { "sha256": "x" }]]);
    let odd = [
        json!([["$a:b"]]),
        json!([["$a:b", {}, 1]]),
        json!([[1, {}]]),
        json!([{}]),
        json!("$a:b"),
        json!([null]),
    ];
    for field in ["prev_events", "auth_events"] {
        let with = |version, value: &Value| receive(version, |v| v[field] = value.clone());
        let paired = with(&RoomVersionId::V1, &pair).unwrap();
        let ids = if field == "prev_events" { paired.prev_events } else { paired.auth_events };
        assert_eq!(ids, ["$a:b"]);
        assert!(with(&RoomVersionId::V3, &json!(["$a"])).is_ok());
        assert!(matches!(with(&RoomVersionId::V3, &pair), Err(ReceiveError::Parse(_))));
        assert!(matches!(with(&RoomVersionId::V1, &json!(["$a:b"])), Err(ReceiveError::Parse(_))));
        for value in &odd {
            assert!(matches!(with(&RoomVersionId::V2, value), Err(ReceiveError::Parse(_))), "{value}");
        }
    }
}

#[test]
fn old_versions_take_what_canonical_json_does_not() {
    let with_depth = |version: &RoomVersionId, depth: u64| receive(version, |v| v["depth"] = json!(depth));
    for version in [RoomVersionId::V1, RoomVersionId::V5] {
        let pdu = receive(&version, |v| v["content"]["n"] = json!(1.50)).unwrap();
        assert!(pdu.content.get().contains("\"n\":1.5}"), "{}", pdu.content);
        assert_eq!(with_depth(&version, (1 << 63) - 1).unwrap().depth, (1 << 63) - 1);
        assert!(matches!(with_depth(&version, 1 << 63), Err(ReceiveError::Format(_))));
    }
    assert!(matches!(with_depth(&RoomVersionId::V6, 1 << 53), Err(ReceiveError::Json(_))));
}

#[test]
fn what_is_there_is_not_null() {
    for version in [RoomVersionId::V1, RoomVersionId::V12] {
        for field in ["state_key", "room_id", "hashes", "signatures", "content"] {
            assert!(receive(&version, |v| v[field] = json!(null)).is_err(), "{version} {field}");
        }
        for field in ["hashes", "signatures"] {
            assert!(
                receive(&version, |v| drop(v.as_object_mut().unwrap().remove(field))).is_err(),
                "{field}"
            );
        }
    }
}
