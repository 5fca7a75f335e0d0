use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    EventId, RoomVersionId,
    events::StateEventType,
    serde::Base64,
    server_name,
    signatures::{PublicKeyMap, PublicKeySet},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::*;
use crate::{Pdu, Verdict, canonical::Outline, redaction::signed_text, room_version, samples::SampleRoom};

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
fn a_spoilt_server_acl_is_dropped() {
    let mut room = room_with_bob(&RoomVersionId::V12);
    let acl = room.send("alice", "m.room.server_acl", Some(""), json!({ "allow": ["*"] }));
    let spoilt = raw(&acl, |v| v["content"] = json!({}));
    assert!(matches!(verify(&room, &spoilt), Err(Dropped::Format(ReceiveError::Spoilt))));
    assert!(!verify(&room, &raw(&acl, |_| {})).unwrap().is_redacted());
    let other = room.send("alice", "m.room.server_acl", Some("other"), json!({ "allow": ["*"] }));
    assert!(verify(&room, &raw(&other, |v| v["content"] = json!({}))).unwrap().is_redacted());
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

/// Signed and hashed by Synapse, whose numbers are Python's.
#[test]
fn events_with_the_numbers_of_old_rooms_are_taken() {
    let content = r#"{"z":1e2,"a":9007199254740993,"m":[-0,-0.0,1.50,0.00001,1e16,123456789012345678901234567890],"e":{"x":5.114698E4}}"#;
    let v1 = r#""event_id":"$own:example.org","prev_events":[["$p:example.org",{"sha256":"abc"}]],"auth_events":[["$p:example.org",{"sha256":"abc"}]]"#;
    let v3 = r#""prev_events":["$p"],"auth_events":["$p"]"#;
    let (hash_v1, hash_v3) =
        ("mZ1dcydLhRh8YRMLLa2w8TFCXWzab+OyRfcGLUiGIqo", "EgSRq40sRdijNPxJKrvaRN6rEbAPFIsSGLFuYTYLKO8");
    let signature_v1 =
        "Ev8EyYwbRqXkQyAIbm98Q3e86GQ9UTPw9z+ZAJu+aYuzohbTuevDvYyuqSndlXYLzeTP/LdoZPUK7EeilFSmCA";
    let signature_v3 =
        "5EzH1juD5lXPQOEATk1WEBbF6xoMaobtGGXnTbWbCVBZcAvdU9nNwaARZNIN6SRlJKlwd/9xgq6CQXfAWSBEBg";
    for (version, names, hash, signature, id) in [
        (RoomVersionId::V1, v1, hash_v1, signature_v1, "$own:example.org"),
        (RoomVersionId::V3, v3, hash_v3, signature_v3, "$OXsQ47my5cExIZrWyJZ3E+L9c2tMxhECvjyIzBDxUrw"),
        (RoomVersionId::V5, v3, hash_v3, signature_v3, "$OXsQ47my5cExIZrWyJZ3E-L9c2tMxhECvjyIzBDxUrw"),
    ] {
        let event = format!(
            r#"{{"type":"m.room.message","sender":"@alice:example.org","room_id":"!room:example.org",{names},
            "origin":"example.org","origin_server_ts":5,"depth":7,"content":{content},"hashes":{{"sha256":"{hash}"}},
            "signatures":{{"example.org":{{"ed25519:k1":"{signature}"}}}},"unsigned":{{"age":1.5}}}}"#
        );
        let room = SampleRoom::new(&version);
        let verified = verify(&room, &RawValue::from_string(event).unwrap()).unwrap();
        assert_eq!((verified.pdu().event_id.as_str(), verified.is_redacted()), (id, false), "{version}");
    }
}

/// Signed by `server` as well, with a key that is made for it.
fn signed_by(room: &SampleRoom, pdu: &Pdu, server: &str) -> (Box<RawValue>, PublicKeyMap) {
    let key = crate::SigningKey::from_seed("other", [9; 32]).unwrap();
    let mut value: Value = serde_json::from_str(&pdu.json).unwrap();
    let signed = signed_text(&Outline::of(&pdu.json), &room.rules.redaction);
    value["signatures"][server] = json!({ "ed25519:other": key.sign(signed.as_bytes()) });
    let mut keys = keys(room);
    keys.insert(server.to_owned(), key.public_key_set());
    (to_raw_value(&value).unwrap(), keys)
}

