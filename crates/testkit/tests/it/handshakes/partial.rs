//! Rooms that are joined before all their members are known.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, StatusCode};
use myelin_federation::serve::Error;
use myelin_store::tables::PARTIAL_ROOMS;
use myelin_testkit::{
    client::{Client, percent},
    server::Server,
};
use serde_json::{Value, json};

use super::{
    Net,
    gate::{Asked, Deed},
    refused,
};

pub fn large_room(net: &Net, ann: &Client) -> String {
    let many: Vec<_> = (0..150).map(|n| format!("@many{n}:a.test")).collect();
    net.create(0, ann, json!({ "preset": "public_chat", "name": "Large", "invite": many }))
}

pub fn is_partial(net: &Net, at: usize) -> bool {
    let rows = net.sim.block_on(net.servers[at].view.store.read().all(&PARTIAL_ROOMS, 10));
    !rows.expect("readable").is_empty()
}

/// Lets time pass until nothing is partial any more.
pub fn complete(net: &Net, at: usize) {
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
pub fn join_partially(net: &Net, bob: &Client, room: &str) {
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(room));
    net.sim.block_on(bob.post(&net.servers[1], &path, &json!({}))).ok();
}

pub fn say(net: &Net, at: usize, user: &Client, room: &str, body: &str) {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{body}", percent(room));
    let content = json!({ "msgtype": "m.text", "body": body });
    net.sim.block_on(user.put(&net.servers[at], &path, &content)).ok();
}

/// Nobody gets the rest from `a.test`.
pub fn withhold(net: &Net) -> Asked {
    net.gate(0, |path| if path.contains("/v1/state") { Deed::refuse() } else { Deed::Pass })
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
    assert_eq!(net.membership(0, &ann, &room, &bob), "join");
    net.network.connect("a.test".try_into().unwrap(), net.servers[0].router());
    net.pass(120);
    assert_eq!(net.membership(0, &ann, &room, &bob), "leave", "it hears of it after the outage");
    assert_eq!(net.join(1, &bob, &room, "a.test").status, StatusCode::OK);
}

#[test]
fn another_server_of_the_room_gives_the_members() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = large_room(&net, &ann);
    net.join(2, &cat, &room, "a.test").ok();
    complete(&net, 2);
    withhold(&net);
    join_partially(&net, &bob, &room);
    complete(&net, 1);
    assert_eq!(net.state(0, &room), net.state(1, &room));
}

/// `c.test` says that the room had another name.
#[test]
fn what_another_server_gives_differs_in_members_only() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = large_room(&net, &ann);
    net.join(2, &cat, &room, "a.test").ok();
    complete(&net, 2);
    let old = net.pdu(0, &room, "m.room.name");
    net.set(0, &ann, &room, "m.room.name", json!({ "name": "New" })).ok();
    let new = net.pdu(0, &room, "m.room.name");
    let asked = withhold(&net);
    let lie = |state: &mut Value| {
        for pdu in state["pdus"].as_array_mut().into_iter().flatten().filter(|pdu| **pdu == new) {
            *pdu = old.clone();
        }
    };
    net.gate(2, |path| if path.contains("/v1/state") { Deed::refuse() } else { Deed::Pass });
    join_partially(&net, &bob, &room);
    net.pass(5);
    let path = format!("/_matrix/federation/v1/state/{}", percent(&room));
    let uri = format!("{path}?event_id={}", percent(&net.end(1, &room)));
    let mut state = net.asks(1, 2, Method::GET, &uri, None).ok();
    lie(&mut state);
    let lying = net.gate(2, move |asked| match asked.contains("/v1/state/") {
        true => Deed::Say(StatusCode::OK, state.clone()),
        false => Deed::Pass,
    });
    net.pass(300);
    assert!(is_partial(&net, 1) && lying.count("/v1/state/") > 0 && asked.count("/v1/state/") > 0);
    assert_eq!(net.pdu(1, &room, "m.room.name"), new);
    net.gate(0, |_| Deed::Pass);
    net.pass(900);
    assert!(!is_partial(&net, 1));
    assert_eq!(net.state(0, &room), net.state(1, &room));
}

/// The state before the join that is over comes when there is another one.
#[test]
fn who_leaves_and_comes_back_gets_the_state_before_the_new_join() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    let slow = std::time::Duration::from_secs(60);
    let asked = net.gate(0, move |path| match path.contains("/v1/state/") {
        true => Deed::Wait(slow),
        false => Deed::Pass,
    });
    join_partially(&net, &bob, &room);
    net.pass(1);
    assert_eq!(asked.count("/v1/state/"), 1, "it is under way");
    let path = format!("/_matrix/client/v3/rooms/{}/leave", percent(&room));
    net.sim.block_on(bob.post(&net.servers[1], &path, &json!({}))).ok();
    net.set(0, &ann, &room, "m.room.name", json!({ "name": "New" })).ok();
    net.act(0, &ann, &room, "ban", json!({ "user_id": "@many3:a.test" })).ok();
    join_partially(&net, &bob, &room);
    net.pass(61);
    assert!(is_partial(&net, 1), "what came was for the former join");
    assert_eq!(net.pdu(1, &room, "m.room.name"), net.pdu(0, &room, "m.room.name"));
    complete(&net, 1);
    assert_eq!(net.state(0, &room), net.state(1, &room));
}

