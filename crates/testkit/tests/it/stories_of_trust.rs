//! Stories of keys, signatures and liars.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use http_body_util::BodyExt;
use myelin_testkit::{
    faults::Faults,
    puppet::{Puppet, end_of},
    user::{Room, User},
    world::World,
};
use ruma::{RoomId, ServerName, server_name};
use serde_json::json;
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);

/// Whoever joins while the key server of a member is dead has that member a little later; nobody else waits for that, and
/// in the end all servers hold the same.
#[test]
fn a_member_whose_keys_are_not_to_be_had_is_there_once_they_are() {
    let world = World::new(31).servers(["a.test", "b.test", "c.test"]);
    let (alice, bob, carol) =
        (world.user("@alice:a.test"), world.user("@bob:b.test"), world.user("@carol:c.test"));
    let room = alice.creates_public_room();
    carol.joins(&room);
    alice.sees_member(&room, &carol, "join");
    world.change_faults(|faults| faults.keyless = [server_name!("c.test").to_owned()].into());
    bob.joins(&room);
    bob.sends(&room, "hello");
    alice.sees(&room, "hello");
    bob.sees_member(&room, &carol, "leave");
    carol.sends(&room, "am I not here?");
    alice.sees(&room, "am I not here?");
    // It comes after what bob's server cannot check, and waits with that.
    alice.sets(&room, "m.room.topic", "", json!({ "topic": "keys" }));
    world.pass(60 * MINUTE);
    world.restart("b.test");
    world.pass(MINUTE);
    world.heal();
    bob.sees_member(&room, &carol, "join");
    bob.sees_state(&room, "m.room.topic", "", &json!({ "topic": "keys" }));
    // A sign of life, so that carol's server does not wait any longer.
    bob.sends(&room, "can you hear me?");
    carol.sees(&room, "can you hear me?");
    carol.sends(&room, "at last");
    bob.sees(&room, "at last");
    world.agree(&room);
}

/// The key server of a member is dead, and a notary that knows its keys from before speaks for it.
#[test]
fn a_notary_speaks_for_a_server_whose_key_server_is_dead() {
    let world = World::new(32);
    world.network().trust_notaries(vec![server_name!("n.test").to_owned()]);
    let world = world.servers(["a.test", "b.test", "c.test", "n.test"]);
    let (alice, bob, carol) =
        (world.user("@alice:a.test"), world.user("@bob:b.test"), world.user("@carol:c.test"));
    let norma = world.user("@norma:n.test");
    let room = alice.creates_public_room();
    for user in [&carol, &norma] {
        user.joins(&room);
        alice.sees_member(&room, user, "join");
    }
    world.agree(&room);
    world.change_faults(|faults| faults.keyless = [server_name!("c.test").to_owned()].into());
    bob.joins(&room);
    bob.sees_member(&room, &carol, "join");
    carol.sends(&room, "you can check that");
    bob.sees(&room, "you can check that");
    world.agree(&room);
}

/// One server's copy of the power levels is damaged, and so is every auth chain that it gives. Who joins through it notices,
/// and joins through another one.
#[test]
fn a_corrupted_auth_chain_is_not_believed() {
    let world = World::new(33).servers(["a.test", "b.test", "c.test"]);
    let (alice, bob, carol) =
        (world.user("@alice:a.test"), world.user("@bob:b.test"), world.user("@carol:c.test"));
    let room = two_in_a_room(&world, [&alice, &carol]);
    let sound = world.network().router_of(server_name!("a.test")).expect("a server");
    let damaged = move |request: Request<Body>| {
        let sound = sound.clone();
        async move { damage(sound, request).await }
    };
    world.network().connect(server_name!("a.test"), Router::new().fallback(damaged));
    let answer = bob.tries_to_join(&room);
    assert!(!answer.is_ok(), "a state without its power levels was taken: {answer:?}");
    world.restart("a.test");
    let through_carol = Room { via: "c.test".to_owned(), ..room.clone() };
    bob.joins(&through_carol);
    bob.sends(&room, "here I am");
    alice.sees(&room, "here I am");
    carol.sees(&room, "here I am");
    // It may come after the first join, too, which bob's server has not heard of.
    alice.sends(&room, "welcome");
    bob.sees(&room, "welcome");
    world.agree(&room);
}

