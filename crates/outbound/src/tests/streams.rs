//! Bodies as they come: the head does not wait for them, and the limits hold on the way.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use ruma::server_name;

use super::{
    discovery::version,
    world::{BUDGET, Reply, Setup, World, certified, redirect, reply},
};
use crate::{AddressPolicy, Body, Budget, Error, Landed, Outbound, Redirects, Refusal, Step};

async fn open(outbound: &Outbound, budget: Budget) -> Result<Response<Body>, Error> {
    outbound.open(server_name!("1.0.0.1"), version(), budget).await
}

fn stalling(size: usize) -> impl Fn(&str) -> Reply + Send + Sync + 'static {
    move |_| Reply { stalls: true, ..reply(200, vec![b'x'; size]) }
}

#[tokio::test]
async fn the_head_and_the_first_bytes_do_not_wait_for_the_end() {
    for http2 in [false, true] {
        let world = World::new();
        world.serve("1.0.0.1:8448", Setup { http2, ..certified("1.0.0.1").replying(stalling(10)) }).await;
        let answer = open(&world.outbound(), BUDGET).await.expect("a head");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().piece().await, Ok(Some(Bytes::from_static(&[b'x'; 10]))));
    }
}

#[tokio::test]
async fn a_connection_is_kept_once_the_body_has_been_read_and_not_before() {
    for (to_the_end, connections) in [(true, 1), (false, 2)] {
        let world = World::new();
        world.serve("1.0.0.1:8448", certified("1.0.0.1")).await;
        let outbound = world.outbound();
        for _ in 0..2 {
            let answer = open(&outbound, BUDGET).await.expect("a head");
            if to_the_end {
                assert_eq!(answer.into_body().collect().await.as_deref(), Ok(b"{}".as_slice()));
            }
        }
        assert_eq!(world.internet.dialed.lock().len(), connections);
    }
}

#[tokio::test]
async fn the_size_is_bounded_on_the_way() {
    let world = World::new();
    world.serve("1.0.0.1:8448", certified("1.0.0.1").replying(stalling(BUDGET.body_size_max + 1))).await;
    let mut body = open(&world.outbound(), BUDGET).await.expect("a head").into_body();
    let mut read = 0;
    let end = loop {
        match body.piece().await {
            Ok(piece) => read += piece.map_or(0, |piece| piece.len()),
            Err(error) => break error,
        }
    };
    assert_eq!(end, Error::TooLarge(BUDGET.body_size_max));
    assert!(read <= BUDGET.body_size_max, "{read}");
}

#[tokio::test]
async fn a_body_ends_when_nothing_comes_or_its_time_is_over() {
    for (timeout, step) in [(60, Step::Body), (20, Step::Answer)] {
        let world = World::new();
        world.serve("1.0.0.1:8448", certified("1.0.0.1").replying(stalling(1))).await;
        let budget = Budget { timeout: Duration::from_secs(timeout), ..BUDGET };
        let mut body = open(&world.outbound(), budget).await.expect("a head").into_body();
        assert!(matches!(body.piece().await, Ok(Some(_))));
        let waiting = async {
            loop {
                world.clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        };
        let end = tokio::select! {
            end = body.piece() => end,
            () = waiting => Ok(None),
        };
        assert!(matches!(&end, Err(Error::TimedOut { step: at, .. }) if *at == step), "{end:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_under_the_same_guards_and_the_end_is_told() {
    let world = World::new();
    world.address("a.test", &["1.0.0.9"]);
    world.address("inside.test", &["10.0.0.1"]);
    let replies = |path: &str| match path {
        "/there" => redirect("/here#part"),
        "/inside" => redirect("https://inside.test/"),
        _ => reply(200, "here"),
    };
    world.serve("1.0.0.9:443", certified("a.test").replying(replies)).await;
    let fetcher = world.fetcher(AddressPolicy::new(vec![], vec![]));
    let fetch = async |url: &str| {
        let redirects = Redirects { follow_max: 3, plain_http: false };
        fetcher.open(&url.parse().expect("a URL"), Request::new(Bytes::new()), redirects, BUDGET).await
    };
    let answer = fetch("https://a.test/there").await.expect("an answer");
    let landed = answer.extensions().get::<Landed>().map(|landed| landed.0.to_string());
    assert_eq!(landed.as_deref(), Some("https://a.test/here#part"));
    assert_eq!(answer.into_body().collect().await.as_deref(), Ok(b"here".as_slice()));
    let refused = fetch("https://a.test/inside").await.map(drop);
    assert!(matches!(refused, Err(Error::Refused(Refusal::Address { .. }))), "{refused:?}");
}
