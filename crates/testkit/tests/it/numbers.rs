//! Fractions and large integers in rooms of versions 1 to 5: they stay what they were signed as, wherever they go. From
//! version 6 on no event has them.

use std::collections::BTreeMap;

use base64::{Engine, alphabet, engine::general_purpose as base64_forms};
use http::Method;
use myelin_dag::{NewEvent, Pdu};
use myelin_testkit::{client::percent, puppet::Puppet};
use ruma::{EventId, OwnedEventId, RoomId};
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};

use super::{
    handshakes::Net,
    inbound::{accepted, event},
};

/// As Python writes them, by which such events are hashed and signed.
const NUMBERS: &str = r#"{"big":123456789012345678901234567890,"body":"numbers","high":1e+22,"low":1e-05,"odd":9007199254740993,"tiny":-0.0,"x":1.5}"#;

/// An event as it travels.
struct Written {
    id: OwnedEventId,
    text: String,
}

/// The same event with this content instead. Nothing here is done by the code that is tested.
fn written(puppet: &Puppet, version: &str, pdu: &Pdu, content: &str, redacted: &str) -> Written {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&pdu.json).unwrap();
    fields.retain(|name, _| !["hashes", "signatures", "unsigned"].contains(&name.as_str()));
    let text = |fields: &BTreeMap<String, Box<RawValue>>| serde_json::to_string(fields).unwrap();
    fields.insert("content".to_owned(), raw(content));
    let hash = base64_forms::STANDARD_NO_PAD.encode(Sha256::digest(text(&fields)));
    fields.insert("hashes".to_owned(), raw(&json!({ "sha256": hash }).to_string()));
    fields.insert("content".to_owned(), raw(redacted));
    let signed = text(&fields);
    let alphabet = if version == "3" { alphabet::STANDARD } else { alphabet::URL_SAFE };
    let names = base64_forms::GeneralPurpose::new(&alphabet, base64_forms::NO_PAD);
    let id = match version {
        "1" | "2" => pdu.event_id.clone(),
        _ => format!("${}", names.encode(Sha256::digest(&signed))).try_into().unwrap(),
    };
    let signature =
        json!({ puppet.name().as_str(): { puppet.key().key_id(): puppet.key().sign(signed.as_bytes()) } });
    fields.insert("content".to_owned(), raw(content));
    fields.insert("signatures".to_owned(), raw(&signature.to_string()));
    Written { id, text: text(&fields) }
}

/// Ann's room on `a.test` with Eve, who has power. Bob of `b.test` comes later.
struct Room {
    net: Net,
    version: &'static str,
    ann: myelin_testkit::client::Client,
    id: String,
    puppet: Puppet,
    eve: String,
}

impl Room {
    fn new(version: &'static str) -> Self {
        let net = Net::new(2);
        let ann = net.user(0, "ann");
        let id = net.public_room(0, &ann, version);
        let puppet = Puppet::connect(&net.network, "remote.test");
        let room = Self { eve: puppet.user("eve").to_string(), net, version, ann, id, puppet };
        let join =
            room.make(event(&room.eve, "m.room.member", Some(&room.eve), &json!({ "membership": "join" })));
        let reply = room.net.run(room.puppet.sends(room.server(), &[&join]));
        assert_eq!(reply.json, accepted(&[&join]));
        let mut levels = room.net.pdu(0, &room.id, "m.room.power_levels")["content"].take();
        levels["users"][&room.eve] = json!(100);
        room.net.set(0, &room.ann, &room.id, "m.room.power_levels", levels).ok();
        room
    }

    fn server(&self) -> &ruma::ServerName {
        "a.test".try_into().unwrap()
    }

    fn id(&self) -> &RoomId {
        self.id.as_str().try_into().unwrap()
    }

    fn make(&self, event: NewEvent) -> Pdu {
        self.net.run(self.puppet.makes_next(&self.net.servers[0].view, self.id(), event))
    }

