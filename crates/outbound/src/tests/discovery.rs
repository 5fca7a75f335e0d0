//! Every branch of "Resolving server names": where the connection goes, what `Host` and SNI say, whose certificate it is.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::Request;
use ruma::ServerName;

use super::world::{BUDGET, Reply, Seen, World, certified, redirect, reply};
use crate::{Error, Outbound};

pub fn version() -> Request<Bytes> {
    Request::get("/_matrix/federation/v1/version?x=1").body(Bytes::new()).expect("a request")
}

pub async fn ask(outbound: &Outbound, server: &str) -> Result<u16, Error> {
    let server = <&ServerName>::try_from(server).expect("a server name");
    outbound.send(server, version(), BUDGET).await.map(|answer| answer.status().as_u16())
}

/// The made-up Internet of the table; every server that may be meant has the certificate that it must have.
async fn internet() -> World {
    let world = World::new();
    for (host, address) in [
        ("port.test", "1.0.0.3"),
        ("node.test", "1.0.0.20"),
        ("other.test", "1.0.0.21"),
        ("delegate.test", "1.0.0.22"),
        ("plain.test", "1.0.0.23"),
    ] {
        world.address(host, &[address]);
    }
    for (at, name) in [
        ("1.0.0.1:8448", "1.0.0.1"),
        ("1.0.0.1:99", "1.0.0.1"),
        ("[2600::1]:8448", "2600::1"),
        ("[2600::1]:99", "2600::1"),
        ("1.0.0.3:99", "port.test"),
        ("1.0.0.22:99", "delegate.test"),
        ("1.0.0.22:8448", "delegate.test"),
        ("1.0.0.23:8448", "plain.test"),
    ] {
        world.serve(at, certified(name)).await;
    }
    world
}

#[derive(Default)]
struct Case {
    server: &'static str,
    /// `m.server` of the server's host.
    delegate: Option<&'static str>,
    /// SRV records: name, port, target.
    services: &'static [(&'static str, u16, &'static str)],
    /// A server with a certificate of this name, at this address: where a SRV record leads.
    node: Option<(&'static str, &'static str)>,
    at: &'static str,
    host: &'static str,
    sni: Option<&'static str>,
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // 1: IP literals.
    Case { server: "1.0.0.1", at: "1.0.0.1:8448", host: "1.0.0.1", ..NONE },
    Case { server: "1.0.0.1:99", at: "1.0.0.1:99", host: "1.0.0.1:99", ..NONE },
    Case { server: "[2600::1]", at: "[2600::1]:8448", host: "[2600::1]", ..NONE },
    Case { server: "[2600::1]:99", at: "[2600::1]:99", host: "[2600::1]:99", ..NONE },
    // 2: a port; neither the document nor SRV records are looked at.
    Case { server: "port.test:99", services: &[("_matrix-fed._tcp.port.test", 5000, "node.test")],
           at: "1.0.0.3:99", host: "port.test:99", sni: Some("port.test"), ..NONE },
    // 3.1: delegated to an IP literal.
    Case { server: "a.test", delegate: Some("1.0.0.1"), at: "1.0.0.1:8448", host: "1.0.0.1", ..NONE },
    Case { server: "a.test", delegate: Some("[2600::1]:99"), at: "[2600::1]:99", host: "[2600::1]:99", ..NONE },
    // 3.2: to a host and port.
    Case { server: "a.test", delegate: Some("delegate.test:99"), at: "1.0.0.22:99", host: "delegate.test:99", sni: Some("delegate.test"), ..NONE },
    // 3.3: to a host with an SRV record.
    Case { server: "a.test", delegate: Some("delegate.test"), services: &[("_matrix-fed._tcp.delegate.test", 5000, "node.test")],
           node: Some(("1.0.0.20:5000", "delegate.test")), at: "1.0.0.20:5000", host: "delegate.test", sni: Some("delegate.test") },
    // 3.4: to a host with the deprecated one.
    Case { server: "a.test", delegate: Some("delegate.test"), services: &[("_matrix._tcp.delegate.test", 5000, "node.test")],
           node: Some(("1.0.0.20:5000", "delegate.test")), at: "1.0.0.20:5000", host: "delegate.test", sni: Some("delegate.test") },
    // 3.5: to a host with neither. What the delegating host's own DNS says does not matter.
    Case { server: "a.test", delegate: Some("delegate.test"), services: &[("_matrix-fed._tcp.a.test", 5000, "node.test")],
           at: "1.0.0.22:8448", host: "delegate.test", sni: Some("delegate.test"), ..NONE },
    // 4: no document, an SRV record, which wins over the deprecated one.
    Case { server: "plain.test", services: &[("_matrix-fed._tcp.plain.test", 5000, "node.test"), ("_matrix._tcp.plain.test", 5000, "other.test")],
           node: Some(("1.0.0.20:5000", "plain.test")), at: "1.0.0.20:5000", host: "plain.test", sni: Some("plain.test"), ..NONE },
    // 5: the deprecated one.
    Case { server: "plain.test", services: &[("_matrix._tcp.plain.test", 5000, "other.test")],
           node: Some(("1.0.0.21:5000", "plain.test")), at: "1.0.0.21:5000", host: "plain.test", sni: Some("plain.test"), ..NONE },
    // 6: nothing.
    Case { server: "plain.test", at: "1.0.0.23:8448", host: "plain.test", sni: Some("plain.test"), ..NONE },
];

