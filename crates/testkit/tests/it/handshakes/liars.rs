//! Resident servers that answer what is not so: the room is not taken over, and the person is told.

use http::StatusCode;
use myelin_dag::{NewEvent, Parents, Pdu};
use myelin_testkit::{
    client::{percent, text},
    puppet::{Puppet, json_of},
};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};

use super::{Net, refused};

const ROOM: &str = "!lair:evil.test";

/// A public room of a puppet, and what it would answer if it told the truth.
struct Lair {
    net: Net,
    puppet: Puppet,
    bob: myelin_testkit::client::Client,
    state: Vec<Pdu>,
    template: Value,
}

impl Lair {
    fn new() -> Self {
        let net = Net::new(2);
        let puppet = Puppet::connect(&net.network, "evil.test");
        let bob = net.user(1, "bob");
        let mut lair = Self { net, puppet, bob, state: Vec::new(), template: json!({}) };
        lair.add("m.room.create", "", json!({ "room_version": "11" }), &[]);
        lair.add("m.room.member", "@eve:evil.test", json!({ "membership": "join" }), &[0]);
        lair.add("m.room.power_levels", "", json!({ "users": { "@eve:evil.test": 100 } }), &[0, 1]);
        lair.add("m.room.join_rules", "", json!({ "join_rule": "public" }), &[0, 1, 2]);
        lair.template = json!({
            "type": "m.room.member", "room_id": ROOM, "sender": "@bob:b.test", "state_key": "@bob:b.test",
            "content": { "membership": "join" }, "depth": 5,
            "prev_events": [lair.state[3].event_id], "auth_events": lair.ids(&[0, 2, 3]),
        });
        lair
    }

    fn make(&self, room: &str, kind: &str, key: &str, content: Value, auth: &[usize]) -> Pdu {
        let event = NewEvent::state(self.puppet.user("eve"), kind, key, &content).unwrap();
        let parents = Parents {
            room_id: Some(room.try_into().unwrap()),
            prev_events: self.state.last().map(|pdu| pdu.event_id.clone()).into_iter().collect(),
            auth_events: self.ids(auth),
            depth: self.state.len() as u64 + 1,
            names: None,
        };
        self.puppet.makes(&RoomVersionId::V11, event, parents, 1_000 + self.state.len() as u64)
    }

    fn add(&mut self, kind: &str, key: &str, content: Value, auth: &[usize]) {
        let pdu = self.make(ROOM, kind, key, content, auth);
        self.state.push(pdu);
    }

    fn ids(&self, at: &[usize]) -> Vec<OwnedEventId> {
        at.iter().map(|at| self.state[*at].event_id.clone()).collect()
    }

    fn state(&self, at: &[usize]) -> Vec<Value> {
        at.iter().map(|at| json_of(&self.state[*at])).collect()
    }

    fn joins(&self, made: Value, sent: Value) -> myelin_testkit::server::Answer {
        self.puppet.says("/_matrix/federation/v1/make_join/", StatusCode::OK, made);
        self.puppet.says("/_matrix/federation/v2/send_join/", StatusCode::OK, sent);
        self.net.join(1, &self.bob, ROOM, "evil.test")
    }

    fn made(&self) -> Value {
        json!({ "room_version": "11", "event": self.template })
    }

    fn sent(&self) -> Value {
        json!({ "state": self.state(&[0, 1, 2, 3]), "auth_chain": self.state(&[0, 1, 2, 3]) })
    }

    #[track_caller]
    fn fails(&self, made: Value, sent: Value) {
        refused(&self.joins(made, sent), StatusCode::BAD_GATEWAY, "M_UNKNOWN");
        let view = &self.net.servers[1].view;
        let room = self.net.run(view.room_by_id(ROOM.try_into().unwrap())).unwrap();
        assert!(room.is_none(), "nothing was taken over");
    }
}

#[test]
fn the_truth_is_believed() {
    let lair = Lair::new();
    lair.joins(lair.made(), lair.sent()).ok();
    assert_eq!(lair.net.members(1, ROOM).len(), 2);
}

