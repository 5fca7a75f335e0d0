//! Servers that answer what is not so when they are asked for what lacks: none of it counts, the room goes on, and the
//! truth is believed when it comes.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use myelin_dag::{Parents, Pdu};
use myelin_testkit::puppet::{json_of, state_of};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};

use super::inbound::{Stage, accepted, after, event};

const MISSING: &str = "/_matrix/federation/v1/get_missing_events";
const STATE_IDS: &str = "/_matrix/federation/v1/state_ids/";
const STATE: &str = "/_matrix/federation/v1/state/";
const EVENT: &str = "/_matrix/federation/v1/event/";
const EVENT_AUTH: &str = "/_matrix/federation/v1/event_auth/";

/// Longer than the first few pauses between two tries.
const WHILE: Duration = Duration::from_secs(200);

/// Something of a room that the puppet made up.
fn elsewhere(stage: &Stage, auth_events: Vec<OwnedEventId>) -> Pdu {
    let made_up = event("@bob:remote.test", "m.room.topic", Some(""), &json!({ "topic": "elsewhere" }));
    let parents = Parents {
        room_id: Some("!elsewhere:remote.test".try_into().unwrap()),
        prev_events: auth_events.clone(),
        auth_events,
        depth: 7,
        names: None,
    };
    stage.puppet.makes(&RoomVersionId::V11, made_up, parents, 1)
}

fn unsigned(pdu: &Pdu) -> Value {
    let mut json = json_of(pdu);
    json["signatures"] = json!({});
    json
}

/// Bob as who may do everything, which nobody allowed.
fn usurpation(stage: &Stage) -> Pdu {
    let levels = json!({ "users": { "@bob:remote.test": 100 } });
    let levels = event("@bob:remote.test", "m.room.power_levels", Some(""), &levels);
    stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, levels, stage.end()))
}

fn state_ids(stage: &Stage) -> BTreeSet<OwnedEventId> {
    let state = stage.run(state_of(&stage.home.view, &stage.room));
    state.into_iter().map(|pdu| pdu.event_id.clone()).collect()
}

