//! Rooms that are joined before all their members are known.

use http::StatusCode;
use myelin_store::tables::PARTIAL_ROOMS;
use myelin_testkit::{
    client::{Client, percent},
    server::Server,
};
use serde_json::{Value, json};

use super::Net;

fn large_room(net: &Net, ann: &Client) -> String {
    let many: Vec<_> = (0..150).map(|n| format!("@many{n}:a.test")).collect();
    net.create(0, ann, json!({ "preset": "public_chat", "name": "Large", "invite": many }))
}

fn is_partial(net: &Net, at: usize) -> bool {
    let rows = net.sim.block_on(net.servers[at].view.store.read().all(&PARTIAL_ROOMS, 10));
    !rows.expect("readable").is_empty()
}

/// Lets time pass until nothing is partial any more.
fn complete(net: &Net, at: usize) {
    for _ in 0..200 {
        if !is_partial(net, at) {
            return;
        }
        net.sim.clock().advance(std::time::Duration::from_secs(10));
        net.sim.settle();
    }
    panic!("the room is still partial");
}

/// The rest does not come before somebody lets time pass.
fn join_partially(net: &Net, bob: &Client, room: &str) {
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(room));
    net.sim.block_on(bob.post(&net.servers[1], &path, &json!({}))).ok();
}

fn say(net: &Net, at: usize, user: &Client, room: &str, body: &str) {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{body}", percent(room));
    let content = json!({ "msgtype": "m.text", "body": body });
    net.sim.block_on(user.put(&net.servers[at], &path, &content)).ok();
}

#[test]
fn the_members_come_after_the_join_and_both_sides_agree() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    join_partially(&net, &bob, &room);
    assert!(is_partial(&net, 1), "the join was answered first");
    say(&net, 1, &bob, &room, "early");
    complete(&net, 1);
    assert_eq!(net.state(0, &room), net.state(1, &room));
    let path = format!("/_matrix/client/v3/rooms/{}/members", percent(&room));
    let members = net.run(bob.get(&net.servers[1], &path)).ok();
    assert_eq!(members["chunk"].as_array().map(Vec::len), Some(152));
    say(&net, 1, &bob, &room, "late");
}

#[test]
fn who_needs_all_members_waits_for_them() {
    let net = Net::new(2);
    let (ann, mut bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    join_partially(&net, &bob, &room);
    assert!(is_partial(&net, 1));
    let path = format!("/_matrix/client/v3/rooms/{}/members", percent(&room));
    let members = net.run(bob.get(&net.servers[1], &path)).ok();
    assert_eq!(members["chunk"].as_array().map(Vec::len), Some(152));
    net.sync(1, &mut bob);
    let view = &bob.rooms[&room];
    assert_eq!(view.state.keys().filter(|(kind, _)| kind == "m.room.member").count(), 152);
}

#[test]
fn a_lazy_client_does_not_wait() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    join_partially(&net, &bob, &room);
    net.network.disconnect("a.test".try_into().unwrap());
    let filter = percent(r#"{"room":{"state":{"lazy_load_members":true}}}"#);
    let path = format!("/_matrix/client/v3/sync?filter={filter}");
    let answer = net.sim.block_on(bob.get(&net.servers[1], &path)).ok();
    assert!(is_partial(&net, 1));
    let state = answer["rooms"]["join"][&room]["state"]["events"].as_array().unwrap().clone();
    assert!(state.iter().any(|event: &Value| event["type"] == "m.room.name"));
}

#[test]
fn a_restart_in_between_loses_nothing() {
    let mut net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    join_partially(&net, &bob, &room);
    net.network.disconnect("a.test".try_into().unwrap());
    let disk = net.servers.pop().unwrap().crash();
    let name = "b.test".try_into().unwrap();
    net.servers.push(Server::start_in(&net.network, name, &net.sim, disk));
    assert!(is_partial(&net, 1));
    net.network.connect("a.test".try_into().unwrap(), net.servers[0].router());
    complete(&net, 1);
    assert_eq!(net.state(0, &room), net.state(1, &room));
}

#[test]
fn who_leaves_meanwhile_leaves_nothing_behind() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    join_partially(&net, &bob, &room);
    net.network.disconnect("a.test".try_into().unwrap());
    assert!(is_partial(&net, 1));
    let path = format!("/_matrix/client/v3/rooms/{}/leave", percent(&room));
    net.sim.block_on(bob.post(&net.servers[1], &path, &json!({}))).ok();
    complete(&net, 1);
    net.network.connect("a.test".try_into().unwrap(), net.servers[0].router());
    assert_eq!(net.join(1, &bob, &room, "a.test").status, StatusCode::OK);
}
