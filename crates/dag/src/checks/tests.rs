use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    EventId, RoomVersionId,
    events::StateEventType,
    signatures::{PublicKeyMap, PublicKeySet},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::*;
use crate::{Pdu, Verdict, room_version, samples::SampleRoom};

fn keys(room: &SampleRoom) -> PublicKeyMap {
    BTreeMap::from([("example.org".to_owned(), room.key.public_key_set())])
}

fn raw(pdu: &Pdu, change: impl FnOnce(&mut Value)) -> Box<RawValue> {
    let mut value = serde_json::from_str(&pdu.json).unwrap();
    change(&mut value);
    to_raw_value(&value).unwrap()
}

fn verify(room: &SampleRoom, raw: &RawValue) -> Result<VerifiedPdu, Dropped> {
    RawPdu(raw).check_format(&room.rules)?.verify(&keys(room), &room.rules)
}

fn authorized(room: &SampleRoom, pdu: &Pdu) -> Result<AuthorizedPdu, Unauthorized> {
    verify(room, &raw(pdu, |_| {})).unwrap().authorize(&room.rules, |id| room.event(id))
}

fn state(room: &SampleRoom) -> impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>> + '_ {
    |event_type, key| room.state_event(event_type, key)
}

fn room_with_bob(version: &RoomVersionId) -> SampleRoom {
    let mut room = SampleRoom::new(version);
    room.send("bob", "m.room.member", Some("@bob:example.org"), json!({ "membership": "join" }));
    room
}

#[test]
fn a_good_event_goes_all_the_way_in_every_version() {
    for version in room_version::SUPPORTED {
        let mut room = room_with_bob(version);
        let pdu = room.send("bob", "m.room.message", None, json!({ "body": "hi" }));
        let formed = RawPdu(&raw(&pdu, |_| {})).check_format(&room.rules).unwrap();
        assert_eq!(formed.event_id(), pdu.event_id);
        let servers: Vec<_> = formed.signing_servers(&room.rules).unwrap().into_iter().collect();
        assert_eq!(servers, ["example.org"]);
        let (accepted, verdict) =
            authorized(&room, &pdu).unwrap().judge(&room.rules, state(&room), state(&room));
        assert_eq!((verdict, accepted.rejected), (Verdict::Accepted, false), "{version}");
        assert_eq!(accepted.json, pdu.json);
    }
}

#[test]
fn events_without_a_good_signature_are_dropped() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let pdu = room.send("bob", "m.room.message", None, json!({ "body": "hi" }));
    let changes: [fn(&mut Value); 4] = [
        |v| v["sender"] = json!("@alice:example.org"),
        |v| v["signatures"] = json!({}),
        |v| v["signatures"]["example.org"]["ed25519:k1"] = json!("AAAA"),
        |v| v["origin_server_ts"] = json!(1),
    ];
    for change in changes {
        assert!(matches!(verify(&room, &raw(&pdu, change)), Err(Dropped::Signature(_))));
    }
    let unknown_keys = BTreeMap::from([("example.org".to_owned(), PublicKeySet::new())]);
    let formed = RawPdu(&raw(&pdu, |_| {})).check_format(&room.rules).unwrap();
    assert!(matches!(formed.verify(&unknown_keys, &room.rules), Err(Dropped::Signature(_))));
}

#[test]
fn what_has_no_form_is_dropped() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let pdu = room.send("bob", "m.room.message", None, json!({ "body": "hi" }));
    let formless = raw(&pdu, |v| v["depth"] = json!("deep"));
    assert!(matches!(verify(&room, &formless), Err(Dropped::Format(_))));
}

#[test]
fn content_that_does_not_match_its_hash_is_removed() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let pdu = room.send("bob", "m.room.message", None, json!({ "body": "hi" }));
    let verified = verify(&room, &raw(&pdu, |v| v["content"]["body"] = json!("forged"))).unwrap();
    assert!(verified.is_redacted());
    assert_eq!(verified.pdu().event_id, pdu.event_id);
    assert_eq!(verified.pdu().content.get(), "{}");
    assert!(!verify(&room, &raw(&pdu, |_| {})).unwrap().is_redacted());
}

