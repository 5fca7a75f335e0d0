//! Requests on connections: kept, bounded, given up.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Version};
use ruma::server_name;

use super::{
    discovery::{ask, version},
    world::{BUDGET, Reply, Setup, World, certified, redirect, reply},
};
use crate::{AddressPolicy, Budget, Error, Options, Outbound, ServerNames, Step, Trust};

#[tokio::test]
async fn a_connection_is_used_again_until_it_has_been_idle_for_long() {
    for http2 in [false, true] {
        let world = World::new();
        world.serve("1.0.0.1:8448", Setup { http2, ..certified("1.0.0.1") }).await;
        let outbound = world.outbound();
        for _ in 0..3 {
            assert_eq!(ask(&outbound, "1.0.0.1").await, Ok(200));
        }
        assert_eq!(world.internet.dialed.lock().len(), 1);
        world.clock.advance(Duration::from_secs(61));
        assert_eq!(ask(&outbound, "1.0.0.1").await, Ok(200));
        assert_eq!(world.internet.dialed.lock().len(), 2);
        let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let seen = world.seen();
        assert!(seen.iter().all(|seen| seen.version == version && seen.host == "1.0.0.1"), "{seen:?}");
    }
}

#[tokio::test]
async fn two_names_at_one_address_do_not_share_a_connection() {
    let world = World::new();
    world.address("a.test", &["1.0.0.1"]);
    world.address("b.test", &["1.0.0.1"]);
    let both = Setup { names: vec!["a.test".into(), "b.test".into()], http2: true, ..certified("a.test") };
    world.serve("1.0.0.1:99", both).await;
    let outbound = world.outbound();
    for server in ["a.test:99", "b.test:99", "a.test:99"] {
        assert_eq!(ask(&outbound, server).await, Ok(200));
    }
    let seen = world.seen();
    let sni: Vec<_> = seen.iter().map(|seen| seen.sni.as_deref().unwrap_or_default()).collect();
    assert_eq!(sni, ["a.test", "b.test", "a.test"]);
    assert_eq!(world.internet.dialed.lock().len(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_ended_is_replaced() {
    for http2 in [false, true] {
        let world = World::new();
        let closing = |_: &str| Reply { headers: vec![("connection", "close".into())], ..reply(200, "{}") };
        let setup = Setup { http2, ..certified("1.0.0.1") };
        world.serve("1.0.0.1:8448", if http2 { setup } else { setup.replying(closing) }).await;
        let outbound = world.outbound();
        for _ in 0..5 {
            assert_eq!(ask(&outbound, "1.0.0.1").await, Ok(200));
        }
    }
}

#[tokio::test]
async fn open_connections_are_bounded_and_idle_ones_make_room() {
    let world = World::new();
    for n in 1..=5 {
        world.serve(&format!("1.0.0.{n}:8448"), certified(&format!("1.0.0.{n}"))).await;
    }
    let options = Options {
        addresses: AddressPolicy::new(vec![], vec![]),
        trust: Trust::only(vec![world.authority.der().clone()]),
        connections_max: 2,
    };
    let fetcher = world.fetcher_with(options);
    let outbound = Outbound::new(world.env.clone(), ServerNames::new(&[], &[]), fetcher);
    for n in 1..=5 {
        assert_eq!(ask(&outbound, &format!("1.0.0.{n}")).await, Ok(200));
    }
    assert_eq!(world.internet.dialed.lock().len(), 5);
}

#[tokio::test]
async fn answers_and_bodies_pass_through_unchanged() {
    for http2 in [false, true] {
        let world = World::new();
        let echo = |path: &str| Reply {
            headers: vec![("content-type", "application/json".into())],
            ..reply(403, path.to_owned())
        };
        world.serve("1.0.0.1:8448", Setup { http2, ..certified("1.0.0.1") }.replying(echo)).await;
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/_matrix/federation/v1/send/%2F?a=%20b")
            .header("authorization", "X-Matrix origin=a")
            .body(Bytes::from_static(b"{}"))
            .expect("a request");
        let answer = world.outbound().send(server_name!("1.0.0.1"), request, BUDGET).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.body().as_ref(), b"/_matrix/federation/v1/send/%2F?a=%20b");
    }
}

#[tokio::test]
async fn redirects_of_requests_to_servers_are_answers() {
    let world = World::new();
    world.serve("1.0.0.1:8448", certified("1.0.0.1").replying(|_| redirect("https://1.0.0.2/"))).await;
    assert_eq!(ask(&world.outbound(), "1.0.0.1").await, Ok(302));
    assert_eq!(world.internet.dialed.lock().len(), 1);
}

#[tokio::test]
async fn large_answers_are_cut_off_whether_announced_or_not() {
    for stalls in [false, true] {
        let world = World::new();
        // One that is too large already is not waited for.
        let large = move |_: &str| Reply { stalls, ..reply(200, vec![b' '; BUDGET.body_size_max + 1]) };
        world.serve("1.0.0.1:8448", certified("1.0.0.1").replying(large)).await;
        assert_eq!(ask(&world.outbound(), "1.0.0.1").await, Err(Error::TooLarge(BUDGET.body_size_max)));
    }
    let world = World::new();
    let exact = |_: &str| Reply {
        headers: vec![("content-length", BUDGET.body_size_max.to_string())],
        ..reply(200, vec![b' '; BUDGET.body_size_max])
    };
    world.serve("1.0.0.1:8448", certified("1.0.0.1").replying(exact)).await;
    assert_eq!(ask(&world.outbound(), "1.0.0.1").await, Ok(200));
}

async fn ask_while_time_passes(world: &World, passes: Duration, budget: Budget) -> Result<(), Error> {
    let outbound = world.outbound();
    let asking = outbound.send(server_name!("1.0.0.1"), version(), budget);
    let passing = async {
        world.until(|seen| !seen.is_empty()).await;
        // The answer's head and first bytes are on their way.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(passes);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = asking => answer.map(drop),
        () = passing => Ok(()),
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_after_a_while_and_everything_at_the_end_of_its_time() {
    for (passes, timeout) in [(40, 60), (10, 10)] {
        let world = World::new();
        let stalling = |_: &str| Reply { stalls: true, ..reply(200, "{") };
        world.serve("1.0.0.1:8448", certified("1.0.0.1").replying(stalling)).await;
        let budget = Budget { timeout: Duration::from_secs(timeout), ..BUDGET };
        let outcome = ask_while_time_passes(&world, Duration::from_secs(passes), budget).await;
        assert!(matches!(outcome, Err(Error::TimedOut { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn who_does_not_listen_is_unreachable_and_the_message_says_where() {
    let world = World::new();
    world.address("a.test", &["1.0.0.1"]);
    let error = ask(&world.outbound(), "a.test:99").await.expect_err("nobody is there");
    assert_eq!(error.to_string(), "connecting to a.test:99 (1.0.0.1): connection refused");
    let error = ask(&world.outbound(), "b.test:99").await.expect_err("no such name");
    assert_eq!(error, Error::unreachable(Step::Resolve, "b.test has no addresses"));
}
