//! What becomes of a wish when servers do not help: the next one is asked, as long as that may be of use, and who wishes
//! is told what says most.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use myelin_testkit::client::percent;
use serde_json::{Value, json};

use super::{Net, gate::Deed, refused};

const AGES: Duration = Duration::from_secs(600);

fn only(part: &'static str, deed: Deed) -> impl Fn(&str) -> Deed + Clone {
    move |path| if path.contains(part) { deed.clone() } else { Deed::Pass }
}

#[test]
fn the_next_server_is_asked_when_one_does_not_help() {
    let say = |status: u16, answer: Value| Deed::Say(StatusCode::from_u16(status).unwrap(), answer);
    for deed in [
        Deed::Wait(AGES),
        say(404, json!({ "errcode": "M_NOT_FOUND", "error": "This server has left." })),
        say(429, json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Not now." })),
        say(400, json!({ "errcode": "M_UNABLE_TO_GRANT_JOIN", "error": "Nobody here may." })),
        say(502, json!("<html>")),
        say(200, json!("<html>")),
    ] {
        let net = Net::in_time(3);
        let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
        let room = net.public_room(0, &ann, "11");
        net.join(1, &bob, &room, "a.test").ok();
        let asked = net.gate(0, only("make_join", deed.clone()));
        net.join_via(2, &cat, &room, &["a.test", "b.test"]).ok();
        assert_eq!(asked.count("make_join"), 1, "{deed:?}");
        assert_eq!(net.state(1, &room), net.state(2, &room), "{deed:?}");
    }
}

/// `a.test` has let Cat in, and nobody hears of it.
#[test]
fn an_answer_that_was_lost_is_no_loss() {
    let net = Net::in_time(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = net.public_room(0, &ann, "11");
    net.join(1, &bob, &room, "a.test").ok();
    net.gate(0, only("send_join", Deed::Answer(AGES)));
    let join = || net.join_via(2, &cat, &room, &["a.test", "b.test"]);
    refused(&join(), StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN");
    assert!(net.members(0, &room).contains(&cat.user_id));
    join().ok();
    net.pass(30);
    let states = [0, 1, 2].map(|at| net.state(at, &room));
    assert!(states.iter().all(|state| *state == states[0]));
}

#[test]
fn a_join_that_takes_long_goes_on() {
    let net = Net::in_time(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "12");
    let asked = net.gate(0, only("send_join", Deed::Wait(Duration::from_secs(170))));
    refused(&net.join(1, &bob, &room, "a.test"), StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN");
    net.join(1, &bob, &room, "a.test").ok();
    assert_eq!(asked.count("make_join"), 1);
}

#[test]
fn what_the_room_refuses_is_asked_of_nobody_else() {
    let net = Net::in_time(3);
    let (ann, bob, cat) = (net.user(0, "ann"), net.user(1, "bob"), net.user(2, "cat"));
    let room = net.public_room(0, &ann, "11");
    net.join(1, &bob, &room, "a.test").ok();
    net.act(0, &ann, &room, "ban", json!({ "user_id": cat.user_id })).ok();
    let silent = net.gate(1, |_| Deed::Wait(AGES));
    let banned = |via: &[&str]| {
        let answer = net.join_via(2, &cat, &room, via);
        refused(&answer, StatusCode::FORBIDDEN, "M_FORBIDDEN");
    };
    let took_ms = net.takes_ms(|| banned(&["a.test", "b.test"]));
    assert!(took_ms < 5_000 && silent.count("make_join") == 0, "{took_ms}");
    let took_ms = net.takes_ms(|| banned(&["b.test", "a.test"]));
    assert!(took_ms < 30_000 && silent.count("make_join") == 1, "{took_ms}");
}

#[test]
fn an_answer_is_told_in_preference_to_a_silence() {
    let net = Net::new(2);
    let (_, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let join = || net.join_via(1, &bob, "!none", &["dead.test", "a.test"]);
    refused(&join(), StatusCode::NOT_FOUND, "M_NOT_FOUND");
    net.gate(0, only("make_join", Deed::Say(StatusCode::NOT_FOUND, json!("<html>"))));
    refused(&join(), StatusCode::BAD_GATEWAY, "M_UNKNOWN");
    assert_eq!(join().json["error"], "a.test answers: 404 Not Found");
}

#[test]
fn who_rejects_an_invite_does_not_wait_for_a_join_that_hangs() {
    let net = Net::in_time(2);
    let (ann, mut bob, ben) = (net.user(0, "ann"), net.user(1, "bob"), net.user(1, "ben"));
    let room = net.create(0, &ann, json!({ "invite": [bob.user_id, ben.user_id] }));
    net.gate(0, only("send_join", Deed::Wait(Duration::from_secs(100))));
    for user in [&bob, &ben] {
        let path = format!("/_matrix/client/v3/join/{}?via=a.test", percent(&room));
        net.hangs_up(1, user, &path, &json!({}));
    }
    let took_ms = net.takes_ms(|| drop(net.act(1, &bob, &room, "leave", json!({})).ok()));
    assert!(took_ms < 5_000, "{took_ms}");
    net.pass(300);
    assert_eq!(net.membership(0, &ann, &room, &bob), "leave");
    assert_eq!(net.membership(0, &ann, &room, &ben), "join");
    let answer = net.sync(1, &mut bob);
    assert!(answer["rooms"].get("join").is_none() && answer["rooms"].get("invite").is_none(), "{answer}");
}

#[test]
fn who_rejects_an_invite_does_not_wait_for_many_silent_servers() {
    let net = Net::in_time(4);
    let (ann, cat, dan) = (net.user(0, "ann"), net.user(2, "cat"), net.user(3, "dan"));
    let bob = net.user(1, "bob");
    let room = net.public_room(0, &ann, "11");
    for (at, user) in [(2, &cat), (3, &dan)] {
        net.join(at, user, &room, "a.test").ok();
    }
    // From an earlier stay the servers in the room are known.
    net.join(1, &bob, &room, "a.test").ok();
    net.act(1, &bob, &room, "leave", json!({})).ok();
    net.act(0, &ann, &room, "invite", json!({ "user_id": bob.user_id })).ok();
    for at in [0, 2, 3] {
        net.gate(at, |_| Deed::Wait(AGES));
    }
    let took_ms = net.takes_ms(|| drop(net.act(1, &bob, &room, "leave", json!({})).ok()));
    assert!(took_ms < 35_000, "{took_ms}");
}

/// Bob's server is in the room, but only Ann may let somebody in. Where her server's events do not reach Bob's, what it
/// has signed counts all the same.
#[test]
fn who_is_let_in_by_another_server_is_in_at_once() {
    for cut in [false, true] {
        let net = Net::in_time(2);
        let (ann, bob, ben) = (net.user(0, "ann"), net.user(1, "bob"), net.user(1, "ben"));
        let club = net.public_room(0, &ann, "11");
        let rules =
            json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
        let body = json!({
            "room_version": "11",
            "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": rules }],
            "power_level_content_override": { "invite": 50 },
        });
        let room = net.create(0, &ann, body);
        for (user, room) in [(&bob, &club), (&ben, &club), (&bob, &room)] {
            net.join(1, user, room, "a.test").ok();
        }
        net.pass(5);
        if cut {
            net.gate(1, only("/v1/send/", Deed::refuse()));
            net.set(0, &ann, &room, "m.room.topic", json!({ "topic": "unheard" })).ok();
        }
        let took_ms = net.takes_ms(|| drop(net.join(1, &ben, &room, "a.test").ok()));
        assert!(took_ms < 10_000, "{took_ms}");
        assert_eq!(net.state(0, &room), net.state(1, &room));
    }
}

/// A defect in this server is no reason to refuse the same for ever.
#[test]
fn a_join_that_panicked_is_begun_anew() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "12");
    let panicked = Arc::new(AtomicBool::new(false));
    net.gate(0, move |path| {
        let first = path.contains("make_join") && !panicked.swap(true, Ordering::Relaxed);
        assert!(!first, "on purpose");
        Deed::Pass
    });
    assert!(catch_unwind(AssertUnwindSafe(|| net.join(1, &bob, &room, "a.test"))).is_err());
    net.join(1, &bob, &room, "a.test").ok();
}
