//! Sticky events: brought to everybody who is joined, whatever the timeline leaves out, as long as they hold.

use std::time::Duration;

use http::Method;
use myelin_testkit::{
    client::percent,
    user::{Room, User},
    world::World,
};
use serde_json::{Value, json};

fn sticks(user: &User, room: &Room, body: &str, duration_ms: u64) -> String {
    let path = format!(
        "rooms/{}/send/m.rtc.member/{}?org.matrix.msc4354.sticky_duration_ms={duration_ms}",
        percent(&room.id),
        user.transaction_id()
    );
    let answer = user.tries(Method::PUT, &path, json!({ "body": body })).ok();
    answer["event_id"].as_str().unwrap().to_owned()
}

/// A sync with a timeline of one event: the next token, and the sticky section of the room.
fn sync(user: &User, room: &Room, since: Option<&str>) -> (String, Value) {
    let filter = percent(r#"{"room":{"timeline":{"limit":1}}}"#);
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let answer = user.gets(&format!("sync?set_presence=offline&filter={filter}{since}"));
    (answer["next_batch"].as_str().unwrap().to_owned(), answer["rooms"]["join"][&room.id].clone())
}

fn bodies(section: &Value) -> Vec<&str> {
    let events = section["msc4354_sticky"]["events"].as_array().into_iter().flatten();
    events.map(|event| event["content"]["body"].as_str().unwrap()).collect()
}

#[test]
fn they_come_once_beside_the_timeline_and_end() {
    let world = World::new(1).servers(["a.test", "b.test"]);
    let (ann, bob) = (world.user("@ann:a.test"), world.user("@bob:b.test"));
    let room = ann.creates_public_room();
    bob.joins(&room);
    bob.sees_room(&room);
    let (before, _) = sync(&bob, &room, None);
    sticks(&ann, &room, "one", 600_000);
    sticks(&ann, &room, "two", 1_200_000);
    ann.sends(&room, "after");
    bob.sees(&room, "after");
    let (token, section) = sync(&bob, &room, Some(&before));
    assert_eq!(bodies(&section), ["one", "two"], "{section}");
    let event = &section["msc4354_sticky"]["events"][0];
    assert_eq!(event["msc4354_sticky"]["duration_ms"], 600_000);
    let left = event["unsigned"]["msc4354_sticky_duration_ttl_ms"].as_u64().unwrap();
    assert!((1..=600_000).contains(&left), "{left}");
    assert!(bodies(&sync(&bob, &room, Some(&token)).1).is_empty(), "once");

    // In the timeline, and so not beside it.
    sticks(&ann, &room, "three", 1_200_000);
    ann.syncs_now();
    let (_, section) = sync(&ann, &room, None);
    assert_eq!(bodies(&section), ["one", "two"]);
    let last = &section["timeline"]["events"][0];
    assert_eq!(last["content"]["body"], "three");
    assert!(last["unsigned"]["msc4354_sticky_duration_ttl_ms"].is_number());

    world.restart("a.test");
    world.pass(Duration::from_secs(700));
    assert_eq!(bodies(&sync(&ann, &room, None).1), ["two"], "one has ended, also after a restart");
    world.pass(Duration::from_secs(1_200));
    let section = sync(&ann, &room, None).1;
    assert!(bodies(&section).is_empty());
    assert!(section["timeline"]["events"][0]["unsigned"]["msc4354_sticky_duration_ttl_ms"].is_null());
}

#[test]
fn who_joins_gets_them_whatever_the_history_visibility_and_redaction_ends_them() {
    let world = World::new(2).servers(["a.test"]);
    let (ann, bob) = (world.user("@ann:a.test"), world.user("@bob:a.test"));
    let room = ann.creates_public_room();
    ann.sets(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" }));
    let (since, _) = sync(&bob, &room, None);
    let gone = sticks(&ann, &room, "gone", 600_000);
    sticks(&ann, &room, "stays", 600_000);
    ann.redacts(&room, &gone);
    assert!(bodies(&sync(&bob, &room, Some(&since)).1).is_empty());
    bob.joins(&room);
    assert_eq!(bodies(&sync(&bob, &room, Some(&since)).1), ["stays"]);
    assert_eq!(bodies(&sync(&bob, &room, None).1), ["stays"]);
}

#[test]
fn a_duration_has_limits_and_delayed_events_can_be_sticky() {
    let world = World::new(3).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let room = ann.creates_public_room();
    for bad in ["3600001", "-1", "x"] {
        let path =
            format!("rooms/{}/send/m.x/1?org.matrix.msc4354.sticky_duration_ms={bad}", percent(&room.id));
        assert_eq!(ann.tries(Method::PUT, &path, json!({})).json["errcode"], "M_INVALID_PARAM", "{bad}");
    }
    let path = format!(
        "rooms/{}/send/m.x/1?org.matrix.msc4140.delay=5000&org.matrix.msc4354.sticky_duration_ms=600000",
        percent(&room.id)
    );
    ann.tries(Method::PUT, &path, json!({ "body": "later" })).ok();
    world.pass(Duration::from_secs(6));
    ann.sends(&room, "after");
    assert_eq!(bodies(&sync(&ann, &room, None).1), ["later"]);
}
