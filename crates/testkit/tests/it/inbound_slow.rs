//! What other servers send while something takes long: the disk, a policy server, the keys of somebody, whoever has what
//! lacks. It harms nothing else.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{join, join_all};
use http::{Method, StatusCode};
use myelin_dag::{Pdu, SigningKey};
use myelin_store::tables::{INBOUND_PDUS, VerdictRecord};
use myelin_testkit::{
    client::Client,
    env::Sim,
    faults::Faults,
    network::Network,
    puppet::{Puppet, json_of, state_of},
    server::Server,
};
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use serde_json::{Value, json};

use crate::inbound::{Stage, accepted, after, event};

const SIGN: &str = "/_matrix/policy/v1/sign";
const MISSING: &str = "/_matrix/federation/v1/get_missing";
const STATE: &str = "/_matrix/federation/v1/state";

/// A stage on which time passes.
fn stage() -> Stage {
    let sim = Sim::new(1);
    let network = Network::new(&sim);
    Stage::in_network(&sim, &network)
}

fn slow(stage: &Stage, server: &str, seconds: u64) {
    let slow = BTreeMap::from([(server.try_into().unwrap(), Duration::from_secs(seconds))]);
    stage.puppet.network().set_faults(Faults { slow, ..Faults::default() });
}

/// The room gets a policy server.
fn policy_server(stage: &Stage) -> Puppet {
    let policy = Puppet::connect(stage.puppet.network(), "policy.test");
    let user = policy.user("guard");
    let join = event(user.as_str(), "m.room.member", Some(user.as_str()), &json!({ "membership": "join" }));
    let join = stage.run(policy.makes_next(&stage.home.view, &stage.room, join));
    assert_eq!(stage.run(policy.sends(&stage.name, &[&join])).json, accepted(&[&join]));
    let key = SigningKey::from_seed("policy_server", [5; 32]).unwrap();
    let content = json!({ "via": "policy.test", "public_keys": { "ed25519": key.public_key_base64() } });
    stage.sets("m.room.policy", "", &content);
    policy
}

/// Another room of Alice with Bob in it.
fn other_room(stage: &Stage) -> OwnedRoomId {
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let room = stage.run(stage.alice.post(&stage.home, "/_matrix/client/v3/createRoom", &body)).ok();
    let room: OwnedRoomId = room["room_id"].as_str().unwrap().try_into().unwrap();
    let bob = "@bob:remote.test";
    let join = event(bob, "m.room.member", Some(bob), &json!({ "membership": "join" }));
    let join = stage.run(stage.puppet.makes_next(&stage.home.view, &room, join));
    assert_eq!(stage.sends(&[&join]), accepted(&[&join]));
    room
}

fn message(stage: &Stage, room: &RoomId, body: &str) -> Pdu {
    let message = event("@bob:remote.test", "m.room.message", None, &json!({ "body": body }));
    stage.run(stage.puppet.makes_next(&stage.home.view, room, message))
}

fn letter(stage: &Stage, words: &str) -> Value {
    let messages = json!({ stage.alice.user_id.as_str(): { "*": { "words": words } } });
    let content = json!({
        "sender": "@bob:remote.test", "type": "m.test", "message_id": words, "messages": messages,
    });
    json!({ "edu_type": "m.direct_to_device", "content": content })
}

fn queued(stage: &Stage) -> usize {
    stage.run(stage.home.view.store.read().all(&INBOUND_PDUS, 2_000)).unwrap().len()
}

/// What the future is worth, and the simulated milliseconds that it takes.
fn timed<F: Future>(stage: &Stage, future: F) -> (F::Output, u64) {
    let env = stage.home.sim.env();
    let began_ms = env.now_ms();
    let output = stage.home.sim.block_on(future);
    (output, env.now_ms() - began_ms)
}

fn shown_in(stage: &Stage, room: &RoomId, pdu: &Pdu) -> bool {
    stage.run(stage.home.truth(room.as_str())).contains(&pdu.event_id.to_string())
}

