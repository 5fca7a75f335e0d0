use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::*;
use crate::{room_version, samples::SampleRoom};

fn content_after(pdu: &Pdu, rules: &RoomVersionRules) -> Value {
    let json = redact(pdu, rules);
    let redacted = Pdu::parse(json, pdu.event_id.clone(), rules).unwrap();
    serde_json::from_str(redacted.content.get()).unwrap()
}

#[test]
fn a_redacted_event_keeps_its_id_and_loses_its_content() {
    for version in room_version::SUPPORTED {
        let mut room = SampleRoom::new(version);
        let pdu = room.send("alice", "m.room.message", None, json!({ "body": "secret" }));
        let json = redact(&pdu, &room.rules);
        assert!(!json.contains("secret"));
        let raw = serde_json::value::RawValue::from_string(json.to_string()).unwrap();
        assert_eq!(Pdu::receive(&raw, &room.rules).unwrap().event_id, pdu.event_id, "{version}");
    }
}

#[test]
fn what_is_kept_depends_on_the_version() {
    let member =
        json!({ "membership": "join", "displayname": "A", "join_authorised_via_users_server": "@a:b" });
    for (version, kept) in [
        (RoomVersionId::V8, json!({ "membership": "join" })),
        (RoomVersionId::V9, json!({ "membership": "join", "join_authorised_via_users_server": "@a:b" })),
    ] {
        let mut room = SampleRoom::new(&version);
        let pdu = room.send("alice", "m.room.member", Some("@alice:example.org"), member.clone());
        assert_eq!(content_after(&pdu, &room.rules), kept, "{version}");
    }
    let room = SampleRoom::new(&RoomVersionId::V10);
    assert_eq!(content_after(&room.events[0], &room.rules), json!({ "creator": "@alice:example.org" }));
    let room = SampleRoom::new(&RoomVersionId::V11);
    assert_eq!(content_after(&room.events[0], &room.rules), json!({ "room_version": "11" }));
}
