use proptest::prelude::*;
use ruma::{CanonicalJsonObject, RoomVersionId, canonical_json, signatures};
use serde_json::{Value, json};

use super::*;
use crate::{
    canonical::canonicalize,
    redaction::redact,
    room_version::{self, SUPPORTED},
    samples::SampleRoom,
};

const TYPES: [&str; 11] = [
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.server_acl",
    "m.room.message",
    "org.example.\\odd\"",
    "",
];

/// Fields that mean something in some type or version, and others.
const FIELDS: [&str; 24] = [
    "membership",
    "displayname",
    "join_authorised_via_users_server",
    "creator",
    "room_version",
    "join_rule",
    "allow",
    "ban",
    "events",
    "events_default",
    "invite",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
    "notifications",
    "history_visibility",
    "redacts",
    "aliases",
    "deny",
    "body",
    "a\\b\"",
    "é",
];

const TOP: [&str; 8] =
    ["origin", "membership", "prev_state", "age_ts", "event_id", "redacts", "state_key", "org.example.x"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-9_i64..9).prop_map(Value::from),
        "[\\\\\"{}a,:é]{0,5}".prop_map(Value::from)
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("[a-c\\\\\"]{0,2}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

fn content() -> impl Strategy<Value = Value> {
    let invite = prop::option::of(prop::collection::hash_map(
        prop::sample::select(vec!["signed", "display_name"]),
        value(),
        0..3,
    ));
    let fields = prop::collection::hash_map(prop::sample::select(FIELDS.to_vec()), value(), 0..8);
    (fields, invite).prop_map(|(fields, invite)| {
        let mut content = json!(fields);
        if let Some(invite) = invite {
            content["third_party_invite"] = json!(invite);
        }
        content
    })
}

fn event() -> impl Strategy<Value = Value> {
    let top = prop::collection::hash_map(prop::sample::select(TOP.to_vec()), value(), 0..5);
    (prop::sample::select(TYPES.to_vec()), content(), top).prop_map(|(event_type, content, top)| {
        let mut event = json!({
            "sender": "@a:b", "room_id": "!r:b", "depth": 1, "origin_server_ts": 2, "prev_events": [], "auth_events": [],
            "hashes": { "sha256": "x" }, "signatures": { "b": { "ed25519:1": "y" } },
        });
        top.into_iter().for_each(|(field, value)| event[field] = value);
        event["type"] = event_type.into();
        event["content"] = content;
        event
    })
}

proptest! {
    /// ruma is the reference, for every type and version.
    #[test]
    fn hashes_and_redactions_agree_with_ruma(event in event(), version in prop::sample::select(SUPPORTED.to_vec())) {
        let rules = room_version::rules(&version).unwrap();
        let json = canonicalize(event.to_string().as_bytes()).unwrap();
        let object: CanonicalJsonObject = serde_json::from_str(&json).unwrap();
        let content = signatures::content_hash(&object).unwrap();
        prop_assert_eq!(content_hash(&Outline::of(&json)), *content.as_inner());
        prop_assert_eq!(reference_hash(&json, &rules), signatures::reference_hash(&object, &rules).unwrap());
        let whole = SampleRoom::new(&RoomVersionId::V11).events[0].as_ref().clone();
        let redacted = redact(&Pdu { json: json.into(), ..whole }, &rules);
        let expected = canonical_json::redact(object, &rules.redaction, None).unwrap();
        prop_assert_eq!(&*redacted, serde_json::to_string(&expected).unwrap());
    }
}

#[test]
fn content_that_is_not_what_its_hash_says_is_noticed() {
    let mut room = SampleRoom::new(&RoomVersionId::V11);
    let json = room.send("alice", "m.room.message", None, json!({ "body": "hello" })).json.to_string();
    assert!(content_matches(&json));
    let hash = Outline::of(&json).get("hashes").unwrap().to_owned();
    for damaged in [
        json.replace("hello", "hullo"),
        json.replace(&hash, "{}"),
        json.replace(&hash, "[]"),
        json.replace(&hash, r#"{"sha256":1}"#),
        json.replace(&hash, r#"{"sha256":"!"}"#),
        "{}".to_owned(),
    ] {
        assert!(!content_matches(&damaged), "{damaged}");
    }
    let padded = json.replace(&hash, &hash.replace("\"}", "=\"}"));
    assert!(content_matches(&padded), "padded base64 is base64");
}

#[test]
fn events_are_named_as_their_version_wants_it() {
    for (version, alphabet) in
        [(RoomVersionId::V3, "+/"), (RoomVersionId::V4, "-_"), (RoomVersionId::V12, "-_")]
    {
        let mut room = SampleRoom::new(&version);
        for n in 0..20 {
            let pdu = room.send("alice", "m.room.message", None, json!({ "n": n }));
            assert_eq!(event_id_of(&pdu.json, &room.rules).unwrap(), pdu.event_id);
            let odd = pdu.event_id.localpart().chars().filter(|c| !c.is_ascii_alphanumeric());
            assert!(odd.into_iter().all(|c| alphabet.contains(c)), "{version}: {}", pdu.event_id);
        }
    }
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let room = SampleRoom::new(&version);
        assert_eq!(room.events[3].event_id, "$e3:example.org");
        assert_eq!(event_id_of(&room.events[3].json, &room.rules).unwrap(), room.events[3].event_id);
    }
}
