//! The state-reset watch: operators learn of what state resolution did, and of nothing else.

use std::{io::Write, sync::Arc, time::Duration};

use http::StatusCode;
use myelin_store::tables::{STATE_RESETS, StateResetRecord};
use myelin_testkit::{env::Sim, network::Network, puppet::state_of};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing_subscriber::util::SubscriberInitExt;

use super::inbound::{Stage, after, event};

const REPORT: &str = "/_myelin/admin/v1/state_resets";
const METRIC: &str = "myelin_state_resets_total{kind=\"reverted\"} 1";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// What is logged on this thread meanwhile.
    fn during(act: impl FnOnce()) -> String {
        let lines = Self::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let following = log.set_default();
        act();
        drop(following);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }
}

fn rows(stage: &Stage) -> Vec<StateResetRecord> {
    let rows = stage.run(stage.home.view.store.read().all(&STATE_RESETS, 1_000)).unwrap();
    rows.into_iter().map(|(_, record)| record).collect()
}

/// Carol bans Dave while Bob takes her power away: the ban does not stand.
fn undo_a_ban(stage: &Stage) {
    stage.joins("carol");
    stage.joins("dave");
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.power_levels", stage.room);
    let current = stage.run(stage.alice.get(&stage.home, &path)).ok();
    let levels = |carol: i64| {
        let mut levels = current.clone();
        levels["users"]["@bob:remote.test"] = json!(100);
        levels["users"]["@carol:remote.test"] = json!(carol);
        levels
    };
    stage.sets("m.room.power_levels", "", &levels(50));
    let place = stage.end();
    let make = |sender: &str, kind: &str, key: &str, content: &Value| {
        let event = event(sender, kind, Some(key), content);
        stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, event, place.clone()))
    };
    let ban =
        make("@carol:remote.test", "m.room.member", "@dave:remote.test", &json!({ "membership": "ban" }));
    let demotion = make("@bob:remote.test", "m.room.power_levels", "", &levels(0));
    stage.sends(&[&ban]);
    stage.sends(&[&demotion]);
}

#[test]
fn operators_see_state_resets() {
    let stage = Stage::new();
    let log = Lines::during(|| undo_a_ban(&stage));
    let rows = rows(&stage);
    let [reset] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&*reset.state_key, &*reset.kind), ("@dave:remote.test", "reverted"));
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains("WARN") && line.contains("resolution")).collect();
    let [warning] = warnings.as_slice() else { panic!("{log}") };
    assert!(warning.contains("@dave:remote.test") && warning.contains(stage.room.as_str()), "{warning}");
    let metrics = stage.home.view.metrics.render();
    assert!(metrics.contains(METRIC), "{metrics}");

    let refused = stage.run(stage.alice.get(&stage.home, REPORT));
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    stage.run(stage.home.make_admin(stage.alice.user_id.as_str()));
    let report = stage.run(stage.alice.get(&stage.home, REPORT)).ok();
    let [shown] = report["state_resets"].as_array().unwrap().as_slice() else { panic!("{report}") };
    let is = |path: &str, expected: &str| assert_eq!(shown.pointer(path).unwrap(), expected, "{shown}");
    is("/room_id", stage.room.as_str());
    is("/kind", "reverted");
    is("/type", "m.room.member");
    is("/state_key", "@dave:remote.test");
    is("/by/type", "m.room.power_levels");
    is("/by/sender", "@bob:remote.test");
    is("/before/content/membership", "ban");
    is("/after/content/membership", "join");
    assert_ne!(shown["state_before"], shown["state_after"]);
    let at = shown["at"].as_u64().unwrap();
    let count = |query: String| {
        let path = format!("{REPORT}?{query}");
        stage.run(stage.alice.get(&stage.home, &path)).ok()["state_resets"].as_array().unwrap().len()
    };
    assert_eq!((count(format!("before={at}")), count(format!("before={}", at + 1))), (0, 1));
}

/// Also in a room that was made elsewhere, of which this server knows the state when it came.
#[test]
fn state_resets_are_seen_in_rooms_of_every_kind() {
    for version in ["1", "2", "3", "6", "10", "12"] {
        let made_here = Stage::with_version(version, &Sim::new(1), &Network::default());
        let (joined, _origin) = Stage::in_a_room_from_elsewhere(version);
        for (stage, kind) in [(made_here, "made here"), (joined, "joined")] {
            undo_a_ban(&stage);
            let rows = rows(&stage);
            let [reset] = rows.as_slice() else { panic!("{version}, {kind}: {rows:?}") };
            let seen = (&*reset.state_key, &*reset.kind);
            assert_eq!(seen, ("@dave:remote.test", "reverted"), "{version}, {kind}");
        }
    }
}

/// Nobody's change was undone: the server was not there when they were made.
#[test]
fn what_happened_during_an_outage_is_no_reset() {
    const JOINED: usize = 300;
    let stage = Stage::new();
    let held = stage.run(state_of(&stage.home.view, &stage.room));
    held.iter().for_each(|pdu| stage.puppet.knows(pdu));
    let mut state: Vec<_> = held.iter().map(|pdu| pdu.event_id.clone()).collect();
    let mut place = stage.end();
    for number in 0..JOINED {
        let user = stage.puppet.user(&format!("user{number}"));
        let join =
            event(user.as_str(), "m.room.member", Some(user.as_str()), &json!({ "membership": "join" }));
        let join = stage.run(stage.puppet.makes_in(&stage.home.view, &stage.room, join, place));
        place = after(&join);
        state.push(join.event_id);
    }
    let far_end = stage.message_at("far end", place);
    stage.puppet.knows_state(&far_end, state);
    let last = stage.message_at("last", after(&far_end));
    stage.puppet.says("/_matrix/federation/v1/get_missing_events", StatusCode::NOT_FOUND, json!({}));
    let log = Lines::during(|| {
        stage.sends(&[&last]);
        stage.passes(Duration::from_secs(1));
    });
    assert!(stage.shows(&last));
    let room = stage.run(stage.home.view.room_by_id(&stage.room)).unwrap().unwrap();
    assert_eq!(room.joined_count, 2 + JOINED as u64);
    assert_eq!(rows(&stage), []);
    assert!(!log.contains("no event asked for"), "{log}");
    // What is undone later is seen.
    undo_a_ban(&stage);
    assert_eq!(rows(&stage).len(), 1);
}
