//! Two people chat, and the server is killed in the middle.

use serde_json::{Value, json};

use crate::process::{Server, run};

const MESSAGES: usize = 20;

fn register(server: &Server, name: &str) -> String {
    let body = json!({ "username": name, "password": "secret", "auth": { "type": "m.login.dummy" } });
    let (status, answer) = server.post("/_matrix/client/v3/register", &body);
    assert_eq!(status, 200, "{answer}");
    answer["access_token"].as_str().expect("a token").to_owned()
}

fn send(server: &Server, token: &str, room: &str, number: usize) -> Value {
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/txn{number}");
    let body = json!({ "msgtype": "m.text", "body": format!("message {number}") });
    server.call(token, "PUT", &path, Some(&body))["event_id"].clone()
}

#[test]
fn what_was_acknowledged_survives_a_kill_once_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--dev"]);
    let (alice, bob) = (register(&server, "alice"), register(&server, "bob"));
    let create = json!({ "preset": "private_chat", "invite": ["@bob:localhost"] });
    let created = server.call(&alice, "POST", "/_matrix/client/v3/createRoom", Some(&create));
    let room = created["room_id"].as_str().expect("a room").to_owned();
    server.call(&bob, "POST", &format!("/_matrix/client/v3/join/{room}"), Some(&json!({})));
    let before = server.call(&bob, "GET", "/_matrix/client/v3/sync?timeout=0", None);
    let sent: Vec<_> = (0..MESSAGES).map(|number| send(&server, &alice, &room, number)).collect();
    server.kill();

    let server = Server::start(directory.path(), &["--dev"]);
    assert_eq!(send(&server, &alice, &room, MESSAGES - 1), sent[MESSAGES - 1], "a repeat is the same event");
    let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100");
    let page = server.call(&bob, "GET", &path, None);
    let chunk = page["chunk"].as_array().expect("events").iter().rev();
    let messages = chunk.filter(|event| event["type"] == "m.room.message");
    assert_eq!(messages.map(|event| event["event_id"].clone()).collect::<Vec<_>>(), sent);

    let filter = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A100%7D%7D%7D";
    let since = before["next_batch"].as_str().expect("a token");
    let path = format!("/_matrix/client/v3/sync?timeout=0&since={since}&filter={filter}");
    let delta = server.call(&bob, "GET", &path, None);
    let events = delta["rooms"]["join"][room.as_str()]["timeline"]["events"].as_array().expect("events");
    assert_eq!(
        events.iter().map(|event| event["event_id"].clone()).collect::<Vec<_>>(),
        sent,
        "bob carries on"
    );

    let verified = run(directory.path(), &["store", "verify"]);
    assert!(verified.success, "{}{}", verified.out, verified.err);
    let log = server.stop();
    assert!(!log.contains("check_state"), "the log names single events: {log}");
}

#[test]
fn a_deactivated_account_leaves_its_rooms_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--dev"]);
    let (alice, bob) = (register(&server, "alice"), register(&server, "bob"));
    let create = json!({ "preset": "public_chat" });
    let created = server.call(&alice, "POST", "/_matrix/client/v3/createRoom", Some(&create));
    let room = created["room_id"].as_str().expect("a room").to_owned();
    server.call(&bob, "POST", &format!("/_matrix/client/v3/join/{room}"), Some(&json!({})));
    server.stop();
    let deactivated = run(directory.path(), &["user", "deactivate", "bob"]);
    assert!(deactivated.success, "{}", deactivated.err);

    let server = Server::start(directory.path(), &["--dev"]);
    let mut since = String::new();
    loop {
        let path = format!("/_matrix/client/v3/rooms/{room}/joined_members");
        let joined = server.call(&alice, "GET", &path, None)["joined"].clone();
        if joined.get("@bob:localhost").is_none() {
            break;
        }
        let path = format!("/_matrix/client/v3/sync?timeout=1000{since}");
        let synced = server.call(&alice, "GET", &path, None);
        since = format!("&since={}", synced["next_batch"].as_str().expect("a token"));
    }
    server.stop();
}