#[test]
fn a_template_for_something_else_is_not_signed() {
    let lair = Lair::new();
    let changes = [
        ("sender", json!("@ben:b.test")),
        ("state_key", json!("@eve:evil.test")),
        ("type", json!("m.room.power_levels")),
        ("room_id", json!("!other:evil.test")),
        ("content", json!({ "membership": "leave" })),
        ("prev_events", json!([])),
        ("auth_events", json!(vec![lair.state[0].event_id.clone(); 11])),
        ("depth", json!("deep")),
    ];
    for (field, value) in changes {
        let mut template = lair.template.clone();
        template[field] = value;
        lair.fails(json!({ "room_version": "11", "event": template }), lair.sent());
    }
    let asked = lair.puppet.asked();
    assert!(!asked.iter().any(|uri| uri.contains("send_join")), "nothing was handed out: {asked:?}");
}

#[test]
fn a_state_that_does_not_hold_together_is_not_taken_over() {
    let lair = Lair::new();
    let sent =
        |state: Vec<Value>, auth_chain: Vec<Value>| json!({ "state": state, "auth_chain": auth_chain });
    let all = || lair.state(&[0, 1, 2, 3]);
    // Without a create event, or with nothing.
    lair.fails(lair.made(), sent(lair.state(&[1, 2, 3]), all()));
    lair.fails(lair.made(), sent(vec![], vec![]));
    // The rules that let the user in are missing, so nobody may join.
    lair.fails(lair.made(), sent(lair.state(&[0, 1, 2]), all()));
    // Unsigned, or signed by nobody who counts.
    let mut unsigned = all();
    unsigned.iter_mut().for_each(|event| event["signatures"] = json!({}));
    lair.fails(lair.made(), sent(unsigned.clone(), unsigned));
    // Two events for one key.
    let mut twice = all();
    twice.push(json_of(&lair.make(
        ROOM,
        "m.room.join_rules",
        "",
        json!({ "join_rule": "public", "x": 1 }),
        &[0, 1, 2],
    )));
    lair.fails(lair.made(), sent(twice, all()));
    // Neither state nor chain.
    lair.fails(lair.made(), json!({}));
    lair.fails(lair.made(), json!({ "state": 1, "auth_chain": [] }));
}

#[test]
fn events_of_another_room_and_what_others_did_not_say_are_left_out() {
    let lair = Lair::new();
    let mut state = lair.state(&[0, 1, 2, 3]);
    state.push(json_of(&lair.make(
        "!other:evil.test",
        "m.room.topic",
        "",
        json!({ "topic": "x" }),
        &[0, 1, 2],
    )));
    // As if somebody of a.test had joined, who never did.
    let event = NewEvent::state(
        "@ann:a.test".try_into().unwrap(),
        "m.room.member",
        "@ann:a.test",
        &json!({ "membership": "join" }),
    );
    let parents = Parents {
        room_id: Some(ROOM.try_into().unwrap()),
        prev_events: lair.ids(&[3]),
        auth_events: lair.ids(&[0, 2, 3]),
        depth: 6,
        names: None,
    };
    state.push(json_of(&lair.puppet.makes(&RoomVersionId::V11, event.unwrap(), parents, 2_000)));
    lair.joins(lair.made(), json!({ "state": state, "auth_chain": lair.state(&[0]) })).ok();
    assert_eq!(lair.net.state(1, ROOM).len(), 5, "four and the join");
    assert_eq!(lair.net.members(1, ROOM).len(), 2);
}

#[test]
fn the_join_must_come_back_as_it_was_sent() {
    let lair = Lair::new();
    let mut sent = lair.sent();
    sent["event"] = json_of(&lair.state[1]);
    lair.fails(lair.made(), sent);
}

#[test]
fn a_room_is_not_taken_over_in_another_version() {
    let lair = Lair::new();
    lair.fails(json!({ "room_version": "10", "event": lair.template }), lair.sent());
    refused(
        &lair.joins(json!({ "room_version": "org.example.x", "event": lair.template }), lair.sent()),
        StatusCode::BAD_REQUEST,
        "M_UNSUPPORTED_ROOM_VERSION",
    );
    // The lie does not stand in the way of the truth.
    lair.joins(lair.made(), lair.sent()).ok();
}

