//! Clients that hang up while other servers are asked on their behalf: what these have taken or signed comes to its end.

use std::time::Duration;

use myelin_testkit::client::{Client, percent};
use serde_json::{Value, json};

use super::{Net, gate::Deed};

impl Net {
    /// Asks, and hangs up after a second.
    pub fn hangs_up(&self, at: usize, user: &Client, path: &str, body: &Value) {
        let asked = user.post(&self.servers[at], path, body);
        let answer = self.sim.block_on(self.sim.env().timeout(Duration::from_secs(1), asked));
        assert!(answer.is_none(), "there was something to wait for");
    }
}

fn slow(part: &'static str) -> impl Fn(&str) -> Deed + Clone {
    move |path| if path.contains(part) { Deed::Wait(Duration::from_secs(20)) } else { Deed::Pass }
}

#[test]
fn a_join_goes_on_and_who_asks_again_gets_its_outcome() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "12");
    let asked = net.gate(0, slow("send_join"));
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&room));
    net.hangs_up(1, &bob, &path, &json!({}));
    net.hangs_up(1, &bob, &path, &json!({}));
    net.run(bob.post(&net.servers[1], &path, &json!({}))).ok();
    assert_eq!(net.state(0, &room), net.state(1, &room));
    assert_eq!((asked.count("make_join"), asked.count("send_join")), (1, 1));
}

#[test]
fn a_join_that_nobody_waits_for_any_more_is_held() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    net.gate(0, slow("send_join"));
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&room));
    net.hangs_up(1, &bob, &path, &json!({}));
    net.pass(60);
    assert!(net.members(1, &room).contains("@bob:b.test"));
    assert_eq!(net.state(0, &room), net.state(1, &room));
}

#[test]
fn the_same_failure_is_told_to_all_who_ask() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.create(0, &ann, json!({ "preset": "private_chat" }));
    let asked = net.gate(0, slow("make_join"));
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&room));
    let body = json!({});
    let ask = || bob.post(&net.servers[1], &path, &body);
    let (first, second) = net.run(futures::future::join(ask(), ask()));
    assert_eq!((first.json["errcode"].as_str(), &first), (Some("M_FORBIDDEN"), &second));
    assert_eq!(asked.count("make_join"), 1);
    // What failed is no answer for ever.
    net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id })).ok();
    net.run(bob.post(&net.servers[1], &path, &body)).ok();
}

#[test]
fn an_invite_that_was_signed_is_in_the_room() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.create(0, &ann, json!({ "preset": "private_chat" }));
    net.gate(1, slow("invite"));
    let path = format!("/_matrix/client/v3/rooms/{}/invite", percent(&room));
    net.hangs_up(0, &ann, &path, &json!({ "user_id": bob.user_id }));
    net.pass(60);
    assert_eq!(net.membership(0, &ann, &room, &bob), "invite");
    net.act(1, &bob, &room, "join", json!({})).ok();
}

#[test]
fn a_rejection_and_a_knock_that_the_room_has_heard_of_are_held() {
    let net = Net::new(2);
    let (ann, mut bob, mut ben) = (net.user(0, "ann"), net.user(1, "bob"), net.user(1, "ben"));
    let rules =
        json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
    let room = net.create(0, &ann, json!({ "invite": [bob.user_id], "initial_state": rules }));
    net.gate(0, slow("send_"));
    let path = format!("/_matrix/client/v3/rooms/{}/leave", percent(&room));
    net.hangs_up(1, &bob, &path, &json!({}));
    let path = format!("/_matrix/client/v3/knock/{}?via=a.test", percent(&room));
    net.hangs_up(1, &ben, &path, &json!({}));
    net.pass(60);
    assert_eq!(net.membership(0, &ann, &room, &bob), "leave");
    assert_eq!(net.membership(0, &ann, &room, &ben), "knock");
    assert!(net.sync(1, &mut bob)["rooms"].get("invite").is_none());
    assert!(net.sync(1, &mut ben)["rooms"]["knock"].get(&room).is_some());
}