#[test]
fn auth_events_that_are_not_known_are_named() {
    for (version, count) in [(RoomVersionId::V11, 3), (RoomVersionId::V12, 3)] {
        let mut room = room_with_bob(&version);
        let pdu = room.send("bob", "m.room.message", None, json!({}));
        let create = room.events[0].event_id.clone();
        let missing = missing_auth_events(&pdu, &room.rules, |_| false);
        assert_eq!((missing.len(), missing.contains(&create)), (count, true), "{version}");
        let is_known = |id: &EventId| id != create;
        assert_eq!(missing_auth_events(&pdu, &room.rules, is_known), std::slice::from_ref(&create));
        assert!(missing_auth_events(&room.events[0], &room.rules, |_| false).is_empty());
    }
}

#[test]
fn each_level_of_authorisation_has_its_verdict() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let pdu = room.send("bob", "m.room.message", None, json!({ "body": "hi" }));
    let stranger = room.send("mallory", "m.room.message", None, json!({ "body": "hi" }));
    let refused = authorized(&room, &stranger).unwrap_err();
    assert!(refused.pdu.rejected, "by its auth events: {refused}");

    let judged = authorized(&room, &pdu).unwrap();
    room.send("alice", "m.room.member", Some("@bob:example.org"), json!({ "membership": "ban" }));
    let before = room_with_bob(&RoomVersionId::V12);
    let (rejected, verdict) = judged.clone().judge(&room.rules, state(&room), state(&before));
    assert!(verdict.is_rejected() && rejected.rejected, "by the state before it");
    let (kept, verdict) = judged.judge(&room.rules, state(&before), state(&room));
    assert!(matches!(verdict, Verdict::SoftFailed { .. }) && !kept.rejected, "by the current state");
}

#[test]
fn unknown_auth_events_do_not_authorise() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let pdu = room.send("bob", "m.room.message", None, json!({}));
    let verified = verify(&room, &raw(&pdu, |_| {})).unwrap();
    assert!(verified.authorize(&room.rules, |_| None).is_err());
}

#[test]
fn the_policy_server_must_have_signed() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let key = crate::SigningKey::from_seed("policy_server", [9; 32]).unwrap();
    let content = json!({ "via": "policy.example", "public_keys": { "ed25519": key.public_key_base64() } });
    let event = room.send("alice", "m.room.policy", Some(""), content);
    let policy = policy_of(&event).unwrap();
    assert_eq!(check_policy_server(&event, &policy, &room.rules), Ok(()), "its own event is exempt");

    let unsigned = room.send("bob", "m.room.message", None, json!({ "body": "hi" }));
    assert!(check_policy_server(&unsigned, &policy, &room.rules).is_err());
    let signed_by = |key: &crate::SigningKey| {
        let mut object = serde_json::from_str(&unsigned.json).unwrap();
        let redaction = &room.rules.redaction;
        ruma::signatures::sign_event("policy.example", key.pair(), &mut object, redaction).unwrap();
        let json = serde_json::to_string(&object).unwrap();
        Pdu::parse(json.into(), unsigned.event_id.clone(), &room.rules).unwrap()
    };
    assert_eq!(check_policy_server(&signed_by(&key), &policy, &room.rules), Ok(()));
    let impostor = crate::SigningKey::from_seed("policy_server", [8; 32]).unwrap();
    assert!(check_policy_server(&signed_by(&impostor), &policy, &room.rules).is_err());
}

#[test]
fn a_policy_without_its_fields_is_none() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    for content in [json!({}), json!({ "via": "policy.example", "public_keys": {} }), json!({ "via": 1 })] {
        assert!(policy_of(&room.send("alice", "m.room.policy", Some(""), content)).is_none());
    }
}
