//! Delayed events: sent when their time has come, also if the server was down then, and not if their user says so.

use std::time::Duration;

use http::Method;
use myelin_testkit::{
    client::percent,
    server::Answer,
    user::{Room, User},
    world::World,
};
use serde_json::{Value, json};

const PREFIX: &str = "/_matrix/client/unstable/org.matrix.msc4140";

fn call(world: &World, user: Option<&User>, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let server = world.server("a.test").unwrap();
    world.run(server.request(method, path, user.map(User::token), body))
}

fn schedule(world: &World, user: &User, room: &Room, body: &Value) -> Answer {
    let txn = user.transaction_id();
    let path = format!("{PREFIX}/rooms/{}/delayed_event/m.room.message/{txn}", percent(&room.id));
    call(world, Some(user), Method::PUT, &path, Some(body))
}

fn message(text: &str, delay: u64) -> Value {
    json!({ "delay": delay, "content": { "msgtype": "m.text", "body": text } })
}

fn id_of(answer: Answer) -> String {
    answer.ok()["delay_id"].as_str().unwrap().to_owned()
}

/// Nobody needs to be signed in for this.
fn act(world: &World, delay_id: &str, action: &str) -> Answer {
    call(world, None, Method::POST, &format!("{PREFIX}/delayed_events/{delay_id}/{action}"), Some(&json!({})))
}

fn described(world: &World, user: &User, delay_id: &str) -> Answer {
    call(world, Some(user), Method::GET, &format!("{PREFIX}/delayed_events/{delay_id}"), None)
}

fn listed(world: &World, user: &User, query: &str) -> Vec<Value> {
    let answer = call(world, Some(user), Method::GET, &format!("{PREFIX}/delayed_events{query}"), None).ok();
    answer["delayed_events"].as_array().unwrap().clone()
}

fn bodies(user: &User, room: &Room) -> Vec<String> {
    user.syncs_now();
    user.shows(|client| {
        let view = &client.rooms[&room.id];
        let events = view.timeline.iter().map(|id| &view.events[id]);
        events.filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned())).collect()
    })
}

#[test]
fn events_are_sent_in_time_and_also_after_a_crash() {
    let world = World::new(1).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let room = ann.creates_public_room();
    let first = id_of(schedule(&world, &ann, &room, &message("first", 10_000)));
    let late = id_of(schedule(&world, &ann, &room, &message("late", 60_000)));
    world.pass(Duration::from_secs(9));
    assert!(bodies(&ann, &room).is_empty());
    world.pass(Duration::from_secs(2));
    assert_eq!(bodies(&ann, &room), ["first"]);
    let event = ann.shows(|client| {
        client.rooms[&room.id].events.values().find(|e| e["content"]["body"] == "first").cloned()
    });
    assert_eq!(event.unwrap()["unsigned"]["org.matrix.msc4140.delay_id"], first);

    world.crash("a.test");
    world.pass(Duration::from_secs(300));
    world.start("a.test");
    ann.sees(&room, "late");
    for (id, sent) in [(&first, true), (&late, true)] {
        let described = described(&world, &ann, id).ok();
        assert_eq!(described["event_id"].is_string(), sent, "{described}");
    }
    assert_eq!(listed(&world, &ann, "?since_ts=0&status=finalised&outcome=send&reason=delay").len(), 2);
    // A week later nobody knows of them.
    world.pass(Duration::from_secs(8 * 24 * 3600));
    assert_eq!(described(&world, &ann, &first).json["errcode"], "M_NOT_FOUND");
    assert!(listed(&world, &ann, "?since_ts=0").is_empty());
}

#[test]
fn a_heartbeat_puts_it_off_and_actions_end_it() {
    let world = World::new(2).servers(["a.test"]);
    let (ann, bob) = (world.user("@ann:a.test"), world.user("@bob:a.test"));
    let room = ann.creates_public_room();
    let state = json!({ "delay": 10_000, "state_key": "k", "content": { "left": true } });
    let path = format!("{PREFIX}/rooms/{}/delayed_event/org.test/1", percent(&room.id));
    let hangup = id_of(call(&world, Some(&ann), Method::PUT, &path, Some(&state)));
    let again = call(&world, Some(&ann), Method::PUT, &path, Some(&state)).ok();
    assert_eq!(again["delay_id"], hangup, "the same transaction");
    for _ in 0..5 {
        world.pass(Duration::from_secs(6));
        act(&world, &hangup, "restart").ok();
        assert!(ann.state(&room, "org.test", "k").is_null());
    }
    assert_eq!(described(&world, &bob, &hangup).json["errcode"], "M_NOT_FOUND");
    world.pass(Duration::from_secs(11));
    assert_eq!(ann.state(&room, "org.test", "k"), json!({ "left": true }));
    for (action, status) in [("send", 200), ("cancel", 409), ("restart", 409)] {
        assert_eq!(act(&world, &hangup, action).status.as_u16(), status, "{action}");
    }

    let never = id_of(schedule(&world, &ann, &room, &message("never", 5_000)));
    act(&world, &never, "cancel").ok();
    for (action, status) in [("cancel", 200), ("send", 409), ("restart", 409)] {
        assert_eq!(act(&world, &never, action).status.as_u16(), status, "{action}");
    }
    let now = id_of(schedule(&world, &ann, &room, &message("now", 5_000)));
    let by_body = format!("{PREFIX}/delayed_events/{now}");
    call(&world, None, Method::POST, &by_body, Some(&json!({ "action": "send" }))).ok();
    assert_eq!(bodies(&ann, &room), ["now"]);
    world.pass(Duration::from_secs(60));
    assert_eq!(bodies(&ann, &room), ["now"]);
}

