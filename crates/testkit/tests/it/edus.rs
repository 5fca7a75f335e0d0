//! EDUs from other servers: a server speaks for its own users, in rooms that it is in.

use http::StatusCode;
use serde_json::{Value, json};

use crate::sending::{Stage, home_name};

fn says(stage: &Stage, edu_type: &str, content: &Value) {
    let edus = json!([{ "edu_type": edu_type, "content": content }]);
    let puppet = &stage.remote().puppet;
    let reply = stage.run(puppet.sends_transaction(&home_name(), json!([]), edus));
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.json);
}

fn types(stage: &Stage, user: &str, typing: bool) {
    says(stage, "m.typing", &json!({ "room_id": stage.room, "user_id": user, "typing": typing }));
}

/// What a sync shows of the room, by type of event.
fn shown(stage: &Stage, edu_type: &str) -> Option<Value> {
    let answer =
        stage.run(stage.alice.get(stage.home(), "/_matrix/client/v3/sync?set_presence=offline")).ok();
    let events = answer["rooms"]["join"][stage.room.as_str()]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == edu_type).map(|event| event["content"].clone())
}

fn typing(stage: &Stage) -> Value {
    shown(stage, "m.typing").map_or(json!([]), |content| content["user_ids"].clone())
}

#[test]
fn typing_shows_and_ends_when_it_is_said_to_or_nothing_is_said() {
    let stage = Stage::new();
    let bob = stage.remote().puppet.user("bob");
    types(&stage, bob.as_str(), true);
    assert_eq!(typing(&stage), json!([bob]));
    types(&stage, bob.as_str(), false);
    assert_eq!(typing(&stage), json!([]));
    types(&stage, bob.as_str(), true);
    stage.wait(50);
    assert_eq!(typing(&stage), json!([bob]));
    stage.wait(15);
    assert_eq!(typing(&stage), json!([]));
}

#[test]
fn a_server_speaks_for_its_own_users_in_the_room_only() {
    let stage = Stage::with(2);
    let other = stage.remotes[1].puppet.user("bob");
    let outsider = stage.remote().puppet.user("outsider");
    for user in [stage.alice.user_id.as_str(), other.as_str(), outsider.as_str(), "@bob"] {
        types(&stage, user, true);
        assert_eq!(typing(&stage), json!([]), "{user}");
    }
    let event = stage.says(&stage.room, "hello");
    let receipt = |user: &str| json!({ stage.room.as_str(): { "m.read": { user: { "event_ids": [event], "data": { "ts": 1 } } } } });
    for user in [stage.alice.user_id.as_str(), other.as_str(), outsider.as_str()] {
        says(&stage, "m.receipt", &receipt(user));
        assert_eq!(shown(&stage, "m.receipt"), None, "{user}");
    }
}

#[test]
fn a_server_that_the_room_excludes_is_not_heard() {
    let stage = Stage::new();
    let bob = stage.remote().puppet.user("bob");
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.server_acl", stage.room);
    let acl = json!({ "allow": ["*"], "deny": ["REMOTE0.test"], "allow_ip_literals": false });
    stage.run(stage.alice.put(stage.home(), &path, &acl)).ok();
    types(&stage, bob.as_str(), true);
    assert_eq!(typing(&stage), json!([]));
    let event = stage.says(&stage.room, "hello");
    let receipt = json!({ bob.as_str(): { "event_ids": [event], "data": { "ts": 1 } } });
    says(&stage, "m.receipt", &json!({ stage.room.as_str(): { "m.read": receipt } }));
    assert_eq!(shown(&stage, "m.receipt"), None);
}

#[test]
fn receipts_of_others_show_each_in_its_thread() {
    let stage = Stage::new();
    let bob = stage.remote().puppet.user("bob");
    let (first, second) = (stage.says(&stage.room, "one"), stage.says(&stage.room, "two"));
    for (event, data) in
        [(&first, json!({ "ts": 5 })), (&second, json!({ "ts": u32::MAX, "thread_id": "main" }))]
    {
        let receipt = json!({ "event_ids": [event], "data": data });
        says(&stage, "m.receipt", &json!({ stage.room.as_str(): { "m.read": { bob.as_str(): receipt } } }));
    }
    let shown = shown(&stage, "m.receipt").expect("receipts");
    assert_eq!(shown[&first]["m.read"][bob.as_str()], json!({ "ts": 5 }));
    assert_eq!(shown[&second]["m.read"][bob.as_str()]["thread_id"], "main");
}

