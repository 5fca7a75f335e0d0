//! The endpoints by which rooms are read: their parameters, refusals and answers.

use serde_json::json;

use crate::world::World;

const V3: &str = "/_matrix/client/v3";
const V1: &str = "/_matrix/client/v1";

#[test]
fn parameters_that_are_none_are_named() {
    let world = World::new();
    let token = world.user("ann");
    let (room, event) = world.room_with_message(&token);
    let rooms = format!("{V3}/rooms/{room}");
    let paths = [
        format!("{V3}/sync?since=nonsense"),
        format!("{V3}/sync?since=t5"),
        format!("{V3}/sync?filter=99"),
        format!("{V3}/sync?filter=%7B"),
        format!("{V3}/sync?set_presence=asleep"),
        format!("{rooms}/messages?dir=x"),
        format!("{rooms}/messages?dir=b&from=x"),
        format!("{rooms}/messages?dir=b&to=x"),
        format!("{rooms}/members?at=x"),
        format!("{rooms}/members?membership=bogus"),
        format!("{rooms}/members?not_membership=bogus"),
        format!("{rooms}/state/m.room.create/?format=x"),
        format!("{V1}/rooms/{room}/relations/{event}?dir=x"),
        format!("{V1}/rooms/{room}/relations/{event}?from=x"),
        format!("{V1}/rooms/{room}/threads?include=x"),
        format!("{V1}/rooms/{room}/threads?from=x"),
        format!("{V1}/rooms/{room}/timestamp_to_event?ts=1&dir=x"),
        format!("{V1}/rooms/{room}/hierarchy?from=x"),
    ];
    for path in paths {
        assert_eq!(world.get(&path, Some(&token)).error(), (400, "M_INVALID_PARAM"), "{path}");
    }
}

#[test]
fn what_is_not_there_or_not_for_the_reader() {
    let world = World::new();
    let (ann, eve) = (world.user("ann"), world.user("eve"));
    let (room, event) = world.room_with_message(&ann);
    let rooms = format!("{V3}/rooms/{room}");
    for path in
        ["messages?dir=b", "state", "state/m.room.create/", "members", "joined_members", "initialSync"]
    {
        assert_eq!(world.get(&format!("{rooms}/{path}"), Some(&eve)).error(), (403, "M_FORBIDDEN"), "{path}");
        world.get(&format!("{rooms}/{path}"), Some(&ann)).ok();
    }
    for path in [format!("{rooms}/event/{event}"), format!("{V1}/rooms/{room}/relations/{event}")] {
        assert_eq!(world.get(&path, Some(&eve)).error(), (404, "M_NOT_FOUND"), "{path}");
        world.get(&path, Some(&ann)).ok();
    }
    let (other, _) = world.room_with_message(&ann);
    let elsewhere = format!("{V3}/rooms/{other}/event/{event}");
    assert_eq!(world.get(&elsewhere, Some(&ann)).error(), (404, "M_NOT_FOUND"));
    let none = format!("{rooms}/state/org.none/");
    assert_eq!(world.get(&none, Some(&ann)).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn receipts_and_markers() {
    let world = World::new();
    let (ann, eve) = (world.user("ann"), world.user("eve"));
    let (room, event) = world.room_with_message(&ann);
    let receipt = |kind: &str| format!("{V3}/rooms/{room}/receipt/{kind}/{event}");
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        world.post(&receipt(kind), Some(&ann), &json!({})).ok();
        assert_eq!(world.post(&receipt(kind), Some(&eve), &json!({})).error(), (403, "M_FORBIDDEN"));
    }
    let bad = [
        ("m.other", json!({})),
        ("m.fully_read", json!({ "thread_id": "main" })),
        ("m.read", json!({ "thread_id": "" })),
        ("m.read", json!({ "thread_id": "nonsense" })),
        ("m.read", json!({ "thread_id": "$another" })),
    ];
    for (kind, body) in bad {
        let answer = world.post(&receipt(kind), Some(&ann), &body);
        assert_eq!(answer.error(), (400, "M_INVALID_PARAM"), "{kind} {body}");
    }
    world.post(&receipt("m.read"), Some(&ann), &json!({ "thread_id": "main" })).ok();
}

#[test]
fn the_fully_read_marker_only_moves_forward() {
    let world = World::new();
    let ann = world.user("ann");
    let (room, old) = world.room_with_message(&ann);
    let send = format!("{V3}/rooms/{room}/send/m.room.message/later");
    let sent = world.put(&send, Some(&ann), &json!({ "msgtype": "m.text", "body": "x" })).ok();
    let new = sent["event_id"].as_str().unwrap();
    let markers = format!("{V3}/rooms/{room}/read_markers");
    let data = format!("{V3}/user/@ann:localhost/rooms/{room}/account_data/m.fully_read");
    for event in [new, &old] {
        world.post(&markers, Some(&ann), &json!({ "m.fully_read": event, "m.read": event })).ok();
        assert_eq!(world.get(&data, Some(&ann)).ok()["event_id"], new);
    }
    let unknown = json!({ "m.fully_read": "$unknown" });
    assert_eq!(world.post(&markers, Some(&ann), &unknown).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn nobody_types_or_is_present_for_somebody_else() {
    let world = World::new();
    let (ann, eve) = (world.user("ann"), world.user("eve"));
    let (room, _) = world.room_with_message(&ann);
    let typing = format!("{V3}/rooms/{room}/typing/@ann:localhost");
    let body = json!({ "typing": true, "timeout": 1000 });
    world.put(&typing, Some(&ann), &body).ok();
    assert_eq!(world.put(&typing, Some(&eve), &body).error(), (403, "M_FORBIDDEN"));
    let own = format!("{V3}/rooms/{room}/typing/@eve:localhost");
    assert_eq!(world.put(&own, Some(&eve), &body).error(), (403, "M_FORBIDDEN"));
    let status = format!("{V3}/presence/@ann:localhost/status");
    assert_eq!(
        world.put(&status, Some(&eve), &json!({ "presence": "online" })).error(),
        (403, "M_FORBIDDEN")
    );
    assert_eq!(
        world.put(&status, Some(&ann), &json!({ "presence": "odd" })).error(),
        (400, "M_INVALID_PARAM")
    );
    world.put(&status, Some(&ann), &json!({ "presence": "unavailable", "status_msg": "away" })).ok();
    let presence = world.get(&status, Some(&ann)).ok();
    assert_eq!((&presence["presence"], &presence["status_msg"]), (&json!("unavailable"), &json!("away")));
    assert_eq!(world.get(&status, Some(&eve)).error(), (403, "M_FORBIDDEN"));
}

#[test]
fn a_stored_filter_is_used_by_its_id() {
    let world = World::new();
    let ann = world.user("ann");
    let (room, event) = world.room_with_message(&ann);
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let stored = world.post(&format!("{V3}/user/@ann:localhost/filter"), Some(&ann), &filter).ok();
    let id = stored["filter_id"].as_str().unwrap();
    let answer = world.get(&format!("{V3}/sync?filter={id}"), Some(&ann)).ok();
    let events = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event_id"], *event);
    let since = answer["next_batch"].as_str().unwrap();
    let answer = world.get(&format!("{V3}/sync?since={since}&timeout=10"), Some(&ann)).ok();
    assert!(answer["rooms"].is_null());
}
