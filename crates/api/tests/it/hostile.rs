//! Requests that mean harm.

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use myelin_core::limits::REQUEST_BODY_SIZE_MAX;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::world::World;

/// Takes a JSON body without authentication.
const OPEN: &str = "/_synapse/admin/v1/register";

#[test]
fn bodies_that_are_not_json() {
    let world = World::new();
    let deep = "[".repeat(50_000);
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"user=alice",
        b"\xff\xfe{}",
        b"{\"type\":\"\xc3\x28\"}",
        b"{\"type\":\"a\0b\"}",
        b"{\"type\":\"\\ud800\"}",
        b"{\"type\":\"m.login.password\"} x",
    ];
    for body in bodies {
        let answer = world.request(Method::POST, OPEN, None, Bytes::from_static(body));
        assert_eq!(answer.error(), (400, "M_NOT_JSON"), "{}", String::from_utf8_lossy(body));
        assert!(answer.json["error"].is_string());
    }
    let answer = world.request(Method::POST, OPEN, None, deep);
    assert_eq!(answer.error(), (400, "M_BAD_JSON"));
}

#[test]
fn json_that_nobody_should_send() {
    let world = World::new();
    let bodies = [
        "[]",
        "1",
        "{}",
        r#"{"nonce":1}"#,
        r#"{"nonce":"x","nonce":"y"}"#,
        r#"{"nonce":"x","x":9007199254740993}"#,
        r#"{"nonce":"x","x":1e999}"#,
        r#"{"nonce":"x","x":123456789012345678901234567890}"#,
    ];
    for body in bodies {
        let answer = world.request(Method::POST, OPEN, None, body);
        assert_eq!(answer.error(), (400, "M_BAD_JSON"), "{body}");
    }
}

#[test]
fn a_client_that_waits_for_leave_sends_nothing_of_a_body_beyond_the_limit() {
    let world = World::new();
    let huge = Huge::new(HUGE);
    let request = Request::post(OPEN).header("content-length", HUGE).header("expect", "100-continue");
    assert_eq!(world.send(request.body(huge.body()).unwrap()).error(), (413, "M_TOO_LARGE"));
    assert_eq!(huge.sent(), 0);
}

#[test]
fn huge_bodies_are_refused_in_little_memory() {
    let world = World::new();
    for announced in [true, false] {
        let huge = Huge::new(HUGE);
        let mut request = Request::post(OPEN);
        if announced {
            request = request.header("content-length", HUGE);
        }
        let answer = world.send(request.body(huge.body()).unwrap());
        assert_eq!(answer.error(), (413, "M_TOO_LARGE"));
        assert_eq!(huge.sent(), HUGE, "a client that is cut off while it sends may not see the answer");
        let held = huge.held_at_most();
        assert!(held <= REQUEST_BODY_SIZE_MAX + 2 * CHUNK, "{held} bytes");
    }
}

#[test]
fn what_is_left_of_a_body_is_read_after_any_refusal_but_not_for_ever() {
    let world = World::new();
    let huge = Huge::new(HUGE);
    let request = Request::post("/_matrix/client/v3/delete_devices").body(huge.body()).unwrap();
    assert_eq!(world.send(request).error(), (401, "M_MISSING_TOKEN"));
    assert_eq!((huge.sent(), huge.held_at_most() <= 2 * CHUNK), (HUGE, true));

    let endless = Huge::new(usize::MAX);
    let request = Request::post(OPEN).body(endless.body()).unwrap();
    assert_eq!(world.send(request).error(), (413, "M_TOO_LARGE"));
    assert!(endless.sent() < 2 * HUGE, "{}", endless.sent());
}

const CHUNK: usize = 64 * 1024;
const HUGE: usize = 1600 * CHUNK;

/// A body that knows how much of it was taken and how much of that was held at once.
struct Huge {
    size: usize,
    sent: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    held_at_most: Arc<AtomicUsize>,
}

impl Huge {
    fn new(size: usize) -> Self {
        let [sent, held, held_at_most] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        Self { size, sent, held, held_at_most }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    fn held_at_most(&self) -> usize {
        self.held_at_most.load(Ordering::Relaxed)
    }

    fn body(&self) -> Body {
        let (sent, held, held_at_most) = (self.sent.clone(), self.held.clone(), self.held_at_most.clone());
        let chunks = futures::stream::iter(0..self.size / CHUNK).map(move |_| {
            sent.fetch_add(CHUNK, Ordering::Relaxed);
            let now = held.fetch_add(CHUNK, Ordering::Relaxed) + CHUNK;
            held_at_most.fetch_max(now, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_owner(Chunk { bytes: vec![b' '; CHUNK], held: held.clone() }))
        });
        Body::from_stream(chunks)
    }
}

struct Chunk {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.held.fetch_sub(CHUNK, Ordering::Relaxed);
    }
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    let world = World::new();
    let chunks = [Ok(Bytes::from_static(b"{\"type\"")), Err(std::io::Error::other("reset"))];
    let request = Request::post(OPEN).body(Body::from_stream(futures::stream::iter(chunks))).unwrap();
    assert_eq!(world.send(request).error(), (400, "M_UNKNOWN"));
}

#[test]
fn unknown_endpoints_and_methods() {
    let world = World::new();
    for path in [
        "/",
        "/_matrix",
        "/_matrix/client/v3/nonsense",
        "/_matrix/client/v9/login",
        "/_matrix/client/v3/login/",
    ] {
        assert_eq!(world.get(path, None).error(), (404, "M_UNRECOGNIZED"), "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/_matrix/client/versions"),
        (Method::POST, "/_matrix/client/versions"),
        (Method::PATCH, OPEN),
        (Method::from_bytes(b"BREW").unwrap(), OPEN),
    ] {
        assert_eq!(
            world.request(method.clone(), path, None, "").error(),
            (405, "M_UNRECOGNIZED"),
            "{method} {path}"
        );
    }
}

#[test]
fn parameters_that_are_not_what_they_should_be() {
    let world = World::new();
    let token = world.user("alice");
    let cases = [
        "/_matrix/client/v3/admin/whois/nonsense",
        "/_matrix/client/v3/admin/whois/%ff%fe",
        "/_matrix/client/v3/admin/whois/%40%00",
        "/_matrix/client/v3/admin/whois/!room:localhost",
    ];
    for path in cases {
        assert_eq!(world.get(path, Some(&token)).error(), (400, "M_INVALID_PARAM"), "{path}");
    }
    let long = format!("/_matrix/client/v3/admin/whois/%40{}%3Alocalhost", "a".repeat(60_000));
    assert_eq!(world.get(&long, Some(&token)).error().0, 400);
    let path = "/_matrix/client/v1/register/m.login.registration_token/validity";
    assert_eq!(world.get(path, None).error(), (400, "M_MISSING_PARAM"));
}

#[test]
fn r0_is_v3() {
    let world = World::new();
    let token = world.user("alice");
    let path = "/_matrix/client/r0/capabilities?query=kept";
    assert_eq!(
        world.get(path, Some(&token)).ok(),
        world.get("/_matrix/client/v3/capabilities", Some(&token)).ok()
    );
}
