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

/// However much has been said since, one answer does not walk through all of it.
#[test]
fn a_server_that_has_left_is_not_searched_history_for_without_end() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    net.join(1, &bob, &room, "a.test").ok();
    net.act(1, &bob, &room, "leave", json!({})).ok();
    let left = net.end(0, &room);
    let serve = &net.servers[0].federation.serve;
    let backfill = |from: &str| {
        let (server, room) = ("b.test".try_into().unwrap(), room.as_str().try_into().unwrap());
        let from: ruma::OwnedEventId = from.try_into().unwrap();
        net.run(serve.backfill(server, room, &[from], 100)).unwrap()
    };
    for n in 0..20 {
        net.set(0, &ann, &room, "m.room.topic", json!({ "topic": n })).ok();
    }
    assert!(backfill(&net.end(0, &room)).contains(&bob.user_id), "what was before is found");
    for n in 0..520 {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/send/m.room.message/{n}",
            myelin_testkit::client::percent(&room)
        );
        let content = json!({ "msgtype": "m.text", "body": "on and on" });
        net.sim.block_on(ann.put(&net.servers[0], &path, &content)).ok();
    }
    assert!(backfill(&net.end(0, &room)).contains(r#""pdus":[]"#));
    assert!(backfill(&left).contains(&bob.user_id));
}