/// The ban reaches its server with a gap: that may still ask for what came before it.
#[test]
fn who_is_banned_behind_a_gap_learns_of_it() {
    let world = World::new(34).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    bob.sees_room(&room);
    world.cut(&["a.test"], &["b.test"]);
    bob.sends(&room, "on my side");
    for number in 0..5 {
        alice.sends(&room, &format!("before the ban {number}"));
    }
    // Longer than what is repeated event by event after a restart: only the ban is sent, and it comes with a gap.
    world.pass(100 * MINUTE);
    alice.bans(&room, &bob);
    alice.sends(&room, "after the ban");
    world.pass(MINUTE);
    world.restart("a.test");
    world.heal();
    // The longest pause of a sender.
    world.pass(5 * 60 * MINUTE);
    bob.sees_room_left(&room);
    bob.shows(|client| {
        let view = &client.rooms[&room.id];
        let says = |body: &str| view.timeline.iter().any(|id| view.events[id]["content"]["body"] == body);
        assert!(!says("after the ban"), "what came after the ban is nothing to who was banned");
    });
}

/// A liar keeps the parent of its event to itself: the room goes on, and nothing waits for ever.
#[test]
fn what_a_liar_keeps_to_itself_holds_up_nobody() {
    let world = World::new(35).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    let puppet = Puppet::connect(world.network(), "evil.test");
    let server = world.server("a.test").expect("on");
    let room_id = <&RoomId>::try_from(room.id.as_str()).expect("a room id");
    let (a, mallory) = (<&ServerName>::try_from("a.test").expect("a name"), puppet.user("mallory"));
    let content = json!({ "msgtype": "m.text", "body": "from nowhere" });
    world.run(async {
        let end = end_of(&server.view, room_id).await;
        let event = |key: &str| {
            myelin_dag::NewEvent::state(
                mallory.clone(),
                "m.room.member",
                key,
                &json!({ "membership": "join" }),
            )
        };
        let join = event(mallory.as_str()).expect("an event");
        let join = puppet.makes_in(&server.view, room_id, join, end).await;
        assert!(puppet.sends(a, &[&join]).await.json["pdus"][join.event_id.as_str()]["error"].is_null());
        let hidden = myelin_dag::NewEvent::state(mallory.clone(), "m.room.topic", "", &content);
        let hidden = puppet.makes_next(&server.view, room_id, hidden.expect("an event")).await;
        puppet.forgets(&hidden.event_id);
        let message = myelin_dag::NewEvent {
            sender: mallory.clone(),
            event_type: "m.room.message".into(),
            state_key: None,
            content: serde_json::value::to_raw_value(&content).expect("JSON"),
            redacts: None,
            sticky_duration_ms: None,
        };
        let place = myelin_testkit::puppet::Place { prev_events: vec![hidden.event_id.clone()], depth: 50 };
        let child = puppet.makes_in(&server.view, room_id, message, place).await;
        puppet.sends(a, &[&child]).await;
    });
    alice.sends(&room, "and we talk on");
    bob.sees(&room, "and we talk on");
    world.wait_until("nothing waits", async || server.federation.inbound.waiting() == 0);
    world.agree(&room);
}

/// The bytes of the power levels are not those that were signed.
async fn damage(sound: Router, request: Request<Body>) -> Response<Body> {
    let is_join = request.uri().path().contains("/send_join/");
    let answer = sound.oneshot(request).await.unwrap_or_else(|never| match never {});
    if !is_join {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.expect("in memory").to_bytes();
    let body = String::from_utf8_lossy(&body).replace(r#""ban":50"#, r#""ban":51"#);
    Response::from_parts(parts, Body::from(body))
}

fn two_in_a_room(world: &World, users: [&User; 2]) -> Room {
    world.network().set_faults(Faults::healthy());
    let room = users[0].creates_public_room();
    users[1].joins(&room);
    users[0].sees_member(&room, users[1], "join");
    world.agree(&room);
    room
}
