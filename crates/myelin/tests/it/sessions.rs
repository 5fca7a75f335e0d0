//! People sign in, and their long polls end when the server does.

use std::thread;

use serde_json::{Value, json};

use crate::process::{Server, request, run};

fn log_in(server: &Server, user: &str, password: &str) -> (u16, Value) {
    let identifier = json!({ "type": "m.id.user", "user": user });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    server.post("/_matrix/client/v3/login", &body)
}

#[test]
fn an_account_from_the_command_line_can_log_in() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(run(directory.path(), &["user", "create", "alice", "--password", "secret"]).success);
    let server = Server::start(directory.path(), &[]);
    assert!(!server.summary.contains("one-time token"), "there is an account already: {}", server.summary);
    let (status, answer) = log_in(&server, "alice", "secret");
    assert_eq!((status, &answer["user_id"]), (200, &json!("@alice:localhost")), "{answer}");
    let token = answer["access_token"].as_str().expect("a token");
    let whoami = request(&server.address, "GET", "/_matrix/client/v3/account/whoami", Some(token), None);
    assert_eq!(whoami.1["user_id"], "@alice:localhost");
    assert_eq!(log_in(&server, "alice", "wrong").0, 403);
    server.stop();
}

#[test]
fn the_one_time_token_registers_one_account() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]);
    let (_, token) = server.summary.split_once("one-time token: ").expect("a token");
    let token = token.split_whitespace().next().expect("a token");
    let register = |name: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        let body = json!({ "username": name, "password": "secret", "auth": auth });
        server.post("/_matrix/client/v3/register", &body)
    };
    let (status, answer) = register("alice");
    assert_eq!((status, &answer["user_id"]), (200, &json!("@alice:localhost")), "{answer}");
    assert_eq!(register("bob").0, 401, "it works once");
    server.stop();
}

#[test]
fn a_long_poll_is_answered_when_the_server_stops() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(run(directory.path(), &["user", "create", "alice", "--password", "secret"]).success);
    let server = Server::start(directory.path(), &[]);
    let (_, answer) = log_in(&server, "alice", "secret");
    let token = answer["access_token"].as_str().expect("a token").to_owned();
    let sync = |query: &str| format!("/_matrix/client/v3/sync?{query}");
    let first = sync("timeout=0&set_presence=offline");
    let (status, first) = request(&server.address, "GET", &first, Some(&token), None);
    assert_eq!(status, 200, "{first}");
    let since = first["next_batch"].as_str().expect("a token").to_owned();
    let (address, path, poller) =
        (server.address.clone(), sync(&format!("since={since}&timeout=60000")), token.clone());
    let poll = thread::spawn(move || request(&address, "GET", &path, Some(&poller), None));
    // The poll has arrived once its user is seen to be online.
    let presence = || {
        let path = "/_matrix/client/v3/presence/@alice:localhost/status";
        request(&server.address, "GET", path, Some(&token), None).1["presence"].clone()
    };
    while presence() != "online" {
        thread::yield_now();
    }
    let log = server.stop();
    let (status, last) = poll.join().expect("answered");
    assert_eq!(status, 200, "{last} {log}");
    assert!(last["next_batch"].is_string(), "{last}");
    assert!(!log.contains("cut off"), "{log}");
}