#[test]
fn what_is_acknowledged_while_its_room_is_worked_on_comes() {
    let stage = Stage::new();
    let line = stage.line(4);
    stage.puppet.says(MISSING, StatusCode::BAD_GATEWAY, json!({}));
    stage.puppet.says(STATE, StatusCode::BAD_GATEWAY, json!({}));
    assert_eq!(stage.sends(&[&line[1]]), accepted(&[&line[1]]));
    // It is tried again after 30 seconds; by then the other one is not on the disk yet.
    stage.passes(Duration::from_secs(29));
    stage.home.stalls_disk(true);
    let meanwhile = async {
        stage.home.sim.env().clock.sleep(Duration::from_secs(5)).await;
        stage.home.stalls_disk(false);
    };
    let (reply, ()) = stage.run(join(stage.puppet.sends(&stage.name, &[&line[3]]), meanwhile));
    assert_eq!(reply.json, accepted(&[&line[3]]));
    assert_eq!(queued(&stage), 2, "what was acknowledged is durable");
    stage.puppet.tells_the_truth();
    stage.passes(Duration::from_secs(300));
    assert!(line.iter().all(|pdu| stage.shows(pdu)), "{:?}", stage.puppet.asked());
    assert_eq!(queued(&stage), 0);
}

#[test]
fn a_policy_server_that_hangs_holds_up_its_room_only() {
    let stage = stage();
    let other = other_room(&stage);
    policy_server(&stage);
    slow(&stage, "policy.test", 3_600);
    let pdus = json!([json_of(&message(&stage, &stage.room, "one"))]);
    let sending = stage.puppet.sends_transaction(&stage.name, pdus, json!([letter(&stage, "first")]));
    let mut alice = Client::clone(&stage.alice);
    let reading = async {
        stage.home.sim.env().clock.sleep(Duration::from_secs(1)).await;
        alice.sync(&stage.home, 10, 0).await;
        alice.letters.clone()
    };
    let ((reply, letters), took_ms) = timed(&stage, join(sending, reading));
    assert_eq!((reply.status, took_ms <= 10_000), (StatusCode::OK, true), "after {took_ms} ms");
    assert_eq!(letters, ["first"], "messages to devices do not wait for rooms");

    let (held_up, quick) = (message(&stage, &stage.room, "two"), message(&stage, &other, "three"));
    let pdus = json!([json_of(&held_up), json_of(&quick)]);
    let sending = stage.puppet.sends_transaction(&stage.name, pdus, json!([letter(&stage, "second")]));
    let (reply, took_ms) = timed(&stage, sending);
    assert_eq!(reply.json, accepted(&[&held_up, &quick]));
    assert!(took_ms < 1_000, "{took_ms} ms");
    assert!(shown_in(&stage, &other, &quick));
    stage.run(alice.sync(&stage.home, 10, 0));
    assert_eq!(alice.letters, ["first", "second"]);
    stage.passes(Duration::from_secs(60));
    assert!(matches!(stage.verdict(&held_up.event_id), Some(VerdictRecord::SoftFailed { .. })));
    assert_eq!(queued(&stage), 0);
}

#[test]
fn a_policy_server_that_is_dead_is_not_waited_for_event_by_event() {
    let stage = stage();
    let policy = policy_server(&stage);
    slow(&stage, "policy.test", 3_600);
    let line = stage.line(40);
    let pdus: Vec<_> = line.iter().collect();
    assert_eq!(stage.sends(&pdus), accepted(&pdus));
    stage.passes(Duration::from_secs(60));
    let soft_failed =
        |pdu: &Pdu| matches!(stage.verdict(&pdu.event_id), Some(VerdictRecord::SoftFailed { .. }));
    assert!(line.iter().all(soft_failed));
    // Once it answers again it is asked again.
    slow(&stage, "policy.test", 0);
    policy.says(SIGN, StatusCode::BAD_REQUEST, json!({ "errcode": "M_FORBIDDEN", "error": "Spam." }));
    stage.passes(Duration::from_secs(60));
    let [last] = stage.line(1).try_into().unwrap();
    stage.sends(&[&last]);
    stage.passes(Duration::from_secs(1));
    let Some(VerdictRecord::SoftFailed { reason }) = stage.verdict(&last.event_id) else { panic!("let in") };
    assert!(reason.contains("Spam."), "{reason}");
}

#[test]
fn a_policy_server_is_asked_once_for_each_event_of_a_gap() {
    let stage = Stage::new();
    let policy = policy_server(&stage);
    policy.says(SIGN, StatusCode::BAD_REQUEST, json!({ "errcode": "M_FORBIDDEN", "error": "Spam." }));
    let line = stage.line(5);
    stage.sends(&[&line[4]]);
    stage.passes(Duration::from_secs(1));
    assert!(line.iter().all(|pdu| stage.verdict(&pdu.event_id).is_some()));
    assert_eq!(policy.asked().iter().filter(|asked| asked.contains(SIGN)).count(), line.len());
}

