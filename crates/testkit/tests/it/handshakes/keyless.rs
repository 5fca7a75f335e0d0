//! Rooms with members whose servers' keys are not to be had: they are joined without, and work like any other. What they
//! do without is handed on as it came.

use http::StatusCode;
use myelin_store::tables::LEFT_OUT;
use myelin_testkit::{
    client::{Client, percent, text},
    puppet::Puppet,
};
use serde_json::{Value, json};

use super::{Net, gate::Deed, partial::is_partial, refused};

/// Ann's room on `a.test` with Cat of `c.test`, which nobody knows the keys of any more. Bob of `b.test` is in it, too.
struct Room {
    net: Net,
    ann: Client,
    bob: Client,
    id: String,
}

impl Room {
    /// The event by which Cat is what she is, as `a.test` has it.
    fn cats_membership(&self) -> String {
        self.event_of("m.room.member/@cat:c.test")
    }

    fn event_of(&self, key: &str) -> String {
        let path = format!("/_matrix/client/v3/rooms/{}/state/{key}?format=event", percent(&self.id));
        text(&self.net.run(self.ann.get(&self.net.servers[0], &path)).ok()["event_id"])
    }

    /// What `a.test` is answered that asks `b.test` for the state before an event: the ids, and the PDUs.
    fn state_before(&self, event: &str) -> (Vec<String>, Vec<Value>) {
        let serve = &self.net.servers[1].federation.serve;
        let (origin, room) = ("a.test".try_into().unwrap(), self.id.as_str().try_into().unwrap());
        let event = event.try_into().unwrap();
        let ids: Value = json_of(self.net.run(serve.state_ids(origin, room, event)).expect("given"));
        let state: Value = json_of(self.net.run(serve.state(origin, room, event)).expect("given"));
        let ids = ids["pdu_ids"].as_array().expect("ids").iter().map(text).collect();
        (ids, state["pdus"].as_array().expect("PDUs").clone())
    }

    fn left_out(&self, at: usize) -> usize {
        self.net.run(self.net.servers[at].view.store.read().all(&LEFT_OUT, 10)).expect("readable").len()
    }
}

fn json_of(text: String) -> Value {
    serde_json::from_str(&text).expect("JSON")
}

fn is_of_cat(pdu: &Value) -> bool {
    pdu["state_key"] == "@cat:c.test"
}

fn room_without_keys() -> Room {
    room_without_keys_after(|_, _, _| {})
}

/// `before`: while the keys of `c.test` are still to be had; is given Cat and the room.
fn room_without_keys_after(before: impl FnOnce(&Net, &Client, &str)) -> Room {
    let net = Net::new(4);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let id = net.public_room(0, &ann, "11");
    let levels =
        json!({ "users": { ann.user_id.clone(): 100 }, "invite": 0, "events": { "m.room.topic": 0 } });
    net.set(0, &ann, &id, "m.room.power_levels", levels).ok();
    net.join(2, &cat, &id, "a.test").ok();
    before(&net, &cat, &id);
    net.gate(2, |path| if path.contains("/_matrix/key/") { Deed::refuse() } else { Deed::Pass });
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&id));
    net.sim.block_on(bob.post(&net.servers[1], &path, &json!({}))).ok();
    assert!(is_partial(&net, 1) && !net.members(1, &id).contains("@cat:c.test"));
    Room { net, ann, bob, id }
}

#[test]
fn users_of_other_servers_are_invited_and_let_in() {
    let Room { net, bob, id, .. } = room_without_keys();
    let (mut amy, dan) = (net.user(0, "amy"), net.user(3, "dan"));
    net.act(1, &bob, &id, "invite", json!({ "user_id": amy.user_id })).ok();
    net.pass(10);
    net.sync(0, &mut amy);
    assert!(amy.invites.contains_key(&id));
    net.act(0, &amy, &id, "join", json!({})).ok();
    net.join(3, &dan, &id, "b.test").ok();
    assert!(is_partial(&net, 1) && net.members(1, &id).contains("@dan:d.test"));
}

#[test]
fn what_a_server_does_without_it_hands_on() {
    let room = room_without_keys_after(|net, cat, _| {
        let (dan, other) = (net.user(3, "dan"), net.public_room(2, cat, "11"));
        net.join(3, &dan, &other, "c.test").ok();
    });
    let (net, id) = (&room.net, &room.id);
    let cat = room.cats_membership();
    let (ids, pdus) = room.state_before(&net.end(1, id));
    assert!(ids.contains(&cat) && pdus.iter().any(is_of_cat));
    let serve = &net.servers[1].federation.serve;
    let event =
        |origin: &str| net.run(serve.event(origin.try_into().unwrap(), cat.as_str().try_into().unwrap()));
    assert!(is_of_cat(&json_of(event("a.test").expect("given"))["pdus"][0]));
    event("d.test").expect_err("not in the room");
    let erin = net.user(3, "erin");
    net.join(3, &erin, id, "b.test").ok();
    net.pass(10);
    assert!(!is_partial(net, 3), "who has the keys lacks nothing");
    assert!(net.members(3, id).contains("@cat:c.test") && !net.members(1, id).contains("@cat:c.test"));
    assert_eq!(net.state(0, id), net.state(3, id));
}