    /// Power levels of which redaction leaves everything: all of it is signed.
    fn levels(&self) -> Written {
        let (ann, eve) = (&self.ann.user_id, &self.eve);
        let ann = if self.version == "12" { String::new() } else { format!(r#""{ann}":100,"#) };
        let content = format!(
            r#"{{"ban":50.0,"events":{{"org.example.often":-9007199254740993,"org.example.rare":1e-05}},"users":{{{ann}"{eve}":100.0}}}}"#
        );
        let pdu = self.make(event(eve, "m.room.power_levels", Some(""), &json!({})));
        written(&self.puppet, self.version, &pdu, &content, &content)
    }

    fn message(&self) -> Written {
        let pdu = self.make(event(&self.eve, "m.room.message", None, &json!({})));
        written(&self.puppet, self.version, &pdu, NUMBERS, "{}")
    }

    fn sends(&self, written: &Written) -> Value {
        let body =
            format!(r#"{{"edus":[],"origin":"remote.test","origin_server_ts":1,"pdus":[{}]}}"#, written.text);
        let uri = format!("/_matrix/federation/v1/send/{}", written.id.as_str().len() + written.text.len());
        let reply = self.net.run(self.puppet.requests_text(self.server(), Method::PUT, &uri, body));
        assert_eq!(reply.status, http::StatusCode::OK, "{}", reply.json);
        reply.json
    }

    /// The event as a server has it, if that counts.
    fn held(&self, at: usize, id: &EventId) -> Option<String> {
        let event = self.net.run(self.net.servers[at].view.events.load_by_id(id)).unwrap();
        event.filter(|event| event.accepted()).map(|event| event.pdu.json.to_string())
    }
}

#[test]
fn numbers_of_old_rooms_stay_what_they_were_signed_as() {
    for version in ["1", "2", "3", "4", "5"] {
        let room = Room::new(version);
        let levels = room.levels();
        assert_eq!(room.sends(&levels), json!({ "pdus": { levels.id.as_str(): {} } }), "{version}");
        assert_eq!(room.held(0, &levels.id).as_ref(), Some(&levels.text), "{version}");
        let bob = room.net.user(1, "bob");
        room.net.join(1, &bob, &room.id, "a.test").ok();
        assert!(room.net.state(1, &room.id).contains(levels.id.as_str()), "{version}: given in the state");

        let message = room.message();
        assert_eq!(room.sends(&message), json!({ "pdus": { message.id.as_str(): {} } }), "{version}");
        let path = format!("rooms/{}/event/{}", percent(&room.id), percent(message.id.as_str()));
        let path = format!("/_matrix/client/v3/{path}");
        let shown = room.net.run(room.ann.get(&room.net.servers[0], &path)).ok();
        assert_eq!(shown["content"], serde_json::from_str::<Value>(NUMBERS).unwrap(), "{version}");
        // Bob's server gets it with what comes after it, from Ann's.
        let topic = room.net.set(0, &room.ann, &room.id, "m.room.topic", json!({ "topic": "after" })).ok();
        room.net.pass(10);
        assert_eq!(room.net.end(1, &room.id), topic["event_id"].as_str().unwrap(), "{version}");
        for written in [&levels, &message] {
            let held = [0, 1].map(|at| room.held(at, &written.id));
            assert_eq!(held, [Some(written.text.clone()), Some(written.text.clone())], "{version}");
        }
        let shown = room.net.run(bob.get(&room.net.servers[1], &path)).ok();
        assert_eq!(shown["content"], serde_json::from_str::<Value>(NUMBERS).unwrap(), "{version}");
    }
}

#[test]
fn no_event_of_newer_rooms_has_such_numbers() {
    for version in ["6", "10", "11", "12"] {
        let room = Room::new(version);
        let before = room.net.state(0, &room.id);
        for written in [room.levels(), room.message()] {
            room.sends(&written);
            let view = &room.net.servers[0].view;
            let held = room.net.run(view.events.load_by_id(&written.id)).unwrap();
            assert!(held.is_none(), "{version}: {}", written.text);
        }
        assert_eq!(room.net.state(0, &room.id), before, "{version}");
        // It is the numbers that are wrong with it.
        let pdu = room.make(event(&room.eve, "m.room.message", None, &json!({})));
        let fine = written(&room.puppet, version, &pdu, r#"{"odd":9007199254740991}"#, "{}");
        room.sends(&fine);
        assert_eq!(room.held(0, &fine.id), Some(fine.text), "{version}");
    }
}
