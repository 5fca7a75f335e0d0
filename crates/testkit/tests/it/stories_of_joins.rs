//! Stories of joins that others do not know of, or that were not seen to their end.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use myelin_store::tables::PARTIAL_ROOMS;
use myelin_testkit::{user::Room, world::World};
use myelin_view::Event;
use ruma::EventId;
use serde_json::json;
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);

/// The event as a server holds it.
async fn held(world: &World, at: &str, event_id: &str) -> Option<std::sync::Arc<Event>> {
    let server = world.server(at).expect("on");
    let event_id = <&EventId>::try_from(event_id).expect("an event id");
    server.view.events.load_by_id(event_id).await.expect("readable")
}

/// Nobody may speak any more, so no later event brings along what was said on one side of the netsplit.
#[test]
fn who_came_during_a_netsplit_gets_the_last_words_of_the_other_side() {
    let world = World::new(41).servers(["a.test", "b.test", "c.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let carol = world.user("@carol:c.test");
    let room = alice.creates_public_room();
    bob.joins(&room);
    alice.sees_member(&room, &bob, "join");
    world.cut(&["b.test"], &["a.test", "c.test"]);
    carol.joins(&room);
    let word = bob.sends(&room, "is anybody there?");
    let mut levels = alice.state(&room, "m.room.power_levels", "");
    levels["events_default"] = json!(50);
    alice.sets(&room, "m.room.power_levels", "", levels);
    world.heal();
    world.wait_until("the word is at c.test", async || {
        held(&world, "c.test", &word).await.is_some_and(|event| event.carries(false))
    });
    world.agree(&room);
}

/// Refuses to say what a state is.
async fn keep_states(sound: Router, request: Request<Body>) -> Response<Body> {
    if request.uri().path().starts_with("/_matrix/federation/v1/state/") {
        let mut refusal = Response::new(Body::empty());
        *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return refusal;
    }
    sound.oneshot(request).await.unwrap_or_else(|never| match never {})
}

fn members_before(world: &World, at: &str, event_id: &str) -> usize {
    world.run(async {
        let event = held(world, at, event_id).await.expect("held");
        let (server, root) = (world.server(at).expect("on"), event.state_before.expect("a state"));
        server.view.states.load(root).await.expect("readable").len()
    })
}

/// What was held of a room that was left before it was complete does not count for what comes after it.
#[test]
fn who_left_early_and_comes_back_does_not_go_on_from_half_a_state() {
    let world = World::new(42).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let many: Vec<_> = (0..150).map(|n| format!("@many{n}:a.test")).collect();
    let room: Room = alice.creates_room(json!({ "preset": "public_chat", "invite": many }));
    let a = <&ruma::ServerName>::try_from("a.test").expect("a name");
    let sound = world.network().router_of(a).expect("it is on");
    let keeping = sound.clone();
    world.network().connect(a, Router::new().fallback(move |request| keep_states(keeping.clone(), request)));
    bob.joins(&room);
    let between = alice.sends(&room, "welcome");
    world.wait_until("b.test hears it", async || held(&world, "b.test", &between).await.is_some());
    let half = members_before(&world, "b.test", &between);
    assert!(half < members_before(&world, "a.test", &between), "the members are not all there");
    world.cut(&["a.test"], &["b.test"]);
    bob.leaves(&room);
    let b = world.server("b.test").expect("on");
    world.wait_until("the rest is given up", async || {
        b.view.store.read().all(&PARTIAL_ROOMS, 10).await.expect("readable").is_empty()
    });
    let told = world.run(b.federation.serve.state_ids(a, room_id(&room), event_id(&between)));
    assert!(told.is_err(), "half a state is told to nobody");
    let meanwhile = alice.sends(&room, "where are you?");
    world.pass(MINUTE);
    world.network().connect(a, sound);
    world.heal();
    bob.joins(&room);
    alice.sends(&room, "there you are");
    world.wait_until("b.test has what was said meanwhile", async || {
        held(&world, "b.test", &meanwhile).await.is_some_and(|event| event.carries(false))
    });
    let whole = members_before(&world, "a.test", &meanwhile);
    assert_eq!(members_before(&world, "b.test", &meanwhile), whole);
    world.agree(&room);
}

fn room_id(room: &Room) -> &ruma::RoomId {
    room.id.as_str().try_into().expect("a room id")
}

fn event_id(id: &str) -> &EventId {
    id.try_into().expect("an event id")
}
