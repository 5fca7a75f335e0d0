//! Endpoints that `/sync` has replaced, and the rendezvous at which a device is signed in.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use myelin_testkit::{client::percent, world::World};
use serde_json::{Value, json};

fn bodies(answer: &Value) -> Vec<&str> {
    let chunk = answer["chunk"].as_array().unwrap();
    chunk.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

#[test]
fn the_event_stream_begins_where_the_initial_sync_ends() {
    let world = World::new(1).servers(["a.test"]);
    let (ann, bob) = (world.user("@ann:a.test"), world.user("@bob:a.test"));
    let (room, foreign) = (ann.creates_public_room(), bob.creates_public_room());
    ann.sends(&room, "before");
    bob.invites(&foreign, &ann);
    let initial = ann.gets("initialSync?limit=1");
    let rooms = initial["rooms"].as_array().unwrap();
    assert_eq!(rooms.len(), 2);
    let joined = rooms.iter().find(|held| held["room_id"] == room.id.as_str()).unwrap();
    assert_eq!((&joined["membership"], bodies(&joined["messages"])), (&json!("join"), vec!["before"]));
    let invited = rooms.iter().find(|held| held["room_id"] == foreign.id.as_str()).unwrap();
    assert_eq!((&invited["membership"], &invited["invite"]["sender"]), (&json!("invite"), &json!(bob.id)));

    let end = initial["end"].as_str().unwrap();
    let event = ann.sends(&room, "after");
    bob.sends(&foreign, "not for ann");
    let answer = ann.gets(&format!("events?from={end}&timeout=0"));
    assert_eq!(bodies(&answer), ["after"]);
    assert_eq!(answer["chunk"][0]["room_id"], room.id.as_str());
    let end = answer["end"].as_str().unwrap();
    assert!(bodies(&ann.gets(&format!("events?from={end}&timeout=0"))).is_empty());
    let one = format!("events/{}", percent(&event));
    assert_eq!(ann.gets(&one)["content"]["body"], "after");
    assert_eq!(bob.tries(Method::GET, &one, json!({})).json["errcode"], "M_NOT_FOUND");
    assert_eq!(ann.tries(Method::GET, "events?from=x", json!({})).json["errcode"], "M_INVALID_PARAM");
}

#[test]
fn a_long_stream_comes_in_pieces_without_holes() {
    let world = World::new(2).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let (one, two) = (ann.creates_public_room(), ann.creates_public_room());
    let mut from = ann.gets("initialSync")["end"].as_str().unwrap().to_owned();
    for n in 0..600 {
        ann.sends(if n % 3 == 0 { &one } else { &two }, &n.to_string());
    }
    let mut seen = Vec::new();
    loop {
        let answer = ann.gets(&format!("events?from={from}&timeout=0"));
        if bodies(&answer).is_empty() {
            break;
        }
        seen.extend(bodies(&answer).into_iter().map(str::to_owned));
        from = answer["end"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, (0..600).map(|n: u32| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn devices_meet_with_tokens() {
    let world = World::new(3).servers(["a.test"]);
    let server = world.server("a.test").unwrap();
    let path = "/_matrix/client/unstable/io.element.msc4388/rendezvous";
    let ask = |method: Method, path: &str, body: Option<Value>| {
        world.run(server.request(method, path, None, body.as_ref()))
    };
    assert_eq!(ask(Method::GET, path, None).ok()["create_available"], true);
    let made = ask(Method::POST, path, Some(json!({ "data": "from A" }))).ok();
    let meeting = format!("{path}/{}", made["id"].as_str().unwrap());
    let read = ask(Method::GET, &meeting, None).ok();
    assert_eq!((&read["data"], &read["sequence_token"]), (&json!("from A"), &made["sequence_token"]));
    let put = |token: &Value, data: &str| {
        ask(Method::PUT, &meeting, Some(json!({ "sequence_token": token, "data": data })))
    };
    let replaced = put(&made["sequence_token"], "from B").ok();
    let late = put(&made["sequence_token"], "too late");
    assert_eq!(late.json["errcode"], "IO_ELEMENT_MSC4388_CONCURRENT_WRITE");
    assert_eq!(put(&replaced["sequence_token"], &"x".repeat(5_000)).json["errcode"], "M_TOO_LARGE");
    assert_eq!(ask(Method::GET, &meeting, None).ok()["data"], "from B");
    world.pass(Duration::from_secs(301));
    assert_eq!(ask(Method::GET, &meeting, None).json["errcode"], "M_NOT_FOUND");
    let again = ask(Method::POST, path, Some(json!({ "data": "" }))).ok();
    let meeting = format!("{path}/{}", again["id"].as_str().unwrap());
    ask(Method::DELETE, &meeting, None).ok();
    assert_eq!(ask(Method::DELETE, &meeting, None).json["errcode"], "M_NOT_FOUND");
}

#[test]
fn devices_meet_with_etags() {
    let world = World::new(4).servers(["a.test"]);
    let server = world.server("a.test").unwrap();
    let path = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
    let ask = |method: Method, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let length = body.len().to_string();
        let request = request.header("content-length", length).body(Body::from(body.to_owned())).unwrap();
        world.run(server.call_raw(request))
    };
    let text = ("content-type", "text/plain");
    let made = ask(Method::POST, path, &[text], "from A");
    assert_eq!(
        (made.0.as_u16(), &made.1["access-control-expose-headers"]),
        (201, &http::HeaderValue::from_static("ETag"))
    );
    let url: Value = serde_json::from_slice(&made.2).unwrap();
    let url = url["url"].as_str().unwrap();
    let meeting = &url[url.find("/_matrix").unwrap()..];
    let etag = made.1["etag"].to_str().unwrap();
    assert_eq!(ask(Method::GET, meeting, &[("if-none-match", etag)], "").0.as_u16(), 304);
    let read = ask(Method::GET, meeting, &[], "");
    assert_eq!(
        (read.0.as_u16(), &read.1["content-type"], &read.2[..]),
        (200, &http::HeaderValue::from_static("text/plain"), &b"from A"[..])
    );
    assert_eq!(&read.1["cache-control"], "no-store");
    assert_eq!(ask(Method::PUT, meeting, &[text, ("if-match", etag)], "from B").0.as_u16(), 202);
    assert_eq!(ask(Method::PUT, meeting, &[text, ("if-match", etag)], "late").0.as_u16(), 412);
    for (headers, status) in [
        (vec![text], 400),
        (vec![text, ("if-match", "W/\"x\"")], 400),
        (vec![("content-type", "text/html"), ("if-match", etag)], 400),
        (vec![("if-match", etag)], 400),
    ] {
        assert_eq!(ask(Method::PUT, meeting, &headers, "x").0.as_u16(), status, "{headers:?}");
    }
    assert_eq!(ask(Method::POST, path, &[text], &"x".repeat(5_000)).0.as_u16(), 413);
    let preflight = ask(Method::OPTIONS, meeting, &[], "");
    assert!(preflight.1["access-control-allow-headers"].to_str().unwrap().contains("If-Match"));
    assert_eq!(ask(Method::DELETE, meeting, &[], "").0.as_u16(), 204);
    assert_eq!(ask(Method::GET, meeting, &[], "").0.as_u16(), 404);
}
