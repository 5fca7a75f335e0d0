//! Leaving rooms that live on several servers.

use serde_json::json;

use super::Net;

#[test]
fn who_leaves_through_a_handshake_is_out_on_both_sides() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.create(0, &ann, json!({ "invite": [bob.user_id] }));
    net.act(1, &bob, &room, "leave", json!({ "reason": "no thanks" })).ok();
    net.act(1, &bob, &room, "leave", json!({})).status.is_client_error();
    // May be invited again.
    net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id })).ok();
    net.act(1, &bob, &room, "join", json!({})).ok();
    assert_eq!(net.members(1, &room).len(), 2);
}

#[test]
fn the_last_local_user_leaves_and_the_room_is_not_served_any_more() {
    let net = Net::new(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    // A room id that names no server.
    let room = net.public_room(0, &ann, "12");
    net.join(1, &bob, &room, "a.test").ok();
    net.act(1, &bob, &room, "leave", json!({})).ok();
    assert_eq!(net.join(2, &cat, &room, "b.test").status, http::StatusCode::NOT_FOUND);
    net.join_via(2, &cat, &room, &["b.test", "a.test"]).ok();
}
