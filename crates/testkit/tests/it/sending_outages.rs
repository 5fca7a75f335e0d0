//! Servers that are away, and a sender that crashes: nothing is lost, and nobody waits for an unrelated message.

use http::StatusCode;
use myelin_store::tables::RECEIPTS_BY_POSITION;
use serde_json::{Value, json};

use crate::sending::{Arrived, Mood, Remote, Stage, home_name, typing};

const AWAY: Mood = Mood::Fails(StatusCode::BAD_GATEWAY);
const HOUR: u64 = 60 * 60;

fn to_device(arrived: &[Arrived]) -> Vec<u64> {
    let edus = arrived.iter().flat_map(|arrived| arrived.edus("m.direct_to_device"));
    edus.filter_map(|edu| edu["message_id"].as_u64()).collect()
}

#[test]
fn what_waits_needs_no_message_to_be_sent() {
    let stage = Stage::new();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "while you were away");
    stage.wait(10);
    assert!(stage.is_recorded(stage.remote().name()), "who is behind has a row");
    stage.remote().is(Mood::Answers);
    stage.wait(61);
    assert_eq!(stage.remote().messages(), ["while you were away"]);
    stage.wait(10);
    assert!(!stage.is_recorded(stage.remote().name()));
}

#[test]
fn a_retry_is_the_same_transaction() {
    let stage = Stage::new();
    stage.remote().is(Mood::LosesAnswers);
    stage.says(&stage.room, "one");
    stage.wait(2);
    stage.says(&stage.room, "two");
    stage.wait(120);
    stage.remote().is(Mood::Answers);
    stage.wait(4 * 60);
    let arrived = stage.remote().arrived();
    let (last, tries) = arrived.split_last().expect("something arrived");
    assert!(tries.len() >= 3, "{tries:?}");
    let same = |a: &Arrived| (&a.uri, &a.body) == (&tries[0].uri, &tries[0].body);
    assert!(tries.iter().all(same), "{tries:?}");
    assert_ne!(last.uri, tries[0].uri);
    assert_eq!(last.pdus()[0]["content"]["body"], "two");
}

#[test]
fn waits_grow_from_half_a_minute_to_hours() {
    let stage = Stage::new();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "anybody?");
    stage.wait(48 * HOUR);
    let times: Vec<_> = stage.remote().arrived().iter().map(|arrived| arrived.at_ms).collect();
    let waits: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).collect();
    assert!((9..32).contains(&waits[0]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 4 * HOUR + 60), "{waits:?}");
    assert!((12..40).contains(&waits.len()), "{waits:?}");
}

#[test]
fn a_sign_of_life_wakes_the_queue_at_once() {
    let stage = Stage::new();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "waiting");
    stage.wait(24 * HOUR);
    stage.remote().is(Mood::Answers);
    stage.remote().taken();
    stage.joins(stage.remote(), &stage.room, "bruce");
    stage.wait(1);
    assert_eq!(stage.remote().messages(), ["waiting"]);
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let stage = Stage::new();
    stage.remote().is(Mood::Fails(StatusCode::TOO_MANY_REQUESTS));
    stage.says(&stage.room, "hello");
    stage.wait(5);
    assert_eq!(stage.remote().arrived().len(), 1);
}

#[test]
fn a_crash_loses_nothing_that_waits() {
    let mut stage = Stage::new();
    stage.remote().is(AWAY);
    stage.puts(0..3);
    stage.says(&stage.room, "before the first crash");
    stage.crash();
    stage.says(&stage.room, "between");
    stage.wait(30);
    stage.crash();
    stage.says(&stage.room, "after the second");
    stage.remote().is(Mood::Answers);
    stage.wait(120);
    let taken = stage.remote().taken();
    assert_eq!(to_device(&taken), [0, 1, 2]);
    let said: Vec<_> =
        taken.iter().flat_map(Arrived::pdus).map(|pdu| pdu["content"]["body"].clone()).collect();
    assert_eq!(said, ["before the first crash", "between", "after the second"]);
}