#[test]
fn what_the_room_refuses_is_told() {
    let world = World::new(3).servers(["a.test"]);
    let (ann, bob) = (world.user("@ann:a.test"), world.user("@bob:a.test"));
    let room = ann.creates_public_room();
    assert_eq!(schedule(&world, &bob, &room, &message("x", 1)).json["errcode"], "M_FORBIDDEN");
    bob.joins(&room);
    let id = id_of(schedule(&world, &bob, &room, &message("x", 20_000)));
    ann.bans(&room, &bob);
    assert_eq!(act(&world, &id, "send").json["errcode"], "M_FORBIDDEN");
    assert!(described(&world, &bob, &id).ok()["error"].is_null(), "it may still go well");
    world.pass(Duration::from_secs(21));
    assert_eq!(described(&world, &bob, &id).ok()["error"]["errcode"], "M_FORBIDDEN");
    assert_eq!(act(&world, &id, "cancel").status.as_u16(), 200);
}

#[test]
fn earlier_drafts_are_served_too() {
    let world = World::new(4).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let room = ann.creates_public_room();
    let send = format!("rooms/{}/send/m.room.message/1?org.matrix.msc4140.delay=3000", percent(&room.id));
    let content = json!({ "msgtype": "m.text", "body": "drafted" });
    let first = id_of(ann.tries(Method::PUT, &send, content.clone()));
    assert_eq!(id_of(ann.tries(Method::PUT, &send, content)), first);
    let state = format!("rooms/{}/state/org.test/?org.matrix.msc4140.delay=4000", percent(&room.id));
    id_of(ann.tries(Method::PUT, &state, json!({ "a": 1 })));
    world.pass(Duration::from_secs(5));
    assert_eq!(bodies(&ann, &room), ["drafted"]);
    assert_eq!(ann.state(&room, "org.test", ""), json!({ "a": 1 }));
}

#[test]
fn limits_hold() {
    let world = World::new(5).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let room = ann.creates_public_room();
    let too_long = schedule(&world, &ann, &room, &message("x", 25 * 3600 * 1000));
    assert_eq!(too_long.status.as_u16(), 400);
    assert_eq!(too_long.json["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
    assert_eq!(too_long.json["org.matrix.msc4140.max_delay"], 24 * 3600 * 1000);
    assert_eq!(schedule(&world, &ann, &room, &message("x", 0)).json["errcode"], "M_INVALID_PARAM");
    let text = json!({ "delay": 5, "content": "text" });
    assert_eq!(schedule(&world, &ann, &room, &text).json["errcode"], "M_BAD_JSON");
    let large = message(&"x".repeat(70_000), 5);
    assert_eq!(schedule(&world, &ann, &room, &large).json["errcode"], "M_TOO_LARGE");
    for n in 0..100 {
        schedule(&world, &ann, &room, &message("x", 3_600_000 + n)).ok();
    }
    let one_more = schedule(&world, &ann, &room, &message("x", 5));
    assert_eq!((one_more.status.as_u16(), &one_more.json["errcode"]), (429, &json!("M_LIMIT_EXCEEDED")));
    assert_eq!(act(&world, "nonsense", "send").json["errcode"], "M_NOT_FOUND");
    assert_eq!(act(&world, "nonsense", "frobnicate").json["errcode"], "M_INVALID_PARAM");
    for query in ["?dir=x", "?status=x", "?outcome=x", "?reason=x", "?order_by=x", "?since_ts=x", "?from=x"] {
        let answer = call(&world, Some(&ann), Method::GET, &format!("{PREFIX}/delayed_events{query}"), None);
        assert_eq!(answer.json["errcode"], "M_INVALID_PARAM", "{query}");
    }
    assert_eq!(listed(&world, &ann, "").len(), 50);
    for id in listed(&world, &ann, "") {
        act(&world, id["delay_id"].as_str().unwrap(), "cancel").ok();
    }
    assert_eq!(listed(&world, &ann, "?since_ts=0&status=scheduled").len(), 50);
}