const NONE: Case =
    Case { server: "", delegate: None, services: &[], node: None, at: "", host: "", sni: None };

#[tokio::test]
async fn every_branch_leads_where_the_specification_says() {
    for case in CASES {
        let world = internet().await;
        if let Some(delegate) = case.delegate {
            let document = format!(r#"{{"m.server": "{delegate}"}}"#);
            world.delegating(case.server, "1.0.0.9", &document).await;
        }
        for (name, port, target) in case.services {
            world.service(name, &[(1, *port, target)]);
        }
        if let Some((at, name)) = case.node {
            world.serve(at, certified(name)).await;
        }
        let context = format!("{} {:?} {:?}", case.server, case.delegate, case.services);
        assert_eq!(ask(&world.outbound(), case.server).await, Ok(200), "{context}");
        let seen = world.seen().pop().expect("a request");
        assert_eq!(
            (seen.at.as_str(), seen.host.as_str(), seen.sni.as_deref()),
            (case.at, case.host, case.sni),
            "{context}"
        );
        assert_eq!(seen.path, "/_matrix/federation/v1/version?x=1");
    }
}

#[tokio::test]
async fn a_document_that_is_none_is_passed_over() {
    let documents = [
        reply(200, "<html>"),
        reply(200, r#"{"m.server": "https://delegate.test"}"#),
        reply(404, r#"{"m.server": "delegate.test:99"}"#),
        reply(500, ""),
        reply(200, vec![b' '; 60_000]),
        redirect("https://plain.test/.well-known/matrix/server"),
        redirect("http://a.test/plain"),
        redirect("::"),
        Reply { headers: vec![], ..redirect("") },
    ];
    for document in documents {
        let world = internet().await;
        let shown = (document.status, document.headers.clone(), document.body.len());
        world.serve("1.0.0.23:443", certified("plain.test").replying(move |_| document.clone())).await;
        assert_eq!(ask(&world.outbound(), "plain.test").await, Ok(200), "{shown:?}");
        assert_eq!(world.seen().pop().map(|seen| seen.at).as_deref(), Some("1.0.0.23:8448"), "{shown:?}");
    }
}

#[tokio::test]
async fn a_panic_while_a_host_is_asked_is_not_for_ever() {
    let world = internet().await;
    world.delegating("a.test", "1.0.0.9", r#"{"m.server": "delegate.test:99"}"#).await;
    let outbound = world.outbound();
    world.internet.panics.store(1, Ordering::SeqCst);
    assert!(ask(&outbound, "a.test").await.is_err(), "nobody is at its default port");
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(ask(&outbound, "a.test").await, Ok(200));
}

#[tokio::test]
async fn redirects_of_the_document_are_followed_within_bounds() {
    let world = internet().await;
    world.address("a.test", &["1.0.0.9"]);
    let hops = |path: &str| match path {
        "/.well-known/matrix/server" => redirect("/1"),
        "/1" => redirect("https://b.test/2"),
        path => redirect(&format!("https://b.test{path}/on")),
    };
    world.serve("1.0.0.9:443", certified("a.test").replying(hops)).await;
    let document = r#"{"m.server": "delegate.test:99"}"#;
    world.delegating("b.test", "1.0.0.10", document).await;
    assert_eq!(ask(&world.outbound(), "a.test").await, Ok(200));
    let seen = world.seen();
    let at: Vec<_> = seen.iter().map(|seen| (seen.at.as_str(), seen.path.as_str())).collect();
    assert_eq!(
        at[..3],
        [("1.0.0.9:443", "/.well-known/matrix/server"), ("1.0.0.9:443", "/1"), ("1.0.0.10:443", "/2"),]
    );

    // Never-ending redirects are given up: the host's default port is tried instead.
    let world = internet().await;
    world.serve("1.0.0.23:443", certified("plain.test").replying(|path| redirect(&format!("{path}1")))).await;
    assert_eq!(ask(&world.outbound(), "plain.test").await, Ok(200));
    assert_eq!(world.seen().len(), 7, "the document, five redirects, and the request");
}

#[tokio::test]
async fn further_targets_and_addresses_are_tried() {
    let world = internet().await;
    world.service(
        "_matrix-fed._tcp.plain.test",
        &[(1, 1, "nowhere.test"), (2, 2, "node.test"), (3, 5000, "many.test")],
    );
    world.address("many.test", &["2600::99", "1.0.0.98", "1.0.0.99"]);
    world.serve("1.0.0.99:5000", certified("plain.test")).await;
    assert_eq!(ask(&world.outbound(), "plain.test").await, Ok(200));
    assert_eq!(world.seen().len(), 1);
    let dialed: Vec<_> = world.internet.dialed.lock().iter().map(ToString::to_string).collect();
    assert_eq!(dialed, ["1.0.0.23:443", "1.0.0.20:2", "[2600::99]:5000", "1.0.0.98:5000", "1.0.0.99:5000"]);
}

#[tokio::test]
async fn a_service_that_is_decidedly_not_there_is_not_looked_for_elsewhere() {
    let world = internet().await;
    world.service("_matrix-fed._tcp.plain.test", &[(0, 0, "")]);
    let error = ask(&world.outbound(), "plain.test").await.expect_err("there is none");
    assert_eq!(
        error.to_string(),
        "looking up the server: _matrix-fed._tcp.plain.test says that there is no such service"
    );
}

#[tokio::test]
async fn broken_dns_for_services_does_not_keep_from_the_default_port() {
    let world = internet().await;
    world.address("broken.test", &["1.0.0.50"]);
    world.serve("1.0.0.50:8448", certified("broken.test")).await;
    assert_eq!(ask(&world.outbound(), "broken.test").await, Ok(200));
}

#[tokio::test]
async fn the_document_is_asked_for_again_when_its_time_is_over() {
    let world = internet().await;
    world.address("a.test", &["1.0.0.9"]);
    let document = Reply {
        headers: vec![("cache-control", "max-age=7200".into())],
        ..reply(200, r#"{"m.server": "delegate.test:99"}"#)
    };
    world.serve("1.0.0.9:443", certified("a.test").replying(move |_| document.clone())).await;
    let outbound = world.outbound();
    let asked = async |outbound: &Outbound| {
        assert_eq!(ask(outbound, "A.test").await, Ok(200));
        world.seen().iter().filter(|seen| seen.at == "1.0.0.9:443").count()
    };
    assert_eq!(asked(&outbound).await, 1);
    world.clock.advance(Duration::from_secs(7199));
    assert_eq!(asked(&outbound).await, 0);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(asked(&outbound).await, 1);
}

#[tokio::test]
async fn many_who_ask_at_once_ask_for_one_document() {
    let world = internet().await;
    world.delegating("a.test", "1.0.0.9", r#"{"m.server": "delegate.test:99"}"#).await;
    let outbound = world.outbound();
    let answers = futures::future::join_all((0..10).map(|_| ask(&outbound, "a.test"))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(200)), "{answers:?}");
    assert_eq!(world.seen().iter().filter(|seen| seen.at == "1.0.0.9:443").count(), 1);
}

#[tokio::test]
async fn the_way_to_a_server_can_be_explained() {
    let world = internet().await;
    let server = <&ServerName>::try_from("plain.test").expect("a server name");
    let (destination, steps) = world.outbound().explain(server).await;
    assert_eq!(destination.expect("it is found").host, "plain.test");
    assert_eq!(
        steps,
        [
            "https://plain.test/.well-known/matrix/server: connecting to plain.test:443 (1.0.0.23): connection refused",
            "_matrix-fed._tcp.plain.test has no SRV records",
            "_matrix._tcp.plain.test has no SRV records",
            "no delegation: plain.test:8448",
        ]
    );
}

#[tokio::test]
async fn a_host_that_stalls_is_passed_over_in_time_and_remembered_even_if_nobody_waits() {
    let world = internet().await;
    let stalling = |_: &str| Reply { stalls: true, ..reply(200, "{") };
    world.serve("1.0.0.23:443", certified("plain.test").replying(stalling)).await;
    let outbound = world.outbound();
    let asked_the_host = |seen: &[Seen]| seen.iter().any(|seen| seen.at == "1.0.0.23:443");
    tokio::select! {
        answer = ask(&outbound, "plain.test") => panic!("it stalls: {answer:?}"),
        () = world.until(asked_the_host) => {}
    }
    // Who asked has gone. The host is given up nevertheless, and not asked again.
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(ask(&outbound, "plain.test").await, Ok(200));
    let at: Vec<_> = world.seen().into_iter().map(|seen| seen.at).collect();
    assert_eq!(at, ["1.0.0.23:443", "1.0.0.23:8448"]);
}
