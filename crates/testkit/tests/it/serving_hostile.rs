//! Every operation of the Server-Server API gets requests that it must not believe, and values that it does not expect:
//! whatever it answers, it is not that the server failed, and nobody is told what is not theirs.

use std::{io, net::SocketAddr, time::Duration};

use axum::{body::Body, extract::ConnectInfo};
use bytes::Bytes;
use futures::{
    StreamExt,
    future::{join, join_all},
    stream,
};
use http::{Method, Request, Response, StatusCode, header};
use myelin_federation::{
    Budget,
    x_matrix::{SignedParts, XMatrix},
};
use myelin_testenv::Sim;
use myelin_testkit::{
    network::Network,
    server::{Server, signing_key},
};
use ruma::{ServerName, server_name};
use serde_json::{Value, json};
use tower::ServiceExt;

/// `{room}`, `{event}`, `{user}`, `{txn}` stand for something of the right shape that is not the asker's.
const SIGNED: &[(&str, &str)] = &[
    ("GET", "/_matrix/federation/v1/backfill/{room}?v={event}&limit=5"),
    ("POST", "/_matrix/federation/v1/get_missing_events/{room}"),
    ("GET", "/_matrix/federation/v1/event_auth/{room}/{event}"),
    ("GET", "/_matrix/federation/v1/state/{room}?event_id={event}"),
    ("GET", "/_matrix/federation/v1/state_ids/{room}?event_id={event}"),
    ("GET", "/_matrix/federation/v1/event/{event}"),
    ("GET", "/_matrix/federation/v1/timestamp_to_event/{room}?ts=0&dir=f"),
    ("GET", "/_matrix/federation/v1/publicRooms"),
    ("POST", "/_matrix/federation/v1/publicRooms"),
    ("GET", "/_matrix/federation/v1/query/profile?user_id={user}"),
    ("GET", "/_matrix/federation/v1/query/directory?room_alias=%23a:here.test"),
    ("GET", "/_matrix/federation/v1/query/other"),
    ("GET", "/_matrix/federation/v1/hierarchy/{room}"),
    ("PUT", "/_matrix/federation/v1/send/{txn}"),
    ("GET", "/_matrix/federation/v1/user/devices/{user}"),
    ("POST", "/_matrix/federation/v1/user/keys/query"),
    ("POST", "/_matrix/federation/v1/user/keys/claim"),
    ("GET", "/_matrix/federation/v1/make_join/{room}/@x:evil.test?ver=12"),
    ("PUT", "/_matrix/federation/v2/send_join/{room}/{event}"),
    ("GET", "/_matrix/federation/v1/make_knock/{room}/@x:evil.test?ver=12"),
    ("PUT", "/_matrix/federation/v1/send_knock/{room}/{event}"),
    ("GET", "/_matrix/federation/v1/make_leave/{room}/@x:evil.test"),
    ("PUT", "/_matrix/federation/v2/send_leave/{room}/{event}"),
    ("PUT", "/_matrix/federation/v1/invite/{room}/{event}"),
    ("PUT", "/_matrix/federation/v2/invite/{room}/{event}"),
    ("PUT", "/_matrix/federation/v1/exchange_third_party_invite/{room}"),
    ("GET", "/_matrix/federation/v1/media/download/abc"),
    ("GET", "/_matrix/federation/v1/media/thumbnail/abc?width=32&height=32"),
];

const UNSIGNED: &[(&str, &str)] = &[
    ("GET", "/_matrix/key/v2/server"),
    ("GET", "/_matrix/key/v2/query/here.test"),
    ("POST", "/_matrix/key/v2/query"),
    ("GET", "/_matrix/federation/v1/version"),
    ("GET", "/_matrix/federation/v1/openid/userinfo?access_token=x"),
    ("PUT", "/_matrix/federation/v1/3pid/onbind"),
];

/// What is not built, or is not for a server like this one: it says so by the path alone.
const UNRECOGNIZED: &[(&str, &str)] = &[("POST", "/_matrix/policy/v1/sign")];

