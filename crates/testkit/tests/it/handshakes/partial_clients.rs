//! What clients are told of a room while its members are still to come: what is so, or nothing yet.

use http::StatusCode;
use myelin_testkit::client::{Client, percent};
use serde_json::json;

use super::{
    Net,
    gate::Deed,
    partial::{complete, is_partial, join_partially, large_room, say, withhold},
    refused,
};

/// Ann's large room, which Bob of `b.test` has joined; nobody gives his server the members.
fn partial_room(net: &Net) -> (Client, Client, String) {
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = large_room(net, &ann);
    net.set(0, &ann, &room, "m.room.power_levels", json!({ "invite": 0 })).ok();
    withhold(net);
    join_partially(net, &bob, &room);
    assert!(is_partial(net, 1));
    (ann, bob, room)
}

fn members_shown(bob: &Client, room: &str) -> usize {
    bob.rooms[room].state.keys().filter(|(kind, _)| kind == "m.room.member").count()
}

#[test]
fn a_client_that_needs_all_members_is_not_held_up_and_is_shown_the_room_when_they_are_there() {
    let net = Net::new(2);
    let (ann, mut bob, room) = partial_room(&net);
    let other = net.create(1, &bob, json!({}));
    let begun = net.sim.env().now_ms();
    net.sync(1, &mut bob);
    say(&net, 0, &ann, &room, "hello");
    say(&net, 1, &bob, &other, "meanwhile");
    net.sync(1, &mut bob);
    assert!(net.sim.env().now_ms() - begun < 5_000, "it waits for nothing");
    assert!(bob.rooms.contains_key(&other) && !bob.rooms.contains_key(&room));
    net.gate(0, |_| Deed::Pass);
    complete(&net, 1);
    let answer = net.sync(1, &mut bob);
    assert_eq!(members_shown(&bob, &room), 152);
    assert!(answer["device_lists"]["changed"].as_array().unwrap().contains(&json!("@ann:a.test")));
    assert!(net.sync(1, &mut bob)["rooms"]["join"].get(&room).is_none(), "and once only");
}

#[test]
fn a_member_who_is_not_known_yet_is_waited_for() {
    let net = Net::new(2);
    let (_, bob, room) = partial_room(&net);
    net.gate(0, |_| Deed::Pass);
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/%40many7%3Aa.test", percent(&room));
    assert_eq!(net.run(bob.get(&net.servers[1], &path)).ok()["membership"], "invite");
}

#[test]
fn whether_a_user_is_in_a_room_that_lets_in_is_not_known_before_the_members_are() {
    let net = Net::new(2);
    let (_, bob, club) = partial_room(&net);
    let rules =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rules }]);
    let room = net.create(1, &bob, json!({ "initial_state": state }));
    let path =
        format!("/_matrix/federation/v1/make_join/{}/{}?ver=12", percent(&room), percent("@many9:a.test"));
    let answer = net.asks(0, 1, http::Method::GET, &path, None);
    refused(&answer, StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN");
    net.gate(0, |_| Deed::Pass);
    complete(&net, 1);
    refused(&net.asks(0, 1, http::Method::GET, &path, None), StatusCode::FORBIDDEN, "M_FORBIDDEN");
}

/// Ben and Ben's friend were invited before their server came into the room, by Bob's join.
#[test]
fn an_invite_from_before_is_accepted_and_rejected() {
    let net = Net::new(2);
    let users = ["ann", "bob", "ben", "bea"];
    let users: Vec<_> =
        users.iter().enumerate().map(|(at, name)| net.user(usize::from(at > 0), name)).collect();
    let [ann, bob, ben, bea] = &users[..] else { panic!("four users") };
    let mut invited: Vec<_> = (0..150).map(|n| format!("@many{n}:a.test")).collect();
    invited.extend([bob, ben, bea].map(|user| user.user_id.clone()));
    let room = net.create(0, ann, json!({ "preset": "private_chat", "name": "Large", "invite": invited }));
    withhold(&net);
    join_partially(&net, bob, &room);
    net.gate(0, |_| Deed::Pass);
    assert!(is_partial(&net, 1));
    for (user, action) in [(ben, "join"), (bea, "leave")] {
        let path = format!("/_matrix/client/v3/rooms/{}/{action}", percent(&room));
        net.sim.block_on(user.post(&net.servers[1], &path, &json!({}))).ok();
    }
    net.pass(60);
    assert_eq!(net.state(0, &room), net.state(1, &room));
    assert!(net.members(0, &room).contains("@ben:b.test"));
}

