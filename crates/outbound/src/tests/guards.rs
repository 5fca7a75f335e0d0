//! What is refused: addresses, names, certificates.

use ruma::server_name;

use super::{
    discovery::ask,
    world::{BUDGET, Setup, World, certified, redirect},
};
use crate::{AddressPolicy, Error, Options, Outbound, Redirects, Refusal, ServerNames, Trust};

const REDIRECTS: Redirects = Redirects { follow_max: 5, plain_http: false };

fn refused_address(error: &Error) -> bool {
    matches!(error, Error::Refused(Refusal::Address { .. }))
}

#[tokio::test]
async fn private_addresses_are_not_connected_to_however_they_are_named() {
    let world = World::new();
    world.address("inside.test", &["10.0.0.1"]);
    world.address("mapped.test", &["::ffff:10.0.0.1"]);
    world.address("node.test", &["192.168.0.1"]);
    world.service("_matrix-fed._tcp.service.test", &[(0, 8448, "node.test")]);
    world.delegating("delegating.test", "1.0.0.9", r#"{"m.server": "inside.test:8448"}"#).await;
    world.delegating("literal.test", "1.0.0.10", r#"{"m.server": "169.254.169.254"}"#).await;
    for at in ["10.0.0.1:8448", "127.0.0.1:8448", "192.168.0.1:8448", "[::1]:8448"] {
        world.serve(at, certified("inside.test")).await;
    }
    let outbound = world.outbound();
    for server in [
        "127.0.0.1",
        "127.0.0.1:8448",
        "[::1]",
        "[::ffff:127.0.0.1]:8448",
        "inside.test",
        "inside.test:8448",
        "mapped.test:8448",
        "service.test",
        "delegating.test",
        "literal.test",
    ] {
        let error = ask(&outbound, server).await.expect_err(server);
        assert!(refused_address(&error), "{server}: {error}");
    }
    let dialed = world.internet.dialed.lock().clone();
    assert!(dialed.iter().all(|address| address.ip().to_string().starts_with("1.0.0.")), "{dialed:?}");
}

#[tokio::test]
async fn a_redirect_does_not_lead_inside() {
    let world = World::new();
    world.address("inside.test", &["10.0.0.1"]);
    world.address("a.test", &["1.0.0.9"]);
    world.serve("10.0.0.1:443", certified("inside.test")).await;
    world.serve("127.0.0.1:443", certified("127.0.0.1")).await;
    for target in ["https://inside.test/x", "https://127.0.0.1/x", "https://0x7f.1/x", "https://[::1]/x"] {
        world.serve("1.0.0.9:443", certified("a.test").replying(move |_| redirect(target))).await;
        let fetcher = world.fetcher(AddressPolicy::new(vec![], vec![]));
        let url = "https://a.test/".parse().expect("a URL");
        let error = fetcher.get(&url, REDIRECTS, BUDGET).await.expect_err(target);
        assert!(refused_address(&error), "{target}: {error}");
    }
    assert!(world.seen().iter().all(|seen| seen.at == "1.0.0.9:443"));
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_a_look_at_it_is_still_refused() {
    let world = World::new();
    world.address("rebound.test", &["127.0.0.1"]);
    world.serve("127.0.0.1:99", certified("rebound.test")).await;
    world.serve("1.0.0.1:99", certified("rebound.test")).await;
    // The first answer is good. The second, for the connection that is opened when the first has been closed, is not.
    *world.internet.first_answers.lock() = vec!["1.0.0.1".parse().expect("an address")];
    assert_eq!(ask(&world.outbound(), "rebound.test:99").await, Ok(200));
    let error = ask(&world.outbound(), "rebound.test:99").await.expect_err("an address of this machine");
    assert!(refused_address(&error), "{error}");
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn one_refused_address_among_others_is_left_out() {
    let world = World::new();
    world.address("both.test", &["10.0.0.1", "1.0.0.1"]);
    world.serve("1.0.0.1:99", certified("both.test")).await;
    assert_eq!(ask(&world.outbound(), "both.test:99").await, Ok(200));
}

#[tokio::test]
async fn configured_ranges_open() {
    let world = World::new();
    world.serve("127.0.0.1:99", certified("127.0.0.1")).await;
    let allowed = AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("a range")], vec![]);
    let outbound = Outbound::new(world.env.clone(), ServerNames::new(&[], &[]), world.fetcher(allowed));
    assert_eq!(ask(&outbound, "127.0.0.1:99").await, Ok(200));
}

#[tokio::test]
async fn refused_names_are_not_even_looked_up() {
    let world = World::new();
    world.serve("1.0.0.1:8448", certified("1.0.0.1")).await;
    let fetcher = world.fetcher(AddressPolicy::new(vec![], vec![]));
    for names in [ServerNames::nobody(), ServerNames::new(&[], &["1.0.*".into()])] {
        let outbound = Outbound::new(world.env.clone(), names, fetcher.clone());
        let refusal = Refusal::Server(server_name!("1.0.0.1").to_owned());
        assert_eq!(ask(&outbound, "1.0.0.1").await, Err(refusal.into()));
        assert!(!outbound.permits(server_name!("1.0.0.1")));
    }
    assert!(world.internet.dialed.lock().is_empty());
}

async fn refused_certificate(setup: Setup) -> String {
    let world = World::new();
    world.address("a.test", &["1.0.0.1"]);
    world.serve("1.0.0.1:99", setup).await;
    let error = ask(&world.outbound(), "a.test:99").await.expect_err("a bad certificate");
    assert!(world.seen().is_empty(), "it was sent nevertheless");
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn bad_certificates_are_refused_and_named() {
    for (setup, reason) in [
        (certified("b.test"), "the certificate belongs to another name"),
        (Setup { expired: true, ..certified("a.test") }, "the certificate has expired"),
        (
            Setup { trusted: false, ..certified("a.test") },
            "the certificate is signed by an authority that is not trusted",
        ),
    ] {
        assert_eq!(refused_certificate(setup).await, format!("TLS with a.test: {reason}"));
    }
}

#[tokio::test]
async fn certificates_are_not_checked_where_that_is_configured() {
    let world = World::new();
    world.address("a.test", &["1.0.0.1"]);
    world.serve("1.0.0.1:99", Setup { trusted: false, expired: true, ..certified("b.test") }).await;
    let options = Options {
        addresses: AddressPolicy::new(vec![], vec![]),
        trust: Trust::unverified(),
        connections_max: 8,
    };
    let names = ServerNames::new(&[], &[]);
    let outbound = Outbound::new(world.env.clone(), names, world.fetcher_with(options));
    assert_eq!(ask(&outbound, "a.test:99").await, Ok(200));
}

#[tokio::test]
async fn plain_http_is_fetched_only_where_it_is_allowed() {
    let world = World::new();
    let fetcher = world.fetcher(AddressPolicy::new(vec![], vec![]));
    for url in ["http://1.0.0.1/", "ftp://1.0.0.1/", "file:///etc/passwd"] {
        let error = fetcher.get(&url.parse().expect("a URL"), REDIRECTS, BUDGET).await.expect_err(url);
        assert!(matches!(error, Error::Refused(Refusal::Scheme(_))), "{error}");
    }
    assert!(world.internet.dialed.lock().is_empty());
}