/// One event may be more than it can take.
#[test]
fn a_policy_server_that_fails_at_one_event_is_asked_about_the_next() {
    let stage = stage();
    let policy = policy_server(&stage);
    let spam = |stage: &Stage, pdu: &Pdu| match stage.verdict(&pdu.event_id) {
        Some(VerdictRecord::SoftFailed { reason }) => reason.contains("Spam."),
        _ => false,
    };
    let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "Spam." });
    let line = stage.line(22);
    policy.says(SIGN, StatusCode::INTERNAL_SERVER_ERROR, json!({}));
    stage.sends(&[&line[0]]);
    policy.says(SIGN, StatusCode::BAD_REQUEST, refusal);
    stage.sends(&[&line[1]]);
    assert!(spam(&stage, &line[1]), "after an error");
    slow(&stage, "policy.test", 3_600);
    stage.sends(&[&line[2]]);
    slow(&stage, "policy.test", 0);
    stage.sends(&[&line[3]]);
    stage.passes(Duration::from_secs(1));
    assert!(spam(&stage, &line[3]), "after silence");
    // It is spared for a while, but what comes meanwhile is not lost by that.
    slow(&stage, "policy.test", 3_600);
    stage.sends(&line[4..13].iter().collect::<Vec<_>>());
    slow(&stage, "policy.test", 0);
    stage.sends(&line[13..].iter().collect::<Vec<_>>());
    stage.passes(Duration::from_secs(180));
    assert!(line[13..].iter().all(|pdu| spam(&stage, pdu)), "after much silence");
    assert_eq!(queued(&stage), 0);
}

/// Bob's server brings something that is signed by a server whose keys nobody hands out.
#[test]
fn keys_that_do_not_come_hold_up_no_answer() {
    let stage = stage();
    let dead = Puppet::connect(stage.puppet.network(), "dead.test");
    let keyless: OwnedServerName = "dead.test".try_into().unwrap();
    let faults = Faults { keyless: [keyless].into(), ..Faults::default() };
    stage.puppet.network().set_faults(faults);
    let carol = dead.user("carol");
    let join = event(carol.as_str(), "m.room.member", Some(carol.as_str()), &json!({ "membership": "join" }));
    let join = stage.run(dead.makes_next(&stage.home.view, &stage.room, join));
    let [first, second] = stage.line(2).try_into().unwrap();
    let (reply, took_ms) = timed(&stage, stage.puppet.sends(&stage.name, &[&join, &first]));
    assert_eq!(reply.json, accepted(&[&join, &first]));
    assert!(took_ms < 1_000 && stage.shows(&first), "{took_ms} ms");
    let (reply, took_ms) = timed(&stage, stage.puppet.sends(&stage.name, &[&second]));
    assert_eq!(reply.json, accepted(&[&second]));
    assert!(took_ms < 1_000 && stage.shows(&second), "{took_ms} ms");
    stage.passes(Duration::from_secs(120));
    assert_eq!(queued(&stage), 1, "the keys may still come");
}

#[test]
fn a_long_gap_is_brought_by_a_slow_server() {
    let stage = stage();
    let line = stage.line(320);
    let last = line.last().unwrap();
    line.iter().for_each(|pdu| stage.tells_puppet(pdu));
    slow(&stage, "remote.test", 9);
    assert_eq!(stage.sends(&[last]), accepted(&[last]));
    stage.passes(Duration::from_secs(130));
    assert!(stage.shows(last), "twenty at a time take longer than one attempt may");
    assert!(stage.shows(&line[250]) && !stage.shows(&line[50]), "the rest is left to backfill");
}