/// Per row: the version, the event, and who besides the sender's server must have signed.
#[test]
fn whoever_stands_for_an_event_must_have_signed_it() {
    use RoomVersionId as V;
    let join = json!({ "membership": "join", "join_authorised_via_users_server": "@a:other.org" });
    let invite = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    let not_an_object = json!({ "membership": "invite", "third_party_invite": "x" });
    let table = [
        (V::V7, "m.room.member", join.clone(), vec!["example.org"]),
        (V::V8, "m.room.member", join.clone(), vec!["example.org", "other.org"]),
        (V::V12, "m.room.member", join.clone(), vec!["example.org", "other.org"]),
        (V::V12, "m.room.message", join, vec!["example.org"]),
        (
            V::V12,
            "m.room.member",
            json!({ "membership": "leave", "join_authorised_via_users_server": "@a:b" }),
            vec!["example.org"],
        ),
        (V::V12, "m.room.member", invite.clone(), vec![]),
        (V::V2, "m.room.member", invite, vec!["example.org"]),
        (V::V12, "m.room.member", not_an_object, vec!["example.org"]),
    ];
    for (version, event_type, content, expected) in table {
        let room = SampleRoom::new(&version);
        let event = room.new_event("bob", event_type, Some("@bob:example.org"), content.clone());
        let pdu = room.make(event, &[&room.events[3]], &crate::samples::State::new(), 5);
        let servers: Vec<_> = servers_to_sign(&pdu, &room.rules).unwrap().into_iter().collect();
        assert_eq!(servers, expected, "{version} {content}");
        let unsigned = verify(&room, &raw(&pdu, |_| {}));
        assert_eq!(unsigned.is_ok(), !expected.contains(&"other.org"), "{version} {content}");
        let (both, keys) = signed_by(&room, &pdu, "other.org");
        assert!(RawPdu(&both).check_format(&room.rules).unwrap().verify(&keys, &room.rules).is_ok());
    }
}

#[test]
fn an_authorising_user_is_a_user() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let pdu = room.send("bob", "m.room.member", Some("@bob:example.org"), json!({ "membership": "join" }));
    for odd in [json!(1), json!("a:b"), json!(null), json!({})] {
        let raw = raw(&pdu, |v| v["content"]["join_authorised_via_users_server"] = odd.clone());
        let dropped = verify(&room, &raw).unwrap_err();
        assert!(matches!(dropped, Dropped::Signature(SignatureError::AuthorisingUser)), "{odd}");
    }
}

/// Versions 1 and 2: whoever gave the event its name must have signed it too.
#[test]
fn the_server_of_the_event_id_must_have_signed() {
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let mut room = SampleRoom::new(&version);
        let pdu = room.send("alice", "m.room.message", None, json!({ "body": "hi" }));
        let renamed = raw(&pdu, |v| v["event_id"] = json!("$mine:other.org"));
        let formed = RawPdu(&renamed).check_format(&room.rules).unwrap();
        let wanted: Vec<_> = formed.wanted_keys(&room.rules).unwrap().into_iter().collect();
        let expected = [("example.org", vec!["ed25519:k1"]), ("other.org", vec![])];
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(server, ids)| (server.as_str(), ids.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(wanted, expected);
        assert!(matches!(formed.verify(&keys(&room), &room.rules), Err(Dropped::Signature(_))));
    }
}

#[test]
fn a_wrong_signature_counts_even_beside_a_good_one() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let pdu = room.send("alice", "m.room.message", None, json!({ "body": "hi" }));
    let mut keys = keys(&room);
    let second = crate::SigningKey::from_seed("k2", [3; 32]).unwrap();
    keys.get_mut("example.org").unwrap().extend(second.public_key_set());
    let try_with = |signature: Value| {
        let raw = raw(&pdu, |v| v["signatures"]["example.org"]["ed25519:k2"] = signature.clone());
        RawPdu(&raw).check_format(&room.rules).unwrap().verify(&keys, &room.rules)
    };
    assert!(matches!(
        try_with(json!(second.sign(b"other"))),
        Err(Dropped::Signature(SignatureError::Wrong { .. }))
    ));
    for odd in [json!("!"), json!(1), json!({})] {
        assert!(matches!(try_with(odd), Err(Dropped::Signature(SignatureError::NotBase64 { .. }))));
    }
    let unknown = raw(&pdu, |v| v["signatures"]["example.org"]["curve25519:x"] = json!("?"));
    assert!(RawPdu(&unknown).check_format(&room.rules).unwrap().verify(&keys, &room.rules).is_ok());
}

#[test]
fn what_is_said_to_be_a_key_and_is_none_verifies_nothing() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let pdu = room.send("alice", "m.room.message", None, json!({ "body": "hi" }));
    let raw = raw(&pdu, |_| ());
    for none in [vec![], vec![1; 31], vec![2; 32]] {
        let mut keys = keys(&room);
        keys.get_mut("example.org").unwrap().values_mut().for_each(|key| *key = Base64::new(none.clone()));
        let verified = RawPdu(&raw).check_format(&room.rules).unwrap().verify(&keys, &room.rules);
        assert!(matches!(verified, Err(Dropped::Signature(SignatureError::Wrong { .. }))), "{none:?}");
    }
}

#[test]
fn wanted_are_the_keys_by_which_the_server_of_the_sender_says_that_it_signed() {
    let mut room = SampleRoom::new(&RoomVersionId::V12);
    let pdu = room.send("alice", "m.room.message", None, json!({ "body": "hi" }));
    for (signatures, expected) in [
        (json!({ "b.org": { "ed25519:3": "x" } }), vec![]),
        (json!({ "example.org": 1 }), vec![]),
        (
            json!({ "example.org": { "ed25519:2": "x", "ed25519:1": {}, "rsa:1": "" } }),
            vec!["ed25519:1", "ed25519:2"],
        ),
    ] {
        let raw = raw(&pdu, |v| v["signatures"] = signatures.clone());
        let wanted = RawPdu(&raw).check_format(&room.rules).unwrap().wanted_keys(&room.rules).unwrap();
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[server_name!("example.org")], expected, "{signatures}");
    }
}
