use std::collections::BTreeMap;

use ruma::{RoomVersionId, signatures};
use serde_json::{Value, json};

use super::*;
use crate::{
    room_version,
    samples::{SampleRoom, signing_key},
};

fn contents() -> Vec<(&'static str, Option<&'static str>, Value)> {
    vec![
        (
            "m.room.message",
            None,
            json!({ "msgtype": "m.text", "body": "quotes \" and \\ and \n and ünï 😀", "a": null }),
        ),
        (
            "m.room.member",
            Some("@alice:example.org"),
            json!({ "membership": "join", "displayname": "A", "reason": "r" }),
        ),
        (
            "m.room.member",
            Some("@bob:example.org"),
            json!({ "membership": "invite", "third_party_invite": { "display_name": "b", "signed": { "token": "t" } } }),
        ),
        (
            "m.room.power_levels",
            Some(""),
            json!({ "users": { "@alice:example.org": 100 }, "invite": 3, "odd": 1 }),
        ),
        ("m.room.join_rules", Some(""), json!({ "join_rule": "restricted", "allow": [], "odd": true })),
        ("m.room.history_visibility", Some(""), json!({ "history_visibility": "joined", "odd": [1, 2] })),
        ("m.room.aliases", Some("example.org"), json!({ "aliases": ["#a:example.org"] })),
        ("m.room.server_acl", Some(""), json!({ "allow": ["*"], "deny": [], "allow_ip_literals": false })),
        ("m.room.redaction", None, json!({ "reason": "r" })),
        ("org.example.\"odd\"", Some("k\\\u{1}"), json!({ "z": 1, "a": { "y": -5, "b": false } })),
    ]
}

fn object_text(object: CanonicalJsonObject) -> String {
    CanonicalJsonValue::Object(object).to_string()
}

/// ruma is the reference for hashes, signatures and ids.
fn verify(pdu: &Pdu, room: &SampleRoom) {
    let object: CanonicalJsonObject = serde_json::from_str(&pdu.json).unwrap();
    let keys = BTreeMap::from([("example.org".to_owned(), room.key.public_key_set())]);
    let verified = signatures::verify_event(&keys, &object, &room.rules).unwrap();
    assert_eq!(verified, signatures::Verified::All, "{}", pdu.json);
    let hash = signatures::reference_hash(&object, &room.rules).unwrap();
    assert_eq!(pdu.reference(&room.rules).1, hash);
    if !needs_names(&room.rules) {
        assert_eq!(pdu.event_id.as_str(), format!("${hash}"));
    }
    assert_eq!(object_text(object), *pdu.json, "canonical");
}

#[test]
fn ruma_accepts_every_event_in_every_version() {
    for version in room_version::SUPPORTED {
        let mut room = SampleRoom::new(version);
        for (event_type, state_key, content) in contents() {
            let mut event = room.new_event("alice", event_type, state_key, content);
            if event_type == "m.room.redaction" {
                event.redacts = Some(room.events[0].event_id.clone());
            }
            room.add(event);
        }
        room.events.iter().for_each(|pdu| verify(pdu, &room));
    }
}

/// The vectors of the appendices, "Cryptographic Test Vectors".
#[test]
fn vectors_of_the_specification() {
    let key = SigningKey::from_text("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
    let canonical = canonicalize(br#"{ "two": "Two", "one": 1 }"#).unwrap();
    let expected = "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw";
    assert_eq!(key.sign(canonical.as_bytes()), expected);

    let events = [
        (
            json!({ "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1000000,
                "signatures": {}, "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [],
                "depth": 3, "unsigned": { "age_ts": 1000000 } }),
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            json!({ "content": { "body": "Here is the message content" }, "event_id": "$0:domain", "origin": "domain",
                "origin_server_ts": 1000000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
                "signatures": {}, "unsigned": { "age_ts": 1000000 } }),
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ];
    for (event, hash, signature) in events {
        let mut object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        let rules = RoomVersionRules::V1.redaction;
        signatures::hash_and_sign_event("domain", key.pair(), &mut object, &rules).unwrap();
        let signed: Value = serde_json::from_str(&object_text(object)).unwrap();
        assert_eq!(signed["hashes"]["sha256"], hash);
        assert_eq!(signed["signatures"]["domain"]["ed25519:1"], signature);
    }
}

fn attempt(content: &str, change: impl FnOnce(&mut NewEvent, &mut Parents)) -> Result<Pdu, BuildError> {
    let room = SampleRoom::new(&RoomVersionId::V12);
    let mut event = room.new_event("alice", "m.room.message", None, json!({}));
    event.content = RawValue::from_string(content.to_owned()).unwrap();
    let room_id = Some(room.events[0].room_id.clone());
    let mut parents =
        Parents { room_id, prev_events: vec![room.events[3].event_id.clone()], ..Parents::default() };
    change(&mut event, &mut parents);
    build(&room.rules, event, parents, 1, &signing_key())
}

#[test]
fn what_canonical_json_does_not_allow_is_refused() {
    for content in
        [r#"{"n":1.5}"#, r#"{"n":9007199254740992}"#, r#"{"n":-0}"#, r#"{"n":1e2}"#, r#"{"a":1,"a":2}"#]
    {
        assert!(matches!(attempt(content, |_, _| {}), Err(BuildError::Json(_))), "{content}");
    }
    for content in ["[]", "1", "null", "\"text\""] {
        assert!(matches!(attempt(content, |_, _| {}), Err(BuildError::ContentNotAnObject)), "{content}");
    }
}

#[test]
fn sizes_are_limited() {
    let long = "x".repeat(256);
    let fields: [fn(&mut NewEvent, &str); 2] =
        [|event, long| event.event_type = long.into(), |event, long| event.state_key = Some(long.to_owned())];
    for field in fields {
        assert!(attempt("{}", |event, _| field(event, &long)).unwrap_err().is_too_large());
        assert!(attempt("{}", |event, _| field(event, &long[1..])).is_ok());
    }
    let empty = attempt(r#"{"b":""}"#, |_, _| {}).unwrap().json.len();
    for (size, fits) in [(65_536, true), (65_537, false)] {
        let content = json!({ "b": "x".repeat(size - empty) }).to_string();
        match attempt(&content, |_, _| {}) {
            Ok(pdu) => assert!(fits && pdu.json.len() == size),
            Err(error) => assert!(!fits && error.is_too_large(), "{error}"),
        }
    }
}

#[test]
fn parents_are_limited() {
    let id: OwnedEventId = "$x".try_into().unwrap();
    let too_many = |result| matches!(result, Err(BuildError::TooManyParents { .. }));
    assert!(too_many(attempt("{}", |_, parents| parents.prev_events = vec![id.clone(); 21])));
    assert!(too_many(attempt("{}", |_, parents| parents.auth_events = vec![id.clone(); 11])));
    let deep = attempt("{}", |_, parents| parents.depth = 1 << 53);
    assert!(matches!(deep, Err(BuildError::IntegerOutOfRange("depth"))));
}

#[test]
fn only_create_events_of_version_12_go_without_a_room_id() {
    let without = attempt("{}", |_, parents| parents.room_id = None);
    assert!(matches!(without, Err(BuildError::NoRoomId)));
    let with = attempt("{}", |event, _| event.event_type = TimelineEventType::RoomCreate);
    assert!(matches!(with, Err(BuildError::RoomIdOfCreate)));
    assert!(
        attempt("{}", |event, parents| {
            event.event_type = TimelineEventType::RoomCreate;
            parents.room_id = None;
        })
        .is_ok()
    );
}
