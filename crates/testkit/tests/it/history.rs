//! Reading past what is held: older history comes from the servers in the room.

use std::time::Duration;

use http::Method;
use myelin_testkit::client::{Client, percent};
use serde_json::{Value, json};

use super::handshakes::Net;

fn say(net: &Net, at: usize, user: &Client, room: &str, body: &str) {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{body}", percent(room));
    let body = json!({ "msgtype": "m.text", "body": body });
    net.run(user.put(&net.servers[at], &path, &body)).ok();
}

/// One page towards older events, and where the next one begins.
fn page(net: &Net, at: usize, user: &Client, room: &str, from: Option<&str>) -> (Vec<Value>, Option<String>) {
    let from = from.map_or_else(String::new, |from| format!("&from={from}"));
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=40{from}", percent(room));
    let answer = net.run(net.servers[at].request(Method::GET, &path, Some(&user.token), None)).ok();
    let end = answer.get("end").and_then(Value::as_str).map(ToOwned::to_owned);
    (answer["chunk"].as_array().unwrap().clone(), end)
}

fn all(net: &Net, at: usize, user: &Client, room: &str) -> Vec<Value> {
    let (mut events, mut end) = page(net, at, user, room, None);
    while let Some(from) = end {
        let (more, next) = page(net, at, user, room, Some(&from));
        assert!(!more.is_empty() || next.is_none(), "pages without end");
        events.extend(more);
        end = next;
    }
    events
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

#[test]
fn history_from_before_the_join_is_fetched_to_the_beginning() {
    for version in ["1", "11", "12"] {
        let net = Net::new(2);
        let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
        let room = net.public_room(0, &ann, version);
        for number in 0..120 {
            say(&net, 0, &ann, &room, &format!("m{number}"));
            if number % 50 == 0 {
                net.set(0, &ann, &room, "m.room.topic", json!({ "topic": number.to_string() })).ok();
            }
        }
        net.join(1, &bob, &room, "a.test").ok();
        let (here, there) = (all(&net, 1, &bob, &room), all(&net, 0, &ann, &room));
        assert_eq!(ids(&here), ids(&there), "version {version}");
        assert_eq!(here.last().unwrap()["type"], "m.room.create");
    }
}

#[test]
fn history_that_is_not_for_newcomers_stays_hidden() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    net.set(0, &ann, &room, "m.room.history_visibility", json!({ "history_visibility": "joined" })).ok();
    say(&net, 0, &ann, &room, "secret");
    net.join(1, &bob, &room, "a.test").ok();
    let seen = all(&net, 1, &bob, &room);
    assert!(seen.iter().all(|event| event["content"]["body"] != "secret"), "{seen:?}");
}

#[test]
fn a_reader_goes_on_when_the_other_server_is_back() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    say(&net, 0, &ann, &room, "old");
    net.join(1, &bob, &room, "a.test").ok();
    let name: &ruma::ServerName = "a.test".try_into().unwrap();
    let router = net.servers[0].router();
    net.network.disconnect(name);
    let (events, end) = page(&net, 1, &bob, &room, None);
    assert_eq!(events.len(), 1, "the join");
    let end = end.expect("there is more, elsewhere");
    net.network.connect(name, router);
    net.run(net.sim.env().clock.sleep(Duration::from_secs(61)));
    let (events, _) = page(&net, 1, &bob, &room, Some(&end));
    assert_eq!(events[0]["content"]["body"], "old");
}

/// The event at a time, as `user` is told: its id.
fn at_time(net: &Net, at: usize, user: &Client, room: &str, ts_ms: u64, dir: &str) -> String {
    let room = percent(room);
    let path = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts={ts_ms}&dir={dir}");
    let answer = net.run(net.servers[at].request(Method::GET, &path, Some(&user.token), None)).ok();
    answer["event_id"].as_str().unwrap().to_owned()
}

fn found(net: &Net, at: usize, user: &Client, room: &str, event_id: &str) -> Value {
    let path = format!("/_matrix/client/v3/rooms/{}/context/{}", percent(room), percent(event_id));
    net.run(net.servers[at].request(Method::GET, &path, Some(&user.token), None)).ok()["event"].take()
}

#[test]
fn a_jump_to_a_date_before_the_join_fetches_what_was_said_then() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "12");
    let hour = || net.run(net.sim.env().clock.sleep(Duration::from_secs(3600)));
    say(&net, 0, &ann, &room, "old");
    hour();
    let noon_ms = net.sim.env().now_ms();
    hour();
    say(&net, 0, &ann, &room, "newer");
    hour();
    net.join(1, &bob, &room, "a.test").ok();
    for (dir, body) in [("f", "newer"), ("b", "old")] {
        let event_id = at_time(&net, 1, &bob, &room, noon_ms, dir);
        assert_eq!(event_id, at_time(&net, 0, &ann, &room, noon_ms, dir));
        assert_eq!(found(&net, 1, &bob, &room, &event_id)["content"]["body"], body);
    }
}

#[test]
fn a_jump_to_a_date_finds_what_is_held_while_nobody_else_answers() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "12");
    let before_ms = net.sim.env().now_ms();
    net.run(net.sim.env().clock.sleep(Duration::from_secs(3600)));
    net.join(1, &bob, &room, "a.test").ok();
    net.network.disconnect("a.test".try_into().unwrap());
    let event_id = at_time(&net, 1, &bob, &room, before_ms + 1000, "f");
    assert_eq!(found(&net, 1, &bob, &room, &event_id)["content"]["membership"], "join");
}
