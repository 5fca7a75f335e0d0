use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::*;
use crate::{room_version, samples::SampleRoom};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_state_event_as_clients_see_it() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let pdu = room.send("alice", "org.example.\"x\"", Some("k\n"), json!({ "a": 1 }));
    let unsigned = r#"{"age":5,"membership":"join"}"#;
    let expected = json!({
        "content": { "a": 1 }, "event_id": pdu.event_id, "origin_server_ts": 1004, "room_id": pdu.room_id,
        "sender": "@alice:example.org", "state_key": "k\n", "type": "org.example.\"x\"",
        "unsigned": { "age": 5, "membership": "join" },
    });
    assert_eq!(parsed(client_event(&pdu, Some(unsigned)).get()), expected);

    let kept = open_event(&pdu).as_str().to_owned();
    let without_room = parsed(&OpenEvent::resume(&kept).close());
    assert_eq!(without_room.as_object().unwrap().len(), 6);
    assert_eq!(without_room.get("room_id").or(without_room.get("unsigned")), None);
}

#[test]
fn messages_have_no_state_key_and_nothing_of_the_federated_form() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let pdu = room.send("alice", "m.room.message", None, json!({ "body": "hi" }));
    let value = parsed(client_event(&pdu, None).get());
    for key in
        ["state_key", "unsigned", "hashes", "signatures", "depth", "prev_events", "auth_events", "redacts"]
    {
        assert_eq!(value.get(key), None, "{key}");
    }
}

#[test]
fn redactions_show_their_target_in_both_places() {
    for version in room_version::SUPPORTED {
        for content in [json!({}), json!({ "reason": "spam" })] {
            let mut room = SampleRoom::new(version);
            let target = room.events[0].event_id.clone();
            let mut event = room.new_event("alice", "m.room.redaction", None, content.clone());
            event.redacts = Some(target.clone());
            let value = parsed(client_event(&room.add(event), None).get());
            assert_eq!(value["redacts"], target.as_str(), "{version}");
            assert_eq!(value["content"]["redacts"], target.as_str(), "{version}");
            assert_eq!(value["content"]["reason"], content["reason"], "{version}");
        }
    }
}

#[test]
fn stripped_state_has_four_fields() {
    let room = SampleRoom::new(&RoomVersionId::V12);
    let expected = json!({ "content": { "join_rule": "public" }, "sender": "@alice:example.org", "state_key": "", "type": "m.room.join_rules" });
    assert_eq!(parsed(stripped_state(&room.events[3]).get()), expected);
}

#[test]
fn unsigned_that_is_no_json_harms_nothing_else() {
    let room = SampleRoom::new(&RoomVersionId::V12);
    assert_eq!(client_event(&room.events[0], Some("{")).get(), "null");
}