#[test]
fn a_crash_before_the_cursor_is_written_repeats_events_under_another_id() {
    let mut stage = Stage::new();
    stage.says(&stage.room, "twice");
    stage.home().sim.settle();
    stage.run(stage.home().view.feed.caught_up());
    stage.home().sim.settle();
    stage.crash();
    stage.wait(20);
    let taken = stage.remote().taken();
    let with = |body: &str| {
        let of = taken.iter().filter(|a| a.pdus().iter().any(|pdu| pdu["content"]["body"] == body));
        of.map(|a| (a.uri.clone(), a.pdus())).collect::<Vec<_>>()
    };
    let sent = with("twice");
    assert!(!sent.is_empty());
    if let [first, second] = &*sent {
        assert_ne!(first.0, second.0);
        assert_eq!(first.1, second.1, "the event is the same, so the receiver knows it");
    }
    stage.wait(10);
    stage.crash();
    stage.wait(60);
    assert_eq!(stage.remote().messages(), [] as [String; 0], "what the cursor covers is not repeated");
}

#[test]
fn a_week_away_is_made_up_for_in_seconds() {
    let stage = Stage::new();
    let remote = stage.remote();
    let (busy, quiet, closed) = (stage.room.clone(), stage.create_room(), stage.create_room());
    for room in [&quiet, &closed] {
        stage.joins(remote, room, "bob");
    }
    stage.wait(10);
    remote.is(AWAY);
    remote.taken();
    stage.puts(0..90);
    stage.membership("kick", &closed, remote.puppet.user("bob").as_str());
    for number in 0..1_300 {
        stage.says(&busy, &format!("busy {number}"));
    }
    stage.says(&quiet, "quiet");
    stage.puts(90..200);
    stage.wait(7 * 24 * HOUR);
    remote.is(Mood::Answers);
    remote.taken();
    stage.joins(remote, &busy, "bruce");
    stage.wait(5);
    let taken = remote.taken();
    assert_eq!(to_device(&taken), (0..200).collect::<Vec<_>>());
    let pdus: Vec<_> = taken.iter().flat_map(Arrived::pdus).collect();
    let said: Vec<_> = pdus.iter().filter_map(|pdu| pdu["content"]["body"].as_str()).collect();
    assert!(said.contains(&"quiet"), "{said:?}");
    assert!(pdus.iter().any(|pdu| pdu["room_id"] == closed.as_str() && pdu["type"] == "m.room.member"));
    // The transaction that failed first goes as it was; of the rest only the newest.
    assert!(pdus.len() < 120, "{} events", pdus.len());
    stage.says(&busy, "up to date");
    stage.wait(1);
    assert_eq!(remote.messages(), ["up to date"]);
}

#[test]
fn a_restart_with_a_backlog_sends_all_of_it() {
    let mut stage = Stage::new();
    stage.remote().is(AWAY);
    let numbers: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    numbers.iter().for_each(|body| drop(stage.says(&stage.room, body)));
    stage.wait(10);
    stage.crash();
    stage.remote().is(Mood::Answers);
    stage.wait(3 * 60);
    let mut messages = stage.remote().messages();
    messages.dedup();
    assert_eq!(messages, numbers);
}

#[test]
fn dead_servers_do_not_keep_others_waiting() {
    let stage = Stage::with(60);
    let (alive, dead) = stage.remotes.split_last().expect("remotes");
    dead.iter().for_each(|remote| remote.is(Mood::Hangs));
    stage.says(&stage.room, "first");
    stage.wait(1);
    assert_eq!(alive.messages(), ["first"]);
    // What was begun before it was known that they are away has failed.
    stage.wait(60);
    let mut at_once = Vec::new();
    for _ in 0..HOUR / 5 {
        stage.wait(5);
        at_once.push(dead.iter().map(Remote::under_way).sum::<usize>());
    }
    assert_eq!(at_once.iter().max(), Some(&16), "{at_once:?}");
    stage.says(&stage.room, "second");
    stage.wait(1);
    assert_eq!(alive.messages(), ["second"]);
    dead.iter().for_each(|remote| remote.is(Mood::Answers));
    stage.wait(8 * HOUR);
    for remote in dead {
        assert_eq!(remote.messages(), ["first", "second"], "{}", remote.name());
    }
}

