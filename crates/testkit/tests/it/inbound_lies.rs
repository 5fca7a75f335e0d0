//! Servers that answer what is not so when they are asked for what lacks: none of it counts, the room goes on, and the
//! truth is believed when it comes.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use myelin_dag::{Parents, Pdu};
use myelin_store::tables::VerdictRecord;
use myelin_testkit::puppet::{Place, Puppet, json_of, state_of};
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

/// A room in which [first, hidden, shown] come one after the other, and the first is not given.
fn behind_a_gap(stage: &Stage) -> [Pdu; 3] {
    let line: [Pdu; 3] = stage.line(3).try_into().unwrap();
    stage.puppet.forgets(&line[0].event_id);
    stage.puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    line
}

fn told_without(stage: &Stage, puppet: &Puppet, before: &Pdu, left_out: &str) {
    let held = stage.run(state_of(&stage.home.view, &stage.room));
    held.iter().for_each(|pdu| puppet.knows(pdu));
    let told = held.iter().filter(|pdu| pdu.state_key.as_deref() != Some(left_out));
    puppet.knows_state(before, told.map(|pdu| pdu.event_id.clone()).collect());
}

/// What was rejected because of a lie is not rejected for ever.
#[test]
fn whose_join_was_left_out_of_a_state_is_heard_when_the_truth_comes() {
    let stage = Stage::new();
    let [first, hidden, shown] = behind_a_gap(&stage);
    told_without(&stage, &stage.puppet, &hidden, "@bob:remote.test");
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    for pdu in [&hidden, &shown] {
        let verdict = stage.verdict(&pdu.event_id);
        assert!(matches!(verdict, Some(VerdictRecord::Rejected { .. })), "{verdict:?}");
    }
    stage.sends(&[&shown, &hidden]);
    assert!(!stage.shows(&hidden) && !stage.shows(&shown), "nothing new is known");
    stage.sends(&[&first, &hidden, &shown]);
    assert!(stage.shows(&first) && stage.shows(&hidden) && stage.shows(&shown));
    assert_eq!(stage.extremities(), 1);
    let [next] = stage.line(1).try_into().unwrap();
    assert_eq!(stage.sends(&[&next]), accepted(&[&next]));
    assert!(stage.shows(&next));
}

#[test]
fn what_a_lie_rejected_takes_its_place_before_what_came_after_it() {
    let stage = Stage::new();
    let carol = Puppet::connect(stage.puppet.network(), "third.test");
    stage.joins_from(&carol, "carol");
    let first = stage.message_at("first", stage.end());
    let hidden = event("@carol:third.test", "m.room.message", None, &json!({ "body": "hidden" }));
    let hidden = stage.run(carol.makes_in(&stage.home.view, &stage.room, hidden, after(&first)));
    stage.puppet.knows(&hidden);
    let shown = stage.message_at("shown", after(&hidden));
    stage.puppet.forgets(&first.event_id);
    for puppet in [&stage.puppet, &carol] {
        puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    }
    told_without(&stage, &stage.puppet, &hidden, "@carol:third.test");
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    assert!(matches!(stage.verdict(&hidden.event_id), Some(VerdictRecord::Rejected { .. })));
    assert!(stage.shows(&shown), "Bob is not silenced");
    stage.puppet.knows(&first);
    stage.puppet.tells_the_truth();
    stage.sends(&[&first, &hidden]);
    assert!(stage.shows(&first) && stage.shows(&hidden));
    let ends = stage.end().prev_events;
    assert!(!ends.contains(&hidden.event_id), "something comes after it: {ends:?}");
}

/// Carol was left out of the state that was told after `first`, where she said something; Bob spoke after that.
fn left_out(stage: &Stage) -> (Puppet, [Pdu; 3]) {
    let carol = Puppet::connect(stage.puppet.network(), "third.test");
    stage.joins_from(&carol, "carol");
    let first = stage.message_at("first", stage.end());
    let hidden = says(stage, &carol, "hidden", after(&first));
    stage.puppet.knows(&hidden);
    let shown = stage.message_at("shown", after(&hidden));
    stage.puppet.forgets(&first.event_id);
    for puppet in [&stage.puppet, &carol] {
        puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    }
    told_without(stage, &stage.puppet, &hidden, "@carol:third.test");
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    assert!(is_rejected(stage, &hidden) && stage.shows(&shown));
    (carol, [first, hidden, shown])
}

fn says(stage: &Stage, carol: &Puppet, body: &str, place: Place) -> Pdu {
    let message = event("@carol:third.test", "m.room.message", None, &json!({ "body": body }));
    stage.run(carol.makes_in(&stage.home.view, &stage.room, message, place))
}