/// Nor is there an answer as long as nobody gives the members.
#[test]
fn what_needs_the_members_is_put_off() {
    let net = Net::new(2);
    let (ann, bob, room) = partial_room(&net);
    let ben = net.user(1, "ben");
    let rejected = net.act(1, &ben, &room, "leave", json!({}));
    refused(&rejected, StatusCode::FORBIDDEN, "M_FORBIDDEN");
    let amy = net.user(0, "amy");
    let invite = net.act(1, &bob, &room, "invite", json!({ "user_id": amy.user_id }));
    refused(&invite, StatusCode::SERVICE_UNAVAILABLE, "M_UNABLE_DUE_TO_PARTIAL_STATE");
    assert!(net.members(0, &room).contains(&ann.user_id));
}

/// A user of another server may be banned, which only the members tell.
#[test]
fn nobody_of_another_server_is_invited_before_the_members_are_known() {
    let net = Net::new(2);
    let (_, bob, room) = partial_room(&net);
    let mut amy = net.user(0, "amy");
    net.gate(0, |_| Deed::Pass);
    net.act(1, &bob, &room, "invite", json!({ "user_id": amy.user_id })).ok();
    assert!(!is_partial(&net, 1));
    net.pass(10);
    net.sync(0, &mut amy);
    assert!(amy.invites.contains_key(&room));
}

/// Mallory was never heard of here, Mike was banned during an earlier stay of his server; Ben is welcome.
#[test]
fn who_is_banned_does_not_come_in_for_want_of_members() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let [mallory, mike, ben] = ["mallory", "mike", "ben"].map(|name| net.user(1, name));
    let room = large_room(&net, &ann);
    net.set(0, &ann, &room, "m.room.power_levels", json!({ "invite": 0 })).ok();
    net.join(1, &mike, &room, "a.test").ok();
    complete(&net, 1);
    for user in [&mike, &mallory] {
        net.act(0, &ann, &room, "ban", json!({ "user_id": user.user_id })).ok();
    }
    net.pass(5);
    withhold(&net);
    join_partially(&net, &bob, &room);
    let unable = |answer| refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "M_UNABLE_DUE_TO_PARTIAL_STATE");
    for user in [&mike, &mallory] {
        refused(&net.join(1, user, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
        let own = format!("m.room.member/{}", percent(&user.user_id));
        unable(net.set(1, user, &room, &own, json!({ "membership": "join" })));
        unable(net.act(1, &bob, &room, "invite", json!({ "user_id": user.user_id })));
    }
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b", percent(&room));
    refused(&net.run(mallory.get(&net.servers[1], &path)), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    net.join(1, &ben, &room, "a.test").ok();
    assert!((0..2).all(|at| net.members(at, &room).contains(&ben.user_id)));
    net.set(0, &ann, &room, "m.room.join_rules", json!({ "join_rule": "knock" })).ok();
    net.pass(5);
    unable(net.knock(1, &mallory, &room, "a.test"));
    assert!(is_partial(&net, 1));
    net.gate(0, |_| Deed::Pass);
    complete(&net, 1);
    refused(&net.knock(1, &mallory, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    assert_eq!(net.state(0, &room), net.state(1, &room));
}

/// Ben and Bea were invited during an earlier stay of their server.
#[test]
fn an_invite_from_an_earlier_stay_is_kept_accepted_and_rejected() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let (mut ben, bea) = (net.user(1, "ben"), net.user(1, "bea"));
    let mut invited: Vec<_> = (0..150).map(|n| format!("@many{n}:a.test")).collect();
    invited.push(bob.user_id.clone());
    let room = net.create(0, &ann, json!({ "preset": "private_chat", "name": "Large", "invite": invited }));
    let invite = |user: &Client| net.act(0, &ann, &room, "invite", json!({ "user_id": user.user_id })).ok();
    net.act(1, &bob, &room, "join", json!({})).ok();
    complete(&net, 1);
    invite(&ben);
    invite(&bea);
    net.pass(5);
    net.act(1, &bob, &room, "leave", json!({})).ok();
    net.pass(5);
    invite(&bob);
    withhold(&net);
    join_partially(&net, &bob, &room);
    assert!(is_partial(&net, 1));
    net.sync(1, &mut ben);
    assert!(ben.invites.contains_key(&room));
    net.gate(0, |_| Deed::Pass);
    for (user, action) in [(&ben, "join"), (&bea, "leave")] {
        let path = format!("/_matrix/client/v3/rooms/{}/{action}", percent(&room));
        net.sim.block_on(user.post(&net.servers[1], &path, &json!({}))).ok();
    }
    net.pass(60);
    assert_eq!(net.state(0, &room), net.state(1, &room));
    assert_eq!(net.membership(0, &ann, &room, &ben), "join");
    assert_eq!(net.membership(0, &ann, &room, &bea), "leave");
}
