//! How far servers are asked for what lies between an event that came and what is held: for so many events, so many bytes
//! and so many times, whatever they answer. The state is fetched there, and the rest is left to who reads back.

use std::time::Duration;

use http::StatusCode;
use myelin_dag::Pdu;
use myelin_testkit::puppet::{Puppet, end_of, json_of};
use serde_json::{Value, json};

use super::{
    handshakes::Net,
    inbound::{Stage, accepted, after, event},
};

const MISSING: &str = "/_matrix/federation/v1/get_missing_events";
const STATE_IDS: &str = "/_matrix/federation/v1/state_ids";

/// The last of a line comes. So many of the line, the last one included, are taken for the gap, and before those is its
/// far end; answers how often was asked.
#[track_caller]
fn is_followed_back(stage: &Stage, line: &[Pdu], taken: usize) -> usize {
    stage.tells(&stage.puppet, line);
    let last = line.last().unwrap();
    assert_eq!(stage.sends(&[last]), accepted(&[last]));
    stage.passes(Duration::from_secs(1));
    let (beyond, shown) = line.split_at(line.len() - taken);
    let [beyond @ .., far_end] = beyond else { panic!("a line that is longer") };
    assert!(shown.iter().all(|pdu| stage.shows(pdu)), "all that was fetched is shown");
    assert!(beyond.iter().all(|pdu| stage.verdict(&pdu.event_id).is_none()), "more was fetched");
    assert!(stage.verdict(&far_end.event_id).is_some() && !stage.shows(far_end));
    stage.puppet.bodies(MISSING).len()
}

/// A server that gives more than it is asked for gets no further.
#[test]
fn by_so_many_events() {
    let stage = Stage::new();
    stage.puppet.gives_at_once(60);
    assert_eq!(is_followed_back(&stage, &stage.line(520), 500), 10);
    let limits: Vec<_> = stage.puppet.bodies(MISSING).iter().map(|body| body["limit"].clone()).collect();
    assert_eq!(limits, [vec![json!(50); 9], vec![json!(49)]].concat(), "no more than is still wanted");
}

#[test]
fn by_so_many_bytes() {
    let stage = Stage::new();
    let words = "x".repeat(60_000);
    let mut line = vec![stage.message_at(&words, stage.end())];
    while line.len() < 160 {
        line.push(stage.message_at(&words, after(&line[line.len() - 1])));
    }
    // Twenty at a time: the seventh time the 8 MiB are exceeded.
    assert_eq!(is_followed_back(&stage, &line, 141), 7);
}

#[test]
fn by_so_many_questions() {
    let stage = Stage::new();
    stage.puppet.gives_at_once(1);
    assert_eq!(is_followed_back(&stage, &stage.line(60), 41), 40);
}

/// Who makes up a history without end gives no state before it either.
#[test]
fn a_line_without_end_keeps_nobody_from_speaking() {
    let stage = Stage::new();
    stage.puppet.gives_at_once(5);
    let line = stage.line(300);
    let last = line.last().unwrap();
    stage.sends(&[last]);
    stage.passes(Duration::from_secs(1));
    let asked = stage.puppet.bodies(MISSING).len();
    assert_eq!(asked, 40);
    assert!(line.iter().all(|pdu| !stage.shows(pdu)));
    let fine = stage.message_at("fine", stage.end());
    assert_eq!(stage.sends(&[&fine]), accepted(&[&fine]));
    assert!(stage.shows(&fine));
    assert_eq!(stage.extremities(), 1);
}

#[test]
fn only_so_many_servers_are_asked() {
    let stage = Stage::new();
    let named = |number| Puppet::connect(stage.puppet.network(), &format!("other{number}.test"));
    let mut puppets: Vec<_> = (0..5).map(named).collect();
    puppets.iter().for_each(|puppet| drop(stage.joins_from(puppet, "olga")));
    puppets.push(stage.puppet.clone());
    puppets.iter().for_each(|puppet| puppet.says(MISSING, StatusCode::NOT_FOUND, json!({})));
    let line = stage.line(3);
    stage.puppet.forgets(&line[1].event_id);
    stage.sends(&[&line[2]]);
    stage.passes(Duration::from_secs(1));
    for path in [MISSING, STATE_IDS] {
        let asked = |puppet: &Puppet| puppet.asked().iter().filter(|asked| asked.contains(path)).count();
        let mut counts: Vec<_> = puppets.iter().map(asked).collect();
        assert_eq!(counts.pop(), Some(1), "who brought it");
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 1, 1, 1], "{path}");
    }
}

/// `min_depth`: history from before Bob's server came is no gap.
#[test]
fn what_is_asked_for_lies_between_what_is_held_and_what_came() {
    let net = Net::new(2);
    let (ann, bob) = (net.user(0, "ann"), net.user(1, "bob"));
    let room = net.public_room(0, &ann, "11");
    (0..5)
        .for_each(|n| drop(net.set(0, &ann, &room, "m.room.topic", json!({ "topic": n.to_string() })).ok()));
    net.join(1, &bob, &room, "a.test").ok();
    let (view, room) = (&net.servers[1].view, room.as_str().try_into().unwrap());
    let joined_at = net.run(end_of(view, room)).depth - 1;
    let puppet = Puppet::connect(&net.network, "remote.test");
    let eve = puppet.user("eve");
    let join = event(eve.as_str(), "m.room.member", Some(eve.as_str()), &json!({ "membership": "join" }));
    let join = net.run(puppet.makes_next(view, room, join));
    let b = "b.test".try_into().unwrap();
    assert_eq!(net.run(puppet.sends(b, &[&join])).json, accepted(&[&join]));
    let says = |body: &str| event(eve.as_str(), "m.room.message", None, &json!({ "body": body }));
    let missed = net.run(puppet.makes_next(view, room, says("missed")));
    let last = net.run(puppet.makes_in(view, room, says("last"), after(&missed)));
    assert_eq!(net.run(puppet.sends(b, &[&last])).json, accepted(&[&last]));
    net.pass(1);
    let truth = net.run(net.servers[1].truth(room.as_str()));
    assert!(truth.contains(&missed.event_id.to_string()));
    let expected = json!({
        "earliest_events": [join.event_id], "latest_events": [last.event_id], "limit": 50, "min_depth": joined_at,
    });
    assert_eq!(puppet.bodies(MISSING), [expected]);
    assert!(joined_at > 5, "{joined_at}");
}

#[test]
fn what_fills_a_gap_is_redacted_if_it_does_not_match_its_hash() {
    let stage = Stage::new();
    let [missed, last] = stage.line(2).try_into().unwrap();
    let mut tampered = json_of(&missed);
    tampered["content"]["body"] = json!("something else");
    stage.puppet.says(MISSING, StatusCode::OK, json!({ "events": [tampered] }));
    assert_eq!(stage.sends(&[&last]), accepted(&[&last]));
    stage.passes(Duration::from_secs(1));
    let content = |pdu: &Pdu| -> Value {
        let held = stage.run(stage.home.view.events.load_by_id(&pdu.event_id)).unwrap().unwrap();
        serde_json::from_str(held.pdu.content.get()).unwrap()
    };
    assert!(stage.shows(&missed) && stage.shows(&last));
    assert_eq!((content(&missed), &content(&last)["body"]), (json!({}), &json!("1")));
}
