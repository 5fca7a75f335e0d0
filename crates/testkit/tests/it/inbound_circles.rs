//! Events that go in circles: in room versions 1 and 2 a server names its events, so it can make them. They count for
//! nothing, and the room goes on.

use std::time::Duration;

use myelin_dag::Pdu;
use myelin_store::tables::{INBOUND_PDUS, VerdictRecord};
use myelin_testkit::{
    env::Sim,
    network::Network,
    puppet::{Place, json_of},
};
use ruma::OwnedEventId;
use serde_json::{Value, json};

use super::inbound::{Stage, accepted, event};

const MISSING: &str = "/_matrix/federation/v1/get_missing_events";
/// After this nothing is tried again.
const DAY_AND_MORE: Duration = Duration::from_secs(30 * 60 * 60);

fn id(name: &str) -> OwnedEventId {
    format!("${name}:remote.test").try_into().unwrap()
}

fn stage(version: &str) -> Stage {
    Stage::with_version(version, &Sim::new(1), &Network::default())
}

/// A message of Bob with this name, after another one, authorised by what may be no authority.
fn message(stage: &Stage, name: &str, prev: OwnedEventId, depth: u64, besides: &[OwnedEventId]) -> Pdu {
    let said = event("@bob:remote.test", "m.room.message", None, &json!({ "body": name }));
    let place = Place { prev_events: vec![prev], depth };
    let name = id(name);
    stage.run(stage.puppet.makes_named(&stage.home.view, &stage.room, name.as_str(), said, place, besides))
}

/// Bob can still be heard, and nothing of the circle is shown or waited for.
#[track_caller]
fn goes_on(stage: &Stage, circle: &[&Pdu]) {
    let [next] = stage.line(1).try_into().unwrap();
    assert_eq!(stage.sends(&[&next]), accepted(&[&next]));
    assert!(stage.shows(&next), "the room goes on");
    assert!(circle.iter().all(|pdu| !stage.shows(pdu)));
    stage.passes(DAY_AND_MORE);
    let waiting = stage.run(stage.home.view.store.read().all(&INBOUND_PDUS, 10));
    assert!(waiting.unwrap().is_empty(), "nothing waits for ever");
    assert_eq!(stage.extremities(), 1);
}

#[test]
fn events_that_come_after_each_other() {
    for version in ["1", "2"] {
        let stage = stage(version);
        let depth = stage.end().depth;
        let one = message(&stage, "one", id("other"), depth, &[]);
        let other = message(&stage, "other", id("one"), depth + 1, &[]);
        let events: Vec<Value> = [&one, &other].map(json_of).to_vec();
        stage.puppet.says(MISSING, http::StatusCode::OK, json!({ "events": events }));
        stage.sends(&[&one, &other]);
        stage.passes(Duration::from_secs(200));
        goes_on(&stage, &[&one, &other]);
    }
}

#[test]
fn an_event_that_comes_after_itself() {
    let stage = stage("1");
    let one = message(&stage, "one", id("one"), stage.end().depth, &[]);
    stage.sends(&[&one]);
    stage.passes(Duration::from_secs(200));
    goes_on(&stage, &[&one]);
}

#[test]
fn events_that_authorise_each_other() {
    for version in ["1", "2"] {
        let stage = stage(version);
        let end = stage.end();
        let prev = end.prev_events[0].clone();
        let one = message(&stage, "one", prev.clone(), end.depth, &[id("other")]);
        let other = message(&stage, "other", prev, end.depth, &[id("one")]);
        stage.sends(&[&one, &other]);
        stage.passes(Duration::from_secs(200));
        goes_on(&stage, &[&one, &other]);
        let authorities = [&one, &other].map(|pdu| stage.verdict(&pdu.event_id));
        assert!(!authorities.contains(&Some(VerdictRecord::Accepted)), "{authorities:?}");
    }
}

/// Who comes after a circle is not to be had by ancestors; the state before may be told.
#[test]
fn what_comes_after_a_circle_is_judged_by_the_state_before_it() {
    let stage = stage("1");
    let depth = stage.end().depth;
    let one = message(&stage, "one", id("other"), depth, &[]);
    let other = message(&stage, "other", id("one"), depth + 1, &[]);
    stage.tells_puppet(&other);
    let after = message(&stage, "after", id("other"), depth + 2, &[]);
    let events: Vec<Value> = [&one, &other].map(json_of).to_vec();
    stage.puppet.says(MISSING, http::StatusCode::OK, json!({ "events": events }));
    stage.sends(&[&after]);
    stage.passes(Duration::from_secs(200));
    assert!(stage.shows(&after));
    assert!(!stage.shows(&one) && !stage.shows(&other));
}
