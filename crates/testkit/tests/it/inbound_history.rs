//! What was missed is fetched when somebody reads back over it: from whom, and how much at a time.

use std::time::Duration;

use http::StatusCode;
use myelin_dag::Pdu;
use myelin_testkit::{
    env::Sim,
    faults::Faults,
    network::Network,
    puppet::{Place, Puppet, json_of},
};
use serde_json::{Value, json};

use super::inbound::{Stage, accepted, after, event};

const MISSING: &str = "/_matrix/federation/v1/get_missing_events";
const BACKFILL: &str = "/_matrix/federation/v1/backfill/";
const STATE_IDS: &str = "/_matrix/federation/v1/state_ids/";

fn asked(puppet: &Puppet, path: &str) -> usize {
    puppet.asked().iter().filter(|asked| asked.contains(path)).count()
}

/// What comes before the last of a line is missed, but for the one right before that: it is held with the state before
/// it, and not shown.
fn is_missed(stage: &Stage, line: &[Pdu]) {
    let [missed @ .., last] = line else { panic!("a line") };
    stage.puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    stage.tells(&stage.puppet, missed.last());
    assert_eq!(stage.sends(&[last]), accepted(&[last]));
    stage.passes(Duration::from_secs(1));
    assert!(stage.shows(last) && missed.iter().all(|pdu| !stage.shows(pdu)));
}

/// Olga's server is in the room, too, and has the line.
fn with_another(stage: &Stage, line: &[Pdu]) -> Puppet {
    let other = Puppet::connect(stage.puppet.network(), "other.test");
    other.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    line.iter().for_each(|pdu| other.knows(pdu));
    other
}

/// Whom Alice's server asks first answers like this; it asks another one.
#[track_caller]
fn is_had_elsewhere(what: &str, status: StatusCode, answer: impl FnOnce(&[Pdu]) -> Value) {
    let stage = Stage::new();
    let olga = Puppet::connect(stage.puppet.network(), "other.test");
    stage.joins_from(&olga, "olga");
    let line = stage.line(6);
    let other = with_another(&stage, &line);
    is_missed(&stage, &line);
    stage.puppet.says(BACKFILL, status, answer(&line));
    stage.reads_back(None);
    let places: Vec<_> = line.iter().map(|pdu| stage.place_of(pdu)).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{what}: {places:?}");
    assert!(asked(&stage.puppet, BACKFILL) > 0, "{what}: who was to be asked first was not");
    assert!(asked(&other, BACKFILL) > 0, "{what}");
}

#[test]
fn who_gives_no_history_is_not_the_only_one_who_is_asked() {
    use StatusCode as S;
    is_had_elsewhere("a refusal", S::FORBIDDEN, |_| json!({ "errcode": "M_FORBIDDEN" }));
    is_had_elsewhere("a failure", S::BAD_GATEWAY, |_| json!({}));
    is_had_elsewhere("no list", S::OK, |_| json!({ "pdus": "history" }));
    is_had_elsewhere("nothing", S::OK, |_| json!({ "pdus": [] }));
    is_had_elsewhere("no events", S::OK, |_| json!({ "pdus": [null, {}, 7, { "type": 7 }] }));
    is_had_elsewhere("what is held", S::OK, |line| json!({ "pdus": [json_of(&line[5])] }));
    is_had_elsewhere("unsigned events", S::OK, |line| {
        let mut unsigned: Vec<_> = line.iter().map(json_of).collect();
        unsigned.iter_mut().for_each(|pdu| pdu["signatures"] = json!({}));
        json!({ "pdus": unsigned })
    });
    is_had_elsewhere("events of another room", S::OK, |line| {
        let mut astray: Vec<_> = line.iter().map(json_of).collect();
        astray.iter_mut().for_each(|pdu| pdu["room_id"] = json!("!elsewhere:remote.test"));
        json!({ "pdus": astray })
    });
}

/// No reader waits for longer than twenty seconds.
#[test]
fn who_takes_too_long_leaves_time_to_ask_another() {
    let sim = Sim::new(1);
    let stage = Stage::in_network(&sim, &Network::new(&sim));
    let olga = Puppet::connect(stage.puppet.network(), "other.test");
    stage.joins_from(&olga, "olga");
    let line = stage.line(6);
    let other = with_another(&stage, &line);
    is_missed(&stage, &line);
    let slow = [(stage.puppet.name().to_owned(), Duration::from_secs(3_600))].into();
    stage.puppet.network().set_faults(Faults { slow, ..Faults::default() });
    stage.reads_back(None);
    assert!(line.iter().all(|pdu| stage.shows(pdu)), "{:?}", other.asked());
}