/// Bob says something after an event that is not given truly. What the home server believes meanwhile, and afterwards.
#[track_caller]
fn is_not_taken_in(what: &str, lies: impl FnOnce(&Stage, &Pdu) -> Vec<(&'static str, StatusCode, Value)>) {
    let stage = Stage::new();
    let [hidden, shown] = stage.line(2).try_into().unwrap();
    stage.tells_puppet(&hidden);
    let before = state_ids(&stage);
    for path in [MISSING, STATE_IDS, STATE, EVENT, EVENT_AUTH] {
        stage.puppet.says(path, StatusCode::OK, json!({}));
    }
    for (path, status, lie) in lies(&stage, &hidden) {
        stage.puppet.says(path, status, lie);
    }
    assert_eq!(stage.sends(&[&shown]), accepted(&[&shown]), "{what}: taken, and looked into later");
    stage.passes(WHILE);
    assert!(!stage.shows(&hidden) && !stage.shows(&shown), "{what}: shown without what it comes after");
    assert_eq!(state_ids(&stage), before, "{what}");
    let said = stage.sets("m.room.topic", "", &json!({ "topic": what }));
    assert!(state_ids(&stage).contains(&said), "{what}: Alice goes on");
    stage.puppet.tells_the_truth();
    stage.passes(Duration::from_secs(2 * 60 * 60));
    assert!(stage.shows(&hidden) && stage.shows(&shown), "{what}: the truth is not believed");
}

#[test]
fn missing_events_that_are_none() {
    let answer = |events: Value| vec![(MISSING, StatusCode::OK, json!({ "events": events }))];
    is_not_taken_in("no list", |_, _| answer(json!("events")));
    is_not_taken_in("no events", |_, _| answer(json!([5, null, {}, "x", { "type": 7 }, []])));
    is_not_taken_in("an error", |_, _| vec![(MISSING, StatusCode::INTERNAL_SERVER_ERROR, json!(null))]);
    is_not_taken_in("unsigned", |_, hidden| answer(json!([unsigned(hidden)])));
    is_not_taken_in("another room", |stage, hidden| {
        answer(json!([json_of(&elsewhere(stage, vec![hidden.event_id.clone()]))]))
    });
    is_not_taken_in("far too many", |stage, hidden| {
        let other = json_of(&elsewhere(stage, vec![hidden.event_id.clone()]));
        answer(json!(vec![other; 5_000]))
    });
    is_not_taken_in("another event than that", |_, hidden| {
        let mut other = json_of(hidden);
        other["origin_server_ts"] = json!(5);
        answer(json!([other]))
    });
}

#[test]
fn states_that_are_none() {
    let answer = |pdu_ids: Value, chain: Value| {
        vec![(STATE_IDS, StatusCode::OK, json!({ "pdu_ids": pdu_ids, "auth_chain_ids": chain }))]
    };
    is_not_taken_in("no lists", |_, _| answer(json!({}), json!(7)));
    is_not_taken_in("no ids", |_, _| answer(json!(["x", 3]), json!([null])));
    is_not_taken_in("an empty state", |_, _| answer(json!([]), json!([])));
    is_not_taken_in("events that nobody has", |_, _| {
        let ids: Vec<_> =
            (0..40).map(|n| format!("$nobody_has_the_event_with_this_number__{n:03}")).collect();
        answer(json!(ids), json!([]))
    });
    is_not_taken_in("a state without end", |_, _| {
        let ids: Vec<_> = (0..200_000).map(|n| format!("${n}")).collect();
        answer(json!(ids), json!([]))
    });
    is_not_taken_in("events of another room", |stage, hidden| {
        let other = elsewhere(stage, vec![hidden.event_id.clone()]);
        let mut lies = answer(json!([other.event_id]), json!([]));
        lies.push((EVENT, StatusCode::OK, json!({ "pdus": [json_of(&other)] })));
        lies
    });
    is_not_taken_in("an event that is not the one asked for", |stage, _| {
        let ids: Vec<_> = state_ids(stage).into_iter().collect();
        let mut lies = answer(json!(ids), json!([]));
        lies.push((EVENT, StatusCode::OK, json!({ "pdus": [json_of(&usurpation(stage))] })));
        lies
    });
    is_not_taken_in("unsigned events", |stage, hidden| {
        let ids: Vec<_> = state_ids(stage).into_iter().collect();
        let mut lies = answer(json!(ids), json!([]));
        lies.push((EVENT, StatusCode::OK, json!({ "pdus": [unsigned(hidden)] })));
        lies
    });
}

/// What authorises an event is asked for as well.
#[test]
fn auth_chains_that_are_none() {
    for lie in [json!("x"), json!([1, {}]), json!(vec![json!({}); 20_000])] {
        let stage = Stage::new();
        let before = state_ids(&stage);
        let unknown = elsewhere(&stage, Vec::new());
        let parents = Parents {
            room_id: Some(stage.room.clone()),
            prev_events: stage.end().prev_events,
            auth_events: vec![unknown.event_id],
            depth: 50,
            names: None,
        };
        let said = event("@bob:remote.test", "m.room.message", None, &json!({ "body": "trust me" }));
        let said = stage.puppet.makes(&RoomVersionId::V11, said, parents, 2);
        stage.puppet.says(EVENT_AUTH, StatusCode::OK, json!({ "auth_chain": lie }));
        stage.sends(&[&said]);
        stage.passes(WHILE);
        assert!(!stage.shows(&said), "an event of another room authorises nothing");
        assert_eq!(state_ids(&stage), before);
        stage.sets("m.room.topic", "", &json!({ "topic": "on" }));
    }
}

/// A state can be told in which the teller has all power. It is that of one event, and gives no power over the room.
#[test]
fn a_state_that_is_not_so_gives_nobody_power() {
    let stage = Stage::new();
    let [hidden, shown] = stage.line(2).try_into().unwrap();
    let usurped = usurpation(&stage);
    let held = stage.run(state_of(&stage.home.view, &stage.room));
    held.iter().for_each(|pdu| stage.puppet.knows(pdu));
    let others = held.iter().filter(|pdu| !pdu.is_state_of("m.room.power_levels", ""));
    let told = others.map(|pdu| pdu.event_id.clone()).chain([usurped.event_id.clone()]).collect();
    stage.puppet.knows_state(&hidden, told);
    stage.puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    let name = event("@bob:remote.test", "m.room.name", Some(""), &json!({ "name": "Bob's" }));
    let name = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, name, after(&shown)));
    stage.sends(&[&name]);
    let state = state_ids(&stage);
    assert!(!state.contains(&usurped.event_id) && !state.contains(&name.event_id));
    let levels = held.iter().find(|pdu| pdu.is_state_of("m.room.power_levels", "")).unwrap();
    assert!(state.contains(&levels.event_id));
    stage.sets("m.room.name", "", &json!({ "name": "Alice's" }));
}
