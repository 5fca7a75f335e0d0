//! Starting for the first time, again, under another name; stopping.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::Stdio,
};

use serde_json::Value;

use crate::process::{ANY_PORT, Server, myelin, run};

#[test]
fn the_first_start_explains_itself_and_the_second_is_the_same_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let key_file = directory.path().join("myelin-data/signing.key");
    let server = Server::start(directory.path(), &[]);
    for words in
        ["server name    localhost", "store          embedded:./myelin-data", "by token", "one-time token: "]
    {
        assert!(server.summary.contains(words), "{words} is not in {}", server.summary);
    }
    assert_eq!(server.get("/_myelin/health/live").0, 200);
    assert_eq!(server.get("/_myelin/health/ready").0, 200);
    assert_eq!(server.get("/_matrix/client/versions").0, 200);
    let key = fs::read_to_string(&key_file).expect("a key");
    assert_eq!(fs::metadata(&key_file).expect("a key").permissions().mode() & 0o777, 0o600);
    let log = server.stop();
    assert!(log.contains("stopped"), "{log}");

    let server = Server::start(directory.path(), &[]);
    assert_eq!(fs::read_to_string(&key_file).expect("a key"), key);
    server.stop();

    let renamed = run(directory.path(), &["serve", "--set", "server.name=other.org"]);
    assert!(!renamed.success);
    assert!(renamed.err.contains("belongs to the server 'localhost'"), "{}", renamed.err);
}

#[test]
fn dev_opens_registration_and_refuses_the_outside() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--dev"]);
    assert!(server.summary.contains("open to everybody"), "{}", server.summary);
    assert!(!server.summary.contains("one-time token"), "{}", server.summary);
    server.stop();

    let outside = "server.listen=[{ address = \"0.0.0.0:0\" }]";
    let refused = run(directory.path(), &["serve", "--dev", "--set", outside]);
    assert!(!refused.success);
    assert!(refused.err.contains("loopback addresses only, not on 0.0.0.0:0"), "{}", refused.err);
}

#[test]
fn a_second_server_over_the_same_store_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &[]);
    let second = run(directory.path(), &["serve"]);
    assert!(!second.success);
    assert!(second.err.contains("in use by another process"), "{}", second.err);
    server.stop();
}

#[test]
fn a_killed_server_starts_again() {
    let directory = tempfile::tempdir().expect("a directory");
    Server::start(directory.path(), &[]).kill();
    let server = Server::start(directory.path(), &[]);
    assert_eq!(server.get("/_myelin/health/ready").0, 200);
    server.stop();
}

#[test]
fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
    let said = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a datagram");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let mut command = myelin(directory.path(), &Server::arguments(&[]));
    command.env("NOTIFY_SOCKET", directory.path().join("notify"));
    let server = Server::spawn(command);
    assert_eq!(said(), "READY=1");
    server.terminate();
    assert_eq!(said(), "STOPPING=1");
    assert!(server.wait().0.success());
}

#[test]
fn json_logs_are_json_and_replace_the_summary() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = myelin(directory.path(), &["serve", "--set", ANY_PORT, "--set", "log.json=true"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let parsed = lines.map(|line| serde_json::from_str::<Value>(&line.expect("UTF-8")).expect("JSON"));
    let ready = parsed.into_iter().find(|entry| entry["message"] == "ready");
    child.kill().expect("it runs");
    let out = child.wait_with_output().expect("it ends").stdout;
    let ready = ready.expect("it says when it is ready");
    assert_eq!(ready["server_name"], "localhost");
    assert!(ready["registration_token"].is_string(), "{ready}");
    assert!(out.is_empty(), "{out:?}");
}
