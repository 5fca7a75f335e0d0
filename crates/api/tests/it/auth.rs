//! Who may make a request.

use http::{Method, Request};
use myelin_users::DeviceRequest;
use ruma::{UserId, user_id};

use crate::world::World;

const CAPABILITIES: &str = "/_matrix/client/v3/capabilities";

#[test]
fn tokens_missing_and_unknown() {
    let world = World::new();
    assert_eq!(world.get(CAPABILITIES, None).error(), (401, "M_MISSING_TOKEN"));
    let answer = world.get(CAPABILITIES, Some("nonsense"));
    assert_eq!(answer.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(answer.json["soft_logout"], false);
    for header in ["Basic YTpi", "Bearer", "\u{e9}"] {
        let request = Request::get(CAPABILITIES).header("authorization", header.as_bytes());
        assert_eq!(
            world.send(request.body("".into()).unwrap()).error(),
            (401, "M_MISSING_TOKEN"),
            "{header}"
        );
    }
}

#[test]
fn a_token_that_does_not_exist_fails_even_where_none_is_needed() {
    let world = World::new();
    world.get("/_matrix/client/versions", None).ok();
    let answer = world.get("/_matrix/client/versions", Some("nonsense"));
    assert_eq!(answer.error(), (401, "M_UNKNOWN_TOKEN"));
}

#[test]
fn a_token_in_the_query_string_is_a_switch() {
    let path = |token: &str| format!("{CAPABILITIES}?x=1&access_token={token}");
    let world = World::new();
    let token = world.user("alice");
    world.get(&path(&token), None).ok();
    assert_eq!(world.get(&path("nonsense"), Some(&token)).status, 200, "the header wins");

    let world = World::with(|config| config.query_access_tokens = false);
    let token = world.user("alice");
    assert_eq!(world.get(&path(&token), None).error(), (401, "M_MISSING_TOKEN"));
}

#[test]
fn an_expired_token_is_a_soft_logout() {
    let world = World::with_users(|config| config.access_token_lifetime_ms = Some(60_000));
    let token = world.user("alice");
    world.get(CAPABILITIES, Some(&token)).ok();
    world.sim.clock().advance(std::time::Duration::from_secs(60));
    let answer = world.get(CAPABILITIES, Some(&token));
    assert_eq!(answer.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(answer.json["soft_logout"], true);
}

#[test]
fn locked_accounts_may_only_log_out() {
    let world = World::new();
    let token = world.user("alice");
    world.lock(user_id!("@alice:localhost"), true);
    let answer = world.get(CAPABILITIES, Some(&token));
    assert_eq!(answer.error(), (401, "M_USER_LOCKED"));
    assert_eq!(answer.json["soft_logout"], true);
    world.lock(user_id!("@alice:localhost"), false);
    world.get(CAPABILITIES, Some(&token)).ok();
    world.lock(user_id!("@alice:localhost"), true);
    world.request(Method::POST, "/_matrix/client/v3/logout", Some(&token), "").ok();
}

#[test]
fn guests_may_do_what_is_listed_for_them() {
    let world = World::with_users(|config| config.guests = true);
    let guest = world.sim.block_on(world.users.register_guest(DeviceRequest::default())).unwrap();
    let token = guest.grant.unwrap().access_token;
    assert_eq!(world.get(CAPABILITIES, Some(&token)).error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    world.get("/_matrix/client/v3/sync?timeout=0", Some(&token)).ok();
}

#[test]
fn administration_is_for_administrators() {
    let world = World::new();
    let (alice, admin) = (world.user("alice"), world.admin("root"));
    world.user("bob");
    for path in
        ["/_matrix/client/v1/admin/lock/@bob:localhost", "/_matrix/client/v1/admin/suspend/@bob:localhost"]
    {
        assert_eq!(world.get(path, Some(&alice)).error(), (403, "M_FORBIDDEN"));
        assert_eq!(world.get(path, None).error(), (401, "M_MISSING_TOKEN"));
        world.get(path, Some(&admin)).ok();
    }
}

impl World {
    fn lock(&self, user_id: &UserId, locked: bool) {
        self.sim.block_on(async {
            let account = self.users.account(user_id).await.unwrap().unwrap();
            assert!(self.users.set_locked(account.user, locked).await.unwrap());
        });
    }
}
