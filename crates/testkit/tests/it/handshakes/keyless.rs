//! Rooms with members whose servers' keys are not to be had: they are joined without, and work like any other.

use http::StatusCode;
use myelin_testkit::{
    client::{Client, percent},
    puppet::Puppet,
};
use serde_json::json;

use super::{Net, gate::Deed, partial::is_partial, refused};

/// Ann's room on `a.test` with Cat of `c.test`, which nobody knows the keys of any more. Bob of `b.test` is in it, too.
struct Room {
    net: Net,
    ann: Client,
    bob: Client,
    id: String,
}

fn room_without_keys() -> Room {
    let net = Net::new(4);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let id = net.public_room(0, &ann, "11");
    let levels = json!({ "users": { ann.user_id.clone(): 100 }, "invite": 0 });
    net.set(0, &ann, &id, "m.room.power_levels", levels).ok();
    net.join(2, &cat, &id, "a.test").ok();
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
    let serve = &net.servers[1].federation.serve;
    let room = id.as_str().try_into().unwrap();
    let end = net.end(1, &id);
    let ids = net.run(serve.state_ids("d.test".try_into().unwrap(), room, end.as_str().try_into().unwrap()));
    assert!(ids.expect("given as it is").contains("pdu_ids"));
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
}

#[test]
fn only_what_lacked_is_asked_for_when_the_keys_are_there() {
    let Room { net, ann, id, .. } = room_without_keys();
    let resident = net.gate(0, |_| Deed::Pass);
    net.set(0, &ann, &id, "m.room.topic", json!({ "topic": "meanwhile" })).ok();
    net.pass(3_600);
    let other = net.gate(2, |_| Deed::Pass);
    net.pass(3_600);
    assert!(!is_partial(&net, 1) && net.members(1, &id).contains("@cat:c.test"));
    assert_eq!(net.state(0, &id), net.state(1, &id));
    let asked = |what: &str| resident.count(what) + other.count(what);
    assert_eq!((asked("/v1/state/"), asked("/v1/state_ids/")), (0, 1));
    assert_eq!(asked("/v1/event/"), 1, "the member event");
}

#[test]
fn who_is_in_no_room_is_let_in_by_nobody() {
    let Room { net, ann, id, .. } = room_without_keys();
    let dan = net.user(3, "dan");
    net.set(0, &ann, &id, "m.room.join_rules", json!({ "join_rule": "invite" })).ok();
    refused(&net.join(3, &dan, &id, "b.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
}