const KEYS: &[&str] = &[
    "pdus",
    "edus",
    "origin",
    "origin_server_ts",
    "limit",
    "min_depth",
    "earliest_events",
    "latest_events",
    "filter",
    "since",
    "server_keys",
    "device_keys",
    "one_time_keys",
    "event",
    "room_version",
    "invite_room_state",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "auth_events",
    "prev_events",
    "depth",
    "hashes",
    "signatures",
    "address",
    "medium",
    "mxid",
    "invites",
];

fn values() -> Vec<Value> {
    let nested = (0..90).fold(json!(1), |inner, _| json!([inner]));
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_991_i64),
        json!("\u{0}"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null, 1, "x", {}]),
        json!({}),
        json!({ "x": { "y": [] }, "@a:here.test": [] }),
        nested,
    ]
}

const PARAMETERS: &[&str] =
    &["%00", "..", "%ff", "!", "$", "@", "!a%2Fb%3Ahere.test", "-1", "%F0%9F%98%80", "!x", "$x"];

struct Attack {
    sim: Sim,
    network: Network,
    room_id: String,
    event_id: String,
    here: Server,
    _evil: Server,
}

fn here() -> &'static ServerName {
    server_name!("here.test")
}

fn evil() -> &'static ServerName {
    server_name!("evil.test")
}

impl Attack {
    fn new() -> Self {
        let (sim, network) = (Sim::new(1), Network::default());
        let server = Server::start_in(&network, here(), &sim, Default::default());
        let evil = Server::start_in(&network, evil(), &sim, Default::default());
        let (room_id, event_id) = sim.block_on(async {
            let body =
                json!({ "username": "alice", "password": "secret", "auth": { "type": "m.login.dummy" } });
            let account =
                server.request(Method::POST, "/_matrix/client/v3/register", None, Some(&body)).await.ok();
            let token = account["access_token"].as_str().expect("a token").to_owned();
            let room = json!({ "preset": "private_chat" });
            let path = "/_matrix/client/v3/createRoom";
            let room = server.request(Method::POST, path, Some(&token), Some(&room)).await.ok();
            let room_id = room["room_id"].as_str().expect("a room").to_owned();
            let event_id = server.truth(&room_id).await.pop().expect("an event");
            (room_id, event_id)
        });
        Self { sim, network, room_id, event_id, here: server, _evil: evil }
    }

    fn path(&self, template: &str) -> String {
        let path = template.replace("{room}", &self.room_id).replace("{event}", &self.event_id);
        path.replace("{user}", "@alice:here.test").replace("{txn}", "t1")
    }

    fn sign(&self, method: &str, uri: &str, content: Option<&str>) -> XMatrix {
        let parts = SignedParts { method, uri, origin: evil(), destination: here(), content };
        parts.sign(&signing_key(evil()))
    }

    fn send(&self, method: &str, uri: &str, authorization: Option<String>, body: &str) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Bytes::from(body.to_owned())).expect("a request");
        let port = self.network.port_of(evil());
        self.sim.block_on(port.send(here(), request, Budget::ORDINARY)).expect("an answer")
    }

    /// Signed as it should be. Bodies that have no canonical form are signed as they are.
    fn send_signed(&self, method: &str, uri: &str, body: &str) -> Response<Bytes> {
        let canonical = myelin_dag::canonical::canonicalize(body.as_bytes()).ok();
        let content = (method != "GET").then(|| canonical.as_deref().unwrap_or(body));
        let header = self.sign(method, uri, content).to_string();
        self.send(method, uri, Some(header), if method == "GET" { "" } else { body })
    }
}

fn error(answer: &Response<Bytes>) -> (u16, String) {
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), body["errcode"].as_str().unwrap_or_default().to_owned())
}

#[track_caller]
fn sane(answer: &Response<Bytes>, what: &str) {
    let (status, errcode) = error(answer);
    assert!(status < 500, "{what}: {status}");
    assert!(answer.status().is_success() || !errcode.is_empty(), "{what}: {status} without an errcode");
}

