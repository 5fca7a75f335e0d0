//! Rate limits, seen from outside.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::extract::ConnectInfo;
use http::Request;
use myelin_api::rate_limit::{Limit, RateLimits};

use crate::world::{Answer, World};

const VALIDITY: &str = "/_matrix/client/v1/register/m.login.registration_token/validity?token=x";

fn limited() -> World {
    World::with(|config| {
        config.trusted_proxies = vec![proxy()];
        config.rate_limits =
            RateLimits { registration_check: Limit { per_second: 0.1, burst: 2 }, ..RateLimits::default() };
    })
}

fn proxy() -> IpAddr {
    [10, 0, 0, 1].into()
}

fn ask(world: &World, peer: IpAddr, forwarded_for: &str) -> Answer {
    let request = Request::get(VALIDITY)
        .header("x-forwarded-for", forwarded_for)
        .extension(ConnectInfo(SocketAddr::from((peer, 40_000))));
    world.send(request.body("".into()).unwrap())
}

#[test]
fn too_many_requests_are_told_when_to_come_back() {
    let world = limited();
    let peer = [192, 0, 2, 1].into();
    for _ in 0..2 {
        assert_ne!(ask(&world, peer, "").status, 429);
    }
    let answer = ask(&world, peer, "");
    assert_eq!(answer.error(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(answer.headers["retry-after"], "10");
    assert_eq!(answer.json["retry_after_ms"], 10_000);
    world.sim.clock().advance(Duration::from_secs(10));
    assert_ne!(ask(&world, peer, "").status, 429);
}

#[test]
fn reading_is_limited_by_user_and_not_for_administrators() {
    let world = World::with(|config| {
        config.rate_limits =
            RateLimits { read: Limit { per_second: 1.0, burst: 2 }, ..RateLimits::default() };
    });
    let (alice, bob, admin) = (world.user("alice"), world.user("bob"), world.admin("root"));
    let statuses = |token: &str| {
        [(); 3].map(|()| world.get("/_matrix/client/v3/account/whoami", Some(token)).status.as_u16())
    };
    assert_eq!(statuses(&alice), [200, 200, 429]);
    assert_eq!(statuses(&bob), [200, 200, 429]);
    assert_eq!(statuses(&admin), [200, 200, 200]);
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart_and_others_are_not() {
    let world = limited();
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_ne!(ask(&world, proxy(), client).status, 429);
    }
    let forger = [198, 51, 100, 1].into();
    let statuses: Vec<_> =
        ["192.0.2.4", "192.0.2.5", "192.0.2.6"].map(|c| ask(&world, forger, c).status == 429).into();
    assert_eq!(statuses, [false, false, true]);
}