fn is_rejected(stage: &Stage, pdu: &Pdu) -> bool {
    matches!(stage.verdict(&pdu.event_id), Some(VerdictRecord::Rejected { .. }))
}

#[test]
fn who_was_left_out_of_a_state_is_heard_when_the_truth_comes() {
    let stage = Stage::new();
    let (carol, [first, hidden, shown]) = left_out(&stage);
    let later = says(&stage, &carol, "later", after(&shown));
    stage.run(carol.sends(&stage.name, &[&later]));
    assert!(is_rejected(&stage, &later), "by the state that was told");
    stage.puppet.knows(&first);
    stage.sends(&[&first, &hidden]);
    stage.run(carol.sends(&stage.name, &[&later]));
    assert!(stage.shows(&hidden) && stage.shows(&later));
    assert!(stage.end().prev_events.contains(&later.event_id));
    let next = says(&stage, &carol, "next", after(&later));
    stage.run(carol.sends(&stage.name, &[&next]));
    assert!(stage.shows(&next));
}

#[test]
fn the_truth_is_asked_for_by_who_reads_back() {
    let stage = Stage::new();
    let (_, [first, hidden, shown]) = left_out(&stage);
    stage.reads_back(None);
    assert!(!stage.shows(&hidden), "nobody knows better");
    stage.puppet.knows(&first);
    stage.puppet.tells_the_truth();
    stage.passes(WHILE);
    stage.reads_back(None);
    let shown: Vec<_> = [&first, &hidden, &shown].map(|pdu| stage.place_of(pdu)).into_iter().collect();
    assert!(shown.is_sorted() && shown.iter().all(Option::is_some), "{shown:?}");
}

/// The room was told to be closed when Carol came.
fn whose_join_was_not_believed(stage: &Stage) -> [Pdu; 3] {
    let first = stage.message_at("first", stage.end());
    let join = event(CAROL, "m.room.member", Some(CAROL), &json!({ "membership": "join" }));
    let join = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, join, after(&first)));
    let shown = stage.message_at("shown", after(&join));
    stage.puppet.forgets(&first.event_id);
    stage.puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    let held = stage.run(state_of(&stage.home.view, &stage.room));
    held.iter().for_each(|pdu| stage.puppet.knows(pdu));
    let told = held.iter().filter(|pdu| !pdu.is_state_of("m.room.join_rules", ""));
    stage.puppet.knows_state(&join, told.map(|pdu| pdu.event_id.clone()).collect());
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    assert!(is_rejected(stage, &join) && stage.shows(&shown));
    stage.puppet.knows(&first);
    stage.puppet.tells_the_truth();
    [first, join, shown]
}

const CAROL: &str = "@carol:remote.test";

#[track_caller]
fn is_in_the_room(stage: &Stage, [_, join, shown]: &[Pdu; 3]) {
    assert!(state_ids(stage).contains(&join.event_id), "Carol is in the room");
    let said = event(CAROL, "m.room.message", None, &json!({ "body": "hello" }));
    let said = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, said, after(shown)));
    stage.sends(&[&said]);
    assert!(stage.shows(&said));
}

#[test]
fn a_join_that_a_lie_rejected_counts_when_it_comes_again() {
    let stage = Stage::new();
    let line = whose_join_was_not_believed(&stage);
    stage.sends(&[&line[0], &line[1]]);
    is_in_the_room(&stage, &line);
}

#[test]
fn a_join_that_a_lie_rejected_counts_when_somebody_reads_back() {
    let stage = Stage::new();
    let line = whose_join_was_not_believed(&stage);
    stage.reads_back(None);
    is_in_the_room(&stage, &line);
}

#[test]
fn where_one_tells_a_state_that_forbids_an_event_another_is_asked() {
    let stage = Stage::new();
    let third = Puppet::connect(stage.puppet.network(), "third.test");
    stage.joins_from(&third, "carol");
    let [_, hidden, shown] = behind_a_gap(&stage);
    third.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    told_without(&stage, &stage.puppet, &hidden, "@bob:remote.test");
    told_without(&stage, &third, &hidden, "nobody");
    stage.sends(&[&shown]);
    stage.passes(Duration::from_secs(1));
    assert_eq!(stage.verdict(&hidden.event_id), Some(VerdictRecord::Accepted), "{:?}", third.asked());
    assert!(stage.shows(&shown));
}