#[test]
fn what_was_done_without_is_not_part_of_the_state_when_something_else_stands_in_its_place() {
    let room = room_without_keys_after(|net, cat, id| {
        net.set(2, cat, id, "m.room.topic", json!({ "topic": "Cat's" })).ok();
    });
    let cats = room.event_of("m.room.topic/");
    assert!(room.left_out(1) == 2 && room.state_before(&room.net.end(1, &room.id)).0.contains(&cats));
    for topic in ["Ann's", "Ann's again"] {
        room.net.set(0, &room.ann, &room.id, "m.room.topic", json!({ "topic": topic })).ok();
    }
    room.net.pass(10);
    let (ids, pdus) = room.state_before(&room.net.end(1, &room.id));
    assert!(!ids.contains(&cats) && ids.contains(&room.cats_membership()));
    assert_eq!(pdus.iter().filter(|pdu| pdu["type"] == "m.room.topic").count(), 1);
}

#[test]
fn a_state_from_before_does_not_get_what_the_one_of_the_join_lacks() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let id = net.public_room(0, &ann, "11");
    net.join(1, &bob, &id, "a.test").ok();
    let early = net.end(1, &id);
    net.act(1, &bob, &id, "leave", json!({})).ok();
    net.join(2, &cat, &id, "a.test").ok();
    net.gate(2, |path| if path.contains("/_matrix/key/") { Deed::refuse() } else { Deed::Pass });
    net.join(1, &bob, &id, "a.test").ok();
    let room = Room { net, ann, bob, id };
    assert!(is_partial(&room.net, 1) && room.left_out(1) == 1);
    let cat = room.cats_membership();
    assert!(!room.state_before(&early).0.contains(&cat));
    assert!(room.state_before(&room.net.end(1, &room.id)).0.contains(&cat), "of the join");
}

#[test]
fn nobody_is_asked_for_a_state_before_a_key_is_there() {
    let Room { net, id, .. } = room_without_keys();
    // The server lives, but by another key.
    Puppet::connect(&net.network, "c.test");
    let asked = net.gate(0, |_| Deed::Pass);
    net.pass(23 * 3_600);
    assert!(is_partial(&net, 1));
    net.pass(2 * 3_600);
    assert!(!is_partial(&net, 1), "after a day the room does without");
    assert_eq!(asked.count("/v1/state"), 0);
    assert!(!net.members(1, &id).contains("@cat:c.test"));
    let left_out = net.run(net.servers[1].view.store.read().all(&LEFT_OUT, 10)).expect("readable");
    assert!(left_out.is_empty());
}

#[test]
fn what_lacked_is_taken_in_when_the_keys_are_there_and_nobody_is_asked_for_it() {
    let room = room_without_keys();
    let Room { net, ann, id, .. } = &room;
    let resident = net.gate(0, |_| Deed::Pass);
    net.set(0, ann, id, "m.room.topic", json!({ "topic": "meanwhile" })).ok();
    net.pass(3_600);
    assert_eq!(room.left_out(1), 1);
    let other = net.gate(2, |_| Deed::Pass);
    net.pass(3_600);
    assert!(!is_partial(net, 1) && net.members(1, id).contains("@cat:c.test"));
    assert_eq!(net.state(0, id), net.state(1, id));
    let asked = |what: &str| resident.count(what) + other.count(what);
    assert_eq!((asked("/v1/state"), asked("/v1/event/")), (0, 0));
    assert_eq!(room.left_out(1), 0, "it is held now");
}

#[test]
fn who_leaves_keeps_nothing_of_what_was_done_without() {
    let room = room_without_keys();
    assert_eq!(room.left_out(1), 1);
    room.net.act(1, &room.bob, &room.id, "leave", json!({})).ok();
    room.net.pass(3_600);
    assert_eq!((room.left_out(1), is_partial(&room.net, 1)), (0, false));
}

#[test]
fn who_is_in_no_room_is_let_in_by_nobody() {
    let Room { net, ann, id, .. } = room_without_keys();
    let dan = net.user(3, "dan");
    net.set(0, &ann, &id, "m.room.join_rules", json!({ "join_rule": "invite" })).ok();
    refused(&net.join(3, &dan, &id, "b.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
}