#[test]
fn one_event_that_a_server_does_not_bear_keeps_back_no_other() {
    let stage = Stage::new();
    stage.remote().is(Mood::Chokes("poison"));
    for body in ["before", "poison", "after"] {
        stage.says(&stage.room, body);
    }
    stage.puts(0..2);
    stage.wait(HOUR);
    let taken = stage.remote().taken();
    assert_eq!(to_device(&taken), [0, 1]);
    let said: Vec<_> =
        taken.iter().flat_map(Arrived::pdus).map(|pdu| pdu["content"]["body"].clone()).collect();
    assert_eq!(said, ["before", "after"]);
}

fn given_up(stage: &Stage) -> String {
    let text = stage.home().view.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix("myelin_federation_given_up_total "));
    line.expect("it is counted").to_owned()
}

#[test]
fn what_goes_with_an_event_that_a_server_does_not_bear_arrives() {
    let stage = Stage::new();
    let event = stage.says(&stage.room, "hello");
    stage.wait(10);
    stage.remote().taken();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "before");
    stage.wait(1);
    stage.puts(0..3);
    stage.says(&stage.room, "poison");
    stage.reads("m.read", &event, &json!({}));
    stage.types(true, 30_000);
    stage.wait(1);
    stage.remote().is(Mood::Chokes("poison"));
    stage.wait(HOUR);
    let taken = stage.remote().taken();
    assert_eq!(to_device(&taken), [0, 1, 2]);
    assert_eq!(taken.iter().flat_map(|arrived| arrived.edus("m.receipt")).count(), 1);
    assert_eq!(taken.iter().flat_map(Arrived::pdus).count(), 1, "what came before");
    assert_eq!(given_up(&stage), "1");
    stage.says(&stage.room, "after");
    stage.wait(1);
    assert_eq!(stage.remote().messages(), ["after"]);
}

#[test]
fn one_letter_that_a_server_does_not_bear_keeps_back_no_other() {
    let stage = Stage::new();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "before");
    stage.wait(1);
    stage.puts(0..4);
    stage.says(&stage.room, "beside them");
    stage.wait(1);
    stage.remote().is(Mood::Chokes(r#""message_id":1"#));
    stage.wait(HOUR);
    let taken = stage.remote().taken();
    assert_eq!(to_device(&taken), [0, 2, 3]);
    assert_eq!(taken.iter().flat_map(Arrived::pdus).count(), 2);
    assert_eq!(given_up(&stage), "1");
}

#[test]
fn who_types_while_a_transaction_is_taken_apart_is_heard_of_and_ends() {
    let stage = Stage::new();
    stage.remote().is(Mood::Chokes("poison"));
    for body in ["before", "poison", "after"] {
        stage.says(&stage.room, body);
    }
    for _ in 0..20 {
        stage.types(true, 30_000);
        stage.wait(10);
    }
    stage.types(false, 0);
    stage.wait(10);
    let said = typing(&stage.remote().taken());
    assert!(said.contains(&true) && said.ends_with(&[false]), "{said:?}");
}

#[test]
fn a_start_of_typing_that_arrives_after_an_hour_is_taken_back_at_once() {
    let stage = Stage::new();
    stage.remote().is(AWAY);
    stage.types(true, 30_000);
    stage.says(&stage.room, "on my way");
    stage.wait(HOUR);
    stage.remote().is(Mood::Answers);
    stage.remote().taken();
    stage.joins(stage.remote(), &stage.room, "bruce");
    stage.wait(2);
    assert_eq!(typing(&stage.remote().taken()), [true, false]);
}

#[test]
fn a_sign_of_life_during_an_attempt_is_not_forgotten() {
    let stage = Stage::new();
    stage.remote().is(Mood::Hangs);
    stage.says(&stage.room, "waiting");
    stage.wait(5);
    stage.joins(stage.remote(), &stage.room, "bruce");
    stage.remote().is(Mood::Answers);
    stage.wait(58);
    assert_eq!(stage.remote().messages(), ["waiting"], "it was tried again a moment after it had failed");
}
/// What the remote server gets when it is there again, a crash and a day later.
fn the_receipts_of_a_day_later(stage: &mut Stage) -> Value {
    stage.crash();
    stage.wait(24 * HOUR);
    stage.remote().is(Mood::Answers);
    stage.remote().taken();
    stage.joins(stage.remote(), &stage.room, "bruce");
    stage.wait(5);
    let receipts: Vec<_> =
        stage.remote().taken().iter().flat_map(|arrived| arrived.edus("m.receipt")).collect();
    let [receipt] = &*receipts else { panic!("one receipt: {receipts:?}") };
    receipt.clone()
}

#[test]
fn the_newest_receipts_reach_who_was_away_for_a_day() {
    let mut stage = Stage::new();
    let events: Vec<_> = (0..3).map(|number| stage.says(&stage.room, &format!("{number}"))).collect();
    stage.wait(10);
    stage.remote().taken();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "the first that waits");
    stage.wait(2 * HOUR);
    for event in &events {
        stage.reads("m.read", event, &json!({}));
        stage.wait(1);
    }
    // The cursor is beyond them when it happens.
    stage.wait(60);
    let receipt = the_receipts_of_a_day_later(&mut stage);
    let of_alice = &receipt[stage.room.as_str()]["m.read"][&stage.alice.user_id];
    assert_eq!(of_alice["event_ids"], json!([events[2]]));
}