/// By a state of yesterday somebody may do what they may not today.
#[test]
fn what_a_told_state_allowed_is_not_shown_if_what_it_comes_after_forbids_it() {
    let stage = Stage::new();
    let levels = |bob: i64| {
        let users = json!({ stage.alice.user_id.as_str(): 100, "@bob:remote.test": bob });
        stage.sets("m.room.power_levels", "", &json!({ "users": users }));
    };
    levels(60);
    let name = || event("@bob:remote.test", "m.room.name", Some(""), &json!({ "name": "Bob's" }));
    let then = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, name()));
    let yesterday = stage.run(state_of(&stage.home.view, &stage.room));
    levels(0);
    let first = stage.message_at("first", stage.end());
    let parents = Parents {
        room_id: Some(stage.room.clone()),
        prev_events: vec![first.event_id.clone()],
        auth_events: then.auth_events.to_vec(),
        depth: first.depth + 1,
        names: None,
    };
    let hidden = stage.puppet.makes(&RoomVersionId::V11, name(), parents, 1_000);
    let shown = stage.message_at("shown", after(&hidden));
    stage.puppet.forgets(&first.event_id);
    stage.puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
    yesterday.iter().for_each(|pdu| stage.puppet.knows(pdu));
    stage.puppet.knows_state(&hidden, yesterday.iter().map(|pdu| pdu.event_id.clone()).collect());
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    assert_eq!(stage.verdict(&hidden.event_id), Some(VerdictRecord::Accepted));
    stage.sends(&[&first, &hidden]);
    assert!(stage.shows(&first) && !stage.shows(&hidden));
    assert!(matches!(stage.verdict(&hidden.event_id), Some(VerdictRecord::Rejected { .. })));
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.name", stage.room);
    let name = stage.run(stage.alice.get(&stage.home, &path));
    assert_eq!(name.status, StatusCode::NOT_FOUND, "{}", name.json);
}

/// Who is banned does not come in by the far end of a gap.
#[test]
fn what_was_held_unseen_is_not_news_from_who_is_banned_since() {
    let stage = Stage::new();
    let [_, hidden, shown] = behind_a_gap(&stage);
    stage.tells_puppet(&hidden);
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    assert!(stage.shows(&shown));
    stage.sets("m.room.member", "@bob:remote.test", &json!({ "membership": "ban" }));
    assert_eq!(stage.sends(&[&hidden]), accepted(&[&hidden]));
    assert!(!stage.shows(&hidden));
}

/// Who has no time to give all of a state is given some.
#[test]
fn a_hole_in_a_state_is_waited_for() {
    let stage = Stage::new();
    let users = json!({ stage.alice.user_id.as_str(): 100, "@bob:remote.test": 100 });
    stage.sets("m.room.power_levels", "", &json!({ "users": users }));
    (0..30).for_each(|n| drop(stage.sets("org.example.fact", &n.to_string(), &json!({ "n": n }))));
    let [_, hidden, shown] = behind_a_gap(&stage);
    let fact = event("@bob:remote.test", "org.example.fact", Some("hole"), &json!({ "n": 0 }));
    let fact = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, fact));
    let held = stage.run(state_of(&stage.home.view, &stage.room));
    held.iter().for_each(|pdu| stage.puppet.knows(pdu));
    let state = held.iter().map(|pdu| pdu.event_id.clone()).chain([fact.event_id.clone()]);
    stage.puppet.knows_state(&hidden, state.collect());
    let hole = format!("{EVENT}{}", fact.event_id.as_str().replace('$', "%24"));
    stage.puppet.says(&hole, StatusCode::TOO_MANY_REQUESTS, json!({ "errcode": "M_LIMIT_EXCEEDED" }));
    stage.sends(&[&shown]);
    stage.passes(Duration::from_secs(10));
    assert!(!stage.shows(&shown), "there would be a hole: {:?}", stage.puppet.asked());
    stage.puppet.says_no_more(&hole);
    stage.passes(Duration::from_secs(60));
    assert!(stage.shows(&shown));
    assert!(state_ids(&stage).contains(&fact.event_id));
}

/// Only what was asked for is kept of what comes.
#[test]
fn what_nobody_asked_for_is_not_kept() {
    let stage = Stage::new();
    let [_, hidden, shown] = behind_a_gap(&stage);
    stage.tells_puppet(&hidden);
    let unasked: Vec<_> = (0..3)
        .map(|n| {
            let user = stage.puppet.user(&format!("user{n}"));
            let join =
                event(user.as_str(), "m.room.member", Some(user.as_str()), &json!({ "membership": "join" }));
            stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, join))
        })
        .collect();
    let carol = stage.puppet.user("carol");
    let join = event(carol.as_str(), "m.room.member", Some(carol.as_str()), &json!({ "membership": "join" }));
    let join = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, join));
    let said = event(carol.as_str(), "m.room.message", None, &json!({ "body": "hi" }));
    let said = stage.run(stage.puppet.makes_next(&stage.home.view, &stage.room, said));
    let parents = Parents {
        room_id: Some(stage.room.clone()),
        prev_events: said.prev_events.to_vec(),
        auth_events: said.auth_events.iter().cloned().chain([join.event_id.clone()]).collect(),
        depth: said.depth,
        names: None,
    };
    let said = event(carol.as_str(), "m.room.message", None, &json!({ "body": "hi" }));
    let said = stage.puppet.makes(&RoomVersionId::V11, said, parents, 1_000);
    let chain: Vec<_> = unasked.iter().chain([&join]).map(json_of).collect();
    stage.puppet.says(EVENT_AUTH, StatusCode::OK, json!({ "auth_chain": chain }));
    stage.puppet.says(STATE, StatusCode::OK, json!({ "pdus": chain, "auth_chain": chain }));
    stage.sends(&[&said, &shown]);
    stage.passes(WHILE);
    assert!(stage.shows(&shown));
    assert_eq!(stage.verdict(&join.event_id), Some(VerdictRecord::Accepted), "it authorises what was said");
    assert!(unasked.iter().all(|pdu| stage.verdict(&pdu.event_id).is_none()));
}

