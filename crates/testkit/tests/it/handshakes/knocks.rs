//! Knocking on rooms of other servers.

use http::StatusCode;
use serde_json::json;

use super::{Net, refused};

fn knockable(net: &Net, ann: &myelin_testkit::client::Client, version: &str) -> String {
    let rules =
        json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
    net.create(0, ann, json!({ "room_version": version, "name": "Den", "initial_state": rules }))
}

#[test]
fn a_knock_is_heard_and_answered_with_an_invite() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    for version in ["7", "10", "12"] {
        let room = knockable(&net, &ann, version);
        net.knock(1, &bob, &room, "a.test").ok();
        assert_eq!(net.membership(0, &ann, &room, &bob), "knock");
        let answer = net.sync(1, &mut bob);
        let events = answer["rooms"]["knock"][&room]["knock_state"]["events"].as_array().unwrap().clone();
        assert!(events.iter().any(|event| event["content"]["name"] == "Den"), "{answer}");
        net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id })).ok();
        let answer = net.sync(1, &mut bob);
        assert!(answer["rooms"]["invite"].get(&room).is_some(), "{answer}");
        net.act(1, &bob, &room, "join", json!({})).ok();
        assert_eq!(net.state(0, &room), net.state(1, &room));
    }
}

#[test]
fn a_knock_is_taken_back() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    let room = knockable(&net, &ann, "11");
    net.knock(1, &bob, &room, "a.test").ok();
    net.act(1, &bob, &room, "leave", json!({})).ok();
    assert_eq!(net.membership(0, &ann, &room, &bob), "leave");
    assert!(net.sync(1, &mut bob)["rooms"].get("knock").is_none());
}

/// Nobody of Bob's server is in the room, so nothing but the event itself tells him.
#[test]
fn a_knock_is_turned_away_and_an_invite_taken_back() {
    let net = Net::new(2);
    let ann = net.user(0, "ann");
    let mut bob = net.user(1, "bob");
    for version in ["7", "12"] {
        let room = knockable(&net, &ann, version);
        let turn_away = |bob: &myelin_testkit::client::Client| {
            net.act(0, &ann, &room, "kick", json!({ "user_id": bob.user_id })).ok();
            net.pass(5);
        };
        net.knock(1, &bob, &room, "a.test").ok();
        assert!(net.sync(1, &mut bob)["rooms"]["knock"].get(&room).is_some());
        turn_away(&bob);
        let answer = net.sync(1, &mut bob);
        assert!(answer["rooms"]["leave"].get(&room).is_some(), "{version}: {answer}");
        net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id })).ok();
        assert!(net.sync(1, &mut bob)["rooms"]["invite"].get(&room).is_some());
        turn_away(&bob);
        let answer = net.sync(1, &mut bob);
        assert!(answer["rooms"]["leave"].get(&room).is_some(), "{version}: {answer}");
    }
}

#[test]
fn who_may_not_knock_is_told_so() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let public = net.public_room(0, &ann, "11");
    refused(&net.knock(1, &bob, &public, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
    let room = knockable(&net, &ann, "11");
    net.act(0, &ann, &room, "ban", json!({ "user_id": bob.user_id })).ok();
    refused(&net.knock(1, &bob, &room, "a.test"), StatusCode::FORBIDDEN, "M_FORBIDDEN");
}