#[test]
fn an_invite_comes_back_with_both_signatures_or_not_at_all() {
    let net = Net::new(1);
    let puppet = Puppet::connect(&net.network, "evil.test");
    let ann = net.user(0, "ann");
    let room = net.create(0, &ann, json!({ "preset": "private_chat", "room_version": "11" }));
    for answer in [json!({}), json!({ "event": { "type": "m.room.member" } })] {
        puppet.says("/_matrix/federation/v2/invite/", StatusCode::OK, answer);
        let invited = net.act(0, &ann, &room, "invite", json!({ "user_id": "@eve:evil.test" }));
        refused(&invited, StatusCode::BAD_GATEWAY, "M_UNKNOWN");
    }
    for errcode in ["M_MISSING_PARAM", "M_INVALID_PARAM"] {
        let answer = json!({ "errcode": errcode, "error": "This is no invite." });
        puppet.says("/_matrix/federation/v2/invite/", StatusCode::BAD_REQUEST, answer);
        let invited = net.act(0, &ann, &room, "invite", json!({ "user_id": "@eve:evil.test" }));
        refused(&invited, StatusCode::BAD_GATEWAY, "M_UNKNOWN");
    }
    puppet.says(
        "/_matrix/federation/v2/invite/",
        StatusCode::FORBIDDEN,
        json!({ "errcode": "M_FORBIDDEN", "error": "no" }),
    );
    let invited = net.act(0, &ann, &room, "invite", json!({ "user_id": "@eve:evil.test" }));
    refused(&invited, StatusCode::FORBIDDEN, "M_FORBIDDEN");
    assert_eq!(net.state(0, &room).len(), net.state(0, &room).len());
    assert_eq!(net.members(0, &room).len(), 1);
}

impl Lair {
    /// What Bob is shown when he reads back, newest first.
    fn reads_back(&self) -> Vec<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=50", percent(ROOM));
        let page = self.net.run(self.bob.get(&self.net.servers[1], &path)).ok();
        let events = page["chunk"].as_array().unwrap();
        events.iter().map(|event| text(&event["event_id"])).collect()
    }

    /// Longer than nobody is asked again.
    fn waits(&self) {
        self.net.run(self.net.sim.env().clock.sleep(std::time::Duration::from_secs(61)));
    }
}

#[test]
fn invented_history_is_not_shown() {
    let lair = Lair::new();
    lair.joins(lair.made(), lair.sent()).ok();
    let state = lair.net.state(1, ROOM);
    let other =
        json_of(&lair.make("!other:evil.test", "m.room.topic", "", json!({ "topic": "x" }), &[0, 1, 2]));
    let mut unsigned = lair.state(&[3]);
    unsigned[0]["signatures"] = json!({});
    let lies = [
        json!([]),
        json!({ "pdus": "x" }),
        json!({ "pdus": [1, null, {}, "x"] }),
        json!({ "pdus": [other] }),
        json!({ "pdus": vec![other.clone(); 5_000] }),
        json!({ "pdus": unsigned }),
    ];
    for lie in lies {
        lair.puppet.says("/_matrix/federation/v1/backfill/", StatusCode::OK, lie.clone());
        assert_eq!(lair.reads_back().len(), 1, "the join: {lie}");
        lair.waits();
    }
    // That he was banned before is as it may be: the present is not made of history.
    let ban = lair.make(ROOM, "m.room.member", "@bob:b.test", json!({ "membership": "ban" }), &[0, 1, 2]);
    let mut pdus = lair.state(&[0, 1, 2, 3]);
    pdus.push(json_of(&ban));
    lair.puppet.says("/_matrix/federation/v1/backfill/", StatusCode::OK, json!({ "pdus": pdus }));
    let shown = lair.reads_back();
    assert!(lair.ids(&[0, 1, 2, 3]).iter().all(|id| shown.contains(&id.to_string())), "{shown:?}");
    assert_eq!(lair.net.state(1, ROOM), state);
    assert_eq!(lair.net.members(1, ROOM).len(), 2);
}