#[test]
fn what_is_of_another_room_is_left_out_of_a_gap() {
    let stage = Stage::new();
    let [missed, shown] = stage.line(2).try_into().unwrap();
    let astray = elsewhere(&stage, vec![missed.event_id.clone()]);
    let events = [json_of(&astray), json_of(&missed)];
    stage.puppet.says(MISSING, StatusCode::OK, json!({ "events": events }));
    stage.sends(&[&shown]);
    stage.passes(WHILE);
    assert!(stage.shows(&missed) && stage.shows(&shown));
    assert_eq!(stage.verdict(&astray.event_id), None);
}

/// Servers may give at most so much for a state; beyond that nothing of it is asked for.
#[test]
fn a_state_larger_than_any_room_is_not_asked_for() {
    for (count, asked_for) in [(300_000, true), (300_001, false)] {
        let stage = Stage::new();
        let [hidden, shown] = stage.line(2).try_into().unwrap();
        stage.puppet.forgets(&hidden.event_id);
        stage.puppet.says(MISSING, StatusCode::NOT_FOUND, json!({}));
        let ids: Vec<_> = (0..count).map(|number| format!("${number}")).collect();
        stage.puppet.says(STATE_IDS, StatusCode::OK, json!({ "pdu_ids": ids, "auth_chain_ids": [] }));
        stage.sends(&[&shown]);
        stage.passes(Duration::from_secs(1));
        let asked = stage.puppet.asked().iter().any(|asked| asked.contains(STATE));
        assert_eq!(asked, asked_for, "{count}");
    }
}

/// A room where a server of today lacks something of yesterday goes on; who gives a part of a state says nothing.
#[test]
fn a_state_of_which_more_than_a_few_cannot_be_had_is_not_believed() {
    for (lacking, believed) in [(1, true), (2, false)] {
        let stage = Stage::new();
        let held = stage.run(state_of(&stage.home.view, &stage.room)).len();
        (held..39 - lacking).for_each(|n| drop(stage.sets("org.example.fact", &n.to_string(), &json!({}))));
        let [_, hidden, shown] = behind_a_gap(&stage);
        let state = stage.run(state_of(&stage.home.view, &stage.room));
        state.iter().for_each(|pdu| stage.puppet.knows(pdu));
        let gone = (0..lacking).map(|n| format!("$nobody_has_it_{n}").try_into().unwrap());
        let told: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id.clone()).chain(gone).collect();
        assert_eq!(told.len(), 39);
        stage.puppet.knows_state(&hidden, told);
        stage.sends(&[&shown]);
        stage.passes(Duration::from_secs(1));
        assert_eq!(stage.shows(&shown), believed, "{lacking} of 39");
    }
}

/// Events that nobody can receive count for themselves only: what else came along is asked about all the same.
#[test]
fn what_leads_nowhere_beside_a_gap_does_not_keep_it_open() {
    let stage = Stage::new();
    let state = stage.run(state_of(&stage.home.view, &stage.room));
    let ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
    let nowhere = |name: &str, depth| Place { prev_events: vec![name.try_into().unwrap()], depth };
    let litter: Vec<_> = (0..9)
        .map(|number| stage.message_at("litter", nowhere(&format!("$nowhere{number}"), 2 + number)))
        .collect();
    // Nobody has what it comes after; the state before it is known.
    let far = stage.message_at("far", nowhere("$beyond", 50));
    let near = stage.message_at("near", after(&far));
    stage.puppet.knows_state(&far, ids);
    let events: Vec<Value> = litter.iter().chain([&far]).map(json_of).collect();
    stage.puppet.says(MISSING, StatusCode::OK, json!({ "events": events }));
    assert_eq!(stage.sends(&[&near]), accepted(&[&near]));
    stage.passes(WHILE);
    assert!(stage.shows(&near));
    assert!(litter.iter().all(|pdu| !stage.shows(pdu)));
}