#[test]
fn requests_that_are_not_signed_as_they_should_be_are_refused_everywhere() {
    let attack = Attack::new();
    let unauthorized = (StatusCode::UNAUTHORIZED.as_u16(), "M_UNAUTHORIZED".to_owned());
    for (method, template) in SIGNED {
        let path = attack.path(template);
        let body = if *method == "GET" { "" } else { "{}" };
        let content = (*method != "GET").then_some("{}");
        let good = attack.sign(method, &path, content);
        let elsewhere = SignedParts {
            method,
            uri: &path,
            origin: evil(),
            destination: server_name!("other.test"),
            content,
        };
        let headers = [
            None,
            Some("Bearer token".to_owned()),
            Some("X-Matrix nonsense".to_owned()),
            // The signature of another request, method, body or destination.
            Some(attack.sign(method, "/_matrix/federation/v1/other", content).to_string()),
            Some(attack.sign("PATCH", &path, content).to_string()),
            Some(attack.sign(method, &path, Some(r#"{"a":1}"#)).to_string()),
            Some(elsewhere.sign(&signing_key(evil())).to_string()),
            // Somebody else's name, an own one, a key that nobody has, no signature at all.
            Some(XMatrix { origin: server_name!("nobody.test").to_owned(), ..good.clone() }.to_string()),
            Some(XMatrix { origin: here().to_owned(), ..good.clone() }.to_string()),
            Some(XMatrix { key: "ed25519:other".to_owned(), ..good.clone() }.to_string()),
            Some(XMatrix { key: "rsa:sim".to_owned(), ..good.clone() }.to_string()),
            Some(XMatrix { sig: String::new(), ..good.clone() }.to_string()),
        ];
        for header in headers {
            let answer = attack.send(method, &path, header.clone(), body);
            assert_eq!(error(&answer), unauthorized, "{method} {path} {header:?}");
        }
    }
}

#[test]
fn what_is_not_there_is_not_recognised() {
    let attack = Attack::new();
    for (method, path) in UNRECOGNIZED {
        let answer = attack.send_signed(method, path, "{}");
        assert_eq!(error(&answer), (404, "M_UNRECOGNIZED".to_owned()), "{path}");
    }
}

#[test]
fn rooms_of_others_stay_closed() {
    let attack = Attack::new();
    for (method, template) in SIGNED.iter().filter(|(_, template)| template.contains("{room}")) {
        let path = attack.path(template);
        let body = r#"{"earliest_events":[],"latest_events":[]}"#;
        let answer = attack.send_signed(method, &path, body);
        sane(&answer, &path);
        assert!(!answer.status().is_success(), "{method} {path}: {:?}", answer.body());
    }
}

#[test]
fn bodies_that_nobody_expects() {
    let attack = Attack::new();
    for (method, template) in SIGNED.iter().chain(UNSIGNED).filter(|(method, _)| *method != "GET") {
        let path = attack.path(template);
        for text in ["", "{", "nonsense", "\"\\ud800\"", "[1,]", r#"{"a":1,"a":2}"#] {
            let answer = attack.send_signed(method, &path, text);
            sane(&answer, &format!("{method} {path} {text}"));
            assert!(!answer.status().is_success() || template.contains("onbind"), "{method} {path} {text}");
        }
        for value in values() {
            let body: serde_json::Map<_, _> =
                KEYS.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
            for body in [Value::Object(body).to_string(), value.to_string()] {
                sane(&attack.send_signed(method, &path, &body), &format!("{method} {path} {body:.80}"));
            }
        }
    }
}

#[test]
fn parameters_that_nobody_expects() {
    let attack = Attack::new();
    for (method, template) in SIGNED.iter().filter(|(_, template)| template.contains('{')) {
        for parameter in PARAMETERS {
            let mut path = (*template).to_owned();
            for name in ["{room}", "{event}", "{user}", "{txn}"] {
                path = path.replace(name, parameter);
            }
            sane(&attack.send_signed(method, &path, "{}"), &path);
        }
    }
    for query in ["?v=x&limit=-1&ts=x&dir=q&event_id=x", "?limit=18446744073709551616", "?v=", ""] {
        for (method, template) in SIGNED.iter().filter(|(method, _)| *method == "GET") {
            let path = attack.path(template.split('?').next().unwrap_or_default()) + query;
            sane(&attack.send_signed(method, &path, ""), &path);
        }
    }
}

#[test]
fn bodies_that_hardly_come_keep_nobody_elses_out() {
    let attack = Attack::new();
    let path = "/_matrix/federation/v1/send/t1";
    let body = json!({ "origin": evil(), "origin_server_ts": 1, "pdus": [], "edus": [] }).to_string();
    let body = myelin_dag::canonical::canonicalize(body.as_bytes()).expect("canonical JSON");
    assert_eq!(attack.send_signed("PUT", path, &body).status(), 200, "its key is known from now on");
    let authorization = attack.sign("PUT", path, Some(&body)).to_string();
    // Claims to be somebody whose key is known, announces much, and sends a kilobyte.
    let announces = |address: u8, size: usize| {
        let kilobyte = stream::iter([Ok::<_, io::Error>(Bytes::from(vec![b' '; 1024]))]);
        let request = Request::put(path)
            .header(header::AUTHORIZATION, &authorization)
            .header(header::CONTENT_LENGTH, size)
            .extension(ConnectInfo(SocketAddr::from(([1, 2, 3, address], 8448))));
        let body = Body::from_stream(kilobyte.chain(stream::pending()));
        attack.here.call(request.body(body).expect("a request"))
    };
    // As much as all may hold, and each of eight addresses.
    let sizes = [13_107_200, 13_107_200, 13_107_200, 13_107_200, 13_107_200, 1_572_864];
    let announced = (0..8).flat_map(|address| sizes.map(|size| announces(address, size)));
    let honest = async {
        attack.sim.env().clock.sleep(Duration::from_secs(10)).await;
        let uri = "/_matrix/federation/v1/send/t2";
        let authorization = attack.sign("PUT", uri, Some(&body)).to_string();
        let request = Request::put(uri).header(header::AUTHORIZATION, authorization);
        let request = request.body(Bytes::from(body.clone())).expect("a request");
        attack.network.port_of(evil()).send(here(), request, Budget::ORDINARY).await.expect("an answer")
    };
    let (answers, honest) = attack.sim.block_on(join(join_all(announced), honest));
    assert_eq!(honest.status(), 200, "{honest:?}");
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert!(statuses.iter().all(|status| *status == 408), "nobody waits for ever: {statuses:?}");
}

#[test]
fn each_kind_of_work_has_places_that_are_kept_until_the_answer_has_been_read() {
    let attack = Attack::new();
    let kinds = [
        (32, "GET", "/_matrix/federation/v1/query/profile?user_id={user}"),
        (4, "GET", "/_matrix/federation/v1/state_ids/{room}?event_id={event}"),
        (4, "GET", "/_matrix/federation/v1/make_join/{room}/@x:evil.test?ver=12"),
        (4, "PUT", "/_matrix/federation/v2/invite/{room}/{event}"),
        (32, "GET", "/_matrix/federation/v1/media/download/abc"),
    ];
    let ask = async |method: &str, template: &str| {
        let path = attack.path(template);
        let content = (method != "GET").then_some("{}");
        let authorization = attack.sign(method, &path, content).to_string();
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, authorization);
        let request = request.body(Body::from(content.unwrap_or_default())).expect("a request");
        attack.here.router().oneshot(request).await.expect("the router cannot fail")
    };
    attack.sim.block_on(async {
        let mut held = Vec::new();
        for (at_once, method, template) in kinds {
            for _ in 0..at_once {
                let answer = ask(method, template).await;
                assert_ne!(answer.status(), 429, "{template}");
                held.push(answer);
            }
            let began_ms = attack.sim.env().now_ms();
            assert_eq!(ask(method, template).await.status(), 429, "{template}");
            assert_eq!(attack.sim.env().now_ms() - began_ms, 20_000, "it waited for its turn");
        }
        held.clear();
        for (_, method, template) in kinds {
            assert_ne!(ask(method, template).await.status(), 429, "{template}");
        }
    });
}

#[test]
fn servers_that_are_denied_are_not_answered() {
    let attack = Attack::new();
    attack.network.deny(here(), evil());
    for (method, template) in SIGNED {
        let answer = attack.send_signed(method, &attack.path(template), "{}");
        assert_eq!(error(&answer), (403, "M_FORBIDDEN".to_owned()), "{template}");
    }
}