#[test]
fn receipts_from_elsewhere_do_not_displace_those_from_here() {
    let mut stage = Stage::new();
    let event = stage.says(&stage.room, "read");
    for number in 0..110 {
        stage.joins(stage.remote(), &stage.room, &format!("reader{number}"));
    }
    stage.wait(10);
    stage.remote().taken();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "the first that waits");
    stage.wait(2 * HOUR);
    stage.reads("m.read", &event, &json!({}));
    let reader = |number: u32| (stage.remote().puppet.user(&format!("reader{number}")).to_string(), &event);
    let readers = (0..110).map(reader);
    let read = readers.map(|(user, event)| (user, json!({ "event_ids": [event], "data": { "ts": 1 } })));
    let content = json!({ stage.room.as_str(): { "m.read": read.collect::<serde_json::Map<_, _>>() } });
    let edus = json!([{ "edu_type": "m.receipt", "content": content }]);
    stage.run(stage.remote().puppet.sends_transaction(&home_name(), json!([]), edus));
    let rows = stage.run(stage.home().view.store.read().all(&RECEIPTS_BY_POSITION, 1_000)).expect("readable");
    assert_eq!(rows.len(), 111);
    stage.wait(60);
    let receipt = the_receipts_of_a_day_later(&mut stage);
    let read = receipt[stage.room.as_str()]["m.read"].as_object().expect("receipts");
    assert_eq!(read.keys().collect::<Vec<_>>(), [&stage.alice.user_id]);
}

/// Looks up somebody's name there.
fn look_up(stage: &Stage) -> StatusCode {
    let path = format!("/_matrix/client/v3/profile/{}", stage.remote().puppet.user("bob"));
    stage.run(stage.alice.get(stage.home(), &path)).status
}

const PROFILE: &str = "/_matrix/federation/v1/query/profile";

#[test]
fn an_answer_to_another_question_wakes_the_queue_at_once() {
    let stage = Stage::new();
    stage.remote().is(AWAY);
    stage.says(&stage.room, "waiting");
    stage.wait(24 * HOUR);
    stage.remote().is(Mood::Answers);
    stage.remote().taken();
    stage.remote().puppet.says(PROFILE, StatusCode::OK, json!({ "displayname": "Bob" }));
    assert_eq!(look_up(&stage), StatusCode::OK);
    stage.wait(1);
    assert_eq!(stage.remote().messages(), ["waiting"]);
}

#[test]
fn who_takes_no_transactions_is_still_asked_and_who_answers_nothing_is_still_sent_them() {
    let stage = Stage::new();
    let remote = stage.remote();
    remote.is(Mood::Hangs);
    stage.says(&stage.room, "one");
    stage.wait(5 * HOUR);
    remote.puppet.says(PROFILE, StatusCode::OK, json!({ "displayname": "Bob" }));
    assert_eq!(look_up(&stage), StatusCode::OK, "it hangs for transactions only");
    remote.is(Mood::Answers);
    stage.wait(5 * HOUR);
    remote.taken();
    remote.puppet.says(PROFILE, StatusCode::BAD_GATEWAY, json!({}));
    for _ in 0..5 {
        assert!(look_up(&stage).is_client_error() || look_up(&stage).is_server_error());
    }
    stage.says(&stage.room, "two");
    stage.wait(1);
    assert_eq!(remote.messages(), ["two"], "it fails for look-ups only");
}
