//! Joining rooms of other servers.

use http::StatusCode;
use serde_json::json;

use super::{Net, VERSIONS, refused};

#[test]
fn a_room_of_any_version_is_joined_and_both_sides_agree() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    for version in VERSIONS {
        let room = net.public_room(0, &ann, version);
        net.act(0, &ann, &room, "send/m.room.message", json!({})).status.is_server_error();
        net.set(0, &ann, &room, "m.room.name", json!({ "name": version })).ok();
        net.join(1, &bob, &room, "a.test").ok();
        assert_eq!(net.state(0, &room), net.state(1, &room), "version {version}");
        let members = net.members(1, &room);
        assert!(members.contains("@ann:a.test") && members.contains("@bob:b.test"));
        net.sync(1, &mut bob);
        let view = &bob.rooms[&room];
        assert!(view.joined);
        assert!(view.state.contains_key(&("m.room.name".to_owned(), String::new())));
        assert!(view.state.contains_key(&("m.room.member".to_owned(), "@ann:a.test".to_owned())));
    }
}

#[test]
fn a_second_user_of_the_same_server_joins_without_asking_anybody() {
    let net = Net::new(2);
    let (ann, bob, ben) = (net.user(0, "ann"), net.user(1, "bob"), net.user(1, "ben"));
    let room = net.public_room(0, &ann, "11");
    net.join(1, &bob, &room, "a.test").ok();
    net.network.disconnect("a.test".try_into().unwrap());
    net.join(1, &ben, &room, "a.test").ok();
    net.join(1, &ben, &room, "a.test").ok();
    assert_eq!(net.members(1, &room).len(), 3);
}

#[test]
fn the_next_server_is_asked_when_one_is_dead() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = net.public_room(0, &ann, "11");
    net.join(1, &bob, &room, "a.test").ok();
    // By which the keys of the dead server are known.
    net.join(2, &cat, &net.public_room(0, &ann, "11"), "a.test").ok();
    net.network.disconnect("a.test".try_into().unwrap());
    net.join_via(2, &cat, &room, &["nobody.test", "a.test", "b.test"]).ok();
    assert_eq!(net.state(1, &room), net.state(2, &room));
}

#[test]
fn a_room_that_was_left_is_joined_again_as_it_is_now() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    let room = net.public_room(0, &ann, "12");
    net.join(1, &bob, &room, "a.test").ok();
    net.sync(1, &mut bob);
    net.act(1, &bob, &room, "leave", json!({})).ok();
    net.sync(1, &mut bob);
    net.set(0, &ann, &room, "m.room.topic", json!({ "topic": "meanwhile" })).ok();
    net.join(1, &bob, &room, "a.test").ok();
    assert!(net.members(1, &room).contains("@bob:b.test"));
    assert_eq!(net.state(0, &room), net.state(1, &room));
    (bob.since, bob.rooms) = (None, Default::default());
    net.sync(1, &mut bob);
    assert!(bob.rooms[&room].state.contains_key(&("m.room.topic".to_owned(), String::new())));
}

#[test]
fn two_users_who_join_at_once_join_one_room() {
    let net = Net::new(2);
    let (ann, bob, ben) = (net.user(0, "ann"), net.user(1, "bob"), net.user(1, "ben"));
    let room = net.public_room(0, &ann, "11");
    let path = format!("/_matrix/client/v3/join/{}?via=a.test", myelin_testkit::client::percent(&room));
    let body = json!({});
    let both = futures::future::join(
        bob.post(&net.servers[1], &path, &body),
        ben.post(&net.servers[1], &path, &body),
    );
    let (first, second) = net.run(both);
    first.ok();
    second.ok();
    assert_eq!(net.members(1, &room).len(), 3);
}

#[test]
fn a_restricted_room_is_joined_by_who_is_in_the_room_that_lets_in() {
    let net = Net::new(2);
    let (ann, bob, ben) = (net.user(0, "ann"), net.user(1, "bob"), net.user(1, "ben"));
    let club = net.public_room(0, &ann, "11");
    let rules =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    for version in ["8", "10", "12"] {
        let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rules }]);
        let room = net.create(0, &ann, json!({ "room_version": version, "initial_state": state }));
        refused(&net.join(1, &ben, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
        net.join(1, &bob, &club, "a.test").ok();
        net.join(1, &bob, &room, "a.test").ok();
        assert_eq!(net.state(0, &room), net.state(1, &room));
        assert_eq!(net.members(0, &room).len(), 2);
    }
}

#[test]
fn nobody_joins_where_nobody_lets_them() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let private = net.create(0, &ann, json!({ "preset": "private_chat" }));
    refused(&net.join(1, &bob, &private, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    let public = net.public_room(0, &ann, "11");
    net.act(0, &ann, &public, "ban", json!({ "user_id": bob.user_id })).ok();
    refused(&net.join(1, &bob, &public, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    refused(&net.join(1, &bob, "!none:a.test", "a.test"), StatusCode::NOT_FOUND, "M_NOT_FOUND");
    refused(&net.join_via(1, &bob, "!none", &[]), StatusCode::NOT_FOUND, "M_UNKNOWN");
    net.network.disconnect("a.test".try_into().unwrap());
    refused(&net.join(1, &bob, &public, "a.test"), StatusCode::BAD_GATEWAY, "M_UNKNOWN");
}
