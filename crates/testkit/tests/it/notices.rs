//! What the server says to its users, and whose invites they want.

use http::Method;
use myelin_testkit::{
    client::percent,
    user::{Room, User},
    world::World,
};
use serde_json::{Value, json};

fn makes_admin(world: &World, user: &User) {
    let server = world.server("a.test").unwrap();
    world.run(server.make_admin(&user.id));
}

fn notify(world: &World, admin: &User, path: &str, to: &str, body: &str) -> Value {
    let server = world.server("a.test").unwrap();
    let body = json!({ "user_id": to, "content": { "body": body } });
    let method = if path.is_empty() { Method::POST } else { Method::PUT };
    let path = format!("/_synapse/admin/v1/send_server_notice{path}");
    world.run(server.request(method, &path, Some(admin.token()), Some(&body))).ok()
}

#[test]
fn a_notice_room_is_made_and_its_invite_stays() {
    let world = World::new(1).servers(["a.test"]);
    let (admin, bob) = (world.user("@admin:a.test"), world.user("@bob:a.test"));
    makes_admin(&world, &admin);
    // Blocking invites does not keep the server out.
    let path = format!("user/{}/account_data/m.invite_permission_config", percent(&bob.id));
    bob.tries(Method::PUT, &path, json!({ "default_action": "block" })).ok();
    let first = notify(&world, &admin, "", &bob.id, "welcome");
    let room = Room { id: first["room_id"].as_str().unwrap().to_owned(), via: "a.test".to_owned() };
    bob.sees_invite(&room);
    let reject = format!("rooms/{}/leave", percent(&room.id));
    assert_eq!(
        bob.tries(Method::POST, &reject, json!({})).json["errcode"],
        "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
    );
    let member = format!("rooms/{}/state/m.room.member/{}", percent(&room.id), percent(&bob.id));
    let refused = bob.tries(Method::PUT, &member, json!({ "membership": "leave" }));
    assert_eq!(refused.json["errcode"], "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    bob.joins(&room);
    bob.sees(&room, "welcome");
    let tags = bob.gets(&format!("user/{}/rooms/{}/tags", percent(&bob.id), percent(&room.id)));
    assert!(tags["tags"]["m.server_notice"].is_object(), "{tags}");
    let send = format!("rooms/{}/send/m.room.message/1", percent(&room.id));
    assert_eq!(bob.tries(Method::PUT, &send, json!({ "body": "hi" })).json["errcode"], "M_FORBIDDEN");

    // One room for all notices, one event for each transaction.
    world.restart("a.test");
    let second = notify(&world, &admin, "/t1", &bob.id, "again");
    assert_eq!(second["room_id"], first["room_id"]);
    assert_eq!(notify(&world, &admin, "/t1", &bob.id, "again"), second);
    bob.sees(&room, "again");
    bob.leaves(&room);
    notify(&world, &admin, "", &bob.id, "back");
    bob.sees_invite(&room);
}

#[test]
fn only_administrators_speak_for_the_server() {
    let world = World::new(2).servers(["a.test"]);
    let (admin, bob) = (world.user("@admin:a.test"), world.user("@bob:a.test"));
    makes_admin(&world, &admin);
    let server = world.server("a.test").unwrap();
    let send = |token: &str, body: Value| {
        let path = "/_synapse/admin/v1/send_server_notice";
        world.run(server.request(Method::POST, path, Some(token), Some(&body))).json["errcode"].clone()
    };
    let notice = json!({ "user_id": bob.id, "content": { "body": "x" } });
    assert_eq!(send(bob.token(), notice), "M_FORBIDDEN");
    let nobody = json!({ "user_id": "@nobody:a.test", "content": { "body": "x" } });
    assert_eq!(send(admin.token(), nobody), "M_NOT_FOUND");
    let empty = json!({ "user_id": bob.id, "content": {} });
    assert_eq!(send(admin.token(), empty), "M_BAD_JSON");
}

#[test]
fn unwanted_invites_are_refused_or_hidden_locally_and_from_elsewhere() {
    let world = World::new(3).servers(["a.test", "b.test"]);
    let (ann, bob, eve) = (world.user("@ann:a.test"), world.user("@bob:b.test"), world.user("@eve:a.test"));
    let path = format!("user/{}/account_data/org.matrix.msc4155.invite_permission_config", percent(&bob.id));
    let config = json!({ "blocked_users": ["@ann:*"], "ignored_servers": ["a.test"] });
    bob.tries(Method::PUT, &path, config).ok();
    let (blocked, hidden) = (ann.creates_public_room(), eve.creates_public_room());
    let invite = |user: &User, room: &Room| {
        let path = format!("rooms/{}/invite", percent(&room.id));
        user.tries(Method::POST, &path, json!({ "user_id": bob.id }))
    };
    assert!(!invite(&ann, &blocked).is_ok(), "refused by the other server");
    assert!(invite(&eve, &hidden).is_ok());
    bob.syncs_now();
    assert!(bob.shows(|client| client.invites.is_empty()));
    bob.tries(Method::PUT, &path, json!({})).ok();
    assert!(invite(&ann, &blocked).is_ok());
    bob.sees_invite(&blocked);
}