/// Its server may have its timeline in another order.
#[test]
fn of_a_remote_users_receipts_the_latest_counts() {
    let stage = Stage::new();
    let bob = stage.remote().puppet.user("bob");
    let (first, second) = (stage.says(&stage.room, "one"), stage.says(&stage.room, "two"));
    let read = |event: &str, ts: u64| {
        let receipt = json!({ "event_ids": [event], "data": { "ts": ts } });
        says(&stage, "m.receipt", &json!({ stage.room.as_str(): { "m.read": { bob.as_str(): receipt } } }));
        shown(&stage, "m.receipt").expect("a receipt")
    };
    assert!(read(&second, 5)[&second].is_object());
    assert!(read(&first, 4)[&second].is_object(), "it was said before");
    assert!(read(&first, 6)[&first].is_object());
}

#[test]
fn a_receipt_that_overtakes_its_event_waits_for_it() {
    let stage = Stage::new();
    let bob = stage.remote().puppet.user("bob");
    let receipt = json!({ "event_ids": ["$not_here_yet"], "data": { "ts": 5 } });
    says(&stage, "m.receipt", &json!({ stage.room.as_str(): { "m.read": { bob.as_str(): receipt } } }));
    assert_eq!(shown(&stage, "m.receipt"), None);
    let message = myelin_dag::NewEvent {
        sender: bob.clone(),
        event_type: "m.room.message".into(),
        state_key: None,
        content: serde_json::value::to_raw_value(&json!({ "body": "late" })).expect("JSON"),
        redacts: None,
        sticky_duration_ms: None,
    };
    let puppet = &stage.remote().puppet;
    let message = stage.run(puppet.makes_next(&stage.home().view, &stage.room, message));
    let receipt = json!({ "event_ids": [message.event_id], "data": { "ts": 5 } });
    says(&stage, "m.receipt", &json!({ stage.room.as_str(): { "m.read": { bob.as_str(): receipt } } }));
    stage.run(puppet.sends(&home_name(), &[&message]));
    stage.wait(40);
    let shown = shown(&stage, "m.receipt").expect("a receipt");
    assert!(shown.get(message.event_id.as_str()).is_some(), "{shown}");
}

#[test]
fn presence_of_those_who_share_a_room_is_taken() {
    let stage = Stage::new();
    let (bob, outsider) = (stage.remote().puppet.user("bob"), stage.remote().puppet.user("outsider"));
    let update = |user: &str, presence: &str| json!({ "user_id": user, "presence": presence, "last_active_ago": 600_000 });
    says(
        &stage,
        "m.presence",
        &json!({ "push": [update(bob.as_str(), "online"), update(outsider.as_str(), "online")] }),
    );
    let presence = |user: &str| {
        let path = format!("/_matrix/client/v3/presence/{user}/status");
        stage.run(stage.alice.get(stage.home(), &path))
    };
    assert_eq!(presence(bob.as_str()).ok()["presence"], "online");
    assert!(!presence(outsider.as_str()).is_ok());
    stage.wait(20 * 60);
    assert_eq!(presence(bob.as_str()).ok()["presence"], "online", "servers repeat themselves rarely");
    stage.wait(15 * 60);
    assert_eq!(presence(bob.as_str()).ok()["presence"], "offline");
}

#[test]
fn what_is_malformed_or_unknown_harms_nobody() {
    let stage = Stage::new();
    for (edu_type, content) in [
        ("m.typing", json!({})),
        ("m.typing", json!([])),
        ("m.receipt", json!({ "!r": 7 })),
        (
            "m.receipt",
            json!({ stage.room.as_str(): { "m.read": { "@bob:remote0.test": { "event_ids": [], "data": { "ts": 1 } } } } }),
        ),
        ("m.presence", json!({ "push": [{ "user_id": 7 }] })),
        ("m.unheard_of", json!({})),
    ] {
        says(&stage, edu_type, &content);
    }
}