/// First the walk back is cut off, then the state has to be fetched event by event.
#[test]
fn an_attempt_that_takes_too_long_ends_and_is_made_again() {
    let stage = stage();
    let bob = "@bob:remote.test";
    let users = json!({ stage.alice.user_id.as_str(): 100, bob: 100 });
    stage.sets("m.room.power_levels", "", &json!({ "users": users }));
    let held: Vec<_> = stage.run(state_of(&stage.home.view, &stage.room));
    held.iter().for_each(|pdu| stage.puppet.knows(pdu));
    let mut state: Vec<_> = held.iter().map(|pdu| pdu.event_id.clone()).collect();
    let mut place = stage.end();
    for number in 0..50 {
        let fact = event(bob, "org.example.fact", Some(&number.to_string()), &json!({ "n": number }));
        let fact = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, fact, place));
        place = after(&fact);
        state.push(fact.event_id.clone());
    }
    let mut line = Vec::new();
    for number in 0..200 {
        let message = stage.message_at(&number.to_string(), place);
        place = after(&message);
        stage.puppet.knows_state(&message, state.clone());
        line.push(message);
    }
    let last = line.last().unwrap();
    slow(&stage, "remote.test", 9);
    assert_eq!(stage.sends(&[last]), accepted(&[last]));
    stage.passes(Duration::from_secs(115));
    // What comes meanwhile does not wait.
    let fine = message(&stage, &stage.room, "fine");
    assert_eq!(stage.sends(&[&fine]), accepted(&[&fine]));
    assert!(stage.shows(&fine) && !stage.shows(last));
    stage.passes(Duration::from_secs(10));
    slow(&stage, "remote.test", 0);
    stage.passes(Duration::from_secs(60));
    assert!(stage.shows(last));
    let path = format!("/_matrix/client/v3/rooms/{}/state/org.example.fact/49", stage.room);
    assert_eq!(stage.run(stage.alice.get(&stage.home, &path)).ok(), json!({ "n": 49 }));
}

#[test]
fn what_nobody_has_for_a_day_is_given_up() {
    let stage = Stage::new();
    let line = stage.line(2);
    stage.puppet.forgets(&line[0].event_id);
    stage.puppet.says(MISSING, StatusCode::BAD_GATEWAY, json!({}));
    stage.puppet.says(STATE, StatusCode::BAD_GATEWAY, json!({}));
    assert_eq!(stage.sends(&[&line[1]]), accepted(&[&line[1]]));
    stage.passes(Duration::from_secs(23 * 3_600));
    assert_eq!(queued(&stage), 1);
    stage.passes(Duration::from_secs(3 * 3_600));
    assert_eq!((queued(&stage), stage.home.federation.inbound.waiting()), (0, 0));
    let asked = stage.puppet.asked().len();
    stage.passes(Duration::from_secs(3 * 3_600));
    assert_eq!(stage.puppet.asked().len(), asked);
}

#[test]
fn a_transaction_is_known_after_a_restart() {
    let stage = Stage::new();
    let [message, other] = stage.line(2).try_into().unwrap();
    let uri = "/_matrix/federation/v1/send/same";
    let body = |pdu: &Pdu| json!({ "pdus": [json_of(pdu)], "edus": [] });
    let reply = stage.run(stage.puppet.requests(&stage.name, Method::PUT, uri, Some(&body(&message))));
    assert_eq!(reply.json, accepted(&[&message]));
    stage.passes(Duration::from_secs(3));
    let Stage { home, name, room, puppet, .. } = stage;
    let sim = home.sim.rebooted();
    let home = Server::start_in(puppet.network(), &name, &sim, home.crash());
    let reply = sim.block_on(puppet.requests(&name, Method::PUT, uri, Some(&body(&other))));
    assert_eq!(reply.json, accepted(&[&message]), "not looked at");
    assert!(!sim.block_on(home.truth(room.as_str())).contains(&other.event_id.to_string()));
    let uri = "/_matrix/federation/v1/send/next";
    let reply = sim.block_on(puppet.requests(&name, Method::PUT, uri, Some(&body(&other))));
    assert_eq!(reply.json, accepted(&[&other]));
}

#[test]
fn few_transactions_of_one_server_are_processed_at_the_same_time() {
    let stage = stage();
    policy_server(&stage);
    slow(&stage, "policy.test", 3_600);
    let pdus: Vec<_> = (0..5).map(|number| message(&stage, &stage.room, &number.to_string())).collect();
    let (puppet, name) = (&stage.puppet, &stage.name);
    let sending = pdus.iter().map(|pdu| async move { puppet.sends(name, &[pdu]).await });
    let mut replies = stage.run(join_all(sending));
    let refused = replies.pop().unwrap();
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.json["errcode"], "M_LIMIT_EXCEEDED");
    let again = stage.run(stage.puppet.sends(&stage.name, &[pdus.last().unwrap()]));
    assert_eq!(again.status, StatusCode::OK);
}
