//! Requests that mean harm.

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
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
fn announced_bodies_beyond_the_limit_are_not_read() {
    let world = World::new();
    let (body, chunks) = endless();
    let request = Request::post(OPEN).header("content-length", "104857600").body(body).unwrap();
    assert_eq!(world.send(request).error(), (413, "M_TOO_LARGE"));
    assert_eq!(chunks.load(Ordering::Relaxed), 0);
}

#[test]
fn endless_bodies_are_read_up_to_the_limit() {
    let world = World::new();
    let (body, chunks) = endless();
    let answer = world.send(Request::post(OPEN).body(body).unwrap());
    assert_eq!(answer.error(), (413, "M_TOO_LARGE"));
    let read = chunks.load(Ordering::Relaxed) * CHUNK;
    assert!(read <= myelin_core::limits::REQUEST_BODY_SIZE_MAX + CHUNK, "{read}");
}

const CHUNK: usize = 64 * 1024;

/// A body of 100 MB that counts the chunks taken from it.
fn endless() -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let chunks = futures::stream::iter(0..1600).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from(vec![b' '; CHUNK]))
    });
    (Body::from_stream(chunks), taken)
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