#[test]
fn what_nobody_has_is_not_asked_for_again_at_once() {
    let stage = Stage::new();
    let line = stage.line(6);
    is_missed(&stage, &line);
    stage.puppet.says(BACKFILL, StatusCode::OK, json!({ "pdus": [] }));
    (0..3).for_each(|_| drop(stage.reads_back(None)));
    assert_eq!(asked(&stage.puppet, BACKFILL), 1);
    stage.puppet.says_no_more(BACKFILL);
    stage.passes(Duration::from_secs(61));
    stage.reads_back(None);
    assert!(line.iter().all(|pdu| stage.shows(pdu)));
}

/// Who has changed their keys is not asked for them anew at once.
#[test]
fn what_lacks_a_key_is_asked_for_again_soon() {
    const KEYS: &str = "/_matrix/key/";
    let stage = Stage::new();
    let third = Puppet::connect(stage.puppet.network(), "third.test");
    third.says(KEYS, StatusCode::NOT_FOUND, json!({}));
    let carol = third.user("carol");
    let join = event(carol.as_str(), "m.room.member", Some(carol.as_str()), &json!({ "membership": "join" }));
    let join = stage.run(third.makes_in(&stage.home.view, &stage.room, join, stage.end()));
    stage.puppet.knows(&join);
    let far_end = stage.message_at("far end", after(&join));
    let last = stage.message_at("last", after(&far_end));
    is_missed(&stage, &[join.clone(), far_end.clone(), last]);
    stage.reads_back(None);
    assert!(stage.shows(&far_end) && !stage.shows(&join));
    third.says_no_more(KEYS);
    let before = asked(&stage.puppet, BACKFILL);
    stage.reads_back(None);
    assert_eq!(asked(&stage.puppet, BACKFILL), before, "soon, but not at once");
    stage.passes(Duration::from_secs(11));
    stage.reads_back(None);
    assert!(stage.shows(&join), "{:?}", third.asked());
}

/// Eight branches come together, and nobody has what is before any of them: only states are told.
#[test]
fn of_one_answer_only_so_many_states_are_fetched_and_the_rest_with_the_next() {
    let stage = Stage::new();
    let depth = stage.end().depth;
    let nowhere = |n: u64| Place { prev_events: vec![format!("$nowhere{n}").try_into().unwrap()], depth };
    let branches: Vec<_> = (0..8).map(|n| stage.message_at(&n.to_string(), nowhere(n))).collect();
    stage.tells(&stage.puppet, &branches);
    let ends = branches.iter().map(|pdu| pdu.event_id.clone()).collect();
    let merge = stage.message_at("merge", Place { prev_events: ends, depth: depth + 1 });
    let last = stage.message_at("last", after(&merge));
    is_missed(&stage, &[merge.clone(), last]);
    let before = stage.puppet.asked().len();
    stage.reads_back(None);
    assert!(branches.iter().chain([&merge]).all(|pdu| stage.shows(pdu)));
    let places: Vec<_> = branches.iter().map(|pdu| stage.place_of(pdu)).collect();
    let merged_at = stage.place_of(&merge);
    assert!(places.iter().all(|place| *place < merged_at), "{places:?}, merged at {merged_at:?}");
    let asked = stage.puppet.asked().split_off(before);
    let states: Vec<_> = asked
        .split(|asked| asked.contains(BACKFILL))
        .map(|between| between.iter().filter(|asked| asked.contains(STATE_IDS)).count())
        .collect();
    assert_eq!(states, [0, 5, 3, 0], "{asked:?}");
}

/// Where little comes at a time, a page is shorter than it might be, and the next one goes on.
#[test]
fn a_reader_is_given_what_could_be_had_in_so_many_questions() {
    let stage = Stage::new();
    let line = stage.line(22);
    is_missed(&stage, &line);
    stage.tells(&stage.puppet, &line);
    stage.puppet.gives_at_once(1);
    let (mut questions, mut from) = (Vec::new(), None);
    while !stage.shows(&line[0]) {
        let before = asked(&stage.puppet, BACKFILL);
        let (page, end) = stage.reads_back(from.as_deref());
        assert!(!page.is_empty() && (end.is_some() || stage.shows(&line[0])), "there is more");
        questions.push(asked(&stage.puppet, BACKFILL) - before);
        from = end;
    }
    assert_eq!(questions, [5, 5, 1], "two events each");
}