#[test]
fn administrators_see_what_is_still_to_come() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(&net, &ann);
    withhold(&net);
    join_partially(&net, &bob, &room);
    let ask = || net.run(bob.get(&net.servers[1], "/_myelin/admin/v1/partial_rooms"));
    refused(&ask(), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    net.run(net.servers[1].make_admin(&bob.user_id));
    let rooms = ask().ok()["rooms"].clone();
    assert_eq!((&rooms[0]["room_id"], &rooms[0]["resident"]), (&json!(room), &json!("a.test")));
    assert_eq!((&rooms[0]["members_omitted"], &rooms[0]["keyless"]), (&json!(true), &json!([])));
    net.pass(60);
    let rooms = ask().ok()["rooms"].clone();
    let error = rooms[0]["last_error"].as_str().unwrap_or_default();
    assert!(rooms[0]["tries"].as_u64() >= Some(2) && error.contains("a.test"), "{rooms}");
    net.gate(0, |_| Deed::Pass);
    complete(&net, 1);
    assert_eq!(ask().ok()["rooms"], json!([]));
}

/// Cat is in the room, but Bob's server does not know that yet: what she may see only as a member it must not give her
/// server in the redacted form, which that would keep.
#[test]
fn nothing_is_handed_out_redacted_for_want_of_members() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = large_room(&net, &ann);
    net.set(0, &ann, &room, "m.room.history_visibility", json!({ "history_visibility": "joined" })).ok();
    net.join(2, &cat, &room, "a.test").ok();
    complete(&net, 2);
    net.gate(2, |path| if path.contains("/v1/state") { Deed::refuse() } else { Deed::Pass });
    withhold(&net);
    join_partially(&net, &bob, &room);
    say(&net, 1, &bob, &room, "secret");
    let (said, serve) = (net.end(1, &room), net.servers[1].federation.serve.clone());
    let (said_id, room_id) = (said.as_str().try_into().unwrap(), room.as_str().try_into().unwrap());
    let cat_server: &ruma::ServerName = "c.test".try_into().unwrap();
    let ask = || net.sim.block_on(serve.event(cat_server, said_id));
    assert!(matches!(ask(), Err(Error::Partial)));
    let history = net.sim.block_on(serve.backfill(cat_server, room_id, &[said_id.to_owned()], 10)).unwrap();
    assert!(!history.contains("m.room.message"), "{history}");
    net.gate(0, |_| Deed::Pass);
    complete(&net, 1);
    assert!(ask().unwrap().contains("secret"));
}

/// Of Dot, who speaks in a gap, Bob's server does not know yet that she is in the room.
#[test]
fn what_was_missed_is_there_for_who_reads_back_before_the_members_are() {
    let net = Net::new(2);
    let (ann, bob, dot) = (net.user(0, "ann"), net.user(1, "bob"), net.user(0, "dot"));
    let room = large_room(&net, &ann);
    net.join(0, &dot, &room, "a.test").ok();
    let states_are_given = Arc::new(AtomicBool::new(false));
    let given = states_are_given.clone();
    net.gate(0, move |path| {
        let withheld = path.contains("/v1/state") && !given.load(Ordering::Relaxed);
        if withheld || path.contains("/get_missing_events/") { Deed::refuse() } else { Deed::Pass }
    });
    join_partially(&net, &bob, &room);
    assert!(is_partial(&net, 1) && !net.members(1, &room).contains("@dot:a.test"));
    net.gate(1, |path| match path.contains("/v1/send/") {
        true => Deed::Say(StatusCode::OK, json!({ "pdus": {} })),
        false => Deed::Pass,
    });
    say(&net, 0, &dot, &room, "lost");
    say(&net, 0, &dot, &room, "far");
    net.pass(2);
    net.gate(1, |_| Deed::Pass);
    states_are_given.store(true, Ordering::Relaxed);
    say(&net, 0, &ann, &room, "now");
    net.pass(2);
    states_are_given.store(false, Ordering::Relaxed);
    assert_eq!(net.end(1, &room), net.end(0, &room));
    assert!(is_partial(&net, 1));
    let filter = percent(r#"{"lazy_load_members":true}"#);
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=50&filter={filter}", percent(&room));
    let bodies = || {
        let read = net.sim.block_on(bob.get(&net.servers[1], &path)).ok();
        let events = read["chunk"].as_array().unwrap().iter();
        let bodies = events.filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned));
        bodies.collect::<Vec<_>>()
    };
    assert_eq!(bodies(), ["now", "far", "lost"]);
    assert!(is_partial(&net, 1));
    net.gate(0, |_| Deed::Pass);
    complete(&net, 1);
    assert_eq!(bodies(), ["now", "far", "lost"]);
    assert_eq!(net.state(0, &room), net.state(1, &room));
}
